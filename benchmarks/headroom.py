"""What could perfect synthetic images gain? The demo's classifier with none, with a set, or with real photographs.

    python -m benchmarks.headroom --steps 800 --lr 0.002                          the control R2
    python -m benchmarks.headroom --steps 800 --lr 0.002 --pool real              2,160 labelled photographs more
    python -m benchmarks.headroom --steps 800 --lr 0.002 --pool runs/demo-long/synthetic/0.1-0/filtered

One MobileNetV3-small on the 240 labelled animals of the demo, half of them replaced inside each step by the pool's. Its
accuracy is that on 1,200 animals drawn for this benchmark, so the test images of the demo stay closed. Where even
`real` gains nothing, no generator can.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from classifier.config import ClassifierConfig
from classifier.data import SquareImages
from classifier.training import train_classifier
from finegan_aug.data.budget import budget
from finegan_aug.data.folder import load_data
from finegan_aug.data.toy import NUM_TEST, TOY_CLASSES, write_toy
from finegan_aug.data.wrapped import MapDataset
from finegan_aug.files import read_json
from finegan_aug.mixing import SyntheticMixDataset
from recipes.arms import square_px
from recipes.pools import write_pool

VALIDATION_SEED = 7  # of the drawings: other animals than those of any training or test
RESOLUTION = 64


def main() -> None:
    """Draw, train, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="none", help="none, real, or the folder of a synthetic set")
    parser.add_argument("--alpha", type=float, default=0.5, help="share of the images replaced")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = ClassifierConfig(
        steps=options.steps, lr=options.lr, augment="flip-crop", mix_prob=0.3, resolution=RESOLUTION, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_toy(folder / "toy", resolution=RESOLUTION)
        write_toy(
            folder / "new", num_train=len(TOY_CLASSES), num_test=NUM_TEST, resolution=RESOLUTION, seed=VALIDATION_SEED
        )
        drawn = load_data(folder / "toy" / "train", test_data=folder / "toy" / "test")
        data = budget(drawn, 0.1, pair=0, validation_share=0.0, unlabelled="keep")
        new = load_data(folder / "new" / "test")
        side = square_px(RESOLUTION)
        real = SquareImages(data, data.of("train", "val", labelled=True), side)
        pool = None if options.pool == "none" else Path(options.pool)
        if options.pool == "real":
            rest = SquareImages(data, data.of("train", "val", labelled=False), side)
            pool = write_pool(folder / "pool", data.classes, rest.pixels, rest.targets)
        mixed: MapDataset = real
        if pool is not None:
            mixed = SyntheticMixDataset(real, pool, alpha=options.alpha, seed=config.seed, return_source=True)
        validation = SquareImages(new, list(new.images), RESOLUTION)
        run_dir = train_classifier(config, mixed, folder / "run", classes=data.classes, validation=validation)
        accuracy = read_json(run_dir / "result.json")["validation"]["accuracy"]
    print(f"pool {options.pool}, {options.steps} steps at {options.lr:g}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
