"""Crops of objects and frames against Pillow, one image at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.data.objects import Box, BoxSource, object_square
from finegan_aug.data.views import Crops
from finegan_aug.errors import DataError, StorageError
from finegan_aug.patches import patch_geometry
from finegan_aug.randomness import seed_for, uniforms

torch.set_num_threads(1)

SIZES = [(50, 40), (37, 61), (90, 33), (20, 20), (64, 64), (31, 100)]
BOXES: list[Box] = [
    (10, 5, 30, 25),
    (0, 30, 37, 61),
    (60, 3, 88, 30),
    (2.5, 3.25, 9.75, 18),
    (20, 20, 44, 44),
    (5, 0, 9, 7),
]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six photographs of noise, some smaller than any crop, with a box and an elliptic mask each."""
    rng = np.random.default_rng(0)
    records = []
    for i, ((width, height), box) in enumerate(zip(SIZES, BOXES, strict=True)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
        Image.fromarray(ellipse(width, height, box)).save(tmp_path / "masks" / f"{i}.png")
        records.append(
            ImageRecord(
                path=f"{i}.png",
                sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
                dhash="0" * 16,
                width=width,
                height=height,
                label=i % 2,
                split="val" if i == 5 else "train",
                labelled=i != 3,
                box=box,
                mask=f"{i}.png",
            )
        )
    return Manifest(root=tmp_path / "photos", classes=("a", "b"), images=tuple(records), mask_root=tmp_path / "masks")


def ellipse(width: int, height: int, box: Box) -> npt.NDArray[np.uint8]:
    ys, xs = np.mgrid[:height, :width] + 0.5
    x1, y1, x2, y2 = box
    inside = ((xs - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25
    return np.where(inside, np.uint8(255), np.uint8(0))


def draws(count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return uniforms(seed_for(seed, "augment", 0), np.arange(count), 3)


def shorter_side(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    return image.resize(size, Image.Resampling.BILINEAR)


def cut(
    image: Image.Image, draw: npt.NDArray[np.float64], side: int, last: bool = True
) -> tuple[Image.Image, int, int, bool]:
    """A square at one of all places, or of all but the last."""
    top = int(draw[0] * (image.height - side + last))
    left = int(draw[1] * (image.width - side + last))
    square = image.crop((left, top, left + side, top + side))
    flip = bool(draw[2] < 0.5)
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else square, top, left, flip


def pixels(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2)


def around_the_object(record: ImageRecord, photograph: Image.Image) -> Image.Image:
    """The official crop: a square of 2 int(0.75 longer side) round the box, clipped to the image."""
    x1, y1, x2, y2 = record.box or pytest.fail("no box")
    radius, cx, cy = int(0.75 * max(x2 - x1, y2 - y1)), int((x1 + x2) / 2), int((y1 + y2) / 2)
    right, bottom = min(record.width, cx + radius), min(record.height, cy + radius)
    return photograph.crop((max(0, cx - radius), max(0, cy - radius), right, bottom))


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_object_crops_equal_pillow_one_by_one(manifest: Manifest, resolution: int) -> None:
    crops = build_crops(manifest, resolution=resolution, boxes="given")
    positions = torch.tensor([4, 0, 0, 2, 1, 3])
    u = draws(6)
    expected = []
    for position, draw in zip(positions.tolist(), u, strict=True):
        record = crops.records[position]
        view = around_the_object(record, Image.open(manifest.file(record)))
        image = shorter_side(view, int(resolution * 76 / 64))
        expected.append(cut(image, draw, resolution)[0])
    torch.testing.assert_close(crops.objects_uint8(positions, u), pixels(expected), rtol=0, atol=0)
    images = crops.objects(positions, u)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, pixels(expected) / 127.5 - 1)


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_official_object_crops_equal_pillow_bit_for_bit(manifest: Manifest, resolution: int) -> None:
    """kkanshul/finegan code/main.py and code/datasets.py: resized, cut, flipped, resized again."""
    crops = build_crops(manifest, resolution=resolution, boxes="given", official=True)
    positions = torch.tensor([4, 0, 0, 2, 1, 3])
    u = draws(6)
    views = [around_the_object(r, Image.open(manifest.file(r))) for r in crops.records]
    stored = [shorter_side(view, int(2 * resolution * 76 / 64)) for view in views]
    squares = [cut(stored[position], draw, 2 * resolution)[0] for position, draw in zip(positions, u, strict=True)]
    expected = [square.resize((resolution, resolution), Image.Resampling.BILINEAR) for square in squares]
    assert torch.equal(crops.objects_uint8(positions, u), pixels(expected))
    images = crops.objects(positions, u)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, pixels(expected) / 127.5 - 1)
    once = build_crops(manifest, resolution=resolution, boxes="given").objects_uint8(positions, u)
    assert (once.int() - pixels(expected).int()).abs().float().mean() > 2  # resized twice is another picture
    for position, image in enumerate(stored):
        left, top = (image.width - 2 * resolution) // 2, (image.height - 2 * resolution) // 2
        middle = image.crop((left, top, left + 2 * resolution, top + 2 * resolution))
        small = pixels([middle.resize((resolution, resolution), Image.Resampling.BILINEAR)])
        assert torch.equal(crops.objects_center_uint8(torch.tensor([position])), small)


def test_official_sizes_at_128_pixels(manifest: Manifest) -> None:
    crops = build_crops(manifest, resolution=128, boxes="given", official=True)
    for images, side in ((crops.object_images, 304), (crops.frame_images, 149)):
        assert torch.minimum(images.height, images.width).tolist() == [side] * 5
    assert crops.input_px == 126
    assert crops.objects_uint8(torch.arange(5), draws(5)).shape == (5, 3, 128, 128)


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("resolution", [32, 128])
def test_frames_and_their_boxes_equal_pillow_one_by_one(manifest: Manifest, resolution: int, official: bool) -> None:
    crops = build_crops(manifest, resolution=resolution, boxes="given", official=official)
    side = patch_geometry(resolution).input_px
    positions, u = torch.arange(5).repeat(20), draws(100)
    images, boxes, masks = crops.frames(positions, u)
    assert masks is None
    degenerate = 0
    for n, position in enumerate(positions.tolist()):
        record = crops.records[position]
        whole = Image.open(manifest.file(record))
        image = shorter_side(whole, int(side * 76 / 64))
        square, top, left, flip = cut(image, u[n], side, last=not official)
        torch.testing.assert_close(images[n], pixels([square])[0] / 127.5 - 1)
        # The box drawn as two corners that travel with the image.
        x1, y1, x2, y2 = record.box or pytest.fail("no box")
        xs = [min(max(x * image.width / whole.width - left, 0.0), side) for x in (x1, x2)]
        ys = [min(max(y * image.height / whole.height - top, 0.0), side) for y in (y1, y2)]
        if flip:
            xs = sorted(side - x for x in xs)
        torch.testing.assert_close(boxes[n], torch.tensor([xs[0], ys[0], xs[1], ys[1]]), rtol=1e-5, atol=1e-4)
        degenerate += xs[0] == xs[1] or ys[0] == ys[1]
    assert degenerate > 0  # the case is in the sample: the small box of a long image


def test_a_box_follows_the_pixels_it_marks(manifest: Manifest, tmp_path: Path) -> None:
    """Known answer: a white object on black; after any crop and flip the white pixels fill the box."""
    record = manifest.images[2]
    photo = np.zeros((record.height, record.width, 3), np.uint8)
    photo[3:30, 60:88] = 255
    Image.fromarray(photo).save(tmp_path / "photos" / "2.png")
    crops = build_crops(manifest, resolution=32, boxes="given", records=[record])
    images, boxes, _ = crops.frames(torch.zeros(200, dtype=torch.int64), draws(200))
    for image, (x1, y1, x2, y2) in zip(images, boxes.tolist(), strict=True):
        area = (image[0] + 1).sum().item() / 2
        assert area == pytest.approx((x2 - x1) * (y2 - y1), abs=2.0)
        if min(x2 - x1, y2 - y1) > 2:
            ys, xs = (image[0] > 0).nonzero().unbind(1)
            found = [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]
            assert found == pytest.approx([x1, y1, x2, y2], abs=1.0)


@pytest.mark.parametrize("official", [False, True])
def test_masks_travel_with_frames_and_objects(manifest: Manifest, tmp_path: Path, official: bool) -> None:
    """The photographs are made equal to their masks, so every crop of both must agree."""
    for i in range(6):
        Image.open(tmp_path / "masks" / f"{i}.png").convert("RGB").save(tmp_path / "photos" / f"{i}.png")
    crops = build_crops(manifest, resolution=32, boxes="from_masks", official=official)
    positions, u = torch.arange(5).repeat(10), draws(50)
    images, boxes, masks = crops.frames(positions, u)
    assert masks is not None
    assert masks.shape == (50, 1, 32, 32)
    torch.testing.assert_close(masks, (images[:, :1] + 1) / 2)
    of_objects = crops.masks_of_objects(positions, u)
    assert of_objects is not None
    torch.testing.assert_close(of_objects, (crops.objects(positions, u)[:, :1] + 1) / 2)
    # No object pixel lies outside the tight box, grown by the reach of the resampling filter.
    line = torch.arange(32) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    reach = 3.0
    rows = (line > y1 - reach) & (line < y2 + reach)
    columns = (line > x1 - reach) & (line < x2 + reach)
    assert (masks[:, 0] * ~(rows[:, :, None] & columns[:, None, :])).max() == 0


def test_an_empty_mask_means_no_object(manifest: Manifest, tmp_path: Path) -> None:
    Image.new("L", SIZES[0]).save(tmp_path / "masks" / "0.png")
    crops = build_crops(manifest, resolution=32, boxes="from_masks")
    u = draws(5)
    _, boxes, masks = crops.frames(torch.zeros(5, dtype=torch.int64), u)
    assert masks is not None
    assert masks.max() == 0
    assert patch_geometry(32).outside_boxes(boxes).min() == 1
    whole = shorter_side(Image.open(tmp_path / "photos" / "0.png"), 38)
    assert torch.equal(crops.objects_uint8(torch.tensor([0]), u[:1]), pixels([cut(whole, u[0], 32)[0]]))


def test_without_boxes_the_object_crop_is_the_whole_image_and_no_unit_is_background(manifest: Manifest) -> None:
    crops = build_crops(manifest, resolution=32, boxes="none")
    u = draws(5)
    expected = [
        cut(shorter_side(Image.open(manifest.file(r)), 38), d, 32)[0] for r, d in zip(crops.records, u, strict=True)
    ]
    assert torch.equal(crops.objects_uint8(torch.arange(5), u), pixels(expected))
    _, boxes, masks = crops.frames(torch.arange(5), u)
    assert masks is None
    assert boxes.tolist() == [[0, 0, 32, 32]] * 5
    assert patch_geometry(32).outside_boxes(boxes).max() == 0


def test_center_crops_are_central_and_not_flipped(manifest: Manifest) -> None:
    crops = build_crops(manifest, resolution=32, boxes="none")
    for position, record in enumerate(crops.records):
        image = shorter_side(Image.open(manifest.file(record)), 38)
        left, top = (image.width - 32) // 2, (image.height - 32) // 2
        expected = pixels([image.crop((left, top, left + 32, top + 32))])
        assert torch.equal(crops.objects_center_uint8(torch.tensor([position])), expected)
        torch.testing.assert_close(crops.objects_center(torch.tensor([position])), expected / 127.5 - 1)


def test_many_center_crops_are_cut_in_parts(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = build_crops(manifest, resolution=32, boxes="given", official=True)
    whole = crops.objects_center_uint8(torch.arange(5))
    monkeypatch.setattr("finegan_aug.data.views.CHUNK", 2)
    assert torch.equal(crops.objects_center_uint8(torch.arange(5)), whole)


@pytest.mark.parametrize("official", [False, True])
def test_a_batch_equals_its_images_alone(manifest: Manifest, official: bool) -> None:
    crops = build_crops(manifest, resolution=32, boxes="from_masks", official=official)
    positions, u = torch.tensor([3, 1, 4, 1]), draws(4)
    together = [crops.objects(positions, u), *crops.frames(positions, u)]
    alone = [
        [crops.objects(positions[i : i + 1], u[i : i + 1]), *crops.frames(positions[i : i + 1], u[i : i + 1])]
        for i in range(4)
    ]
    for part, single in zip(together, zip(*alone, strict=True), strict=True):
        assert part is not None
        assert torch.equal(part, torch.cat(single))


def test_every_offset_is_drawn_equally_often_and_half_are_flipped(manifest: Manifest) -> None:
    """76 / 64 of 32 px leaves 7 places along the shorter side; chi-square of 6 degrees, false alarm 1e-4."""
    crops = build_crops(manifest, resolution=32, boxes="none")
    u = torch.from_numpy(draws(7000))
    top, _, flip = crops.object_images.place(torch.zeros(7000, dtype=torch.int64), u, 32)
    counts = torch.bincount(top, minlength=7).double()
    assert len(counts) == 7
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9
    assert abs(flip.double().mean() - 0.5) < 0.025


def test_the_official_frame_never_lies_at_its_last_place(manifest: Manifest) -> None:
    """np.random.randint(size - 126) in code/datasets.py; the object square may lie anywhere."""
    crops = build_crops(manifest, resolution=128, boxes="given", official=True)
    first = torch.zeros(1, dtype=torch.int64)
    edge = torch.tensor([[0.0, 0.0, 1.0], [1 - 1e-12, 1 - 1e-12, 1.0]], dtype=torch.float64)
    height, width = crops.frame_images.height[0].item(), crops.frame_images.width[0].item()
    top, left, _ = crops.frame_images.place(first.repeat(2), edge, 126, but_last=True)
    assert (top.tolist(), left.tolist()) == ([0, height - 126 - 1], [0, width - 126 - 1])
    top, left, _ = crops.frame_images.place(first.repeat(2), edge, 126)
    assert (top.tolist(), left.tolist()) == ([0, height - 126], [0, width - 126])
    white_end = crops.frame_images.pixels.clone().zero_()
    white_end[: height * width].view(height, width, 3)[-1] = 255  # the last row, which is never seen
    frames = replace(crops, frame_images=replace(crops.frame_images, pixels=white_end))
    assert frames.frames(first, edge[1:])[0].max() == -1
    assert replace(frames, official=False).frames(first, edge[1:])[0].max() == 1


def test_labels_and_records_of_the_chosen_split(manifest: Manifest) -> None:
    crops = build_crops(manifest, resolution=32, boxes="given")
    assert crops.labels.dtype == torch.int64
    assert crops.labels.tolist() == [0, 1, 0, -1, 0]  # the fourth may not show its label
    assert [r.path for r in crops.records] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    validation = build_crops(manifest, resolution=32, boxes="given", records=manifest.of("val"))
    assert len(validation) == 1
    assert validation.labels.tolist() == [1]


@pytest.mark.parametrize("boxes", ["given", "from_masks", "none"])
def test_the_cache_gives_the_same_crops_and_is_reused(
    manifest: Manifest, tmp_path: Path, boxes: BoxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    u = draws(5)
    in_memory = everything(build_crops(manifest, resolution=32, boxes=boxes), u)
    built = build_crops(manifest, resolution=32, boxes=boxes, cache_dir=cache)
    assert all(map(torch.equal, in_memory, everything(built, u)))
    assert [p.name.split("-")[0] for p in cache.iterdir() if p.is_dir()] == ["crops"]
    monkeypatch.setattr("finegan_aug.data.crops.decode", refuse)
    again = build_crops(manifest, resolution=32, boxes=boxes, cache_dir=cache)
    assert all(map(torch.equal, in_memory, everything(again, u)))


def test_the_official_crops_have_a_cache_of_their_own_and_the_others_keep_theirs(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, u = tmp_path / "cache", draws(5)
    build_crops(manifest, resolution=32, boxes="given", cache_dir=cache)
    names = {path.name for path in cache.glob("crops-*")}
    assert names == {"crops-32-given-a501949e534b9844"}  # as before there were official ones
    official = everything(build_crops(manifest, resolution=32, boxes="given", official=True, cache_dir=cache), u)
    assert len(list(cache.glob("crops-*"))) == 2
    monkeypatch.setattr("finegan_aug.data.crops.decode", refuse)
    again = everything(build_crops(manifest, resolution=32, boxes="given", official=True, cache_dir=cache), u)
    assert all(map(torch.equal, official, again))


def everything(crops: Crops, u: npt.NDArray[np.float64]) -> list[torch.Tensor]:
    positions = torch.arange(len(crops))
    return [crops.objects(positions, u), *(t for t in crops.frames(positions, u) if t is not None), crops.labels]


def refuse(path: Path) -> Image.Image:
    raise AssertionError(f"{path} was decoded again")


def damage_truncate(folder: Path) -> None:
    data = (folder / "objects.npy").read_bytes()
    (folder / "objects.npy").write_bytes(data[: len(data) // 2])


def damage_remove(folder: Path) -> None:
    (folder / "squares.npy").unlink()


def damage_uncommitted(folder: Path) -> None:
    (folder / "complete.json").unlink()


def damage_file(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


DAMAGE = {
    "truncated": damage_truncate,
    "removed": damage_remove,
    "uncommitted": damage_uncommitted,
    "empty": damage_file("objects.npy", b""),
    "like an archive": damage_file("objects.npy", b"PK\x03\x04 no archive"),
    "boxes like an archive": damage_file("boxes.npy", b"PK\x03\x04 no archive"),
    "without rows": damage_file("complete.json", b'{"rows": {}}'),
    "rows are a number": damage_file("complete.json", b'{"rows": 3}'),
    "rows are no object": damage_file("complete.json", b'{"rows": ["objects"]}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_made_anew(manifest: Manifest, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    u = draws(5)
    expected = everything(build_crops(manifest, resolution=32, boxes="given", cache_dir=tmp_path / "cache"), u)
    (folder,) = (tmp_path / "cache").glob("crops-*")
    damage(folder)
    found = everything(build_crops(manifest, resolution=32, boxes="given", cache_dir=tmp_path / "cache"), u)
    assert all(map(torch.equal, expected, found))


def test_another_mask_box_or_size_makes_another_cache(manifest: Manifest, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_crops(manifest, resolution=32, boxes="from_masks", cache_dir=cache)
    build_crops(manifest, resolution=64, boxes="from_masks", cache_dir=cache)
    build_crops(manifest, resolution=32, boxes="given", cache_dir=cache)
    assert len(list(cache.glob("crops-*"))) == 3
    Image.new("L", SIZES[0], 255).save(tmp_path / "masks" / "0.png")
    _, boxes, _ = build_crops(manifest, resolution=32, boxes="from_masks", cache_dir=cache).frames(
        torch.tensor([0]), draws(1)
    )
    assert boxes.tolist() == [[0, 0, 32, 32]]
    assert len(list(cache.glob("crops-*"))) == 4


def test_what_a_killed_process_left_is_removed_and_a_failure_leaves_nothing(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with monkeypatch.context() as context:
        context.setattr("finegan_aug.data.crops.decode", refuse)
        with pytest.raises(AssertionError, match="decoded again"):
            build_crops(manifest, resolution=32, boxes="given", cache_dir=cache)
    assert [p for p in cache.iterdir() if p.is_dir()] == []
    (folder,) = [p.with_name(p.name.removeprefix(".").removesuffix(".lock")) for p in cache.iterdir()]
    (cache / f".tmp-{folder.name}").mkdir()
    (cache / f".tmp-{folder.name}" / "objects.npy").write_bytes(b"half")
    build_crops(manifest, resolution=32, boxes="given", cache_dir=cache)
    assert [p.name for p in cache.iterdir() if p.is_dir()] == [folder.name]


def test_a_full_disk_is_one_line_and_leaves_no_folder(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cannot write the crop cache .*: No space left on device; free space or"):
        build_crops(manifest, resolution=32, boxes="given", cache_dir=tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 30, 60, 50), (35, 25, 65, 55)),  # radius 15 round (50, 40)
        ((0, 0, 20, 40), (0, 0, 40, 50)),  # clipped, no longer square
        ((10, 10, 11, 11), (9, 9, 11, 11)),  # a radius of 0.75 pixels is at least 1
        ((99, 79, 100, 80), (98, 78, 100, 80)),
        ((10, 10, 10, 30), (0, 0, 100, 80)),  # no width: no object
        ((150, 10, 170, 30), (0, 0, 100, 80)),  # outside the image
        ((90, 70, 400, 300), (0, 0, 100, 80)),
    ],
)
def test_object_square_of_known_boxes(box: Box, expected: tuple[int, int, int, int]) -> None:
    assert object_square(box, 100, 80) == expected


def test_no_images_is_refused(manifest: Manifest) -> None:
    with pytest.raises(DataError, match="crops need at least one image, found none; choose a split that has images"):
        build_crops(manifest, resolution=32, boxes="given", records=[])


def test_missing_boxes_are_counted_and_named(manifest: Manifest) -> None:
    bare = [ImageRecord(**{**vars(r), "box": None, "mask": None}) for r in manifest.of("train")[:2]]
    message = (
        "boxes=given needs a box for every image, 2 of 2 have none, such as 0.png; add the missing boxes or choose"
    )
    with pytest.raises(DataError, match=message):
        build_crops(manifest, resolution=32, boxes="given", records=bare)
    with pytest.raises(DataError, match="boxes=from_masks needs a mask for every image, 2 of 2 have none"):
        build_crops(manifest, resolution=32, boxes="from_masks", records=bare)


def test_an_image_or_mask_of_another_size_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(DataError, match="must be as large as its image, 37 x 61, found 10 x 10; replace the mask"):
        build_crops(manifest, resolution=32, boxes="from_masks")
    Image.new("RGB", (10, 10)).save(tmp_path / "photos" / "1.png")
    with pytest.raises(
        DataError, match=r"1\.png must be 37 x 61 as the manifest says, found 10 x 10; scan the folder again"
    ):
        build_crops(manifest, resolution=32, boxes="given")
