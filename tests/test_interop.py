"""Official files in and out: the same bits, sizes found in the shapes, and nothing else let in."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from official_numbers import fill, reference
from PIL import Image
from tiny_runs import tiny_config
from torch import Tensor

from finegan_aug import cli
from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.toy import write_toy
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.figures import write_figures
from finegan_aug.interop import (
    export_official,
    import_official,
    load_official_discriminators,
    load_official_generator,
    official_views,
    read_official,
)
from finegan_aug.lineage import firewall, read_lineage
from finegan_aug.models.game import FineGAN
from finegan_aug.synthesis import load_generator, synthesize
from finegan_aug.synthetic import read_rows

torch.set_num_threads(1)

PARTS = dict(zip(("netG", "netD0", "netD1", "netD2"), reference()["state_dict"], strict=True))
REMEDY = "name files that training of kkanshul/finegan wrote"


def official(part: str, *, counters: bool = True) -> dict[str, Tensor]:
    """What official training would save of this network, float32, in the official order."""
    shapes: dict[str, list[int]] = reference()["state_dict"][PARTS[part]]
    filled = {name: tensor.float() for name, tensor in fill(shapes).items()}
    if not counters:
        return filled
    return {name: filled.get(name, torch.tensor(7)) for name in shapes}


def save(path: Path, tensors: dict[str, Tensor], prefix: str = "") -> Path:
    torch.save({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def official_files(folder: Path, prefix: str = "module.", *, counters: bool = True) -> list[Path]:
    return [save(folder / f"{part}_9.pth", official(part, counters=counters), prefix) for part in PARTS]


def small_generator(folder: Path) -> Path:
    """An official file of 3 child and 2 parent codes: every picture counts when pictures are drawn."""
    config = FineGANConfig.preset("classic", width=0.125, ndf=8, z_dim=4, num_children=3, num_parents=2)
    return save(folder / "netG_9.pth", official_views(FineGAN(config.resolve(3)))["netG"], "module.")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [True, False])
def test_what_goes_in_comes_out_again_bit_for_bit(tmp_path: Path, prefix: str, counters: bool) -> None:
    generator, *discriminators = official_files(tmp_path, prefix, counters=counters)
    run = import_official(generator, tmp_path / "run", discriminator_files=discriminators)
    written = export_official(run, tmp_path / "out")
    assert [path.name for path in written] == ["netG.pth", "netD0.pth", "netD1.pth", "netD2.pth"]
    for part, path in zip(PARTS, written, strict=True):
        content = torch.load(path, weights_only=True)
        assert list(content) == [f"module.{name}" for name in reference()["state_dict"][PARTS[part]]]
        for name, tensor in official(part).items():
            expected = tensor if counters or not name.endswith("num_batches_tracked") else torch.tensor(0)
            assert torch.equal(content[f"module.{name}"], expected), name
            assert content[f"module.{name}"].dtype == expected.dtype


def test_sizes_and_codes_come_from_the_shapes(tmp_path: Path) -> None:
    expected = reference()["config"]
    run = import_official(official_files(tmp_path)[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["network"] == "classic"
    assert config["width"] * 64 == expected["ngf"]
    assert [config[name] for name in ("z_dim", "num_parents", "num_children")] == [16, 4, 12]
    assert config["child_to_parent"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_imported_generator_draws_the_official_pictures(tmp_path: Path) -> None:
    run = import_official(official_files(tmp_path)[0], tmp_path / "run")
    found = reference()
    generator = load_generator(run).double()
    z = torch.sin(1.3 * torch.arange(64, dtype=torch.float64)).float().double().view(4, 16)
    stages = generator(z, torch.tensor(found["child"]))
    for name in ("background_126", "parent", "child"):
        numbers = found["eval"][name]
        picture = getattr(stages, name).contiguous()
        assert picture.mean().item() == pytest.approx(numbers["mean"], rel=1e-8)
        assert picture.flatten()[[0, -1]].tolist() == pytest.approx([numbers["samples"][0], numbers["samples"][-1]])


@pytest.mark.parametrize("as_file", [True, False])
def test_official_networks_are_loaded_from_files_and_from_state_dicts(as_file: bool, tmp_path: Path) -> None:
    """The same modules as by way of a run folder, sizes from the shapes alone."""
    files = official_files(tmp_path)
    sources = files if as_file else [torch.load(file, weights_only=True) for file in files]
    generator = load_official_generator(sources[0])
    assert not generator.training
    run = load_generator(import_official(files[0], tmp_path / "run"))
    z, child = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 5, 11])
    for ours, theirs in zip(generator(z, child), run(z, child), strict=True):
        assert torch.equal(ours, theirs)
    regrouped = load_official_generator(sources[0], child_to_parent=[3, 2, 1, 0] * 3)
    assert torch.equal(regrouped(z, child).parent, generator(z, child, torch.tensor([3, 2, 0])).parent)
    with pytest.raises(ConfigError):
        load_official_generator(sources[0], child_to_parent=[0, 1])
    found = load_official_discriminators(*sources[1:])
    game = FineGAN(
        FineGANConfig.preset("classic", width=0.125, ndf=8, z_dim=4, num_children=12, num_parents=4).resolve(12)
    )
    for part, tensors in zip(("netD0", "netD1", "netD2"), map(official, ("netD0", "netD1", "netD2")), strict=True):
        for name, tensor in official_views(game)[part].items():
            tensor.copy_(tensors[name])
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    game_parent, game_child = game.parent_d.eval(), game.child_d.eval()
    assert torch.equal(found.parent(images), game_parent(images))
    features = found.child.trunk(images)
    assert torch.equal(features, game_child.trunk(images))  # type: ignore[operator]
    assert torch.equal(found.info(features), game.info.eval()(features))
    with pytest.raises(CheckpointError, match="netD1 must know fewer codes than netD2, found 12 and 4; give netD0"):
        load_official_discriminators(sources[1], sources[3], sources[2])


def test_an_imported_run_is_drawn_from_and_its_sets_have_no_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = small_generator(tmp_path)
    run, out = tmp_path / "run", tmp_path / "set"
    assert cli.main(["import-official", str(generator), str(run)]) == 0
    assert cli.main(["synthesize", str(run), "--out", str(out), "--per-class", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run), str(out)]
    header, found = read_rows(out)
    assert header.classes == tuple(f"code-{code:03d}" for code in range(3))
    assert [(row.label, row.child) for row in found] == [(code, code) for code in range(3) for _ in range(2)]
    assert Image.open(out / found[0].file).size == (128, 128)
    assert read_lineage(out) is None
    assert firewall(out, run / "config.json") == "unknown"
    assert len(write_figures(run)) == 8
    with pytest.raises(ConfigError) as error:
        synthesize(run, tmp_path / "other", placement="frame")
    assert str(error.value) == f"{run} was imported and holds no photographs with objects; use --placement crop"


def test_training_goes_on_from_an_imported_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = write_toy(tmp_path / "toy", resolution=128, num_train=96, num_test=12)
    for folder in sorted((toy / "train").iterdir())[3:]:
        shutil.rmtree(folder)
    generator = small_generator(tmp_path)
    run = tmp_path / "run"
    assert cli.main(["import-official", str(generator), str(run)]) == 0
    line = ["train", str(toy / "train"), "--box-file", str(toy / "train_boxes.csv"), "--out", str(run)]
    line += ["--config", str(run / "config.json"), "--precision", "fp32", "--batch-size", "4", "--lr", "1e-9"]
    line += ["--hard-negative-kimg", "0"]
    assert cli.main([*line, "--z-dim", "8"]) == 4
    assert "config.z_dim: 4 -> 8" in capsys.readouterr().err
    assert cli.main([*line, "--total-kimg", "0.008"]) == 0
    latest = latest_checkpoint(run)
    assert latest is not None
    tensors, state = load_checkpoint(latest)
    assert state["step"] == 2
    # A learning rate of next to nothing: the weights are still the imported ones, the discriminators are new.
    weight = read_official(generator)["h_net3.jointConv.0.weight"]
    torch.testing.assert_close(tensors["model"]["generator.child.joint.conv.weight"], weight, atol=1e-6, rtol=0)
    assert "child_d.rf.weight" in tensors["model"]
    assert cli.main([*line, "--total-kimg", "0.012", "--seed", "3"]) == 4  # from here on it is a run like any other
    (run / "audit.json").write_text(json.dumps({"code_to_class": list(range(3))}))
    out = synthesize(run, tmp_path / "set", 1)
    assert read_lineage(out) is None


def refusal(file: Path, run: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        import_official(file, run)
    assert not run.exists()
    assert error.value.remedy == REMEDY
    return error.value.cause


def test_a_file_that_differs_is_refused_with_a_list(tmp_path: Path) -> None:
    tensors = official("netG")
    del tensors["img_net3.img.0.weight"]
    tensors["img_net2.img.0.weight"] = torch.zeros(3, 5, 3, 3)
    tensors["h_net4.fc.0.weight"] = torch.zeros(2)
    file = save(tmp_path / "netG.pth", tensors)
    assert refusal(file, tmp_path / "run") == (
        f"{file}: 3 tensors of the checkpoint do not fit: h_net4.fc.0.weight: float32 [2] found, unknown; "
        "img_net2.img.0.weight: float32 [3, 4, 3, 3] needed, float32 [3, 5, 3, 3] found; "
        "img_net3.img.0.weight: float32 [3, 2, 3, 3] needed, missing"
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    file = save(tmp_path / "netD0.pth", official("netD0"))
    assert refusal(file, run) == (
        f"{file} must be an official generator, found no h_net1_bg.fc.0.weight, h_net2.jointConv.0.weight, "
        "h_net3.jointConv.0.weight"
    )
    torch.save([torch.zeros(2)], file)
    assert refusal(file, run) == f"{file} must hold named tensors only, found list"
    file.write_text("a text")
    assert refusal(file, run) == f"{file} must hold named tensors only, found something else"
    missing = tmp_path / "none.pth"
    assert refusal(missing, run) == f"cannot read weights from {missing}: No such file or directory"
    shapes = official("netG") | {"h_net1_bg.fc.0.weight": torch.zeros(4096, 12)}
    assert refusal(save(file, shapes), run) == (
        f"{file} must have ngf 8, 12, 16, ..., fewer parent than child codes and some noise, found ngf 8, "
        "4 parent codes, 12 child codes, noise 0"
    )


def test_discriminators_come_together_and_belong_to_their_places(tmp_path: Path) -> None:
    generator, background, parent, child = official_files(tmp_path)
    with pytest.raises(CheckpointError, match="must be the files netD0, netD1 and netD2, or none, found 1 files"):
        import_official(generator, tmp_path / "run", discriminator_files=[background])
    with pytest.raises(CheckpointError, match=r"netD2_9.pth: 2 tensors .*logits.0.weight: float32 \[4, 64, 4, 4\]"):
        import_official(generator, tmp_path / "run", discriminator_files=[background, child, parent])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="run must be empty, found files in it; choose another folder"):
        import_official(generator, tmp_path / "run")


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_file_that_would_run_code_runs_none(tmp_path: Path) -> None:
    file, mark = tmp_path / "netG.pth", tmp_path / "ran"
    torch.save({"h_net1_bg.fc.0.weight": Malicious(mark)}, file)
    with pytest.raises(CheckpointError, match="must hold named tensors only, found something else"):
        read_official(file)
    file.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(CheckpointError, match="must hold named tensors only, found something else"):
        read_official(file)
    assert not mark.exists()


def test_networks_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    run = import_official(small_generator(tmp_path), tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    content["config"]["z_dim"] = 10**12
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        export_official(run, tmp_path / "out")
    assert caught.value.cause == f"{run / 'config.json'}: the networks must fit into memory, they do not"
    assert not (tmp_path / "out").exists()


def test_only_classic_has_official_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": tiny_config().resolve(12).to_json()}))
    with pytest.raises(CheckpointError, match="only preset classic has official names, found slim-32"):
        export_official(tmp_path, tmp_path / "out")
