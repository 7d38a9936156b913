"""Checkpoints survive what one process can show: kill, full disk, flipped byte, another network, a second run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import held
from torch import Tensor, nn

from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint, verify_run
from finegan_aug.errors import CheckpointError, NonFiniteError, RunLockedError, StorageError
from finegan_aug.restoring import flatten_optimizer, load_into, named_tensors, restore_optimizer
from finegan_aug.run_folder import ensure_same_config, run_lock, write_status

torch.set_num_threads(1)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))
    return net.to(memory_format=torch.channels_last)


def batch(step: int) -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        net(batch(step)).square().mean().backward()
        optimizer.step()


def contents(value: float = 1.0) -> dict[str, dict[str, Tensor]]:
    return {
        "model": {"G.w": torch.full((2, 3), value)},
        "ema": {"w": torch.zeros(())},
        "optim": {"0/step": torch.ones(())},
    }


def save(run: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(run, step=step, tensors=contents(step), state={"seen_images": step * 8}, keep=keep)


def steps(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_tensors_and_state_come_back_bit_for_bit(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "turned": base.reshape(4, 6).T,
        "slice": base[::2],
        "one": base,
        "same_memory": base,
        "channels_last": base.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "half": base.bfloat16(),
        "codes": torch.arange(5),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(0, 3),
    }
    state = {"p": 0.1 + 0.2, "tiny": 5e-324, "text": "Ä ö", "list": [1, 2.5, None, True], "nested": {"a": 1}}
    path = save_checkpoint(tmp_path, step=7, tensors={"model": tensors}, state=state)
    assert path == tmp_path / "checkpoints" / "step-000000007"
    loaded, back = load_checkpoint(path)
    assert loaded.keys() == {"model"}
    assert loaded["model"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded["model"][name].dtype == tensor.dtype
        assert torch.equal(loaded["model"][name], tensor)
    assert back == {**state, "schema": 1, "step": 7}


def test_resumed_adam_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    for number, make in enumerate((adam, adamw_amsgrad_two_groups)):
        net = network()
        optimizer = make(net)
        train(net, optimizer, range(5))
        tensors, groups = flatten_optimizer(optimizer)
        path = save_checkpoint(
            tmp_path / str(number),
            step=5,
            tensors={"model": named_tensors({"G": net}), "optim": tensors},
            state={"groups": groups},
        )
        train(net, optimizer, range(5, 10))

        other = network(seed=1)
        resumed = make(other)
        train(other, resumed, range(2))  # not a fresh one: what it held must go
        loaded, state = load_checkpoint(path)
        load_into(named_tensors({"G": other}), loaded["model"])
        restore_optimizer(resumed, loaded["optim"], state["groups"])
        train(other, resumed, range(5, 10))
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
        ours, theirs = flatten_optimizer(resumed), flatten_optimizer(optimizer)
        assert ours[1] == theirs[1]
        assert ours[0].keys() == theirs[0].keys()
        assert all(torch.equal(ours[0][k], theirs[0][k]) for k in ours[0])
        assert all(ours[0][k].stride() == theirs[0][k].stride() for k in ours[0])
        assert isinstance(resumed.param_groups[0]["betas"], tuple)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))


def adamw_amsgrad_two_groups(net: nn.Module) -> torch.optim.Optimizer:
    first, second = list(net.parameters())[:2], list(net.parameters())[2:]
    optimizer = torch.optim.AdamW(first, lr=1e-3, amsgrad=True, foreach=True)
    optimizer.add_param_group({"params": second, "lr": 2e-4})
    return optimizer


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    for step in (8, 16, 24, 32):
        save(tmp_path, step)
    assert steps(tmp_path) == ["step-000000024", "step-000000032"]
    save(tmp_path, 40, keep=1)
    assert steps(tmp_path) == ["step-000000040"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000000040"


def test_a_run_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / "step-12").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".tmp-8-1-ab").mkdir()
    (tmp_path / "checkpoints" / "step-000000012.bak").mkdir()
    assert latest_checkpoint(tmp_path) is None


def flip_a_byte(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    file.write_bytes(bytes(data))


@pytest.mark.fault
def test_every_flipped_byte_is_found_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    """200 trials over the five files, as a flipped byte inside a tensor loads silently from safetensors."""
    good, bad = save(tmp_path, 8), save(tmp_path, 16)
    rng = np.random.default_rng(0)
    files = sorted(bad.iterdir())
    assert len(files) == 5
    found = 0
    for trial in range(200):
        file = files[trial % 5]
        before = file.read_bytes()
        flip_a_byte(file, rng)
        lines = verify_run(tmp_path)
        assert [line for line in lines if line.startswith("bad")], (trial, file)
        assert not any(line.startswith("bad step-000000008") for line in lines)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(bad)
        with pytest.warns(RuntimeWarning, match="step-000000016 is damaged and not used"):
            found += latest_checkpoint(tmp_path) == good
        file.write_bytes(before)
    assert latest_checkpoint(tmp_path) == bad
    held("checkpoints: flipped bytes found, the one before used", found, 200)


def cut_model(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])


def remove_ema(path: Path) -> None:
    (path / "ema.safetensors").unlink()


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def list_as_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[]\n")


def escape_the_folder(path: Path) -> None:
    content = json.loads((path / "manifest.json").read_text())
    content["../secret.json"] = {"size": 1, "sha256": "0" * 64}
    (path / "manifest.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def add_a_file(path: Path) -> None:
    (path / "extra.safetensors").write_bytes((path / "model.safetensors").read_bytes())


def another_step(path: Path) -> None:
    path.rename(path.with_name("step-000000099"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_model, "model.safetensors: .* bytes with another SHA-256 than when it was written"),
        (remove_ema, "ema.safetensors: No such file or directory"),
        (remove_manifest, "manifest.json: missing"),
        (list_as_manifest, "manifest.json: not as it was written"),
        (escape_the_folder, "manifest.json: not as it was written"),
        (add_a_file, "extra.safetensors: not in the manifest"),
        (another_step, "state.json: step 16 in a folder of another name"),
    ],
)
@pytest.mark.fault("checkpoints: damage named")
def test_damage_is_named_and_all_damaged_is_an_error(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(save(tmp_path, 16))
    (path,) = (tmp_path / "checkpoints").iterdir()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    with (
        pytest.warns(RuntimeWarning, match=message),
        pytest.raises(CheckpointError, match=r"all 1 checkpoints in .* are"),
    ):
        latest_checkpoint(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr("finegan_aug.checkpoint._SCHEMA", 2)
        path = save(tmp_path, 8)
    with pytest.raises(CheckpointError, match="must have schema 1, found 2; use the version that wrote it"):
        load_checkpoint(path)


def test_saving_a_step_again_keeps_what_verifies_and_replaces_what_does_not(tmp_path: Path) -> None:
    first = save(tmp_path, 8)
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert save(tmp_path, 8) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    cut_model(first)
    save(tmp_path, 8)
    assert load_checkpoint(first)[1]["seen_images"] == 64
    assert len(steps(tmp_path)) == 2
    assert steps(tmp_path)[0].startswith(".bad-step-000000008-")


def test_a_damaged_later_checkpoint_never_pushes_out_a_good_one(tmp_path: Path) -> None:
    save(tmp_path, 8)
    cut_model(save(tmp_path, 16))
    with pytest.warns(RuntimeWarning, match="damaged"):
        latest_checkpoint(tmp_path)
    path = save(tmp_path, 12, keep=1)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert latest_checkpoint(tmp_path) == path


def test_numbers_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    good = save(tmp_path, 8)
    for value in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match=r"found NaN or infinity in model/G\.w; lower the learning rate"):
            save_checkpoint(tmp_path, step=16, tensors=contents(value), state={})
    assert steps(tmp_path) == [good.name]


@pytest.mark.fault("checkpoints: full disks")
def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    """A limit of the operating system on file size stands for the full disk; afterwards saving works again."""
    script = f"""
