"""The firewall: what stands behind a synthetic set, and which classifier may use it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_sets import CLASSES, data_manifest, real_folder

from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.errors import DataError, LeakError
from finegan_aug.lineage import Lineage, check_lineage, firewall, read_lineage, write_lineage


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of each class: image 0 is test, 1 is val, 2 train, 3 train without label."""
    return data_manifest(real_folder(tmp_path / "real"), {"0": "test", "1": "val"}, unlabelled=("3",))


def sha(manifest: Manifest, number: int) -> str:
    return next(image.sha256 for image in manifest.images if image.path == f"ant/{number}.png")


def lineage(manifest: Manifest, *sha256s: str, role: str = "gan_train", gan_data: str = "s") -> Lineage:
    empty = Lineage(
        {}, CLASSES, manifest.sha256, {"checkpoint_sha256": "c" * 64}, "tied", gan_data, fraction=0.1, pair=0
    )
    return empty.with_role(role, sha256s)


def test_a_lineage_is_read_as_it_was_written(tmp_path: Path, manifest: Manifest) -> None:
    written = lineage(manifest, sha(manifest, 2)).with_role("filter_teacher", [sha(manifest, 2), sha(manifest, 1)])
    written = replace(written, code_to_class=(0, -1, 2), parents=({"kind": "weights", "sha256": "d" * 64},))
    write_lineage(tmp_path, written)
    assert read_lineage(tmp_path) == written
    assert written.real_images[sha(manifest, 2)] == ("filter_teacher", "gan_train")
    assert read_lineage(tmp_path / "real") is None


def test_a_set_made_from_the_labelled_budget_passes(manifest: Manifest) -> None:
    check_lineage(lineage(manifest, sha(manifest, 1), sha(manifest, 2)), manifest, checkpoint_sha256="c" * 64)


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_test_image_behind_the_set_is_refused(manifest: Manifest) -> None:
    for role in ("gan_train", "unlabelled", "filter_threshold"):
        bad = lineage(manifest, sha(manifest, 2), role="gan_train", gan_data="u").with_role(role, [sha(manifest, 0)])
        with pytest.raises(
            LeakError, match=r"no test image may stand behind synthetic images, found image [0-9a-f]{12}"
        ):
            check_lineage(bad, manifest)


@pytest.mark.parametrize("role", ["unlabelled", "filter_teacher"])
def test_validation_images_are_not_among_named_photographs(manifest: Manifest, role: str) -> None:
    held_out = sha(manifest, 1)
    drawn = lineage(manifest, held_out, role=role, gan_data="u")
    check_lineage(drawn, manifest)  # a generator may have seen them
    named = replace(drawn, generator={"kind": "photographs", "checkpoint_sha256": "c" * 64})
    with pytest.raises(LeakError) as caught:
        check_lineage(named, manifest)
    assert str(caught.value) == (
        f"no validation image may be among named photographs or have taught their teacher, found image {held_out[:12]} "
        f"({role}); name the photographs with the --fraction and --pair of the classifier"
    )


@pytest.mark.parametrize("role", ["gan_train", "code_map", "filter_teacher", "extractor_train"])
@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_label_outside_the_budget_is_refused(manifest: Manifest, role: str) -> None:
    """A generator trained on everything may not enter the row of 10 %."""
    for outside in (sha(manifest, 3), "e" * 64):
        with pytest.raises(
            LeakError, match=r"must lie in the labelled budget of 6 images, found image .*; train the gen"
        ):
            check_lineage(lineage(manifest, sha(manifest, 2), outside, role=role, gan_data="u"), manifest)


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_unlabelled_images_pass_only_where_they_are_declared(manifest: Manifest) -> None:
    seen = sha(manifest, 3)
    check_lineage(lineage(manifest, seen, role="unlabelled", gan_data="u"), manifest)
    trained = lineage(manifest, seen, role="unlabelled", gan_data="u").with_role("gan_train", [seen])
    with pytest.raises(LeakError, match="must lie in the labelled budget"):  # its label told the generator its class
        check_lineage(trained, manifest)
    for bad in (
        lineage(manifest, seen, role="unlabelled", gan_data="s"),
        lineage(manifest, "e" * 64, role="unlabelled", gan_data="u"),
    ):
        with pytest.raises(
            LeakError, match="unlabelled images must lie in the training part, with gan_data 'u', found"
        ):
            check_lineage(bad, manifest)
    with pytest.raises(LeakError, match="must lie in the labelled budget"):
        check_lineage(lineage(manifest, seen, role="unlabelled", gan_data="u").with_role("code_map", [seen]), manifest)


