"""Train a generator on a folder of photographs, in one process or many.

    accelerate launch recipes/train_finegan.py --config recipes/configs/flowers.yaml --data DIR --out runs/flowers

The same command again resumes. `--dry-run` makes two steps and projects time, memory and disk; `--help` lists every
option. The same as `finegan-aug train`, as a file that a launcher can start.
"""

from __future__ import annotations

import sys

from finegan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
