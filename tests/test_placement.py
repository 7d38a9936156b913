"""Generated objects where photographs have theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.placement import SEEN_SHARE, object_places, placement_grid

torch.set_num_threads(1)

MIRRORED, AS_IS = 0.25, 0.75


def photograph(width: int, height: int, box: tuple[float, float, float, float], split: str = "train") -> ImageRecord:
    return ImageRecord("a/0.png", "0" * 64, "0" * 16, width, height, 0, split, True, box)


def photographs(*images: ImageRecord) -> Manifest:
    return Manifest(Path("nowhere"), ("a",), images)


@pytest.mark.parametrize(("draw", "middle"), [(AS_IS, 0.5), (MIRRORED, -0.5)])
def test_a_white_crop_covers_exactly_its_square_of_the_canvas(draw: float, middle: float) -> None:
    """Centre (0.5, -0.25), side 0.75, on 65 pixels whose centres run from -1 to 1; the edge is one soft pixel."""
    places = torch.tensor([[0.5, -0.25, 0.75]])
    grid = placement_grid(places, torch.tensor([[0.0, draw]], dtype=torch.float64), 65)
    assert grid.shape == (1, 65, 65, 2)
    canvas = F.grid_sample(torch.ones(1, 1, 32, 32), grid.float(), padding_mode="zeros", align_corners=True)[0, 0]
    for i in range(65):
        for j in range(65):
            x, y = j / 32 - 1, i / 32 - 1
            beyond = max(abs(x - middle), abs(y + 0.25)) - 0.375
            if beyond <= 0:
                assert canvas[i, j] == pytest.approx(1, abs=1e-5), (i, j)
            elif beyond > 1 / 32:
                assert canvas[i, j] == 0, (i, j)


def test_the_crop_itself_is_not_turned() -> None:
    """A crop that fills the canvas comes out as it is, whichever way its place is mirrored."""
    crop = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for draw in (AS_IS, MIRRORED):
        grid = placement_grid(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.0, draw]], dtype=torch.float64), 16)
        torch.testing.assert_close(F.grid_sample(crop, grid.float(), align_corners=True), crop)


def test_every_photograph_is_drawn_and_each_image_by_its_own_number() -> None:
    places = torch.tensor([[0.0, 0.0, 1.0], [0.1, 0.0, 0.5], [0.2, 0.0, 0.25]])
    u = torch.tensor([[0.0, AS_IS], [0.34, AS_IS], [0.99999, AS_IS], [0.5, AS_IS]], dtype=torch.float64)
    grids = placement_grid(places, u, 9)
    magnification = grids[:, 0, 8, 0] - grids[:, 0, 0, 0]
    torch.testing.assert_close(magnification.float(), torch.tensor([4.0, 8.0, 16.0, 8.0]))
    torch.testing.assert_close(grids[2:3], placement_grid(places, u[2:3], 9))


def test_places_are_those_of_the_training_boxes_in_the_central_square() -> None:
    """200 x 100 pixels: the central square is x 50 to 150. The box 90..120 x 20..60 has its centre at (105, 40)."""
    manifest = photographs(photograph(200, 100, (90, 20, 120, 60)), photograph(9, 9, (0, 0, 9, 9), split="test"))
    places = object_places(manifest, "given")
    assert places.dtype == torch.float32
    expected = [[5 / 50, -10 / 50, 1.5 * 40 / 50 * 64 / 76]]
    torch.testing.assert_close(places, torch.tensor(expected))


def test_an_upright_photograph_has_its_square_in_the_middle_too() -> None:
    places = object_places(photographs(photograph(100, 300, (0, 100, 100, 200))), "given")
    torch.testing.assert_close(places, torch.tensor([[0.0, 0.0, 3 * SEEN_SHARE]]))


def test_an_object_as_the_generator_sees_it_lands_on_its_box() -> None:
    """The training crop shows 64/76 of a square 1.5 times the box's side, so the object fills 1/1.263 of the crop."""
    side = 101
    box = (30, 50, 60, 80)  # pixel edges in a photograph of 101 x 101
    places = object_places(photographs(photograph(side, side, box)), "given")
    crop_px = 121
    position = torch.linspace(-1, 1, crop_px)
    inside = position.abs() <= 1 / (1.5 * 64 / 76)
    crop = (inside[:, None] & inside[None, :]).float()[None, None]
    grid = placement_grid(places, torch.tensor([[0.0, AS_IS]], dtype=torch.float64), side)
    canvas = F.grid_sample(crop, grid.float(), align_corners=True)[0, 0] > 0.5
    rows, columns = canvas.any(dim=1).nonzero()[:, 0], canvas.any(dim=0).nonzero()[:, 0]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    for ours, expected in zip(found, box, strict=True):
        assert abs(int(ours) - expected) <= 1
    assert canvas.sum() == len(rows) * len(columns)