import resource, signal, torch
from pathlib import Path
from finegan_aug.checkpoint import save_checkpoint
from finegan_aug.errors import StorageError
run = Path({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def save(step): save_checkpoint(run, step=step, tensors={{"model": {{"w": torch.ones(50_000)}}}}, state={{}})
save(8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save(16)
except StorageError as error:
    print(error, error.exit_code)
print(sorted(p.name for p in (run / "checkpoints").iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
save(24)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert "cannot write checkpoint" in first
    assert first.endswith("File too large; free space; training goes on from the one before 74")
    assert second == "['step-000000008']"
    assert steps(tmp_path) == ["step-000000008", "step-000000024"]


@pytest.mark.fault("checkpoints: full disks")
def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write checkpoint"):
        save(tmp_path, 8)


FAILPOINTS = [
    "before-mkdir",
    "after-mkdir",
    "half-model",
    "after-model",
    "after-ema",
    "half-optim",
    "after-optim",
    "after-state",
    "half-manifest",
    "after-manifest",
    "before-rename",
    "after-rename",
    "before-prune",
    "mid-prune",
]

SURVIVOR = """
import os, sys, torch
from pathlib import Path
from finegan_aug.checkpoint import save_checkpoint
for argument in sys.argv[2:]:
    name, keep = argument[:-1], int(argument[-1])
    folder = Path(sys.argv[1]) / argument
    if os.fork() == 0:
        tensors = {stem: {"w": torch.ones(3)} for stem in ("model", "ema", "optim")}
        save_checkpoint(folder, step=8, tensors=tensors, state={}, keep=keep)
        os.environ["FINEGAN_AUG_FAIL"] = "ckpt." + name
        save_checkpoint(folder, step=16, tensors=tensors, state={}, keep=keep)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 9, name
"""


@pytest.mark.fault
def test_death_at_any_point_of_a_save_leaves_a_checkpoint(tmp_path: Path) -> None:
    """14 points with keep=1 and 13 with keep=2, where there is nothing to prune yet."""
    cases = [(name, keep) for name in FAILPOINTS for keep in (1, 2) if (name, keep) != ("mid-prune", 2)]
    arguments = [f"{name}{keep}" for name, keep in cases]
    subprocess.run([sys.executable, "-c", SURVIVOR, str(tmp_path), *arguments], check=True)
    for name, keep in cases:
        run = tmp_path / f"{name}{keep}"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a half-written folder must not even look like a checkpoint
            found = latest_checkpoint(run)
        written = FAILPOINTS.index(name) >= FAILPOINTS.index("after-rename")
        assert found is not None, name
        assert found.name == ("step-000000016" if written else "step-000000008"), name
        with run_lock(run):
            save(run, 24, keep=keep)
        assert steps(run) == [found.name, "step-000000024"][2 - keep :], name
    held("checkpoints: death at a named point of a save leaves one that verifies", len(cases), 14 + 13)


def fits(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_refused_load_lists_everything_and_touches_nothing() -> None:
    net = network()
    before = fits(net)
    tensors = fits(network(seed=1))
    tensors["0.weight"] = torch.zeros(4, 3, 5, 5)
    tensors["1.running_mean"] = tensors["1.running_mean"].double()
    tensors["2.bias"] = torch.zeros(2)
    del tensors["0.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_into(net, tensors)
    assert caught.value.cause == (
        "4 tensors of the checkpoint do not fit: 0.bias: float32 [4] needed, missing; "
        "0.weight: float32 [4, 3, 3, 3] needed, float32 [4, 3, 5, 5] found; "
        "1.running_mean: float32 [4] needed, float64 [4] found; 2.bias: float32 [2] found, unknown"
    )
    assert caught.value.remedy == "use the configuration that wrote it, or --overwrite or another --out"
    assert caught.value.exit_code == 4
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_load_keeps_the_memory_format_of_the_module() -> None:
    net, source = network(), network(seed=1)
    load_into(net, {k: v.contiguous() for k, v in source.state_dict().items()})
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in net.state_dict().items())
    assert net.state_dict()["0.weight"].is_contiguous(memory_format=torch.channels_last)


def test_a_foreign_optimizer_is_refused_and_untouched() -> None:
    net = network()
    optimizer = adam(net)
    train(net, optimizer, range(3))
    tensors, groups = flatten_optimizer(optimizer)
    before = {k: v.clone() for k, v in tensors.items()}
    other = network(seed=1)
    two_groups = adamw_amsgrad_two_groups(other)
    with pytest.raises(CheckpointError, match=r"optimizer groups of 5 parameters -> 2 \+ 3"):
        restore_optimizer(two_groups, tensors, groups)
    wrong = {**tensors, "0/exp_avg": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"optimizer 0/exp_avg: float32 \[4, 3, 3, 3\] needed, float32 \[1\] found"
    ):
        restore_optimizer(optimizer, wrong, groups)
    missing = {k: v for k, v in tensors.items() if k != "1/exp_avg_sq"}
    with pytest.raises(CheckpointError, match=r"optimizer 1/exp_avg_sq: float32 \[4\] needed, missing"):
        restore_optimizer(optimizer, missing, groups)
    with pytest.raises(CheckpointError, match="optimizer state of parameter 9: not here"):
        restore_optimizer(optimizer, {**tensors, "9/step": torch.zeros(())}, groups)
    after, _ = flatten_optimizer(optimizer)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert two_groups.state_dict()["state"] == {}


def test_verify_prints_a_line_for_each_file_and_refuses_an_empty_folder(tmp_path: Path) -> None:
    path = save(tmp_path, 8)
    names = ["ema.safetensors", "manifest.json", "model.safetensors", "optim.safetensors", "state.json"]
    assert verify_run(tmp_path) == [f"ok  step-000000008/{name}" for name in names]
    assert verify_run(path) == verify_run(tmp_path)
    with pytest.raises(CheckpointError, match="must hold a checkpoint, found none; name the folder of a training run"):
        verify_run(tmp_path / "elsewhere")


def test_another_configuration_is_refused_with_every_difference() -> None:
    old = {"lr": 2e-4, "betas": [0.5, 0.999], "data": {"sha256": "aa", "workers": 2}, "total_kimg": 100}
    same = {"lr": 2e-4, "betas": (0.5, 0.999), "data": {"sha256": "aa", "workers": 8}, "total_kimg": 200}
    ensure_same_config(old, same, {"total_kimg", "data.workers"})
    new = {**same, "lr": 1e-4, "ema": None, "data": {"sha256": "bb"}}
    with pytest.raises(CheckpointError) as caught:
        ensure_same_config(old, new, {"total_kimg", "data.workers"})
    assert caught.value.cause == (
        'the run folder belongs to another configuration (data.sha256: "aa" -> "bb"; ema: absent -> null; '
        "lr: 0.0002 -> 0.0001)"
    )
    assert caught.value.remedy == "use --overwrite or another --out"
    ensure_same_config(old, {**same, "data": {}}, {"total_kimg", "data"})


def test_an_option_of_a_later_version_counts_as_off_where_the_folder_does_not_name_it() -> None:
    old, defaults = {"config": {"lr": 2e-4}}, {"config": {"lr": 1e-3, "spread": 0.0, "order": (1, 2)}}
    ensure_same_config(old, {"config": {"lr": 2e-4, "spread": 0.0, "order": [1, 2]}}, (), defaults)
    with pytest.raises(CheckpointError, match=re.escape("(config.lr: 0.0002 -> 0.001; config.spread: 0.0 -> 3.0)")):
        ensure_same_config(old, {"config": {"lr": 1e-3, "spread": 3.0}}, ("config.order",), defaults)


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_a_second_run_on_the_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        message = f"in use by process {os.getpid()} on .*; wait for it, stop it, or choose another --out"
        with pytest.raises(RunLockedError, match=message), run_lock(tmp_path):
            pytest.fail("two holders")
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()
    with run_lock(tmp_path):
        pass
    assert not (tmp_path / "LOCK").exists()


@pytest.mark.fault("resume: folders held by another process, or left by a killed one")
def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from finegan_aug.run_folder import run_lock\n"
        f"with run_lock(Path({str(tmp_path)!r})): print(os.getpid(), flush=True); os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip()
    (tmp_path / "checkpoints" / ".tmp-8-1-ab").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".trash-step-000000008-ab").mkdir()
    with pytest.warns(UserWarning, match=f"process {dead} was killed; going on"), run_lock(tmp_path):
        assert steps(tmp_path) == []


def test_a_folder_that_cannot_be_locked_is_one_line_of_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"cannot lock .*; choose an --out that can be written"),
        run_lock(tmp_path / "file"),
    ):
        pytest.fail("locked a file")


def test_a_path_with_nul_is_one_line_of_advice(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="a path must not hold NUL; choose another --out"),
        run_lock(tmp_path / "a\0b"),
    ):
        pytest.fail("locked")


def test_the_status_says_how_the_run_stands(tmp_path: Path) -> None:
    write_status(tmp_path, "running", None, 0)
    write_status(tmp_path, "stopped", 143, 4000, "SIGTERM")
    expected = {"state": "stopped", "exit_code": 143, "seen_images": 4000, "message": "SIGTERM"}
    assert json.loads((tmp_path / "status.json").read_text()) == expected
