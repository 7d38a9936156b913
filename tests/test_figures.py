"""Figures of a run: each shows the codes it says, as trained in the first column, the same files every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from untrained_run import untrained_run

from finegan_aug import cli
from finegan_aug.config import FineGANConfig
from finegan_aug.errors import CheckpointError
from finegan_aug.figures import FAILURES, draw, evenly_spread, write_failures, write_figures, write_nearest
from finegan_aug.grids import mask_picture, to_uint8
from finegan_aug.randomness import normals, seed_for
from finegan_aug.synthesis import load_generator
from finegan_aug.traversal import slerp

SIDE_PX = 32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained generator of 16 child and 3 parent codes."""
    config = FineGANConfig.preset("slim-32", num_parents=3, width=0.125, z_dim=8).resolve(8)
    return untrained_run(tmp_path_factory.mktemp("run"), config)


@pytest.fixture(scope="module")
def figures(run: Path) -> dict[str, Tensor]:
    """Name to tiles uint8 [rows, columns, 3, S, S]."""
    return {path.stem: tiles(path) for path in write_figures(run) if path.suffix == ".png"}


def tiles(path: Path) -> Tensor:
    sheet = torch.from_numpy(np.asarray(Image.open(path)).copy())
    rows, columns = ((size + 1) // (SIDE_PX + 1) for size in sheet.shape[:2])
    cells = [
        [sheet[r * 33 : r * 33 + SIDE_PX, c * 33 : c * 33 + SIDE_PX].permute(2, 0, 1) for c in range(columns)]
        for r in range(rows)
    ]
    return torch.stack([torch.stack(row) for row in cells])


def noise(count: int) -> Tensor:
    return torch.from_numpy(normals(seed_for(0, "figures"), range(count), 8)).float()


def one(run: Path, z: Tensor, child: int, parent: int, background: int) -> Tensor:
    """The image of these codes, drawn alone."""
    codes = (torch.tensor([code]) for code in (child, parent, background))
    return to_uint8(load_generator(run)(z[None], *codes).child)[0]


def same(a: Tensor, b: Tensor) -> bool:
    """Equal but for the rounding of another batch size."""
    return int((a.int() - b.int()).abs().max()) <= 1


def test_every_figure_of_the_paper_is_written_with_at_most_twelve_by_twelve_tiles(figures: dict[str, Tensor]) -> None:
    sizes = {name: tuple(picture.shape[:2]) for name, picture in figures.items()}
    assert sizes == {
        "stages": (8, 5),
        "p_c_z": (9, 8),
        "c_by_p": (12, 3),
        "foreground_swap": (8, 12),
        "background_swap": (8, 12),
        "shape_swap": (8, 4),
        "appearance_swap": (8, 12),
    }


def test_a_row_of_stages_shows_background_masks_and_composites(run: Path, figures: dict[str, Tensor]) -> None:
    objects = evenly_spread(16, 8)
    stages = draw(load_generator(run), noise(8), objects)
    columns = [stages.background, mask_picture(stages.parent_mask), stages.parent]
    columns += [mask_picture(stages.child_mask), stages.child]
    for column, expected in enumerate(columns):
        assert same(figures["stages"][:, column], to_uint8(expected))


def test_p_c_z_groups_the_children_of_a_parent_and_varies_the_noise_by_column(
    run: Path, figures: dict[str, Tensor]
) -> None:
    to_parent = load_generator(run).child_to_parent.tolist()
    families = [[child for child in range(16) if to_parent[child] == parent] for parent in range(3)]
    shown = [family[i] for family in families for i in (0, round((len(family) - 1) / 2), len(family) - 1)]
    assert len(set(shown)) == 9
    for row, column in ((0, 0), (3, 7), (8, 5)):
        expected = one(run, noise(8)[column], shown[row], to_parent[shown[row]], 0)
        assert same(figures["p_c_z"][row, column], expected)


def test_c_by_p_keeps_the_child_along_a_row_and_the_parent_along_a_column(
    run: Path, figures: dict[str, Tensor]
) -> None:
    children = evenly_spread(16)
    for row, column in ((0, 0), (0, 2), (11, 1)):
        expected = one(run, noise(1)[0], int(children[row]), column, 0)
        assert same(figures["c_by_p"][row, column], expected)


def test_a_foreground_swap_keeps_noise_and_background_and_ties_the_parent_to_the_child(
    run: Path, figures: dict[str, Tensor]
) -> None:
    to_parent = load_generator(run).child_to_parent
    row, column = 7, 11
    background, child = int(evenly_spread(16, 8)[row]), int(evenly_spread(16)[column - 1])
    z = noise(8)[row]
    assert same(figures["foreground_swap"][row, 0], one(run, z, background, int(to_parent[background]), background))
    changed = one(run, z, child, int(to_parent[child]), background)
    assert same(figures["foreground_swap"][row, column], changed)
    assert not same(figures["foreground_swap"][row, column], figures["foreground_swap"][row, 0])


@pytest.mark.parametrize("swapped", ["background", "shape", "appearance"])
def test_a_swap_shows_the_object_as_trained_and_then_changes_one_code(
    swapped: str, run: Path, figures: dict[str, Tensor]
) -> None:
    to_parent = load_generator(run).child_to_parent
    row, column = 7, 2  # the last object; the second of the codes that are put in
    child, z = int(evenly_spread(16, 8)[row]), noise(8)[row]
    own = {"child": child, "parent": int(to_parent[child]), "background": child}
    picture = figures[f"{swapped}_swap"]
    assert same(picture[row, 0], one(run, z, **own))
    name = {"background": "background", "shape": "parent", "appearance": "child"}[swapped]
    put_in = 1 if swapped == "shape" else int(evenly_spread(16)[1])
    changed = one(run, z, **{**own, name: put_in})
    assert same(picture[row, column], changed)
    assert not same(picture[row, column], picture[row, 0])


def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    run: Path, figures: dict[str, Tensor], tmp_path: Path
) -> None:
    first = [*(run / "figures" / f"{name}.png" for name in figures), run / "figures" / "traversal.gif"]
    again, other = (write_figures(run, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))


