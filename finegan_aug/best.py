"""How good the averaged generator is while it trains: its kernel distance to the photographs it learns from.

Generated images can get worse with training where photographs are few, so the last checkpoint need not be the best.
Kernel distance (Binkowski et al., ICLR 2018, arXiv 1801.01401) is unbiased, so that few images suffice. Its features
are those of EfficientNet-Lite1: Lite0 trains generators (judge, teacher), Lite2 is kept for the measures of the report.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from finegan_aug.config import FineGANConfig
from finegan_aug.data.views import Crops
from finegan_aug.metrics import kid
from finegan_aug.models.finegan import Generator
from finegan_aug.packaged import LITE1, enlarged_px, packaged_extractor
from finegan_aug.randomness import permutation, seed_for
from finegan_aug.samples import sample

IMAGES = 500  # photographs, and images of each measurement: seconds, so that whoever stops a run need not wait


class DistanceToPhotographs:
    """Measures generators of one run against the same photographs, with the same noise and codes.

    On the CPU, whatever the device of the run.

    Args:
        config: of the run.
        crops: photographs it learns from; at most 500 of them are looked at, as central object crops.

    Raises:
        ConfigError: the package with the features is not installed.
    """

    def __init__(self, config: FineGANConfig, crops: Crops) -> None:
        self._config = config
        self._extractor = packaged_extractor(LITE1, input_px=enlarged_px(config.resolution, 1))
        chosen = permutation(seed_for(config.seed, "best/photographs"), len(crops))[:IMAGES]
        self._real = self._extractor.features(crops.objects_center_uint8(torch.from_numpy(chosen)).cpu())

    def kid(self, average: nn.Module) -> float:
        """Kernel distance of about 500 images, every child code equally often; lower is better."""
        on_cpu = copy.deepcopy(average).cpu()
        assert isinstance(on_cpu, Generator)
        images, _, _ = sample(on_cpu, self._config, IMAGES, seed_for(self._config.seed, "best/images"))
        return kid(real=self._real, fake=self._extractor.features(images), seed=self._config.seed).mean
