"""Real images with synthetic ones mixed in: as a data set, or as a hook on a batch.

Every choice is a function of (seed, epoch, index), so workers, processes and resumed runs agree.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from finegan_aug.batch_mixing import SyntheticMix
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.transforms import (
    Transform,
    draws_from_torch_alone,
    of_image,
    parts_with_seed,
    preserved_generators,
    seed_generators,
)
from finegan_aug.data.wrapped import (
    Labels,
    MapDataset,
    all_inside,
    chain_of,
    classes_of,
    is_library_made,
    is_number,
    is_shares,
    labels_of,
    path_of,
    transforms_of,
)
from finegan_aug.lineage import firewall
from finegan_aug.mixing_checks import check_first_item, check_labels, check_options, refuse_target_transform
from finegan_aug.randomness import seed_for, seeds, uniforms
from finegan_aug.synthetic_index import ClassPools, open_index

__all__ = ["Samples", "SyntheticMix", "SyntheticMixDataset"]


class SyntheticMixDataset(Dataset[Any]):
    """A data set of (image, label) in which some images are synthetic, of the same class.

    Args:
        real: map data set of (image, label): ImageFolder, Subset, timm's ImageDataset, or anything whose labels
            are reachable (`finegan_aug.data.wrapped`). Real images are loaded by it.
        synthetic: folder written by `synthesize`, or any folder with one sub-folder per class.
        alpha: probability that an item of mode "replace" is synthetic. It gets another image of its class each
            epoch, until the class has no more.
        mode: "replace" keeps the length of `real`. "append" adds `per_class` synthetic items of each class behind
            the real ones, other images each epoch.
        per_class: needed by, and only used in, mode "append".
        seed: of all choices, and of the random transforms.
        transform: runs on the PIL image, real or synthetic alike, seeded by (seed, epoch, index). None: the
            transform of `real` itself is used for both. May be set later, as timm's `create_loader` does.
        target_transform: runs on the label, after that of `real`.
        return_source: items are (image, label, is_synthetic).
        soft_labels: labels are shares of the classes, float32 [C]: of a synthetic image what the teacher that filtered
            the set said of it, of a real one 1 for its class, unless `real` yields shares itself.
        data_manifest: budget manifest of this classifier, or its file. Switches the firewall on: the lineage of the
            set is checked against it, and each synthetic file against its hash.

    A class without a kept synthetic image falls back to its real images; see `shortfall`.

    Raises:
        ConfigError: alpha outside [0, 1], an unknown mode, per_class missing or out of place; soft_labels with a
            target transform of `real`.
        DataError: class names differ, labels are not reachable, `real` does not yield PIL images that the
            transform needs, or the set has no soft labels.
        LeakError: the lineage breaks the firewall.
    """

    def __init__(
        self,
        real: MapDataset,
        synthetic: str | Path,
        *,
        alpha: float = 0.2,
        mode: Literal["replace", "append"] = "replace",
        per_class: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        return_source: bool = False,
        soft_labels: bool = False,
        data_manifest: Manifest | str | Path | None = None,
    ) -> None:
        check_options(alpha, mode, per_class)
        self.real, self.synthetic = real, open_index(synthetic)
        self._chain, self._inside = chain_of(real), all_inside(real)  # dearer than all that is done for an item
        self.alpha, self.mode, self.per_class, self.seed = alpha, mode, per_class, seed
        self.transform, self.target_transform, self.return_source = transform, target_transform, return_source
        self.lineage_status = firewall(self.synthetic.root, data_manifest)
        self._verify_files = data_manifest is not None
        labels, names = labels_of(real), classes_of(real)
        self.classes = list(names or self.synthetic.header.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._pools = ClassPools(self.synthetic, self.classes)
        check_labels(labels, len(real), len(self.classes))
        self._real_labels = labels
        self._labels = np.concatenate([labels, np.repeat(np.unique(labels), per_class or 0)])
        # Shared memory: a plain attribute set in the main process never reaches persistent workers.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._plans: OrderedDict[int, tuple[Labels, Labels]] = OrderedDict()
        self._seen: tuple[tuple[Transform, ...], Transform | None] | None = None
        self._steps: tuple[Transform, ...] = ()
        self._parts, self._torch_alone = parts_with_seed(None), False
        needs_pil = transform is not None or not transforms_of(self._chain)
        self._pil_mode = check_first_item(real, seed, transform, needs_pil=needs_pil)
        self._columns = self._soft_columns() if soft_labels else None
        empty = [self.classes[c] for c in np.unique(labels) if not self._pools.sizes[c]]
        if empty and (alpha > 0 or mode == "append"):
            warnings.warn(f"no kept synthetic image of {', '.join(empty)}: real ones are used", stacklevel=2)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Any, ...]:
        """Item of the current epoch, or of the epoch in a key (epoch, index)."""
        steps = self._ready()
        with preserved_generators(torch_alone=self._torch_alone):
            return self._item(key, steps)

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[tuple[Any, ...]]:
        """The items of a batch, as the DataLoader asks for them: the generators are put back once, not per item."""
        steps = self._ready()
        with preserved_generators(torch_alone=self._torch_alone):
            return [self._item(key, steps) for key in keys]

    def _ready(self) -> tuple[Transform, ...]:
        """The transforms of an image, after a look at whether somebody has changed them."""
        seen = (transforms_of(self._inside), self.transform)
        if seen != self._seen:
            inner, own = seen
            steps = transforms_of(self._chain) if own is None else (own,)
            self._seen, self._steps = seen, tuple(map(of_image, steps))
            self._parts = tuple(part for step in {*inner, *steps} for part in parts_with_seed(step))
            self._torch_alone = is_library_made(self.real) and all(map(draws_from_torch_alone, (*inner, *steps)))
        return self._steps

    def _item(self, key: int | tuple[int, int], steps: tuple[Transform, ...]) -> tuple[Any, ...]:
        epoch, index = key if isinstance(key, tuple) else (self.epoch, key)
        index = self._position(index)
        plan, item_seeds = self._drawn(epoch)
        place = int(plan[index])
        seed_generators(int(item_seeds[index]), self._parts, torch_alone=self._torch_alone)
        if place < 0:
            image, label = self.real[~place][:2]
            label = label if self._columns is None else self._shares(label)
            steps = steps if self.transform is not None else ()  # `real` has already run its own
        else:
            image, label = self.synthetic.image(place, verify=self._verify_files), int(self._labels[index])
            image = image if self._pil_mode == "RGB" else image.convert(self._pil_mode)
            for target_step in transforms_of(self._chain, "target_transform"):
                label = target_step(label)
            if self._columns is not None:
                label = torch.from_numpy(self.synthetic.soft_labels[place, self._columns])
        for step in steps:
            image = step(image)
        label = int(label) if is_number(label) else label  # real and synthetic labels meet in one batch
        label = label if self.target_transform is None else self.target_transform(label)
        return (image, label, place >= 0) if self.return_source else (image, label)

    @property
    def epoch(self) -> int:
        """The epoch that plain indices mean."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch for plain indices, also in running workers; of an Accelerate loader, set its own."""
        self._epoch.fill_(epoch)

    def real_only(self) -> SyntheticMixDataset:
        """The same items without a synthetic one, through the same transforms; its epoch is that of this data set."""
        found = copy.copy(self)
        found._pools = self._pools.emptied()
        return found

    def is_synthetic(self, index: int) -> bool:
        """Whether the item is synthetic in the current epoch."""
        return bool(self._plan(self.epoch)[self._position(index)] >= 0)

    @property
    def targets(self) -> list[int]:
        """Label of every item, the same in every epoch, before any target transform."""
        return [int(label) for label in self._labels]

    @property
    def samples(self) -> Samples:
        """(file, label) of every item in the current epoch, looked up when asked for."""
        return Samples(self)

    @property
    def shortfall(self) -> dict[str, int]:
        """Items of the current epoch that stayed real because their class has no kept synthetic image, by class."""
        wanted = self._wanted(self.epoch) & (self._plan(self.epoch) < 0)
        counts = np.bincount(self._labels[wanted], minlength=len(self.classes))
        return {self.classes[c]: int(counts[c]) for c in np.flatnonzero(counts)}

    def __repr__(self) -> str:
        how = f"replace, alpha={self.alpha}" if self.mode == "replace" else f"append, per_class={self.per_class}"
        return (
            f"SyntheticMixDataset({len(self)} items, {len(self._real_labels)} of them in real, "
            f"{len(self.classes)} classes; {how}; {sum(self._pools.sizes)} of {len(self.synthetic)} synthetic images "
            f"kept; seed={self.seed}, epoch={self.epoch}; lineage {self.lineage_status})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": OrderedDict(), "_seen": None, "_steps": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # plain pickle and deepcopy make it private

    def _position(self, index: int) -> int:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range for {len(self)} items")
        return place % len(self)

    def _wanted(self, epoch: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which items should be synthetic in this epoch, bool [N]."""
        count = len(self._real_labels)
        if self.mode == "append":
            return np.arange(len(self)) >= count
        return uniforms(seed_for(self.seed, "mix", epoch), np.arange(count), 1)[:, 0] < self.alpha

    def _plan(self, epoch: int) -> Labels:
        """Of every item, int64 [N]: entry of the synthetic set, or ~i for item i of `real`."""
        return self._drawn(epoch)[0]

    def _drawn(self, epoch: int) -> tuple[Labels, Labels]:
        """The plan of an epoch and the seed of every item in it, drawn once for all items."""
        if epoch not in self._plans:
            item_seeds = seeds(seed_for(self.seed, "augment", epoch), np.arange(len(self)))
            self._plans[epoch] = self._draw_plan(epoch), item_seeds
            while len(self._plans) > 2:  # a batch of (epoch, index) keys may span two epochs
                self._plans.popitem(last=False)
        return self._plans[epoch]

    def _draw_plan(self, epoch: int) -> Labels:
        count, extra = len(self._real_labels), self._labels[len(self._real_labels) :]
        plan = ~np.arange(len(self))
        if self.mode == "replace":
            place = np.flatnonzero(self._wanted(epoch) & (self._pools.sizes[self._labels] > 0))
            # Each item walks through its class from a place of its own, so no image comes twice before all came once.
            start = uniforms(seed_for(self.seed, "mix-start"), place, 1)[:, 0]
            plan[place] = self._pools.entries(self._labels[place], start, np.full(len(place), epoch))
            return plan
        start = uniforms(seed_for(self.seed, "mix-start"), extra, 1)[:, 0]  # one walk per class
        turn = epoch * (self.per_class or 0) + np.arange(len(extra)) % max(self.per_class or 0, 1)
        filled = self._pools.sizes[extra] > 0
        plan[count:][filled] = self._pools.entries(extra[filled], start[filled], turn[filled])
        for gap in np.flatnonzero(~filled):
            own = np.flatnonzero(self._real_labels == extra[gap])
            plan[count + gap] = ~own[turn[gap] % len(own)]
        return plan

    def _soft_columns(self) -> list[int]:
        """Columns of the set's soft labels in the order of the classes."""
        refuse_target_transform(transforms_of(self._inside, "target_transform"))
        _ = self.synthetic.soft_labels  # what is wrong with them is said here, not in a worker
        return self._pools.columns

    def _shares(self, label: Any) -> torch.Tensor:
        """A real label as shares of the classes, float32 [C]."""
        if is_shares(label):
            return cast(torch.Tensor, label)
        return torch.zeros(len(self.classes)).index_fill_(0, torch.tensor(int(label)), 1.0)


class Samples(Sequence[tuple[str | None, int]]):
    """(file, label) of the items of a mixed data set, by index or (epoch, index); None where nothing names it."""

    def __init__(self, mixed: SyntheticMixDataset) -> None:
        self._mixed = mixed

    def __len__(self) -> int:
        return len(self._mixed)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        mixed = self._mixed
        epoch, index = index if isinstance(index, tuple) else (mixed.epoch, index)
        index = mixed._position(index)
        place = int(mixed._plan(epoch)[index])
        path = str(mixed.synthetic.path(place)) if place >= 0 else path_of(mixed.real, ~place)
        return path, int(mixed._labels[index])
