"""Where objects lie in photographs, so that generated objects can be put there.

A generator that learns from object crops draws every object large and centred; photographs show it smaller and
anywhere. Its masks allow both: foreground and mask are moved before they are put on the generated background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from finegan_aug.data.manifest import Manifest
from finegan_aug.data.objects import BoxSource, find_objects

SEEN_SHARE = 64 / 76  # of the object square's side: what a random crop of the training cache shows


def object_places(manifest: Manifest, boxes: BoxSource) -> Tensor:
    """Object squares of the training photographs, float32 [N, 3]: centre x, centre y and side.

    Coordinates of the largest central square of each photograph: -1 to 1, so a side of 2 fills it.
    """
    records = manifest.of("train")
    found = torch.from_numpy(find_objects(manifest, records, boxes).boxes)
    size = torch.tensor([[record.width, record.height] for record in records], dtype=torch.float64)
    half = size.min(dim=1, keepdim=True).values / 2
    centre = ((found[:, :2] + found[:, 2:]) / 2 - size / 2) / half
    # The square of the training crops (data.objects.object_square), before it is clipped to the photograph.
    side = 1.5 * (found[:, 2:] - found[:, :2]).max(dim=1, keepdim=True).values / half * SEEN_SHARE
    return torch.cat([centre, side], dim=1).float()


def placement_grid(places: Tensor, u: Tensor, canvas_px: int) -> Tensor:
    """Sampling grids [N, canvas, canvas, 2] that show a crop at the place of a random training photograph.

    Args:
        places: from `object_places`.
        u: uniform float64 [N, 2]: which photograph, and mirrored or not.
    """
    chosen = places[(u[:, 0] * len(places)).long()]
    centre, scale = chosen[:, :2].clone(), chosen[:, 2:] / 2
    centre[:, 0] *= torch.where(u[:, 1] < 0.5, -1.0, 1.0)
    inverse = 1 / scale
    zero = torch.zeros_like(inverse)
    theta = torch.stack(
        [
            torch.cat([inverse, zero, -centre[:, :1] * inverse], 1),
            torch.cat([zero, inverse, -centre[:, 1:] * inverse], 1),
        ],
        dim=1,
    )
    return F.affine_grid(theta, [len(u), 1, canvas_px, canvas_px], align_corners=True)
