"""Figures of a run: each shows the codes it says, as trained in the first column, the same files every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from untrained_run import untrained_run

from finegan_aug.config import FineGANConfig
from finegan_aug.errors import CheckpointError
from finegan_aug.figures import draw, evenly_spread, write_figures, write_nearest
from finegan_aug.grids import mask_picture, to_uint8
from finegan_aug.randomness import normals, seed_for
from finegan_aug.synthesis import load_generator

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
    return {path.stem: tiles(path) for path in write_figures(run)}


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
        "p_by_c": (3, 12),
        "c_by_z": (12, 8),
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


def test_p_by_c_varies_the_parent_by_row_and_the_child_by_column_only(run: Path, figures: dict[str, Tensor]) -> None:
    children = evenly_spread(16)
    for row, column in ((0, 0), (2, 0), (1, 11)):
        expected = one(run, noise(1)[0], int(children[column]), row, 0)
        assert same(figures["p_by_c"][row, column], expected)


def test_c_by_z_ties_parent_and_background_to_the_child(run: Path, figures: dict[str, Tensor]) -> None:
    to_parent = load_generator(run).child_to_parent
    for row, child in ((0, 0), (11, 15)):
        assert same(figures["c_by_z"][row, 5], one(run, noise(6)[5], child, int(to_parent[child]), child))


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
    first = [run / "figures" / f"{name}.png" for name in figures]
    again, other = (write_figures(run, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))


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


def test_a_run_without_a_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(CheckpointError) as caught:
        write_figures(tmp_path)
    assert caught.value.cause == f"{tmp_path} must hold a checkpoint, found none"
