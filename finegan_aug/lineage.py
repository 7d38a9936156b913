"""Where synthetic images come from, and whether they may meet this classifier's real images.

`lineage.json` beside a synthetic set names every real image that anything behind the set has used, and for what.
`check_lineage` is the firewall between the training part and the test part: docs/formats.md lists its rules.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from finegan_aug.data.duplicates import pixel_sha256
from finegan_aug.data.firewall import refuse_leaks
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.data.outside import is_storable, shown
from finegan_aug.errors import DataError, LeakError
from finegan_aug.files import JSON, read_json, write_json

LINEAGE = "lineage.json"
VERSION = 1
UNLABELLED = "unlabelled"
PHOTOGRAPHS = "photographs"  # kind of a set that shows no generated image but photographs, named by a teacher
ROLES = (
    "gan_train",
    "gan_selection",
    "code_map",
    "filter_teacher",
    "filter_threshold",
    "detector_train",
    "extractor_train",
    UNLABELLED,
)
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Lineage:
    """Everything that `lineage.json` says about a synthetic set."""

    real_images: Mapping[str, tuple[str, ...]]  # SHA-256 of decoded pixels -> roles, see ROLES
    classes: tuple[str, ...]  # names in the order of their labels
    data_manifest_sha256: str  # of the manifest that the generator was trained on
    generator: JSON  # kind, config_sha256, checkpoint_sha256, seen_images
    labels: str  # "tied" | "discovered"
    gan_data: str  # "s": images of the labelled budget only | "u": also others of the training part, without labels
    split: str = "train"
    fraction: float | None = None  # of the training part
    pair: int | None = None  # number of the draw
    code_to_class: tuple[int, ...] | None = None  # label of each child code, -1: abstains
    parents: tuple[JSON, ...] = field(default_factory=tuple)  # of anything built upon, see `imagenet_parent`

    def with_role(self, role: str, sha256s: Iterable[str]) -> Lineage:
        """The same lineage after these real images were also used for `role`."""
        assert role in ROLES, role
        images = dict(self.real_images)
        for sha256 in sha256s:
            images[sha256] = tuple(sorted({role, *images.get(sha256, ())}))
        return replace(self, real_images=images)


def imagenet_parent(used_by: str, name: str, sha256: str) -> JSON:
    """An entry of `parents`: the set imports features of a network that was trained on ImageNet.

    Args:
        used_by: judge, teacher, clusters or choice of the generator, labels of the set, or filter_teacher.
        name: of the network in timm.
        sha256: of its weights.
    """
    return {"kind": "pretrained features", "data": "ImageNet", "name": name, "sha256": sha256, "used_by": used_by}


def write_lineage(out_dir: Path, lineage: Lineage) -> None:
    """Write `lineage.json` into the folder of a synthetic set.

    Raises:
        DataError: a field has a value that no reader would accept.
        StorageError: the file cannot be written.
    """
    content = {"version": VERSION, **asdict(lineage), "classes": list(lineage.classes)}
    _parse(content, out_dir / LINEAGE)
    write_json(out_dir / LINEAGE, content)


def read_lineage(out_dir: Path) -> Lineage | None:
    """The lineage of a synthetic set, or None where the folder has none ("of unknown lineage").

    Raises:
        DataError: the file is unreadable or a field is wrong.
    """
    path = out_dir / LINEAGE
    return _parse(read_json(path), path) if path.exists() else None


def check_lineage(lineage: Lineage, data_manifest: Manifest, *, checkpoint_sha256: str | None = None) -> None:
    """Refuse a synthetic set that knows more than this classifier's data allow.

    Args:
        lineage: of the synthetic set.
        data_manifest: splits and labelled budget of the classifier: the budget manifest of this fraction and pair.
        checkpoint_sha256: of the generator's checkpoint where it is at hand; None leaves that comparison out.

    Raises:
        LeakError: 1. an image of the test split was used; 2. a labelled role outside the labelled budget, or an
            unlabelled one outside the training part or with gan_data "s", or a validation image among photographs that
            a teacher named; 3. another class order; 4. another checkpoint. (The other half of rule 4, the hash of each
            file, is checked when a file is loaded.)
    """
    if list(lineage.classes) != list(data_manifest.classes):
        raise LeakError(
            f"the lineage must list the classes of the data in their order {list(data_manifest.classes)}, "
            f"found {list(lineage.classes)}",
            "train the generator on the same scan as the classifier",
        )
    test = {image.sha256 for image in data_manifest.of("test")}
    validation = {image.sha256 for image in data_manifest.of("val")}
    training = {image.sha256 for image in data_manifest.of("train", "val")}
    labelled = {image.sha256 for image in data_manifest.of("train", "val", labelled=True)}
    for sha256, roles in lineage.real_images.items():
        shown = f"image {sha256[:12]} ({', '.join(roles)})"
        if sha256 in test:
            raise LeakError(
                f"no test image may stand behind synthetic images, found {shown}",
                "train the generator on the training part only",
            )
        if lineage.generator.get("kind") == PHOTOGRAPHS and sha256 in validation:
            raise LeakError(
                f"no validation image may be among named photographs or have taught their teacher, found {shown}",
                "name the photographs with the --fraction and --pair of the classifier",
            )
        if set(roles) == {UNLABELLED}:
            if lineage.gan_data != "u" or sha256 not in training:
                raise LeakError(
                    f"unlabelled images must lie in the training part, with gan_data 'u', found {shown} with "
                    f"gan_data {lineage.gan_data!r}",
                    "mix with the manifest that keeps the unlabelled images, or train the generator without them",
                )
        elif sha256 not in labelled:
            raise LeakError(
                f"the images behind a synthetic set must lie in the labelled budget of {len(labelled)} images, "
                f"found {shown}",
                "train the generator on the subset of this fraction and pair",
            )
    found = lineage.generator["checkpoint_sha256"]
    if checkpoint_sha256 is not None and found != checkpoint_sha256:
        raise LeakError(
            f"the generator's checkpoint must have SHA-256 {checkpoint_sha256[:12]}, found {str(found)[:12]}",
            "synthesize the set anew",
        )


def firewall(synthetic_dir: Path, data_manifest: Manifest | str | Path | None) -> str:
    """Check the lineage of a synthetic set against a classifier's data, as far as both are known.

    Returns:
        "unchecked" without a data manifest, "unknown" without a lineage, "checked" if both are there and agree.
        Only "checked" may stand behind a verdict.

    Raises:
        LeakError: see `check_lineage`; or a test image of the data is also a training image.
    """
    if data_manifest is None:
        return "unchecked"
    lineage = read_lineage(synthetic_dir)
    if lineage is None:
        return "unknown"
    manifest = data_manifest if isinstance(data_manifest, Manifest) else read_manifest(data_manifest)
    check_lineage(lineage, refuse_leaks(manifest))
    return "checked"


def refuse_copies(images: Iterable[Image.Image], synthetic_dir: Path, manifest: Manifest) -> None:
    """Refuse a set without a lineage that agrees if it holds a test image, and warn of it if it holds none.

    Args:
        images: PIL RGB, all of the set.

    Raises:
        LeakError: how many of them are test images, pixel by pixel.
    """
    test = {image.sha256 for image in manifest.of("test")}
    copies = sum(pixel_sha256(image) in test for image in images)
    if copies:
        raise LeakError(
            f"no test image may be mixed into the training, found {copies} of them in {synthetic_dir}",
            "name a folder of synthetic images",
        )
    warnings.warn(
        f"{synthetic_dir} has no lineage: none of its images equals a test image, and nothing else is known",
        stacklevel=2,
    )


def _parse(content: JSON, path: Path) -> Lineage:
    remedy = "restore the file or synthesize the set anew"

    def must(holds: bool, cause: str) -> None:
        if not holds:
            raise DataError(f"{path}: {cause}", remedy)

    names = {"version", *(item.name for item in fields(Lineage))}
    must(content.get("version") == VERSION, f"version must be {VERSION}, found {shown(content.get('version'))}")
    must(content.keys() == names, f"the keys must be {sorted(names)}, found {shown(sorted(content))}")
    images, classes, generator = content["real_images"], content["classes"], content["generator"]
    must(isinstance(images, dict), "real_images must be an object")
    for sha256, roles in images.items():
        good = isinstance(roles, list | tuple) and bool(roles) and all(role in ROLES for role in roles)
        must(
            good and bool(_HEX64.fullmatch(sha256)),
            f"real_images must map SHA-256 to roles, not {shown(sha256)} to {shown(roles)}",
        )
    must(_all(classes, str) and bool(classes), f"classes must be a list of names, found {shown(classes)}")
    must(isinstance(content["data_manifest_sha256"], str), "data_manifest_sha256 must be text")
    checked = isinstance(generator, dict) and isinstance(generator.get("checkpoint_sha256"), str)
    must(checked, "generator must be an object with checkpoint_sha256")
    must(
        content["labels"] in ("tied", "discovered"),
        f"labels must be tied or discovered, found {shown(content['labels'])}",
    )
    must(content["gan_data"] in ("s", "u"), f"gan_data must be s or u, found {shown(content['gan_data'])}")
    split, fraction, pair, codes = (content[key] for key in ("split", "fraction", "pair", "code_to_class"))
    # A split that may stand behind a synthetic set: the test part cannot be written down here at all.
    must(split in ("train", "val"), f"split must be train or val, found {shown(split)}")
    share = type(fraction) in (int, float) and 0 < fraction <= 1
    wanted = "fraction must be a share above 0 and at most 1, or null"
    must(fraction is None or share, f"{wanted}, found {shown(fraction)}")
    must(pair is None or type(pair) is int, f"pair must be a whole number or null, found {shown(pair)}")
    must(codes is None or _all(codes, int), f"code_to_class must be a list of labels or null, found {shown(codes)}")
    must(_all(content["parents"], dict), "parents must be a list of objects")
    must(is_storable(content), "the file must hold text in UTF-8 and finite numbers, at most 32 levels deep")
    values: dict[str, Any] = {key: content[key] for key in names - {"version"}}
    values["real_images"] = {sha256: tuple(roles) for sha256, roles in images.items()}
    values["classes"], values["parents"] = tuple(classes), tuple(content["parents"])
    values["code_to_class"] = None if codes is None else tuple(codes)
    return Lineage(**values)


def _all(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(type(item) is kind for item in value)
