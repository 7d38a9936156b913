"""Names of tensors: official prefix (kkanshul/finegan, code/model.py) to ours, in the official order.

What follows a prefix (weight, bias, running_mean, ...) is alike.
"""

from __future__ import annotations

RF = {"uncond_logits.0": "rf"}


def generator_names() -> dict[str, str]:
    """Of netG."""
    names = _code_trunk_names("h_net1_bg", "background_trunk") | {"img_net1_bg.img.0": "background_image"}
    names |= _code_trunk_names("h_net1", "object_trunk")
    for official, image, ours in (("h_net2", "img_net2", "parent"), ("h_net3", "img_net3", "child")):
        names |= _pair(f"{official}.jointConv", f"{ours}.joint")
        for r in range(2):
            block, residual = f"{official}.residual.{r}.block", f"{ours}.residual.{r}"
            names |= _pair(block, f"{residual}.first") | _pair(block, residual, first=3)
        names |= _pair(f"{official}.samesample", f"{ours}.squeeze")
        names |= {f"{image}.img.0": f"{ours}.image", f"{image}_mask.img.0": f"{ours}.mask"}
    return names


def _code_trunk_names(official: str, ours: str) -> dict[str, str]:
    names = {f"{official}.fc.0": f"{ours}.linear", f"{official}.fc.1": f"{ours}.norm"}
    for i in range(5):
        names |= _pair(f"{official}.upsample{i + 1}", f"{ours}.ups.{i}", first=1)
    return names


def background_names() -> dict[str, str]:
    """Of netD0."""
    names = {f"patchgan_img_code_s16.{i}": f"trunk.{i}" for i in (0, 2, 4)}
    return names | {"uncond_logits1.0": "aux", "uncond_logits2.0": "rf"}


def trunk_names() -> dict[str, str]:
    """Trunk of the parent and of the child discriminator."""
    names = {f"img_code_s16.{i}": f"trunk.{i}" for i in (0, 2, 3, 5, 6, 8, 9)}
    names |= {f"img_code_s32.{i}": f"trunk.{11 + i}" for i in (0, 1)}
    return names | {f"img_code_s32_1.{i}": f"trunk.{14 + i}" for i in (0, 1)}


def info_names(prefix: str = "") -> dict[str, str]:
    """The branch that reads a code."""
    return {"logits.0": f"{prefix}logits"} | {f"jointConv.{i}": f"{prefix}body.{i}" for i in (0, 1)}


def _pair(official: str, ours: str, first: int = 0) -> dict[str, str]:
    return {f"{official}.{first}": f"{ours}.conv", f"{official}.{first + 1}": f"{ours}.norm"}
