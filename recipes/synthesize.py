"""Write a folder of synthetic images for each class, and drop those that should not be used.

    python recipes/synthesize.py runs/flowers --out synthetic/flowers --per-class 500
    finegan-aug filter synthetic/flowers --data runs/flowers/data.jsonl

The same command again continues, and image 17 of a class has the same bytes however many are asked for. The same as
`finegan-aug synthesize`, as a file that a launcher can start.
"""

from __future__ import annotations

import sys

from finegan_aug.cli import main

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