def test_another_class_order_is_refused(manifest: Manifest) -> None:
    bad = replace(lineage(manifest), classes=("bee", "ant", "cat"))
    with pytest.raises(
        LeakError, match=r"in their order \['ant', 'bee', 'cat'\], found \['bee', 'ant', 'cat'\]; train"
    ):
        check_lineage(bad, manifest)


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_another_checkpoint_is_refused(manifest: Manifest) -> None:
    with pytest.raises(LeakError, match="checkpoint must have SHA-256 dddddddddddd, found cccccccccccc; synthesize"):
        check_lineage(lineage(manifest), manifest, checkpoint_sha256="d" * 64)


def test_the_firewall_says_how_much_it_knows(tmp_path: Path, manifest: Manifest) -> None:
    assert firewall(tmp_path, None) == "unchecked"
    assert firewall(tmp_path, manifest) == "unknown"
    write_lineage(tmp_path, lineage(manifest, sha(manifest, 2)))
    assert firewall(tmp_path, manifest) == "checked"
    write_manifest(manifest, tmp_path / "data.jsonl")
    assert firewall(tmp_path, tmp_path / "data.jsonl") == "checked"


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_data_manifest_that_leaks_is_refused_whatever_the_lineage_says(tmp_path: Path, manifest: Manifest) -> None:
    write_lineage(tmp_path, lineage(manifest, sha(manifest, 2)))
    test = next(image for image in manifest.of("test") if image.path == "ant/0.png")
    twin = replace(test, path="ant/9.png", split="train")
    with pytest.raises(LeakError, match=r"no test image may also be a train image, found 1, the first is ant/0\.png"):
        firewall(tmp_path, replace(manifest, images=(*manifest.images, twin)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version must be 1, found 2"),
        ({"split": "test"}, "split must be train or val, found 'test'"),
        ({"labels": "guessed"}, "labels must be tied or discovered, found 'guessed'"),
        ({"gan_data": None}, "gan_data must be s or u, found None"),
        (
            {"real_images": {"abc": ["gan_train"]}},
            r"real_images must map SHA-256 to roles, not 'abc' to \['gan_train'\]",
        ),
        ({"real_images": {"a" * 64: ["spy"]}}, r"real_images must map SHA-256 to roles"),
        ({"real_images": {"a" * 64: []}}, r"real_images must map SHA-256 to roles"),
        ({"generator": {}}, "generator must be an object with checkpoint_sha256"),
        ({"fraction": "all"}, "fraction must be a share above 0 and at most 1, or null, found 'all'"),
        ({"fraction": float("nan")}, "fraction must be a share above 0 and at most 1, or null, found nan"),
        ({"fraction": 10**400}, "fraction must be a share above 0 and at most 1, or null, found 1000000"),
        ({"generator": {"checkpoint_sha256": "\ud800"}}, "the file must hold text in UTF-8 and finite numbers"),
        ({"parents": [{"weight": float("inf")}]}, "the file must hold text in UTF-8 and finite numbers"),
        ({"parents": [{"deep": json.loads("[" * 40 + "]" * 40)}]}, "at most 32 levels deep"),
        ({"extra": 1}, "the keys must be"),
    ],
)
@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_wrong_field_is_refused(tmp_path: Path, manifest: Manifest, change: dict[str, object], message: str) -> None:
    write_lineage(tmp_path, lineage(manifest, sha(manifest, 2)))
    content = json.loads((tmp_path / "lineage.json").read_text())
    (tmp_path / "lineage.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=message):
        read_lineage(tmp_path)
