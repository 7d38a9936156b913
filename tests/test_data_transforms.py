"""One sample, one seed: torchvision, timm and albumentations transforms repeat exactly and disturb nobody."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from finegan_aug.data.transforms import apply_transform, parts_with_seed, preserved_generators, seed_generators

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import: it would ask the network for its newest version
import albumentations

torch.set_num_threads(1)
IMAGE = Image.fromarray(np.random.Generator(np.random.Philox(3)).integers(0, 256, (40, 48, 3)).astype(np.uint8))


def torchvision_transform() -> Callable[..., object]:
    return v2.Compose([v2.RandomResizedCrop(24), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide(), v2.ToImage()])


def timm_transform() -> Callable[..., object]:
    found = create_transform(24, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5)
    assert callable(found)
    return found


def albumentations_transform() -> Callable[..., object]:
    made = albumentations.Compose(
        [albumentations.RandomCrop(24, 24), albumentations.HorizontalFlip(), albumentations.ColorJitter(p=0.9)]
    )
    assert callable(made)
    return made


MAKERS = [torchvision_transform, timm_transform, albumentations_transform]


def run(transform: Callable[..., object], seed: int) -> np.ndarray:
    with preserved_generators():
        seed_generators(seed, parts_with_seed(transform))
        found = apply_transform(transform, IMAGE)
    return found.numpy() if isinstance(found, torch.Tensor) else np.asarray(found)


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_gives_the_same_image_whatever_came_before(make: Callable[[], Callable[..., object]]) -> None:
    transform, other = make(), make()
    first = [run(transform, seed) for seed in range(8)]
    for seed in (5, 0, 7):
        np.testing.assert_array_equal(run(transform, seed), first[seed])
        np.testing.assert_array_equal(run(other, seed), first[seed])
    assert len({image.tobytes() for image in first}) == 8


def test_the_global_generators_go_on_as_if_nothing_had_happened() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002

    def start() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    start()
    expected = [draws() for _ in range(3)]
    start()
    found = []
    for seed in range(3):
        found.append(draws())
        with preserved_generators():
            seed_generators(seed)
            draws()
            np.random.normal()  # noqa: NPY002
    assert found == expected


def test_the_global_generators_are_put_back_after_an_error() -> None:
    state = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002

    def fail() -> None:
        with preserved_generators():
            seed_generators(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state[2])  # noqa: NPY002


def test_a_part_with_its_own_generator_is_found_inside_a_composition() -> None:
    inner = albumentations_transform()
    assert parts_with_seed(inner) == (inner,)
    assert parts_with_seed(v2.Compose([v2.ToImage(), v2.Compose([v2.Identity(), _Adapter(inner)])])) != ()
    assert parts_with_seed(torchvision_transform()) == ()
    assert parts_with_seed(None) == ()


def test_a_composition_around_albumentations_repeats_exactly() -> None:
    transform = v2.Compose([v2.RandomHorizontalFlip(), _Adapter(albumentations_transform()), v2.ToImage()])
    first = [run(transform, seed) for seed in range(4)]
    np.testing.assert_array_equal(run(transform, 2), first[2])
    assert len({image.tobytes() for image in first}) == 4


def test_albumentations_gets_the_pixels_of_the_image() -> None:
    crop = albumentations.Compose([albumentations.Crop(2, 3, 12, 13)])
    np.testing.assert_array_equal(apply_transform(crop, IMAGE), np.asarray(IMAGE)[3:13, 2:12])


class _Adapter:
    """Albumentations inside a torchvision composition, as a user would write it."""

    def __init__(self, inner: Callable[..., object]) -> None:
        self.inner = inner

    def set_random_seed(self, seed: int) -> None:
        self.inner.set_random_seed(seed)  # type: ignore[attr-defined]

    def __call__(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(self.inner(image=np.asarray(image))["image"])  # type: ignore[index]
