"""Measure a generator against the photographs of its run: FID, KID, IS, precision and recall, classes, clustering.

    python recipes/evaluate.py runs/flowers --synthetic synthetic/flowers

Writes evaluation.json, audit.json and figures/ into the run folder. Every number carries the network that gave its
features, the number of images and the split; no test image is read. The same as `finegan-aug evaluate`.
"""

from __future__ import annotations

import sys

from finegan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
