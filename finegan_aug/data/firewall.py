"""The border between the images that train and the images that test: no picture stands on both sides."""

from __future__ import annotations

from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import LeakError


def refuse_leaks(manifest: Manifest) -> Manifest:
    """The manifest, if no test image has the pixels of an image of train or val.

    A scan never makes such a manifest; a person who edits one, or writes it with a program, may.

    Raises:
        LeakError: names the first such pair and counts them.
    """
    seen = {image.sha256: image for image in manifest.of("train", "val")}
    leaks = [image for image in manifest.of("test") if image.sha256 in seen]
    if leaks:
        first, twin = leaks[0], seen[leaks[0].sha256]
        raise LeakError(
            f"no test image may also be a {twin.split} image, found {len(leaks)}, the first is {first.path}, "
            f"the same as {twin.path}",
            "scan the folder again, or remove one of the two rows",
        )
    return manifest
