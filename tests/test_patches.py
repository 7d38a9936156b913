"""Geometry of the patch discriminator against loops over its units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from finegan_aug.patches import PatchGeometry, patch_geometry
from finegan_aug.randomness import seed_for, uniforms

torch.set_num_threads(1)

RESOLUTIONS = (32, 64, 128, 256)
EDGE_BOXES = [
    (0, 0, 1000, 1000),  # the whole crop and more
    (-20, -20, -10, -10),  # above and left of it
    (999, 999, 1010, 1010),  # below and right of it
    (-20, 5, -10, 15),  # left of it, rows inside
    (5, 5, 5, 20),  # degenerate along x
    (5, 20, 25, 20),  # degenerate along y
    (0, 0, 0, 0),
    (0.5, 0.25, 9.75, 8.5),
    (0, 0, 3, 3),
]


@pytest.mark.parametrize(
    ("resolution", "input_px", "field", "stride", "units"),
    [(32, 32, 8, 2, 13), (64, 64, 16, 2, 25), (128, 126, 34, 4, 24), (256, 254, 70, 8, 24)],
)
def test_the_geometry_is_that_of_the_design(
    resolution: int, input_px: int, field: int, stride: int, units: int
) -> None:
    found = patch_geometry(resolution)
    assert (found.input_px, found.receptive_field_px, found.stride_px, found.units) == (input_px, field, stride, units)
    assert (input_px - field) % stride == 0  # no border that no unit sees


def test_the_smaller_input_at_256_leaves_one_unit_less() -> None:
    assert PatchGeometry(246, patch_geometry(256).layers).units == 23


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_field_stride_and_units_are_those_of_real_convolutions(resolution: int) -> None:
    """Reference: which input pixels have a gradient from one unit."""
    geometry = patch_geometry(resolution)
    network = nn.Sequential(*(nn.Conv2d(1, 1, kernel, stride, bias=False) for kernel, stride in geometry.layers))
    for layer in network:
        nn.init.ones_(layer.weight)
    image = torch.zeros(1, 1, geometry.input_px, geometry.input_px, requires_grad=True)
    out = network(image)
    assert out.shape == (1, 1, geometry.units, geometry.units)
    i, j = 3, geometry.units - 1
    out[0, 0, i, j].backward()
    seen = (image.grad[0, 0] > 0).nonzero()
    top, left = geometry.stride_px * i, geometry.stride_px * j
    bottom, right = (start + geometry.receptive_field_px - 1 for start in (top, left))
    assert seen.min(dim=0).values.tolist() == [top, left]
    assert seen.max(dim=0).values.tolist() == [bottom, right]
    assert right == geometry.input_px - 1


def outside_by_loops(geometry: PatchGeometry, box: list[float]) -> Tensor:
    """The design's formula, unit by unit."""
    x1, y1, x2, y2 = box
    field, stride = geometry.receptive_field_px, geometry.stride_px
    found = torch.ones(geometry.units, geometry.units)
    if x1 == x2 or y1 == y2:
        return found
    for i in range(geometry.units):
        for j in range(geometry.units):
            rows = stride * i + field >= y1 and stride * i <= y2
            columns = stride * j + field >= x1 and stride * j <= x2
            if rows and columns:
                found[i, j] = 0
    return found


def outside_by_pixels(geometry: PatchGeometry, box: list[float]) -> Tensor:
    """No formula: a unit sees object if the square of any pixel in its field overlaps or touches the box."""
    x1, y1, x2, y2 = box
    field, stride = geometry.receptive_field_px, geometry.stride_px
    found = torch.ones(geometry.units, geometry.units)
    if x1 == x2 or y1 == y2:
        return found
    line = torch.arange(geometry.input_px, dtype=torch.float64)
    rows, columns = ((line + 1 >= low) & (line <= high) for low, high in ((y1, y2), (x1, x2)))
    touched = rows[:, None] & columns[None, :]
    for i in range(geometry.units):
        for j in range(geometry.units):
            if touched[stride * i : stride * i + field, stride * j : stride * j + field].any():
                found[i, j] = 0
    return found


def outside_by_the_official_code(geometry: PatchGeometry, box: list[float]) -> Tensor:
    """kkanshul/finegan code/trainer.py: a block of units between ceil and floor, for a box inside the crop."""
    x1, y1, x2, y2 = box
    field, stride, last = geometry.receptive_field_px, geometry.stride_px, geometry.units - 1
    found = torch.ones(geometry.units, geometry.units)
    if x1 != x2 and y1 != y2:
        beyond = geometry.input_px - field
        top, left = (max(0, math.ceil((start - field) / stride)) for start in (y1, x1))
        bottom, right = (min(last, math.floor(last - (beyond - end) / stride)) + 1 for end in (y2, x2))
        found[top:bottom, left:right] = 0
    return found


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_box_mask_equals_the_loop_on_random_boxes(resolution: int) -> None:
    """A third of the boxes on whole pixels, where they touch units' edges; some reach over the crop's border."""
    geometry = patch_geometry(resolution)
    u = torch.from_numpy(uniforms(seed_for(0, "boxes", resolution), range(30), 4)).view(30, 2, 2)
    boxes = (u.sort(dim=1).values * 1.5 - 0.25).reshape(30, 4) * geometry.input_px
    boxes[::3] = boxes[::3].round()
    found = geometry.outside_boxes(boxes)
    assert found.dtype == torch.float32
    assert found.shape == (30, 1, geometry.units, geometry.units)
    expected = torch.stack([outside_by_loops(geometry, box) for box in boxes.tolist()])[:, None]
    assert 0.2 < expected.mean() < 0.95  # both kinds occur
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    inside = boxes.clamp(0, geometry.input_px)
    official = torch.stack([outside_by_the_official_code(geometry, box) for box in inside.tolist()])[:, None]
    torch.testing.assert_close(geometry.outside_boxes(inside), official, rtol=0, atol=0)
    pixels = torch.stack([outside_by_pixels(geometry, box) for box in inside.tolist()])[:, None]
    torch.testing.assert_close(geometry.outside_boxes(inside), pixels, rtol=0, atol=0)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("box", EDGE_BOXES)
