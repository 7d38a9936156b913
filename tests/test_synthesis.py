"""Images from a trained run: the same bytes however they were asked for, in a folder that says where they come from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import files, tiny_config
from untrained_run import untrained_run

from finegan_aug import FineGANConfig, provenance, synthesis
from finegan_aug.cli import main
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.toy import TOY_CLASSES
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.files import read_json, sha256_file, write_json
from finegan_aug.filtering import filter_synthetic
from finegan_aug.grids import to_uint8
from finegan_aug.lineage import check_lineage, imagenet_parent, read_lineage, write_lineage
from finegan_aug.models.finegan import Generator
from finegan_aug.provenance import set_lineage
from finegan_aug.synthesis import BLOCK, SynthesisSettings, draw_latents, load_generator, synthesize
from finegan_aug.synthetic import read_rows, write_manifest
from finegan_aug.synthetic_index import SOFT_LABELS, open_index
from finegan_aug.trained import TrainedRun
from finegan_aug.training import train


@pytest.fixture(scope="module")
def full_set(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 images of each class, two more than a block. For reading only."""
    return synthesize(trained_run, tmp_path_factory.mktemp("sets") / "full", per_class=BLOCK + 2)


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


@pytest.mark.fault("same bits: image number n of a class, whatever the batch and the threads")
def test_image_n_of_a_class_has_the_same_bytes_however_many_are_asked_for(
    trained_run: Path, full_set: Path, tmp_path: Path
) -> None:
    few = synthesize(trained_run, tmp_path / "few", per_class=5)
    for name in TOY_CLASSES:
        assert sorted(path.name for path in (few / name).iterdir()) == [f"{n:08d}.png" for n in range(5)]
        for n in range(5):
            file = f"{name}/{n:08d}.png"
            assert (few / file).read_bytes() == (full_set / file).read_bytes(), file
    assert len({path.read_bytes() for path in full_set.rglob("*.png")}) == 12 * 34  # and no two images are the same


@pytest.mark.fault("same bits: image number n of a class, whatever the batch and the threads")
def test_the_number_of_threads_changes_no_byte(trained_run: Path) -> None:
    """torchrun gives each of its processes one thread, a process alone takes all."""
    config = FineGANConfig.from_json(read_json(trained_run / "config.json")["config"])
    settings = SynthesisSettings("", 32, 0, "png", "random", "crop", 32)
    latents, generator = draw_latents(config, torch.tensor([2]), 2, 0, settings), load_generator(trained_run)
    drawn = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            drawn.append(to_uint8(generator(*(getattr(latents, name) for name in ("z", "child", "parent"))).child))
    torch.set_num_threads(1)
    assert torch.equal(*drawn)


def test_another_seed_draws_other_images(trained_run: Path, full_set: Path, tmp_path: Path) -> None:
    other = synthesize(trained_run, tmp_path / "set", per_class=1, seed=1)
    for name in TOY_CLASSES:
        assert (other / name / "00000000.png").read_bytes() != (full_set / name / "00000000.png").read_bytes()


def test_a_set_says_of_each_image_what_it_is(trained_run: Path, full_set: Path, toy_data: Manifest) -> None:
    header, rows = read_rows(full_set)
    assert header.classes == TOY_CLASSES
    assert (header.resolution, header.image_format) == (32, "png")
    assert len(rows) == 12 * 34
    mapping = read_json(trained_run / "config.json")["config"]["child_to_parent"]
    for row in rows:
        assert sha256_file(full_set / row.file) == row.sha256
        assert row.child == row.label  # tied, one mode for each class
        assert row.parent == mapping[row.child]
        assert row.kept
    assert {row.background for row in rows} == set(range(12))
    assert len(open_index(full_set)) == 12 * 34

    lineage = read_lineage(full_set)
    assert lineage is not None
    checkpoint = sha256_file(trained_run / "checkpoints" / "step-000000010" / "ema.safetensors")
    check_lineage(lineage, toy_data, checkpoint_sha256=checkpoint)
    assert lineage.generator["seen_images"] == 80
    assert lineage.code_to_class == tuple(range(12))
    assert lineage.real_images == {image.sha256: ("gan_train",) for image in toy_data.of("train")}


