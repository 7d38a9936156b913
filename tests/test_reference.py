"""What is known of the real images is kept by content: the same values, never a stale or a foreign one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_evaluation import COLOUR, CORNERS, coloured
from torch import Tensor

from finegan_aug.evaluation import evaluate_images
from finegan_aug.features import Extractor
from finegan_aug.reference import Reference, reference

torch.set_num_threads(1)
IMAGES = coloured("real", 40)[0]


def refuse(images: Tensor) -> Tensor:
    raise AssertionError(f"{len(images)} images were looked at again")


def no_more(extractor: Extractor) -> Extractor:
    """The same network by name and hash, which fails when it is used."""
    return replace(extractor, features_fn=refuse, logits_fn=extractor.logits_fn and refuse)


def tensors(known: Reference) -> list[Tensor]:
    arrays = map(torch.from_numpy, known.gaussian)
    return [known.features, *arrays, *([] if known.logits is None else [known.logits])]


def same(one: Reference, other: Reference) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("extractor", [COLOUR, CORNERS], ids=["more-images-than-features", "with-fewer"])
@pytest.mark.parametrize("count", [9, 40])
def test_the_second_time_nothing_is_computed_and_every_value_is_the_same(
    tmp_path: Path, extractor: Extractor, count: int
) -> None:
    plain = reference(extractor, IMAGES[:count], cache_dir=None)
    first = reference(extractor, IMAGES[:count], cache_dir=tmp_path)
    second = reference(no_more(extractor), IMAGES[:count], cache_dir=tmp_path)
    assert same(plain, first)
    assert same(plain, second)
    assert (second.logits is None) == (extractor.logits_fn is None)


def test_rows_with_a_cache_are_those_without_one(tmp_path: Path) -> None:
    fake = coloured("fake", 60)[0].flip(1)

    def rows(cache_dir: Path | None) -> str:
        found = evaluate_images(
            real=IMAGES, fake=fake, extractors=[COLOUR, CORNERS], seed=3, split="val", cache_dir=cache_dir
        )
        return json.dumps(found)

    assert rows(None) == rows(tmp_path) == rows(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_images_order_extractor_or_weights_have_files_of_their_own(tmp_path: Path) -> None:
    changed = IMAGES.clone()
    changed[7, 2, 3, 3] ^= 1
    for images in (IMAGES, changed, IMAGES.flip(0), IMAGES[:39]):
        assert same(reference(CORNERS, images, cache_dir=tmp_path), reference(CORNERS, images, cache_dir=None))
    for values in ({"name": "edges"}, {"sha256": "c" * 64}, {"logits_fn": COLOUR.logits_fn}):
        reference(replace(CORNERS, **values), IMAGES, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 7


def test_the_layout_of_the_images_in_memory_does_not_matter(tmp_path: Path) -> None:
    reference(COLOUR, IMAGES, cache_dir=tmp_path)
    reference(no_more(COLOUR), IMAGES.contiguous(memory_format=torch.channels_last), cache_dir=tmp_path)


def damage_truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def damage_one_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def damage_a_value(file: Path) -> None:
    content = safetensors.torch.load(file.read_bytes())
    file.write_bytes(safetensors.torch.save({**content, "mean": content["mean"] + 1}))


def damage_a_name(file: Path) -> None:
    content = safetensors.torch.load(file.read_bytes())
    content["averages"] = content.pop("mean")
    file.write_bytes(safetensors.torch.save(content))


def damage_no_digest(file: Path) -> None:
    content = safetensors.torch.load(file.read_bytes())
    del content["digest"]
    file.write_bytes(safetensors.torch.save(content))


def damage_empty(file: Path) -> None:
    file.write_bytes(b"")


def damage_pickle(file: Path) -> None:
    torch.save({"mean": torch.zeros(3)}, file)


def damage_of_other_images(file: Path) -> None:
    other = file.with_name("other")
    reference(COLOUR, IMAGES.flip(0), cache_dir=other)
    (written,) = other.iterdir()
    written.rename(file)
    other.rmdir()


DAMAGES = [
    damage_truncate,
    damage_one_bit,
    damage_a_value,
    damage_a_name,
    damage_no_digest,
    damage_empty,
    damage_pickle,
    damage_of_other_images,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_or_foreign_file_is_computed_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    expected = reference(COLOUR, IMAGES, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    damage(file)
    assert file.read_bytes() != data
    assert same(reference(COLOUR, IMAGES, cache_dir=tmp_path), expected)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert same(reference(no_more(COLOUR), IMAGES, cache_dir=tmp_path), expected)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    expected = reference(COLOUR, IMAGES, cache_dir=None)
    (tmp_path / "file").write_text("not a folder")
    assert same(reference(COLOUR, IMAGES, cache_dir=tmp_path / "file"), expected)
    reference(COLOUR, IMAGES, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    file.mkdir()
    assert same(reference(COLOUR, IMAGES, cache_dir=tmp_path), expected)
