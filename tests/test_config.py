"""The configuration: presets, refusals, what is inferred, and the way through JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from finegan_aug.config import FineGANConfig
from finegan_aug.errors import ConfigError
from finegan_aug.presets import WIDTHS

PRESETS = ("classic", "slim-32", "slim-64", "slim-128", "slim-256")


def test_the_examples_of_the_contract_work() -> None:
    tied = FineGANConfig.preset("slim-32", labels="tied", num_classes=12, modes_per_class=2, num_parents=4)
    assert (tied.resolution, tied.num_children, tied.num_parents) == (32, 24, 4)
    free = FineGANConfig.preset("slim-32", labels="discovered", num_children=24, num_parents=4)
    assert (free.labels, free.num_children, free.num_parents, free.num_classes) == ("discovered", 24, 4, None)
    assert tied.resolve(12).child_to_parent == tuple(c // 6 for c in range(24))
    assert free.resolve(12).child_to_parent == tuple(c // 6 for c in range(24))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_size_and_comes_back_from_json(name: str) -> None:
    config = FineGANConfig.preset(name)
    assert config.network == name
    assert config.resolution == (128 if name == "classic" else int(name.removeprefix("slim-")))
    for way in (config, config.resolve(40)):
        back = FineGANConfig.from_json(json.loads(json.dumps(way.to_json())))
        assert back == way
        assert hash(back) == hash(way)  # lists have become tuples again


def test_every_network_has_a_preset_and_doubles_up_to_its_resolution() -> None:
    assert set(WIDTHS) == set(PRESETS)
    for name, widths in WIDTHS.items():
        side = FineGANConfig.preset(name).resolution
        assert 4 << (len(widths.background) - 1) == side
        assert 4 << (len(widths.object) - 1 + len(widths.tail)) == side


@pytest.mark.parametrize("values", [{"labels": "tied"}, {"clusters": True}], ids=str)
def test_classic_teaches_classes_and_clusters_as_slim_does_where_photographs_have_them(values: dict[str, Any]) -> None:
    weights = [
        (config.class_weight, config.composite_code_weight)
        for config in (FineGANConfig.preset("classic", **values), FineGANConfig.preset("slim-128"))
    ]
    assert weights == [(1.0, 1.0), (1.0, 1.0)]
    assert FineGANConfig.preset("classic", **values).num_children is None  # counted from the data
    asked = FineGANConfig.preset("classic", labels="discovered", clusters=True, num_children=30, class_weight=0.5)
    assert (asked.num_children, asked.class_weight) == (30, 0.5)


def test_classic_has_the_official_settings() -> None:
    """kkanshul/finegan code/cfg/train.yml and code/trainer.py; 600 epochs of 736 updates at batch 16."""
    classic = FineGANConfig.preset("classic")
    assert (classic.z_dim, classic.ndf, classic.width, classic.batch_size) == (100, 64, 1.0, 16)
    assert (classic.lr, classic.beta1, classic.beta2, classic.lr_decay) == (2e-4, 0.5, 0.999, 0.0)
    assert classic.hard_negative_step == 600 * 736
    assert classic.total_kimg - classic.hard_negative_kimg == pytest.approx(600 * 736 * 16 / 1000)
    assert classic.hard_negative_kimg * 1000 == pytest.approx(736 * 16, rel=0.01)
    assert (classic.hard_negative_from_ema, classic.official_crops) == (True, False)
    assert (classic.num_children, classic.num_parents, classic.background_weight) == (200, 20, 10.0)
    assert (classic.d_norm, classic.labels, classic.balanced_codes) == ("batch", "discovered", False)
    assert (classic.diffaugment, classic.ema_ramp) == ((), None)
    assert (classic.class_weight, classic.composite_code_weight) == (0.0, 0.0)
    assert (classic.mask_size_weight, classic.mask_entropy_weight) == (0.0, 0.0)
    assert classic.resolve(200).child_to_parent == tuple(c // 10 for c in range(200))


def test_classic_with_tied_labels_counts_its_codes_from_the_classes_and_learns_them() -> None:
    config = FineGANConfig.preset("classic", labels="tied").resolve(7)
    assert (config.num_children, config.num_parents) == (14, 2)
    assert (config.class_weight, config.composite_code_weight) == (1.0, 1.0)
    assert FineGANConfig.preset("classic", labels="tied", class_weight=0.5).class_weight == 0.5


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"network": "slim-65"},
        "network must be one of classic, slim-32, slim-64, slim-128, slim-256, got 'slim-65'; change --preset",
    ),
    ({"resolution": 32}, "resolution must be 64 for preset slim-64, got 32; use --preset slim-32"),
    ({"resolution": 48}, "resolution must be 64 for preset slim-64, got 48; drop --resolution"),
    ({"labels": "tide"}, "labels must be one of tied, discovered, got 'tide'; change --labels"),
    ({"boxes": None}, "boxes must be one of given, from_masks, none, got None; change --boxes"),
    ({"d_norm": "layer"}, "d_norm must be one of batch, group, none, got 'layer'; change --d_norm"),
    ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, got 'fp16'; change --precision"),
    (
        {"background_without_boxes": "crop"},
        "background_without_boxes must be one of skip, border, got 'crop'; change --background_without_boxes",
    ),
    ({"judge": "vit"}, "judge must be one of trunk, projected, got 'vit'; change --judge"),
    ({"teacher": "clip"}, "teacher must be one of own, packaged, got 'clip'; change --teacher"),
    ({"judge_px": 96}, "judge_px must be 64, 128 or 256 and at least the resolution 64, got 96; change --judge_px"),
    (
        {"network": "slim-128", "resolution": 128, "judge_px": 64},
        "judge_px must be 64, 128 or 256 and at least the resolution 128, got 64; change --judge_px",
    ),
    (
        {"network": "classic", "resolution": 128, "judge": "projected"},
        "judge must be trunk for preset classic, got 'projected'; drop --judge",
    ),
    (
        {"judge": "projected", "r1_gamma": 0.3},
        "judge projected needs r1_gamma and batch_deviation of 0, got 0.3 and 0; set both to 0, or drop --judge",
    ),
    (
        {"judge": "projected", "batch_deviation": 8},
        "judge projected needs r1_gamma and batch_deviation of 0, got 0 and 8; set both to 0, or drop --judge",
    ),
    ({"free_parent_share": 1.5}, "free_parent_share must be from 0 to 1, got 1.5; change --free_parent_share"),
    (
        {"network": "classic", "resolution": 128, "one_mask": True},
        "one_mask and split_noise must be off for preset classic, found one on; drop them",
    ),
    (
        {"network": "classic", "resolution": 128, "split_noise": True},
        "one_mask and split_noise must be off for preset classic, found one on; drop them",
    ),
    ({"clusters": True}, "clusters need labels discovered, got 'tied'; drop --clusters or change --labels"),
    ({"num_children": 100_001}, "num_children must be at most 100000, got 100001; lower --num_children"),
    ({"modes_per_class": 2**31}, "modes_per_class must be at most 100000, got 2147483648; lower --modes_per_class"),
    ({"batch_size": 0}, "batch_size must be above 0, got 0; raise --batch_size"),
    ({"total_kimg": -1.0}, "total_kimg must be above 0, got -1.0; raise --total_kimg"),
    ({"width": 0.0}, "width must be above 0, got 0.0; raise --width"),
    ({"lr": float("nan")}, "lr must be above 0, got nan; raise --lr"),
    ({"modes_per_class": 0}, "modes_per_class must be above 0, got 0; raise --modes_per_class"),
    ({"grid_kimg": 0.0}, "grid_kimg must be above 0, got 0.0; raise --grid_kimg"),
    ({"checkpoint_kimg": 0.0}, "checkpoint_kimg must be above 0, got 0.0; raise --checkpoint_kimg"),
    (
        {"r1_gamma": -1.0},
        "r1_gamma, r1_interval and batch_deviation must be at least 0, 1 and 0, got -1, 8 and 0; correct them",
    ),
    (
        {"hard_negative_kimg": 10.0, "total_kimg": 10.0},
        "hard_negative_kimg must be at least 0 and below total_kimg = 10, got 10; "
        "lower --hard_negative_kimg, or set it to 0 to leave that phase out",
    ),
    (
        {"hard_negative_kimg": -1.0},
        "hard_negative_kimg must be at least 0 and below total_kimg = 500, got -1; "
        "lower --hard_negative_kimg, or set it to 0 to leave that phase out",
    ),
    ({"lr_decay": 1.5}, "lr_decay must be from 0 to 1, got 1.5; change --lr_decay"),
    (
        {"diffaugment": ("color", "rotation", "noise")},
        "diffaugment must hold color, translation, cutout only, got noise, rotation; change --diffaugment",
    ),
    (
        {"num_children": 4, "num_parents": 4},
        "num_parents must be smaller than num_children, got 4 and 4; lower --num_parents",
    ),
    (
        {"num_classes": 5, "modes_per_class": 3, "num_children": 10},
        "tied labels need num_children = classes * modes = 15, got 10; drop --num_children",
    ),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
@pytest.mark.fault("bad input: configurations")
def test_what_cannot_be_is_refused_word_by_word(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FineGANConfig(**values)
    assert str(caught.value) == words


def test_an_unknown_preset_and_an_unknown_key_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        FineGANConfig.preset("slim-512")
    words = "preset must be one of classic, slim-32, slim-64, slim-128, slim-256, got 'slim-512'; change --preset"
    assert str(caught.value) == words
    with pytest.raises(ConfigError) as caught:
        FineGANConfig.preset("slim-32", modes=2, batch=3)
    assert str(caught.value) == "configuration holds unknown keys batch, modes; remove them"


def test_a_short_classic_training_is_told_how_to_leave_the_second_phase_out() -> None:
    with pytest.raises(ConfigError) as caught:
        FineGANConfig.preset("classic", total_kimg=1.0)
    assert caught.value.cause == "hard_negative_kimg must be at least 0 and below total_kimg = 1, got 11.8"
    assert caught.value.remedy == "lower --hard_negative_kimg, or set it to 0 to leave that phase out"
    short = FineGANConfig.preset("classic", total_kimg=1.0, hard_negative_kimg=0.0)
    assert short.hard_negative_step * short.batch_size >= 1000  # never reached


@pytest.mark.parametrize(
    ("total", "hard", "batch", "first"),
    [(0.08, 0.032, 8, 6), (0.08, 0.03, 8, 7), (0.08, 0.0, 8, 10), (0.08, 0.0, 32, 3), (7077.4, 11.8, 32, 220_800)],
)
def test_the_hard_negative_phase_is_the_end_of_training(total: float, hard: float, batch: int, first: int) -> None:
    """Its first update is the first whose images all lie in the last `hard` thousand."""
    config = FineGANConfig(total_kimg=total, hard_negative_kimg=hard, batch_size=batch)
    assert config.hard_negative_step == first
    starts = [step for step in range(first - 2, first + 2) if step * batch >= round(1000 * total) - round(1000 * hard)]
    assert starts == [first, first + 1]


def test_data_with_other_classes_than_configured_are_refused() -> None:
    config = FineGANConfig.preset("slim-32", num_classes=12)
    assert config.resolve(12).num_classes == 12
    with pytest.raises(ConfigError) as caught:
        config.resolve(11)
    assert str(caught.value) == "num_classes is 12 but the data have 11 classes; drop --num_classes"


def test_tied_codes_that_do_not_fit_the_classes_of_the_data_are_refused() -> None:
    config = FineGANConfig.preset("slim-32", num_children=24)
    assert config.resolve(12).num_children == 24
    with pytest.raises(ConfigError) as caught:
        config.resolve(10)
    assert str(caught.value) == "tied labels need num_children = classes * modes = 20, got 24; drop --num_children"


@pytest.mark.parametrize(
    ("values", "classes", "children", "parents"),
    [
        ({}, 102, 204, 21),
        ({"modes_per_class": 1}, 12, 12, 2),
        ({"modes_per_class": 1}, 2, 2, 1),
        ({"labels": "discovered"}, 12, 24, 3),
        ({"labels": "discovered", "num_children": 50}, 12, 50, 5),
        ({"num_parents": 4}, 12, 24, 4),
        ({"child_to_parent": (0, 2, 1, 0)}, 2, 4, 3),
    ],
)
def test_what_is_left_open_is_counted_from_the_data(
    values: dict[str, Any], classes: int, children: int, parents: int
) -> None:
    config = FineGANConfig.preset("slim-32", **values).resolve(classes)
    assert (config.num_classes, config.num_children, config.num_parents) == (classes, children, parents)
    assert config.child_to_parent is not None
    assert len(config.child_to_parent) == children
    assert set(config.child_to_parent) == set(range(parents))
    assert config.resolve(classes) == config


def test_the_default_map_has_neighbouring_groups_of_nearly_equal_size() -> None:
    mapping = FineGANConfig.preset("slim-32", modes_per_class=1, num_parents=3).resolve(10).child_to_parent
    assert mapping == (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)


def test_an_uneven_map_is_kept() -> None:
    uneven = (2, 0, 0, 1, 1, 1, 2, 0)
    config = FineGANConfig.preset("slim-32", num_parents=3, child_to_parent=uneven)
    assert config.resolve(4).child_to_parent == uneven


@pytest.mark.parametrize(
    ("mapping", "found"),
    [
        ((0, 1, 2, 0), "4 values with 3 parents"),  # too short
        ((0, 1, 3, 0, 0, 0, 0, 0), "8 values with 3 parents"),  # out of range
        ((0, 1, -1, 0, 0, 0, 0, 2), "8 values with 4 parents"),
        ((0, 1, 0, 0, 0, 0, 0, 0), "8 values with 2 parents"),  # parent 2 has no child
    ],
)
def test_a_map_that_is_none_is_refused(mapping: tuple[int, ...], found: str) -> None:
    config = FineGANConfig.preset("slim-32", num_parents=3, child_to_parent=mapping)
    with pytest.raises(ConfigError) as caught:
        config.resolve(4)
    expected = f"child_to_parent must hold 8 parents and use each of 0 to 2, got {found}"
    assert str(caught.value) == f"{expected}; correct or drop --child_to_parent"


def test_the_learning_rate_is_constant_and_falls_to_zero_over_the_last_share() -> None:
    steady = FineGANConfig(lr=1e-3, total_kimg=10)
    assert [steady.learning_rate(seen) for seen in (0, 5000, 9999)] == [1e-3] * 3
    falling = FineGANConfig(lr=1e-3, total_kimg=10, lr_decay=0.4)
    expected = {0: 1e-3, 6000: 1e-3, 7000: 0.75e-3, 8000: 0.5e-3, 9000: 0.25e-3, 10_000: 0.0}
    for seen, rate in expected.items():
        assert falling.learning_rate(seen) == pytest.approx(rate, abs=1e-15)


@pytest.mark.parametrize(
    ("boxes", "without", "judges"),
    [("given", "skip", True), ("from_masks", "skip", True), ("none", "skip", False), ("none", "border", True)],
)
def test_background_is_judged_where_it_is_known(boxes: str, without: str, judges: bool) -> None:
    values: dict[str, Any] = {"boxes": boxes, "background_without_boxes": without}
    assert FineGANConfig(**values).judges_background == judges


@pytest.mark.parametrize(
    ("preset", "values", "side"),
    [("slim-32", {}, 64), ("slim-64", {}, 64), ("slim-128", {}, 128), ("slim-64", {"judge_px": 128}, 128)],
)
def test_a_projected_judge_sees_images_at_their_side_or_at_64_pixels(
    preset: str, values: dict[str, Any], side: int
) -> None:
    assert FineGANConfig.preset(preset, judge="projected", **values).judged_px == side


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FineGANConfig().seed = 1  # type: ignore[misc]


def test_every_length_has_its_unit_in_its_name() -> None:
    """Durations are images, never iterations or epochs."""
    names = [f.name for f in fields(FineGANConfig)]
    assert not [name for name in names if any(word in name for word in ("epoch", "step", "iter"))]
    lengths = [name for name in names if name.startswith(("total", "log", "grid", "checkpoint", "ema_half"))]
    assert lengths
    assert all(name.endswith("_kimg") for name in lengths)


def test_the_configuration_is_read_without_torch() -> None:
    """The command line shows its help from it."""
    code = "import sys, finegan_aug.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
