"""Whether a batch can be cut as processes, shards and losses need it, and codes can be filled."""

from __future__ import annotations

from finegan_aug.config import FineGANConfig
from finegan_aug.errors import ConfigError


def check_sizes(config: FineGANConfig, processes: int, images: int) -> None:
    """Refuses parts of a batch that are uneven or too small for what looks at several images, and too many codes.

    Raises:
        ConfigError: see above.
    """
    part, parts = ("shard", config.shards) if config.shards else ("process", processes)
    if parts % processes:
        raise ConfigError(
            f"strict mode needs a number of processes that divides shards = {parts}, got {processes}",
            "launch another number of them or change --shards",
        )
    share, rest = divmod(config.batch_size, parts)
    if rest or share < 2:  # batch norm needs two images
        raise ConfigError(
            f"batch_size must be a multiple of the {parts} processes, 2 images or more each, got {config.batch_size}",
            "change --batch_size",
        )
    if config.batch_deviation and share % config.batch_deviation:
        raise ConfigError(
            f"the images of a {part} must be a multiple of batch_deviation = {config.batch_deviation}, got {share}",
            "change --batch_size or --batch_deviation",
        )
    if 0 < config.free_parent_share * share < 2:
        raise ConfigError(
            f"free_parent_share must draw 2 of the {share} images of a {part} or more, got {config.free_parent_share}",
            "raise --free_parent_share or set it to 0",
        )
    codes = config.num_children or 0
    if 2 * codes > images:
        raise ConfigError(
            f"every child code needs at least 2 training images, got {codes} codes for {images} images",
            "lower --modes_per_class or --num_children",
        )