def test_the_walk_goes_through_the_children_at_each_noise_and_then_to_the_next(
    run: Path, figures: dict[str, Tensor]
) -> None:
    """Three parents side by side, each 32 px enlarged three times; colours as near as a palette of 256 comes."""
    to_parent = load_generator(run).child_to_parent.tolist()
    path = run / "figures" / "traversal.gif"
    shown, milliseconds = frames(path)
    assert tuple(shown.shape) == (33, 3, 96, 3 * 96)
    assert milliseconds == 3 * ([400] * 4 + [80] * 7)
    assert path.stat().st_size < 2_000_000
    second = [child for child in range(16) if to_parent[child] == 1]
    for frame, z, child in (
        (0, noise(1)[0], second[0]),
        (3, noise(1)[0], second[-1]),
        (11, noise(2)[1], second[0]),
        (15 + 11, slerp(noise(3)[2], noise(1)[0], 1 / 8), second[0]),
    ):
        expected = one(run, z, child, 1, second[0]).float()
        difference = (shown[frame, :, 1::3, 96 + 1 : 192 : 3].float() - expected).abs()
        assert float(difference.mean()) < 6, frame
    assert not torch.equal(shown[0], shown[3])


def frames(path: Path) -> tuple[Tensor, list[int]]:
    """Frames uint8 [F, 3, H, W] of an animated picture and how long each is shown, milliseconds."""
    found, milliseconds = [], []
    with Image.open(path) as file:
        for frame in ImageSequence.Iterator(file):
            found.append(torch.from_numpy(np.asarray(frame.convert("RGB")).copy()).permute(2, 0, 1))
            milliseconds.append(int(frame.info["duration"]))
    return torch.stack(found), milliseconds


def test_the_verb_writes_the_figures_where_it_is_told_and_names_them(
    run: Path, figures: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "figures")]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.stem for path in printed} == {*figures, "traversal"}
    assert all(path.read_bytes() == (run / "figures" / path.name).read_bytes() for path in printed)


def test_codes_are_spread_from_the_first_to_the_last() -> None:
    assert evenly_spread(3).tolist() == [0, 1, 2]
    assert evenly_spread(1).tolist() == [0]
    spread = evenly_spread(200)
    assert (len(spread), int(spread[0]), int(spread[-1])) == (12, 0, 199)
    assert len(set(spread.tolist())) == 12


def test_nearest_pairs_begin_with_the_copy_of_a_photograph(tmp_path: Path) -> None:
    real = torch.stack([torch.full((3, SIDE_PX, SIDE_PX), value, dtype=torch.uint8) for value in (0, 100, 200)])
    fake = torch.stack([torch.full((3, SIDE_PX, SIDE_PX), value, dtype=torch.uint8) for value in (40, 100, 230, 190)])
    write_nearest(tmp_path / "nearest.png", real=real, fake=fake, features_fn=lambda x: x.float().mean((2, 3)))
    shown = tiles(tmp_path / "nearest.png")[0, :, 0, 0, 0].tolist()
    assert shown == [100, 100, 190, 200, 230, 200, 40, 0]


def test_failures_stand_in_the_row_of_the_class_they_were_made_for_the_first_ones_first(tmp_path: Path) -> None:
    """Image i is plain of brightness i; the judge says class 1 to all, so 1 never fails, and of 0 the ninth is cut."""
    images = torch.arange(24, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE_PX, SIDE_PX).contiguous()
    intended = torch.tensor([0, 1] * 9 + [1] * 3 + [2] * 3)
    answers = torch.ones(24).long()
    write_failures(tmp_path / "failures.png", images=images, intended=intended, answers=answers, num_classes=3)
    shown = tiles(tmp_path / "failures.png")[:, :, 0, 0, 0].tolist()
    white = [255] * FAILURES
    assert shown == [[0, 2, 4, 6, 8, 10, 12, 14], white, [21, 22, 23, *white[3:]]]


def test_a_run_without_a_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(CheckpointError) as caught:
        write_figures(tmp_path)
    assert caught.value.cause == f"{tmp_path} must hold a checkpoint, found none"