def test_the_box_mask_equals_the_loop_on_special_boxes(resolution: int, box: tuple[float, ...]) -> None:
    geometry = patch_geometry(resolution)
    found = geometry.outside_boxes(torch.tensor([box], dtype=torch.float32))
    torch.testing.assert_close(found[0, 0], outside_by_loops(geometry, list(box)), rtol=0, atol=0)


def test_a_box_that_only_touches_a_unit_makes_it_an_object_unit() -> None:
    geometry = patch_geometry(64)  # field 16, stride 2
    touching = geometry.outside_boxes(torch.tensor([[16.0, 0, 20, 64], [16.01, 0, 20, 64]]))
    assert touching[:, 0, 0, 0].tolist() == [0, 1]  # unit 0 ends at 16
    assert touching[0, 0, 0, 10:12].tolist() == [0, 1]  # unit 10 starts at 20


def test_the_box_mask_gives_the_official_counts_of_background_patches() -> None:
    """Numbers of the official code for four boxes in the 126-pixel crop (tests/data/official_finegan.json)."""
    boxes = torch.tensor([[30, 20, 70, 80], [0, 0, 40, 40], [50, 50, 50, 50], [60.25, 5.5, 126, 100.75]])
    assert patch_geometry(128).outside_boxes(boxes).sum(dim=(1, 2, 3)).tolist() == [198, 455, 576, 168]


@pytest.mark.parametrize("resolution", [32, 128])
def test_the_mask_variant_equals_a_loop_and_keeps_at_least_as_many_units_as_the_tight_box(resolution: int) -> None:
    geometry = patch_geometry(resolution)
    side, field, stride = geometry.input_px, geometry.receptive_field_px, geometry.stride_px
    masks = torch.zeros(4, 1, side, side)
    line = torch.arange(side)
    masks[0, 0] = ((line[:, None] - side / 3) ** 2 + (line - side / 2) ** 2 < (side / 6) ** 2).float()
    masks[1, 0, 0, 0] = 1  # one pixel in the corner
    masks[2, 0] = 0.5  # not above a half: no object
    masks[3, 0, side - 1, 4] = 0.51
    found = geometry.outside_masks(masks)
    assert found.dtype == torch.float32
    assert found.shape == (4, 1, geometry.units, geometry.units)
    for n in range(4):
        for i in range(geometry.units):
            for j in range(geometry.units):
                patch = masks[n, 0, stride * i : stride * i + field, stride * j : stride * j + field]
                assert found[n, 0, i, j] == float(patch.max() <= 0.5), (n, i, j)
        pixels = (masks[n, 0] > 0.5).nonzero()
        if len(pixels):
            (y1, x1), (y2, x2) = pixels.min(dim=0).values.tolist(), (pixels.max(dim=0).values + 1).tolist()
            tight = geometry.outside_boxes(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32))
            assert (found[n] >= tight[0]).all()


def test_the_border_is_the_outer_ring() -> None:
    geometry = patch_geometry(32)
    ring = geometry.border(2)
    assert ring.dtype == torch.float32
    assert ring.shape == (1, 1, 13, 13)
    for i in range(13):
        for j in range(13):
            assert ring[0, 0, i, j] == float(min(i, j, 12 - i, 12 - j) < 2)
    assert geometry.border(1).sum() == 4 * 12
    assert geometry.border(0).sum() == 0


@pytest.mark.parametrize(
    ("share", "shares"), [(0.3, (0.52, 0.54, 0.44, 0.44)), (0.4, (0.28, 0.29, 0.16, 0.16)), (0.5, (0, 0, 0, 0))]
)
def test_a_centred_box_leaves_the_share_of_units_that_the_design_tabulates(
    share: float, shares: tuple[float, ...]
) -> None:
    for resolution, expected in zip(RESOLUTIONS, shares, strict=True):
        geometry = patch_geometry(resolution)
        low, high = geometry.input_px * (1 - share) / 2, geometry.input_px * (1 + share) / 2
        found = geometry.outside_boxes(torch.tensor([[low, low, high, high]])).mean().item()
        assert found == pytest.approx(expected, abs=0.005)