def test_the_lineage_names_the_pretrained_features_that_had_a_part_in_the_training(
    toy_data: Manifest, tmp_path: Path
) -> None:
    write_json(
        tmp_path / "config.json",
        {f"{role}_sha256": x * 64 for role, x in (("judge", "a"), ("teacher", "b"), ("choice", "d"))},
    )
    some = [replace(image, labelled=i % 2 == 0) for i, image in enumerate(toy_data.images)]
    partly = replace(toy_data, images=tuple(some))

    def parents(manifest: Manifest, **values: str) -> list[tuple[str, str]]:
        config = tiny_config(**values).resolve(12)
        run = TrainedRun(tmp_path, config, Generator(config), "c" * 64, 80)
        found = set_lineage(run, manifest, tuple(range(12)), None, None).parents
        assert all((p["kind"], p["data"]) == ("pretrained features", "ImageNet") for p in found)
        assert all(p["name"] == f"tf_efficientnet_lite{int(p['used_by'] == 'choice')}" for p in found)
        return [(p["used_by"], p["sha256"][0]) for p in found]

    assert parents(partly) == []
    assert parents(toy_data, judge="projected") == [("judge", "a")]
    assert parents(partly, teacher="packaged") == [("teacher", "b")]
    assert parents(partly, judge="projected", teacher="packaged") == [("judge", "a"), ("teacher", "b")]
    assert parents(toy_data, teacher="packaged") == []  # there was nothing to name
    assert parents(toy_data, choose_checkpoint="kid") == [("choice", "d")]


def test_a_broken_off_set_is_completed_and_what_is_there_stays(
    trained_run: Path, full_set: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(full_set, tmp_path / "set"))
    kept = out / TOY_CLASSES[5] / "00000007.png"
    before = kept.stat().st_mtime_ns
    for name in ("manifest.jsonl", "index.npy", "lineage.json"):
        (out / name).unlink()
    for n in (0, 31, 33):
        (out / TOY_CLASSES[3] / f"{n:08d}.png").unlink()
    synthesize(trained_run, out, per_class=34)
    assert files(out) == files(full_set)
    assert kept.stat().st_mtime_ns == before


def test_a_set_can_grow(trained_run: Path, full_set: Path, tmp_path: Path) -> None:
    out = synthesize(trained_run, tmp_path / "set", per_class=3)
    assert synthesize(trained_run, out, per_class=34) == out
    assert files(out) == files(full_set)


@pytest.mark.filterwarnings("ignore:.*synthetic image:UserWarning")
def test_a_filtered_set_stays_filtered_when_the_same_command_runs_again(
    trained_run: Path, full_set: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(full_set, tmp_path / "set"))
    filter_synthetic(out, teacher=lambda images: images.float().mean(dim=(2, 3)).repeat(1, 4), top_k=6)
    lineage = read_lineage(out)
    assert lineage is not None
    sha256 = next(iter(lineage.real_images))
    noted = lineage.with_role("filter_teacher", [sha256])
    write_lineage(out, replace(noted, parents=(imagenet_parent("filter_teacher", "tf_efficientnet_lite0", sha256),)))
    filtered = files(out)
    assert 0 < sum(row.kept for row in read_rows(out)[1]) < 12 * 34
    synthesize(trained_run, out, per_class=34)
    assert files(out) == filtered


