"""What a mixed data set is asked for, looked at before any item is: its options and the first real item."""

from __future__ import annotations

from PIL import Image

from finegan_aug.batch_mixing import check_alpha
from finegan_aug.data.transforms import (
    Transform,
    apply_transform,
    parts_with_seed,
    preserved_generators,
    seed_generators,
)
from finegan_aug.data.wrapped import Labels, MapDataset
from finegan_aug.errors import ConfigError, DataError


def check_options(alpha: float, mode: str, per_class: int | None) -> None:
    """Refuse what `SyntheticMixDataset` cannot do.

    Raises:
        ConfigError: alpha outside [0, 1], an unknown mode, per_class missing or out of place.
    """
    check_alpha(alpha)
    if mode not in ("replace", "append"):
        raise ConfigError(f"mode must be 'replace' or 'append', found {mode!r}", "choose one of the two")
    if (per_class is not None) != (mode == "append") or (per_class is not None and per_class < 0):
        raise ConfigError(
            f"per_class must be a number with mode 'append' and None with 'replace', found {per_class} with {mode!r}",
            "give per_class=100 with mode='append', or leave it out",
        )


def check_first_item(real: MapDataset, seed: int, transform: Transform | None, *, needs_pil: bool) -> str:
    """Refuse real images of another kind than the synthetic ones, as the first item shows.

    Returns:
        the PIL mode that synthetic images need for `transform` to give them the shape of real ones: "RGB", or that of
        grey or RGBA photographs which the transform leaves as they are.

    Raises:
        DataError: it is no pair, or holds no PIL image where the transform needs one.
    """
    with preserved_generators():
        seed_generators(seed)
        item = real[0]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(f"items of real must be (image, label), found {type(item).__name__}", "return a pair")
    if needs_pil and not isinstance(item[0], Image.Image):
        raise DataError(
            f"real must yield PIL images, on which transform= runs for real and synthetic alike, found "
            f"{type(item[0]).__name__}",
            "give the transform to one of the two alone: to real as its .transform, or to transform=",
        )
    if transform is None or item[0].mode not in ("L", "LA", "RGBA"):
        return "RGB"
    with preserved_generators():
        own, colour = (_shape(transform, image, seed) for image in (item[0], item[0].convert("RGB")))
    return "RGB" if own == colour else str(item[0].mode)


def _shape(transform: Transform, image: Image.Image, seed: int) -> tuple[int, ...] | None:
    seed_generators(seed, parts_with_seed(transform))
    return getattr(apply_transform(transform, image), "shape", None)


def check_labels(labels: Labels, num_items: int, num_classes: int) -> None:
    """Refuse labels that are none of these classes, or not one for each item.

    Raises:
        DataError: how many, or which label, was found.
    """
    if len(labels) != num_items or not num_items:
        raise DataError(f"real must have one label per item, found {len(labels)} for {num_items} items", "fill real")
    if int(labels.max()) >= num_classes or int(labels.min()) < 0:
        raise DataError(f"labels must lie below the {num_classes} classes, found {labels.max()}", "correct them")


def refuse_target_transform(found: tuple[object, ...]) -> None:
    """Soft labels are shares of the classes, which no transform of a number can take.

    Raises:
        ConfigError: there is a target transform.
    """
    if found:
        raise ConfigError(
            "soft_labels are shares of the classes, for which real must have no target_transform, found one",
            "leave soft_labels out, or take the target_transform away",
        )
