"""Training in two processes of one thread each against one process with two threads, on the same global batch.

    python -m benchmarks.processes --preset slim-64 --rounds 7
    python -m benchmarks.processes --preset slim-64 --rounds 7 --shards 4

Both run `recipes/train_finegan.py` on drawn animals, in turns and each time in a fresh launcher, and their own
metrics.jsonl is read: the whole training step with its data, loss records and, in two processes, the reduced gradients.
Compared are images a second after the first steps; the ratio is that of the medians, the spread that of the rounds.
With `--shards` strict mode is compared with plain training instead, in one and in two processes of one thread each.
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
ONE, TWO, ALONE = "1 process, 2 threads", "2 processes, 1 thread", "1 process, 1 thread"
LAUNCHES = {ONE: ("2", []), TWO: ("1", TORCHRUN), ALONE: ("1", [])}


def images_a_second(launch: str, shards: int, toy: Path, out: Path, options: argparse.Namespace) -> float:
    """One training of a few steps in fresh processes.

    Args:
        launch: one of `LAUNCHES`: threads of each process, and what stands between the interpreter and the recipe.
        shards: of strict mode; 0: plain.
        toy: folder of drawn photographs with boxes.
        out: run folder, not there yet.
    """
    threads, launcher = LAUNCHES[launch]
    line = [sys.executable, *launcher, str(RECIPE), "--data", str(toy / "train"), "--test_data", str(toy / "test")]
    line += ["--box_file", str(toy / "train_boxes.csv"), "--test_box_file", str(toy / "test_boxes.csv")]
    line += ["--out", str(out), "--preset", options.preset, "--batch_size", str(options.batch)]
    line += ["--shards", str(shards)]
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


def ratio(speeds: list[float], others: list[float]) -> dict[str, object]:
    """Of the medians, with the smallest and the largest of the rounds."""
    each = sorted(a / b for a, b in zip(speeds, others, strict=True))
    return {"ratio": statistics.median(speeds) / statistics.median(others), "spread_of_rounds": [each[0], each[-1]]}


def main() -> None:
    """Measure and print one table; `--json` also writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="slim-64")
    parser.add_argument("--batch", type=int, default=32, help="images of one update, all processes together")
    parser.add_argument("--shards", type=int, default=0, help="measure strict mode with so many")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=5, help="steps")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Each pair: the second is measured by the first.
    pairs = [((ONE, 0), (TWO, 0))]
    if options.shards:
        pairs = [((launch, 0), (launch, options.shards)) for launch in (ALONE, TWO)]
    speeds: dict[tuple[str, int], list[float]] = {contender: [] for pair in pairs for contender in pair}
    with tempfile.TemporaryDirectory() as name:
        resolution = int(options.preset.split("-")[-1]) if "-" in options.preset else 128
        toy = write_toy(Path(name) / "toy", resolution=resolution, num_train=240, num_test=12)
        for number in range(options.rounds):
            for index, (launch, shards) in enumerate(speeds):
                out = Path(name) / f"run-{number}-{index}"
                speeds[launch, shards].append(images_a_second(launch, shards, toy, out, options))
    result: dict[str, object] = {"preset": options.preset, "batch": options.batch, "precision": options.precision}
    result |= {"rounds": options.rounds, "steps": options.steps, "shards": options.shards}
    for (launch, shards), each in speeds.items():
        result[f"images/s, {launch}" + (", strict" if shards else "")] = statistics.median(each)
    for first, second in pairs:
        found = ratio(speeds[second], speeds[first])
        result |= {f"{key}, {second[0]}" if options.shards else key: value for key, value in found.items()}
    for key, value in result.items():
        print(f"{key:<44}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
