"""Training in two processes of one thread each against one process with two threads, on the same global batch.

    python -m benchmarks.processes --preset slim-64 --rounds 7

Both run `recipes/train_finegan.py` on drawn animals, in turns and each time in a fresh launcher, and their own
metrics.jsonl is read: the whole training step with its data, loss records and, in two processes, the reduced gradients.
Compared are images a second after the first steps; the ratio is that of the medians, the spread that of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from finegan_aug.data.toy import write_toy

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "train_finegan.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
CONTENDERS = {"1 process, 2 threads": ("2", []), "2 processes, 1 thread": ("1", TORCHRUN)}


def images_a_second(threads: str, launcher: list[str], toy: Path, out: Path, options: argparse.Namespace) -> float:
    """One training of a few steps in fresh processes.

    Args:
        threads: of each process.
        launcher: what stands between the interpreter and the recipe.
        toy: folder of drawn photographs with boxes.
        out: run folder, not there yet.
    """
    line = [sys.executable, *launcher, str(RECIPE), "--data", str(toy / "train"), "--test_data", str(toy / "test")]
    line += ["--box_file", str(toy / "train_boxes.csv"), "--test_box_file", str(toy / "test_boxes.csv")]
    line += ["--out", str(out), "--preset", options.preset, "--batch_size", str(options.batch)]
    # One step more than is measured: the last one also draws grids and saves.
    total_kimg = (options.warm_up + options.steps + 1) * options.batch / 1000
    line += ["--precision", options.precision, "--total_kimg", str(total_kimg)]
    line += ["--log_kimg", str(options.batch / 1000)]
    done = subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": threads}, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    spent_sec = rows[options.warm_up + options.steps - 1]["sec"] - rows[options.warm_up - 1]["sec"]
    speed: float = options.batch * options.steps / spent_sec
    return speed


def main() -> None:
    """Measure and print one table; `--json` also writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="slim-64")
    parser.add_argument("--batch", type=int, default=32, help="images of one update, all processes together")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=5, help="steps")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as name:
        resolution = int(options.preset.split("-")[-1]) if "-" in options.preset else 128
        toy = write_toy(Path(name) / "toy", resolution=resolution, num_train=240, num_test=12)
        for number in range(options.rounds):
            for index, (contender, (threads, launcher)) in enumerate(CONTENDERS.items()):
                out = Path(name) / f"run-{number}-{index}"
                speeds[contender].append(images_a_second(threads, launcher, toy, out, options))
    alone, together = speeds.values()
    ratios = sorted(b / a for a, b in zip(alone, together, strict=True))
    result: dict[str, object] = {"preset": options.preset, "batch": options.batch, "precision": options.precision}
    result |= {"rounds": options.rounds, "steps": options.steps}
    result |= {f"images/s, {contender}": statistics.median(found) for contender, found in speeds.items()}
    result["ratio"] = statistics.median(together) / statistics.median(alone)
    result["spread_of_rounds"] = [ratios[0], ratios[-1]]
    for key, value in result.items():
        print(f"{key:<34}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
