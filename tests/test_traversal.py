"""A walk stays on arcs, ends where it began, and its file is small and the same every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from finegan_aug.randomness import normals, uniforms
from finegan_aug.traversal import STEPS, TILE_PX, closed_walk, save_gif, side_by_side, slerp


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


NOISE = torch.from_numpy(normals(7, range(3), 20)).float()


def test_halfway_between_perpendicular_directions_is_their_diagonal() -> None:
    east, north = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert slerp(east, north, 0.5).tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 0.0])
    assert slerp(east, north, 1 / 3).tolist() == pytest.approx([math.cos(math.pi / 6), 0.5, 0.0])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_an_arc_is_the_rotation_of_its_start_in_the_plane_of_both_ends(share: float) -> None:
    """Reference: Gram-Schmidt and a turn by the share of the angle."""
    start, end = (v / v.norm() for v in NOISE[:2].double())
    across = end - (end @ start) * start
    angle = float(torch.arccos(start @ end)) * share
    expected = math.cos(angle) * start + math.sin(angle) * across / across.norm()
    torch.testing.assert_close(slerp(start, end, share), expected)


def test_steps_of_an_arc_are_equal_and_as_long_as_its_ends() -> None:
    start, end = (v / v.norm() for v in NOISE[:2])
    points = torch.stack([slerp(start, end, i / 10) for i in range(11)])
    torch.testing.assert_close(points.norm(dim=1), torch.ones(11))
    cosines = (points[1:] * points[:-1]).sum(dim=1)
    torch.testing.assert_close(cosines, cosines[:1].expand(10))


def test_ends_on_one_line_are_joined_by_it() -> None:
    start = NOISE[0]
    torch.testing.assert_close(slerp(start, 3 * start, 0.5), 2 * start)
    assert torch.equal(slerp(start, start, 0.3), start)


def test_a_walk_stops_at_each_noise_for_all_turns_and_comes_back() -> None:
    walk = closed_walk(NOISE, turns=4)
    per_stop = 4 + STEPS - 1
    assert walk.turn.tolist() == 3 * ([0, 1, 2, 3] + [0] * (STEPS - 1))
    assert len(walk.z) == len(walk.milliseconds) == 3 * per_stop
    for stop in range(3):
        assert all(torch.equal(walk.z[stop * per_stop + turn], NOISE[stop]) for turn in range(4))
    torch.testing.assert_close(walk.z[-1], slerp(NOISE[2], NOISE[0], (STEPS - 1) / STEPS))


def test_a_file_of_pure_noise_stays_under_two_megabytes(tmp_path: Path) -> None:
    """No picture packs worse; as many and as large frames as a walk through four objects has."""
    pixels = uniforms(3, range(33), 3 * TILE_PX * 4 * TILE_PX).reshape(33, 3, TILE_PX, 4 * TILE_PX)
    save_gif(tmp_path / "noise.gif", torch.from_numpy((pixels * 256).astype(np.uint8)), [100] * 33)
    assert 1_000_000 < (tmp_path / "noise.gif").stat().st_size < 2_000_000


def test_few_colours_come_back_exactly_and_the_bytes_are_the_same_again(tmp_path: Path) -> None:
    colours = torch.tensor([[0, 0, 0], [255, 0, 0], [10, 200, 30], [255, 255, 255]], dtype=torch.uint8)
    frames = colours[torch.arange(5 * 64).reshape(5, 8, 8) * 7 // 5 % 4].permute(0, 3, 1, 2)
    paths = [tmp_path / name for name in ("a.gif", "b.gif")]
    for path in paths:
        save_gif(path, frames, [50, 60, 70, 80, 90])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as file:
        assert file.info["loop"] == 0
        shown = [
            (np.asarray(frame.convert("RGB")).transpose(2, 0, 1), frame.info["duration"])
            for frame in ImageSequence.Iterator(file)
        ]
    assert [duration for _, duration in shown] == [50, 60, 70, 80, 90]
    assert all(np.array_equal(picture, frame) for (picture, _), frame in zip(shown, frames.numpy(), strict=True))


@pytest.mark.parametrize(("side", "shown"), [(32, 96), (64, 64), (96, 96), (128, 96), (256, 96)])
def test_images_stand_side_by_side_at_most_96_px_each(side: int, shown: int) -> None:
    values = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8)
    frames = side_by_side(values[:, :, None, None, None].expand(2, 2, 3, side, side))
    assert frames.shape == (2, 3, shown, 2 * shown)
    assert frames[1, 0, 0, [0, shown - 1, shown, -1]].tolist() == [30, 30, 40, 40]


def test_small_images_are_enlarged_in_squares() -> None:
    image = torch.arange(3 * 32 * 32).reshape(1, 1, 3, 32, 32).to(torch.uint8)
    frame = side_by_side(image)[0]
    assert torch.equal(frame[:, 1::3, 1::3], image[0, 0])
    assert torch.equal(frame[:, 0::3, 2::3], image[0, 0])
