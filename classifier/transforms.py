"""From a PIL image to the input of a classifier: torchvision by default, timm's recipe, or albumentations."""

from __future__ import annotations

import math
import os
import random
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from finegan_aug.data.transforms import Transform
from finegan_aug.errors import ConfigError, DataError

from .config import ClassifierConfig


def train_transform(config: ClassifierConfig) -> Transform:
    """The random transform of one training image; its draws are seeded from outside, sample by sample."""
    side, scale = config.resolution, (config.crop_scale, 1.0)
    if config.augment == "none":
        return eval_transform(side)
    if config.augment == "albumentations":
        return _albumentations(side, scale)
    if config.augment == "timm":
        return _timm(side, scale)
    steps: list[Transform] = [RandomCropFlip(side, scale)]
    if config.augment == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR))
    elif config.augment == "rand":
        steps.append(v2.RandAugment(interpolation=InterpolationMode.BILINEAR))
    return _chain(*steps, v2.PILToTensor())


class RandomCropFlip:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip on a PIL image in one resize, at a third of their time.

    Args:
        side_px: of the square result.
        scale: smallest and largest area of the crop, share of the image.
        ratio: smallest and largest width of the crop over its height.
    """

    def __init__(self, side_px: int, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        self.side_px, self.scale, self.ratio = side_px, scale, ratio

    def __call__(self, image: Image.Image) -> Image.Image:
        """Draws from Python's generator: area, ratio, left, top, flip."""
        width, height = image.size
        area = width * height * random.uniform(*self.scale)
        ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        wide, high = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = (width - wide) * random.random(), (height - high) * random.random()
        size = (self.side_px, self.side_px)
        small = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
        return small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else small


def eval_transform(resolution: int) -> Transform:
    """The shorter side to `resolution`, then the central square; uint8 [3, S, S]."""
    return _chain(v2.Resize(resolution, antialias=True), v2.CenterCrop(resolution), v2.PILToTensor())


def to_tensor(image: object) -> Tensor:
    """What a transform returned, as uint8 [3, H, W] in 0..255, or as the float tensor it already is.

    Raises:
        DataError: it is neither an RGB image nor a tensor.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    if isinstance(image, Tensor) and image.ndim == 3:
        return image.as_subclass(Tensor)
    raise DataError(
        f"a transform must return an RGB image or a tensor [3, H, W], found {type(image).__name__}",
        "end it with PILToTensor or ToTensorV2",
    )


def _chain(*steps: Transform) -> Transform:
    """One after the other."""
    chain: Transform = v2.Compose(list(steps))
    return chain


def _timm(side: int, scale: tuple[float, float]) -> Transform:
    """timm's training recipe with RandAugment; mean 0 and deviation 1, since the batch is normalised later."""
    from timm.data.transforms_factory import create_transform

    transform: Transform = create_transform(
        side,
        is_training=True,
        scale=scale,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return _chain(transform, v2.ToDtype(torch.uint8, scale=True))


def _albumentations(side: int, scale: tuple[float, float]) -> Transform:
    """A strong pipeline of albumentations 2.0, the last release under the MIT licence.

    Raises:
        ConfigError: it is not installed, or AlbumentationsX stands in its place.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, which otherwise asks the package index
    try:
        version("albumentationsx")
    except PackageNotFoundError:
        pass
    else:
        raise ConfigError(
            "albumentations must be the MIT-licensed 2.0 release, found AlbumentationsX in its place",
            "pip uninstall albumentationsx; pip install 'albumentations>=2.0.8,<2.1'",
        )
    try:
        import albumentations as A
    except ImportError as error:
        raise ConfigError("albumentations is not installed", "pip install 'finegan-aug[classifier]'") from error
    pipeline: Transform = A.Compose(
        [
            A.RandomResizedCrop((side, side), scale=scale),
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-20, 20), shear=(-10, 10), p=0.5),
            A.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, p=0.7),
            A.CoarseDropout(p=0.3),
        ]
    )
    return pipeline
