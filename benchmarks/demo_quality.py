"""How true are the demo's images? Judges trained on drawn truth name their classes and outline their objects.

    python -m benchmarks.demo_quality --run runs/demo/gan/0.1-0

The judges see 8,000 drawn animals that no generator has seen (indices from 100,000 on) through the crops of the
generator's training: a small CNN for the class, a small segmenter for the mask. Prints and writes JSON: the share of
generated images (240 of each class) that the CNN gives the class they were made for, and the mean overlap
(intersection over union) of generated masks with the segmenter's; beside both, the judges' own scores on real drawings.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.folder import load_data
from finegan_aug.data.toy import NUM_TEST, TOY_CLASSES, write_toy
from finegan_aug.data.views import Crops
from finegan_aug.disentanglement import overlap
from finegan_aug.files import read_json, write_json
from finegan_aug.fitting import fit_classifier
from finegan_aug.grids import to_uint8
from finegan_aug.randomness import normals, permutation, seed_for, uniforms
from finegan_aug.small_cnn import SmallClassifier
from finegan_aug.synthesis import load_generator

JUDGE_SEED = 1  # of the drawings: other animals than those of any training
STEPS, BATCH = 600, 64


def main() -> None:
    """Train the judges, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a generator trained on the drawn set")
    parser.add_argument("--images", type=int, default=2880, help="generated images to judge")
    parser.add_argument("--drawings", type=int, default=8000, help="drawn animals that the judges learn from")
    options = parser.parse_args()
    config = FineGANConfig.from_json(read_json(options.run / "config.json")["config"])
    with tempfile.TemporaryDirectory() as folder:
        train, test = drawn_crops(Path(folder), config, options.drawings)
    class_judge = fit_class_judge(train)
    segmenter = fit_segmenter(train)
    real = test.objects_center_uint8(torch.arange(len(test)))
    truth = test.masks_of_objects(torch.arange(len(test)), torch.full((len(test), 3), 0.5))
    assert truth is not None
    images, masks, labels = generated(options.run, config, options.images)
    named = class_judge.logits(images).argmax(dim=1)
    per_class = [float((named[labels == k] == k).float().mean()) for k in range(config.num_classes or 0)]
    result = {
        "run": options.run.name,
        "images": len(images),
        "class_consistency": float((named == labels).float().mean()),
        "class_consistency_by_class": [round(share, 3) for share in per_class],
        "mask_iou": float(overlap(masks > 0.5, outline(segmenter, images)).mean()),
        "judge_accuracy_on_drawings": float((class_judge.logits(real).argmax(dim=1) == test.labels).float().mean()),
        "segmenter_iou_on_drawings": float(overlap(truth > 0.5, outline(segmenter, real)).mean()),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    write_json(options.run / "quality.json", result)


def drawn_crops(folder: Path, config: FineGANConfig, count: int) -> tuple[Crops, Crops]:
    """Crops with masks of new drawings, cut as the generator's training crops were."""
    write_toy(folder, num_train=count, num_test=NUM_TEST, seed=JUDGE_SEED)
    manifest = load_data(
        folder / "train",
        test_data=folder / "test",
        masks=folder / "train_masks",
        test_masks=folder / "test_masks",
    )
    train, test = (
        build_crops(manifest, resolution=config.resolution, boxes="from_masks", records=manifest.of(split))
        for split in ("train", "test")
    )
    return train, test


def fit_class_judge(crops: Crops) -> SmallClassifier:
    """A small CNN that names the class of a drawn animal."""
    images = crops.objects_center_uint8(torch.arange(len(crops)))
    return fit_classifier(images, crops.labels, num_classes=len(TOY_CLASSES), seed=JUDGE_SEED, kimg=40.0)


def fit_segmenter(crops: Crops) -> nn.Module:
    """A small encoder and decoder, images [N, 3, S, S] to mask logits [N, 1, S, S]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(JUDGE_SEED, "segmenter"))
        network = nn.Sequential(
            *_layer(3, 24, 1), *_layer(24, 32, 2), *_layer(32, 48, 1), *_layer(48, 48, 1),
            nn.Upsample(scale_factor=2), *_layer(48, 24, 1), nn.Conv2d(24, 1, 3, padding=1),
        ).to(memory_format=torch.channels_last)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.from_numpy(permutation(seed_for(JUDGE_SEED, "segmenter", step), len(crops))[:BATCH])
        draws = torch.from_numpy(uniforms(seed_for(JUDGE_SEED, "crop", step), list(range(BATCH)), 3))
        masks = crops.masks_of_objects(chosen, draws)
        loss = F.binary_cross_entropy_with_logits(network(crops.objects(chosen, draws)), masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _layer(into: int, out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


@torch.no_grad()
def outline(segmenter: nn.Module, images: Tensor) -> Tensor:
    """Where the segmenter sees the object, bool [N, 1, S, S], in images uint8 [N, 3, S, S]."""
    return torch.cat([segmenter(batch.float() / 127.5 - 1) > 0 for batch in images.split(200)])


@torch.no_grad()
def generated(run: Path, config: FineGANConfig, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 [N, 3, S, S], the object's masks [N, 1, S, S] and classes int64 [N], all codes equally often."""
    generator = load_generator(run)
    codes = torch.arange(count) % (config.num_children or 1)
    z = torch.from_numpy(normals(seed_for(JUDGE_SEED, "quality"), list(range(count)), config.z_dim)).float()
    images, masks = [], []
    for z_part, code in zip(z.split(240), codes.split(240), strict=True):
        stages = generator(z_part, code)
        images.append(to_uint8(stages.child))
        masks.append(1 - (1 - stages.parent_mask) * (1 - stages.child_mask))
    return torch.cat(images), torch.cat(masks), codes // config.modes_per_class


if __name__ == "__main__":
    main()
