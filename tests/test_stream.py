"""Real batches by their place in the endless stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.stream import RealBatch, RealStream
from finegan_aug.data.views import Crops

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def crops(toy_data: Manifest) -> Crops:
    """48 photographs of 32 px with boxes."""
    return build_crops(toy_data, resolution=32, boxes="given")


def stream(crops: Crops, **values: Any) -> RealStream:
    return RealStream(FineGANConfig.preset("slim-32", **values).resolve(12), crops, crops.labels)


def batches(source: RealStream, batch: int, images: int) -> list[RealBatch]:
    return [source.batch(range(start, start + batch)) for start in range(0, images, batch)]


def joined(parts: list[RealBatch]) -> dict[str, Tensor]:
    return {name: torch.cat([getattr(part, name) for part in parts]) for name in RealBatch._fields}


def test_each_epoch_shows_every_image_once_in_another_order(crops: Crops) -> None:
    source, count = stream(crops), len(crops)
    epochs = [source.indices(range(e * count, (e + 1) * count)).tolist() for e in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(count))
    assert len({tuple(order) for order in epochs}) == 3
    assert epochs[0] != list(range(count))
    assert stream(crops, seed=1).indices(range(count)).tolist() != epochs[0]


@pytest.mark.fault("same bits: batches, whatever their size and the number of processes")
def test_batches_of_8_and_16_give_the_same_images_in_the_same_order(crops: Crops) -> None:
    """Also their crops, flips, boxes and draws; 96 images are two epochs."""
    small, large = joined(batches(stream(crops), 8, 96)), joined(batches(stream(crops), 16, 96))
    assert small.keys() == large.keys()
    for name, tensor in small.items():
        assert torch.equal(tensor, large[name]), name


def test_a_batch_may_span_two_or_more_epochs(crops: Crops) -> None:
    count = len(crops)
    whole = stream(crops).indices(range(3 * count)).tolist()
    assert len(whole) == 3 * count
    source = stream(crops)
    assert source.indices(range(count - 5, count + 3)).tolist() == whole[count - 5 : count + 3]
    assert source.indices(range(count - 1, 2 * count + 1)).tolist() == whole[count - 1 : 2 * count + 1]
    assert source.indices(range(2, 4)).tolist() == whole[2:4]  # and back again
    spanning, start = source.batch(range(count - 2, count + 2)), stream(crops).batch(range(count, count + 2))
    assert torch.equal(spanning.objects[2:], start.objects)


@pytest.mark.fault("same bits: batches, whatever their size and the number of processes")
def test_two_processes_share_the_images_of_one(crops: Crops) -> None:
    """Each takes its half of every batch."""
    alone = joined(batches(stream(crops), 16, 96))
    parts = []
    first, second = stream(crops), stream(crops)
    for start in range(0, 96, 16):
        parts += [first.batch(range(start, start + 8)), second.batch(range(start + 8, start + 16))]
    for name, tensor in joined(parts).items():
        assert torch.equal(tensor, alone[name]), name


def test_a_batch_has_the_promised_shapes_types_and_ranges(crops: Crops) -> None:
    batch = stream(crops).batch(range(10))
    assert batch.objects.shape == (10, 3, 32, 32)
    assert batch.frames is not None
    assert batch.frames.shape == (10, 3, 32, 32)
    assert batch.outside is not None
    assert batch.outside.shape == (10, 1, 13, 13)
    assert batch.labels.dtype == torch.int64
    assert batch.draws.shape == (10, 7)
    for images in (batch.objects, batch.frames):
        assert images.dtype == torch.float32
        assert images.min() >= -1
        assert images.max() <= 1
        assert images.max() - images.min() > 0.5
    assert set(batch.outside.unique().tolist()) <= {0.0, 1.0}


def test_images_carry_their_own_labels_and_hidden_labels_stay_hidden(crops: Crops) -> None:
    source = stream(crops)
    chosen = source.indices(range(48))
    assert source.batch(range(48)).labels.tolist() == [crops.records[i].label for i in chosen.tolist()]
    hidden = torch.where(torch.arange(48) % 2 == 0, crops.labels, -1)
    labels = RealStream(source.config, crops, hidden).batch(range(48)).labels
    assert labels.tolist() == hidden[chosen].tolist()
    assert (labels == -1).sum() == 24


def test_the_background_units_are_those_outside_the_box_of_the_very_crop(crops: Crops) -> None:
    """A photograph that is black but for a white box: the patch discriminator's units that see white are object."""
    source = stream(crops)
    offset, height, width = (getattr(crops.frame_images, name) for name in ("offset", "height", "width"))
    pixels = torch.zeros_like(crops.frame_images.pixels)
    for n, (x1, y1, x2, y2) in enumerate(crops.frame_boxes.round().int().tolist()):
        image = pixels[offset[n] : offset[n] + height[n] * width[n]].view(height[n], width[n], 3)
        image[max(y1, 0) : y2, max(x1, 0) : x2] = 255
    boxes = crops.frame_boxes.round()
    drawn = replace(crops, frame_images=replace(crops.frame_images, pixels=pixels), frame_boxes=boxes)
    batch = RealStream(source.config, drawn, crops.labels).batch(range(96))
    assert batch.frames is not None
    assert batch.outside is not None
    white = torch.nn.functional.max_pool2d(batch.frames[:, :1], 8, 2) > 0
    assert 0.2 < white.float().mean() < 0.98  # both kinds occur
    assert not (white & (batch.outside == 1)).any()  # no unit that sees the object counts as background
    # Units that only touch the box count as object too: one unit more on each side, no more.
    near = torch.nn.functional.max_pool2d(white.float(), 3, 1, 1)
    assert (batch.outside >= 1 - near).all()


def test_masks_decide_where_there_are_masks(toy_data: Manifest, crops: Crops) -> None:
    masks = torch.zeros(len(crops.frame_images.pixels), 1, dtype=torch.uint8)
    empty = replace(crops, frame_masks=replace(crops.frame_images, pixels=masks))
    source = RealStream(FineGANConfig.preset("slim-32", boxes="from_masks").resolve(12), empty, crops.labels)
    outside = source.batch(range(8)).outside
    assert outside is not None
    assert outside.min() == 1
    full = replace(crops, frame_masks=replace(crops.frame_images, pixels=masks + 255))
    outside = RealStream(source.config, full, crops.labels).batch(range(8)).outside
    assert outside is not None
    assert outside.max() == 0


def test_without_boxes_the_border_or_nothing_counts_as_background(crops: Crops) -> None:
    border = stream(crops, boxes="none", background_without_boxes="border").batch(range(4)).outside
    assert border is not None
    assert border.shape == (4, 1, 13, 13)
    assert border.sum(dim=(1, 2, 3)).tolist() == [48] * 4
    assert border[:, :, 1:-1, 1:-1].max() == 0
    batch = stream(crops, boxes="none").batch(range(4))
    assert batch.frames is None
    assert batch.outside is None
    assert torch.equal(batch.objects, stream(crops).batch(range(4)).objects)
