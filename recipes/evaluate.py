"""Measure a generator against photographs: FID, KID, IS, precision and recall, clustering.

    python recipes/evaluate.py runs/flowers --synthetic synthetic/flowers

Every number carries the network that gave its features, the number of images and the split. The same as
`finegan-aug evaluate`.
"""

from __future__ import annotations

import sys

from finegan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
