"""The files of the official FineGAN (kkanshul/finegan, code/model.py) in and out, tensor by tensor.

Official training writes a state dict for each network: `netG_*.pth` (averaged weights, batch norm statistics of the
live network), `netD0_*.pth` (background), `netD1_*.pth` (parent), `netD2_*.pth` (child, with the head that reads its
code). Only generators were ever published.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from finegan_aug.checkpoint import Tensors, best_checkpoint, load_checkpoint, save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.errors import CheckpointError
from finegan_aug.features import load_weights
from finegan_aug.files import sha256_file, write_bytes, write_json
from finegan_aug.models.finegan import (
    BackgroundDiscriminator,
    ChildDiscriminator,
    Generator,
    InformationHead,
    ParentDiscriminator,
)
from finegan_aug.models.game import FineGAN
from finegan_aug.official_names import RF, background_names, generator_names, info_names, trunk_names
from finegan_aug.provenance import IMPORTED
from finegan_aug.restoring import load_into, named_tensors
from finegan_aug.run_folder import run_lock
from finegan_aug.trained import built, read_run_config

_COUNTER = "num_batches_tracked"
_REMEDY = "name files that training of kkanshul/finegan wrote"


def import_official(
    generator_file: str | Path, run_dir: str | Path, *, discriminator_files: Iterable[str | Path] = ()
) -> Path:
    """Makes a run folder of an official generator: figures and synthesis work, and training may go on from it.

    Every child code is a class of its own there, named code-000, code-001, ...; sets made from it have no lineage,
    since the published weights have seen test images.

    Args:
        generator_file: netG_*.pth, with or without the prefix `module.` and the counters of batch norm.
        run_dir: a folder that is not there yet, or empty.
        discriminator_files: netD0, netD1 and netD2 in this order, or none: training then begins with fresh ones.

    Returns:
        The folder.

    Raises:
        CheckpointError: a file is unreadable or holds other tensors, which are listed; or the folder is in use.
    """
    run_dir, paths = Path(run_dir), [Path(generator_file), *map(Path, discriminator_files)]
    if run_dir.exists() and any(run_dir.iterdir()):
        raise CheckpointError(f"{run_dir} must be empty, found files in it", "choose another folder")
    if len(paths) not in (1, 4):
        raise CheckpointError(
            f"discriminators must be the files netD0, netD1 and netD2, or none, found {len(paths) - 1} files", _REMEDY
        )
    files = [read_official(path) for path in paths]
    config = official_config(files[0], paths[0])
    if len(files) > 1:
        config = replace(config, ndf=_first_width(files[1], paths[1]))
    game = FineGAN(config)
    for path, tensors, view in zip(paths, files, official_views(game).values(), strict=False):
        _fill(view, tensors, path)
    known = game.networks() if len(files) > 1 else {"generator": game.generator}
    classes = [f"code-{code:03d}" for code in range(config.num_children or 0)]
    with run_lock(run_dir):
        write_json(run_dir / IMPORTED, {path.name: sha256_file(path) for path in paths})
        settled = {**config.to_json(), "num_classes": None}  # that of the photographs training goes on with
        write_json(run_dir / "config.json", {"config": settled, "classes": classes, "data_sha256": None})
        parts = {"model": named_tensors(known), "ema": named_tensors({"generator": game.generator})}
        state = {"seen_images": 0, "spent_sec": 0.0, "metrics_bytes": 0}
        save_checkpoint(run_dir, step=0, tensors=parts, state=state)
    return run_dir


def export_official(run_dir: str | Path, out_dir: str | Path) -> list[Path]:
    """Writes a run's networks as official training does: netG.pth and, where the run has them, netD0 to netD2.

    Args:
        run_dir: a run of preset classic; the averaged generator of its last good checkpoint becomes netG.pth.
        out_dir: files of these names in it are replaced.

    Raises:
        CheckpointError: no good checkpoint, another preset, whose layers the official code lacks, or a damaged run.
    """
    run_dir = Path(run_dir)
    config = read_run_config(run_dir)
    if config.network != "classic":
        raise CheckpointError(
            f"only preset classic has official names, found {config.network} in {run_dir}", "train preset classic"
        )
    checkpoint = best_checkpoint(run_dir)
    if checkpoint is None:
        raise CheckpointError(f"{run_dir} must hold a checkpoint, found none", "train it first")
    tensors, _ = load_checkpoint(checkpoint)
    game = built(FineGAN, config, run_dir)
    networks = game.networks()
    held = {name.split(".")[0] for name in tensors["model"]}
    load_into(named_tensors({name: networks[name] for name in held}), tensors["model"])
    load_into(named_tensors({"generator": game.generator}), tensors["ema"])
    written = []
    for name, view in official_views(game).items():
        if name == "netG" or len(held) > 1:
            stream = io.BytesIO()
            torch.save({f"module.{key}": tensor.contiguous() for key, tensor in view.items()}, stream)
            written.append(Path(out_dir) / f"{name}.pth")
            write_bytes(written[-1], stream.getvalue())
    return written


class Discriminators(NamedTuple):
    """Official discriminators in eval mode; `info` reads the child code from features of `child.trunk`."""

    background: BackgroundDiscriminator
    parent: ParentDiscriminator
    child: ChildDiscriminator
    info: InformationHead


def load_official_generator(
    source: Mapping[str, Tensor] | str | Path, child_to_parent: Sequence[int] | None = None
) -> Generator:
    """The generator of an official state dict, or of a file that holds one; every size comes from the shapes.

    Args:
        source: netG_*.pth or its content, with or without the prefix `module.` and the counters of batch norm.
        child_to_parent: parent of each child code; None: equal neighbouring groups, as in official training.

    Returns:
        In eval mode, on the CPU.

    Raises:
        CheckpointError: the file is unreadable or holds other tensors, which are listed.
        ConfigError: `child_to_parent` does not fit the codes.
    """
    tensors, path = _given(source)
    config = official_config(tensors, path)
    if child_to_parent is not None:
        config = replace(config, child_to_parent=tuple(child_to_parent))
    with torch.random.fork_rng(devices=[]):
        generator = Generator(config)
    _fill(_views(generator)["netG"], tensors, path)
    return generator.eval()


def load_official_discriminators(
    background: Mapping[str, Tensor] | str | Path,
    parent: Mapping[str, Tensor] | str | Path,
    child: Mapping[str, Tensor] | str | Path,
) -> Discriminators:
    """The discriminators of official state dicts or files (netD0, netD1, netD2); every size comes from the shapes.

    Raises:
        CheckpointError: a file is unreadable or holds other tensors, which are listed.
        ConfigError: more codes than make sense.
    """
    given = [_given(source) for source in (background, parent, child)]
    num_parents, num_children = (_num_codes(*one) for one in given[1:])
    if not num_parents < num_children:
        raise CheckpointError(
            f"netD1 must know fewer codes than netD2, found {num_parents} and {num_children}",
            "give netD0, netD1, netD2",
        )
    ndf = _first_width(*given[0])
    config = FineGANConfig.preset("classic", ndf=ndf, num_children=num_children, num_parents=num_parents)
    config = config.resolve(num_children)
    with torch.random.fork_rng(devices=[]):
        patches, of_parents = BackgroundDiscriminator(config), ParentDiscriminator(config)
        of_children = ChildDiscriminator(config)
        info = InformationHead(of_children.trunk.channels, num_children, config.d_norm)
    views = _views(None, patches, of_parents, of_children, info)
    for file, (tensors, path) in zip(("netD0", "netD1", "netD2"), given, strict=True):
        _fill(views[file], tensors, path)
    return Discriminators(patches.eval(), of_parents.eval(), of_children.eval(), info.eval())


def _given(source: Mapping[str, Tensor] | str | Path) -> tuple[Tensors, Path]:
    """Tensors without the prefix `module.`, and what to call them in an error."""
    if isinstance(source, Mapping):
        tensors = {name.removeprefix("module."): tensor.detach() for name, tensor in source.items()}
        return tensors, Path("the state dict")
    return read_official(Path(source)), Path(source)


def read_official(path: Path) -> Tensors:
    """The tensors of one official file on the CPU, without the prefix `module.`; nothing in it is executed.

    Raises:
        CheckpointError: the file cannot be read, or holds anything but named tensors.
    """
    try:
        return load_weights(path)
    except CheckpointError as error:
        raise CheckpointError(error.cause, _REMEDY) from error


def official_config(tensors: Mapping[str, Tensor], path: Path) -> FineGANConfig:
    """The configuration whose generator has these shapes (ngf, noise, codes), child codes in equal groups.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or the sizes do not fit each other.
    """
    telling = ("h_net1_bg.fc.0.weight", "h_net2.jointConv.0.weight", "h_net3.jointConv.0.weight")
    if missing := [name for name in telling if name not in tensors or tensors[name].dim() < 2]:
        raise CheckpointError(f"{path} must be an official generator, found no {', '.join(missing)}", _REMEDY)
    linear, parent, child = (tensors[name].shape for name in telling)
    ngf = linear[0] // 512
    num_parents, num_children = parent[1] - ngf, child[1] - ngf // 2
    z_dim = linear[1] - num_children
    if ngf < 8 or ngf % 4 or not 1 <= num_parents < num_children or z_dim < 1:
        raise CheckpointError(
            f"{path} must have ngf 8, 12, 16, ..., fewer parent than child codes and some noise, found ngf {ngf}, "
            f"{num_parents} parent codes, {num_children} child codes, noise {z_dim}",
            _REMEDY,
        )
    config = FineGANConfig.preset(
        "classic", width=ngf / 64, z_dim=z_dim, num_children=num_children, num_parents=num_parents
    )
    return config.resolve(num_children)


def official_views(game: FineGAN) -> dict[str, Tensors]:
    """File name to official name to live tensor, in the official order, for the networks of a `classic` game."""
    return _views(game.generator, game.background_d, game.parent_d, game.child_d, game.info)


def _views(
    generator: nn.Module | None,
    background: nn.Module | None = None,
    parent: nn.Module | None = None,
    child: nn.Module | None = None,
    info: nn.Module | None = None,
) -> dict[str, Tensors]:
    """The same for these networks; the file of one that is not there has no tensor."""
    return {
        "netG": _view((generator, generator_names())),
        "netD0": _view((background, background_names())),
        "netD1": _view((parent, trunk_names() | info_names("info.") | RF)),
        "netD2": _view((child, trunk_names()), (info, info_names()), (child, RF)),
    }


def _view(*networks: tuple[nn.Module | None, dict[str, str]]) -> Tensors:
    """Official name to live tensor of these networks, each with its prefixes, official to ours."""
    view: Tensors = {}
    for network, names in networks:
        live = network.state_dict() if network is not None else {}
        for official, ours in names.items():
            prefix = f"{ours}."
            own = {name.removeprefix(prefix): t for name, t in live.items() if name.startswith(prefix)}
            view |= {f"{official}.{suffix}": tensor for suffix, tensor in own.items()}
    return view


def _fill(view: Tensors, tensors: Tensors, path: Path) -> None:
    """Copies a file's tensors into a network; the counters of batch norm may be absent."""
    if not any(name.endswith(_COUNTER) for name in tensors):
        view = {name: tensor for name, tensor in view.items() if not name.endswith(_COUNTER)}
    try:
        load_into(view, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.cause}", _REMEDY) from error


def _first_width(tensors: Tensors, path: Path) -> int:
    name = "patchgan_img_code_s16.0.weight"
    if name not in tensors:
        raise CheckpointError(f"{path} must be an official background discriminator, found no {name}", _REMEDY)
    return len(tensors[name])


def _num_codes(tensors: Tensors, path: Path) -> int:
    name = "logits.0.weight"
    if name not in tensors or not tensors[name].dim():
        raise CheckpointError(f"{path} must be an official discriminator with a code, found no {name}", _REMEDY)
    return len(tensors[name])
