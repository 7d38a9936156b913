"""Losses of the three-stage generator, each a pure function of logits.

FineGAN (Singh, Ojha, Lee, CVPR 2019, arXiv 1811.11155), section 3, with the weights and labels of the authors'
code (kkanshul/finegan code/trainer.py). Logits, never probabilities; every function returns a scalar mean, in
float32 where the logits are of half precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def real_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits against "real": mean of -log sigmoid."""
    return F.softplus(-_wide(logits)).mean()


def fake_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits against "fake": mean of -log(1 - sigmoid)."""
    return F.softplus(_wide(logits)).mean()


def hinge_real_loss(logits: Tensor) -> Tensor:
    """Mean of max(0, 1 - logit): real images belong above 1 (Lim and Ye, arXiv 1705.02894, section 3)."""
    return F.relu(1 - _wide(logits)).mean()


def hinge_fake_loss(logits: Tensor) -> Tensor:
    """Mean of max(0, 1 + logit): generated images belong below -1 (as above)."""
    return F.relu(1 + _wide(logits)).mean()


def hinge_generator_loss(logits: Tensor) -> Tensor:
    """Mean of -logit: what the generator minimises where the discriminator has a hinge (as above)."""
    return -_wide(logits).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is 1; zero if the mask is empty. Same shapes, mask in {0, 1}."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def background_real_loss(logits: Tensor, outside: Tensor) -> Tensor:
    """Cross-entropy against "real" over the units that see background only.

    Args:
        logits: [N, 1, U, U], one logit for each patch of the real image.
        outside: [N, 1, U, U], 1 where the patch misses the object.
    """
    return masked_mean(F.softplus(-_wide(logits)), outside)


def background_aux_loss(logits: Tensor, outside: Tensor) -> Tensor:
    """Background (1) against foreground (0) for every patch of a real image; shapes as above."""
    return F.binary_cross_entropy_with_logits(logits, outside)


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean squared norm of the gradient of each image's logit, R1 (Mescheder, Geiger, Nowozin, ICML 2018, eq. 9).

    Args:
        logits: of the discriminator on `images`, summed; an image must influence its own logit only.
        images: [N, C, H, W] that require a gradient.
    """
    (gradient,) = torch.autograd.grad(_wide(logits).sum(), images, create_graph=True)
    return _wide(gradient).square().sum(dim=(1, 2, 3)).mean()


def code_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Information loss, equations 3 and 4 of the paper: cross-entropy of code logits [N, K], codes int64 [N]."""
    return F.cross_entropy(logits, codes)


def class_scores(logits: Tensor, modes_per_class: int) -> Tensor:
    """Class logits [N, C] from code logits [N, C * M], code = class * M + mode: the modes marginalised."""
    return _wide(logits).reshape(len(logits), -1, modes_per_class).logsumexp(dim=2)


def class_loss(logits: Tensor, labels: Tensor, modes_per_class: int) -> Tensor:
    """Cross-entropy of the class, marginalised over its modes, on real images; a label of -1 adds nothing.

    The gradient on the logits of the true class y is p(mode | y) * (P(y) - 1).
    """
    labelled = labels >= 0
    losses = F.cross_entropy(class_scores(logits, modes_per_class), labels, ignore_index=-1, reduction="sum")
    return losses / labelled.sum().clamp(min=1)


def parent_loss(logits: Tensor, parent: Tensor, child_to_parent: Tensor) -> Tensor:
    """-log of the probability that is given to the child codes of a parent, together; mean over images.

    Args:
        logits: of child codes [N, num_children].
        parent: int64 [N].
        child_to_parent: int64 [num_children]; each parent has a child.
    """
    scores = _wide(logits)
    own = scores.masked_fill(child_to_parent != parent[:, None], -torch.inf)
    return (scores.logsumexp(dim=1) - own.logsumexp(dim=1)).mean()


def mask_size_loss(mask: Tensor, smallest: float, largest: float) -> Tensor:
    """Keeps the area of each mask [N, 1, H, W] in (0, 1) between two shares of the image (naver-ai/c3-gan train.py).

    Mean over images of relu(smallest - area) + relu(area - largest).
    """
    area = mask.float().mean(dim=(1, 2, 3))
    return (F.relu(smallest - area) + F.relu(area - largest)).mean()


def mask_entropy_loss(mask: Tensor) -> Tensor:
    """Makes masks [N, 1, H, W] in (0, 1) say yes or no: mean binary entropy in bits (naver-ai/c3-gan train.py)."""
    p = mask.float().clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()


def mask_tie_loss(parent_mask: Tensor, child_mask: Tensor) -> Tensor:
    """Makes parent and child draw one outline: mean of 1 - intersection over union (Rahman and Wang, ISVC 2016).

    Both masks learn: the parent's grows where the child draws and shrinks elsewhere, the child's stays on the parent's.
    Intersections are products, so that only decided masks overlap fully: two of the same grey a reach a / (2 - a), a
    parent grey a under a decided child at most a. Full masks overlap too; against those there is `mask_size_loss`.

    Args:
        parent_mask, child_mask: [N, 1, H, W] in (0, 1).
    """
    parent, child = _wide(parent_mask), _wide(child_mask)
    both = (parent * child).sum(dim=(1, 2, 3))
    either = (parent + child).sum(dim=(1, 2, 3)) - both
    return (1 - both / either.clamp(min=1)).mean()  # less than a pixel counts as empty: no overlap


def spread(images: Tensor) -> Tensor:
    """How different neighbours are in layout and colour: mean absolute difference of images 2i and 2i + 1, at 8 x 8.

    Args:
        images: [N, C, H, W], sides of at least 8; of an odd number the last is left out.

    Returns:
        float32 [N // 2], at least 0.
    """
    small = F.adaptive_avg_pool2d(_wide(images), 8)
    pairs = len(small) // 2 * 2
    return (small[0:pairs:2] - small[1:pairs:2]).abs().mean(dim=(1, 2, 3))


def spread_loss(fake: Tensor, same_code: Tensor, real: Tensor) -> Tensor:
    """Keeps generated pairs of one code as far apart as pairs of photographs are, a cure for one picture per code.

    Mean of relu(1 - spread of the pair / mean spread of photographs) over the pairs of one code; zero if there is none.
    Pushing noises apart is that of Mao et al., CVPR 2019, arXiv 1903.05628, equation 2, and the bound that of Yang et
    al., ICLR 2019, arXiv 1901.09024, equation 3, here taken from the photographs.

    Args:
        fake, real: as from `spread`, [P] and [Q]; no gradient reaches `real`.
        same_code: bool [P].
    """
    missing = F.relu(1 - fake / real.detach().mean().clamp(min=1e-6))
    return masked_mean(missing, same_code.to(missing.dtype))


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """L2 norm of the gradients of all parameters of an optimiser together, a scalar on their device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def _wide(logits: Tensor) -> Tensor:
    """Half precision to float32: autocast on the CPU leaves softplus and logsumexp in half."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
