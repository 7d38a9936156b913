"""Are the classes found without their labels? The generator's codes beside k-means on pixels and on frozen features.

    python -m benchmarks.discovery --run runs/demo-discovered

The photographs are the training images of the run (its data.jsonl) as central object crops; their folders are the
truth, also for images outside the labelled budget, since this is a measure. No test image is read. Two small networks
learn from generated images alone which child and which parent code an image has, and name the photographs' codes;
`finegan_aug.discovery` names the methods. A further row, `head`, is the child code that the training's own information
head reads in the photographs; with `clusters` it has learned from them. Pixels are reduced to at most 50 principal
components. Prints one table, means over the seeds with the lowest and highest value, and writes every value as JSON.
With tied labels the codes were told the classes: their row is no discovery then.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from finegan_aug.checkpoint import best_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import read_manifest
from finegan_aug.data.row_fields import NO_CLASS
from finegan_aug.discovery import Codes, compare_groups, over_seeds
from finegan_aug.errors import ConfigError
from finegan_aug.evaluation import clustering_rows
from finegan_aug.features import Extractor
from finegan_aug.files import JSON, write_json
from finegan_aug.models.game import FineGAN
from finegan_aug.packaged import enlarged_px, packaged_extractor
from finegan_aug.restoring import load_into, named_tensors
from finegan_aug.samples import sample
from finegan_aug.trained import open_run


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a generator")
    parser.add_argument("--out", type=Path, help="JSON file (default: discovery.json in the run folder)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each a repetition")
    parser.add_argument("--samples", type=int, default=4000, help="generated images that the networks learn from")
    parser.add_argument("--kimg", type=float, default=20.0, help="length of training of each network")
    parser.add_argument("--adapt", action="store_true", help="the networks also learn sure answers on the photographs")
    options = parser.parse_args(argv)
    run = open_run(options.run)
    config, generator = run.config, run.generator
    images, truth = photographs(options.run, config)
    read = head_codes(options.run, config, images)
    num_children, num_parents = generator.child.joint.num_codes, generator.parent.joint.num_codes
    rows = compare_groups(
        images,
        truth,
        codes=Codes(lambda count, seed: sample(generator, config, count, seed), num_children, num_parents),
        extractors=frozen_extractors(config.resolution),
        seeds=options.seeds,
        num_generated=options.samples,
        kimg=options.kimg,
        adapt=options.adapt,
    )
    if read is not None:
        base: JSON = {"extractor": "information head", "extractor_sha256": None, "n_real": len(images), "n_fake": 0}
        head = clustering_rows(labels=truth.numpy(), clusters=read.numpy(), base={**base, "split": "train"})
        rows = [{"method": "head", "seed": options.seeds[0], **row} for row in head] + rows
    result: JSON = {
        "run": options.run.name,
        "checkpoint_sha256": run.checkpoint_sha256,
        "labels": config.labels,
        "clusters": config.clusters,
        "num_children": num_children,
        "num_parents": num_parents,
        "num_classes": len(torch.unique(truth)),
        "n": len(images),
        "split": "train",
        "seeds": options.seeds,
        "samples": options.samples,
        "kimg": options.kimg,
        "adapt": options.adapt,
        "summary": over_seeds(rows),
        "rows": rows,
    }
    print_table(result)
    write_json(options.out or options.run / "discovery.json", result)


def photographs(run: Path, config: FineGANConfig) -> tuple[Tensor, Tensor]:
    """Training images of a run, central object crops uint8 [N, 3, S, S], and their classes, int64 [N].

    Photographs that nobody knows the class of are not among them.
    """
    crops = build_crops(
        read_manifest(run / "data.jsonl"),
        resolution=config.resolution,
        boxes=config.boxes,
        official=config.official_crops,
        cache_dir=run / "crops",
    )
    # Crops.labels hides classes outside the labelled budget.
    truth = torch.tensor([record.label for record in crops.records])
    told = (truth != NO_CLASS).nonzero()[:, 0]
    return crops.objects_center_uint8(told), truth[told]


@torch.no_grad()
def head_codes(run: Path, config: FineGANConfig, images: Tensor) -> Tensor | None:
    """Child code that the information head of the run's best checkpoint reads in images uint8 [N, 3, S, S], int64 [N].

    None for a run that holds no more than a generator.
    """
    checkpoint = best_checkpoint(run)
    held = load_checkpoint(checkpoint)[0].get("model", {}) if checkpoint else {}
    game = FineGAN(config)
    readers = named_tensors({"child_d": game.child_d, "info": game.info})
    if not readers.keys() <= held.keys():
        return None
    load_into(readers, {name: held[name] for name in readers})
    child_d, info = game.child_d.eval(), game.info.eval()
    codes = []
    for part in images.split(256):
        features, _ = child_d(part.float() / 127.5 - 1, torch.full((len(part),), -1))
        codes.append(info(features).argmax(dim=1))
    return torch.cat(codes)


def frozen_extractors(resolution: int) -> list[Extractor]:
    """The packaged ImageNet network at the side that `evaluate` uses; none, and a line about it, if not installed."""
    try:
        return [packaged_extractor(input_px=enlarged_px(resolution, 2))]
    except ConfigError as error:
        print(f"without frozen features: {error}")
        return []


def print_table(result: JSON) -> None:
    """A line for each method, a column for each metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in result["summary"]))
    print(
        f"{result['n']} photographs of {result['num_classes']} classes, split {result['split']}; {result['labels']} "
        f"labels, {result['num_children']} child and {result['num_parents']} parent codes; seeds {result['seeds']}"
    )
    print(f"{'method':<8}" + "".join(f"{metric:>22}" for metric in metrics) + "  extractor")
    for method, extractor in dict.fromkeys((row["method"], row["extractor"]) for row in result["summary"]):
        cells = [row for row in result["summary"] if (row["method"], row["extractor"]) == (method, extractor)]
        numbers = (f"{row['mean']:.3f} ({row['lowest']:.3f}-{row['highest']:.3f})" for row in cells)
        print(f"{method:<8}" + "".join(f"{number:>22}" for number in numbers) + f"  {extractor}")


if __name__ == "__main__":
    main()