def test_a_set_that_grows_keeps_what_was_dropped_and_asks_for_a_filter(
    trained_run: Path, full_set: Path, tmp_path: Path
) -> None:
    """Once growing brought near-duplicates back, and what a person had dropped, without a word."""
    out = Path(shutil.copytree(full_set, tmp_path / "set"))
    filter_synthetic(out, teacher=lambda images: images.float().mean(dim=(2, 3)).repeat(1, 4), top_k=6)
    (out / SOFT_LABELS).write_bytes(b"of 34 images a class")
    header, rows = read_rows(out)
    rows[0] = replace(rows[0], kept=False, dropped_by="blurred")
    write_manifest(out, header, rows)
    lineage = read_lineage(out)
    assert lineage is not None
    write_lineage(out, lineage.with_role("filter_teacher", list(lineage.real_images)[:1]))
    with pytest.warns(UserWarning, match="set has grown: filter it again, its new images are not filtered"):
        synthesize(trained_run, out, per_class=35)
    header, grown = read_rows(out)
    before = {row.file: row for row in rows}
    assert [before[row.file] for row in grown if row.file in before] == [row for row in grown if row.file in before]
    assert [row.kept for row in grown if row.file not in before] == [True] * 12
    assert grown[0].dropped_by == "blurred"
    assert header.filter is None
    assert not (out / SOFT_LABELS).exists()
    after = read_lineage(out)
    assert after is not None
    assert "filter_teacher" in after.real_images[next(iter(lineage.real_images))]


def test_a_newer_program_whose_settings_have_other_hashes_leaves_a_filtered_set_filtered(
    trained_run: Path, full_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(full_set, tmp_path / "set"))
    filter_synthetic(out, teacher=lambda images: images.float().mean(dim=(2, 3)).repeat(1, 4), top_k=6)
    header, rows = read_rows(out)
    for module in (synthesis, provenance):
        monkeypatch.setattr(module, "config_sha256", lambda config: "f" * 64)
    synthesize(trained_run, out, per_class=34)
    after, kept = read_rows(out)
    assert kept == rows
    assert after.filter == header.filter is not None
    assert after.made_with["config_sha256"] == "f" * 64


def test_a_folder_with_a_set_of_other_settings_is_refused_and_left_alone(
    trained_run: Path, full_set: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(full_set, tmp_path / "set"))
    with pytest.raises(ConfigError) as error:
        synthesize(trained_run, out, per_class=34, seed=3, image_format="jpeg", background="tied")
    assert error.value.cause == f"{out} holds a set made with another background, image_format, seed"
    assert error.value.remedy == "choose another --out or remove it"
    assert files(out) == files(full_set)


def test_webp_keeps_every_pixel_and_jpeg_nearly(trained_run: Path, full_set: Path, tmp_path: Path) -> None:
    webp = synthesize(trained_run, tmp_path / "webp", per_class=2, image_format="webp")
    jpeg = synthesize(trained_run, tmp_path / "jpeg", per_class=2, image_format="jpeg")
    for name in TOY_CLASSES:
        expected = pixels(full_set / name / "00000001.png")
        np.testing.assert_array_equal(pixels(webp / name / "00000001.webp"), expected)
        found = pixels(jpeg / name / "00000001.jpg")
        assert found.shape == (32, 32, 3)
        assert np.abs(found.astype(int) - expected).mean() < 12  # of 255, on images that are mostly noise yet
    assert read_rows(jpeg)[0].image_format == "jpeg"


def test_a_crop_is_what_the_averaged_generator_draws(trained_run: Path, tmp_path: Path) -> None:
    out = synthesize(trained_run, tmp_path / "set", per_class=2, placement="crop", background="tied", seed=4)
    config = FineGANConfig.from_json(read_json(trained_run / "config.json")["config"])
    settings = SynthesisSettings("", 2, 4, "png", "tied", "crop", 32)
    latents = draw_latents(config, torch.tensor([9]), 9, 0, settings)
    assert torch.equal(latents.child, latents.background)
    with torch.no_grad():
        stages = load_generator(trained_run)(latents.z, latents.child)
    np.testing.assert_array_equal(
        pixels(out / TOY_CLASSES[9] / "00000001.png"), to_uint8(stages.child)[1].permute(1, 2, 0).numpy()
    )
    assert {(row.child, row.background) for row in read_rows(out)[1]} == {(c, c) for c in range(12)}


def test_backgrounds_are_free_only_where_the_background_stage_learned_what_background_is(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    taught = synthesize(trained_run, tmp_path / "taught", per_class=4)
    assert any(row.background != row.child for row in read_rows(taught)[1])
    config = tiny_config(boxes="none").resolve(12)
    run = untrained_run(tmp_path / "run", config, toy_data)
    assert all(row.background == row.child for row in read_rows(synthesize(run, tmp_path / "untaught", per_class=4))[1])
    asked = synthesize(run, tmp_path / "asked", per_class=4, background="random")
    assert any(row.background != row.child for row in read_rows(asked)[1])


def test_a_frame_has_the_side_asked_for_and_shows_the_object_smaller(trained_run: Path, tmp_path: Path) -> None:
    out = synthesize(trained_run, tmp_path / "set", per_class=1, placement="frame", canvas_px=48)
    assert pixels(out / TOY_CLASSES[0] / "00000000.png").shape == (48, 48, 3)
    assert read_rows(out)[0].resolution == 48


@pytest.fixture(scope="module")
def discovered_run(toy_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step with 16 codes that know no class."""
    config = tiny_config(labels="discovered", num_children=16, total_kimg=0.008)
    return train(config, toy_data, tmp_path_factory.mktemp("discovered"))


def test_discovered_codes_need_an_audit(discovered_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"discovered codes need an audit, found no audit.json in .*; run finegan-aug ev"
    ):
        synthesize(discovered_run, tmp_path / "set", per_class=2)
    assert not list((tmp_path / "set").glob("*/*"))


def test_discovered_codes_draw_the_classes_that_their_audit_names(
    discovered_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(discovered_run, tmp_path / "run"))
    mapping = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, -1, -1, 5]
    (run / "audit.json").write_text(json.dumps({"code_to_class": mapping}))
    out = synthesize(run, tmp_path / "set", per_class=32)
    rows = read_rows(out)[1]
    assert {(row.label, row.child) for row in rows} == {
        (label, code) for code, label in enumerate(mapping) if label >= 0
    }
    lineage = read_lineage(out)
    assert lineage is not None
    assert lineage.code_to_class == tuple(mapping)
    assert set(lineage.real_images.values()) == {("code_map", "unlabelled")}
    check_lineage(lineage, toy_data)
    half = [replace(image, labelled=i % 2 == 0) for i, image in enumerate(toy_data.images)]
    with pytest.raises(DataError, match="must lie in the labelled budget"):  # the map has used labels
        check_lineage(lineage, replace(toy_data, images=tuple(half)))


def test_a_class_without_a_code_is_named_and_never_drawn_with_anothers(discovered_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(discovered_run, tmp_path / "run"))
    (run / "audit.json").write_text(json.dumps({"code_to_class": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -1, 0, 1, 2, 3]}))
    with pytest.raises(DataError, match="every class needs a code, found none for class 10, 11; use tied labels"):
        synthesize(run, tmp_path / "set", per_class=2)


def test_a_run_without_a_checkpoint_is_refused(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "data.jsonl"):
        shutil.copy(trained_run / name, run / name)
    with pytest.raises(CheckpointError, match="must hold a checkpoint, found none; train it first"):
        load_generator(run)


def test_the_command_writes_the_set_and_names_it(
    trained_run: Path, full_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert main(["synthesize", str(trained_run), "--out", str(out), "--per_class", "1"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert len(read_rows(out)[1]) == 12
    assert main(["synthesize", str(trained_run), "--out", str(out), "--per_class", "1", "--seed", "2"]) == 2
    assert "holds a set made with another seed" in capsys.readouterr().err
