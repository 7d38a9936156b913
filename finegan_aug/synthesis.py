"""From a trained run to a folder of labelled images: image n of a class is always the same image.

Generation runs in blocks of 32 consecutive numbers of one class, never more or fewer, so that neither the amount asked
for nor the number of processes changes a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finegan_aug.codes import child_to_class
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.files import read_json, sha256_file, write_bytes
from finegan_aug.grids import to_uint8
from finegan_aug.models.finegan import Generator, Stages
from finegan_aug.placement import object_places, placement_grid
from finegan_aug.preparation import launched
from finegan_aug.progress import Progress
from finegan_aug.provenance import IMPORTED, config_sha256, set_lineage, write_records
from finegan_aug.randomness import normals, seed_for, uniforms
from finegan_aug.run_folder import held_together
from finegan_aug.synthesis_settings import Background, ImageFormat, Placement, SynthesisSettings, check, settle
from finegan_aug.synthetic import Header, SyntheticRow, encode, file_name
from finegan_aug.trained import check_classes, open_run
from finegan_aug.typed import read_field

BLOCK = 32
WRITERS = 4  # threads: encoding releases the interpreter, and each file waits for the disk
Pictures = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]  # [..., S, S, 3]


def load_generator(run_dir: str | Path) -> Generator:
    """The averaged generator of a run's best or last good checkpoint (`open_run`), in eval mode on the CPU.

    Raises:
        CheckpointError: the run has no checkpoint yet, or none that verifies.
    """
    return open_run(run_dir).generator


def synthesize(
    run_dir: str | Path,
    out_dir: str | Path,
    per_class: int = 100,
    seed: int = 0,
    *,
    image_format: ImageFormat = "png",
    background: Background | None = None,
    placement: Placement | None = None,
    canvas_px: int | None = None,
    by_code: bool = False,
    fraction: float | None = None,
    pair: int | None = None,
) -> Path:
    """Writes `per_class` images of each class with manifest and lineage; the same call again continues.

    Args:
        run_dir: a training run. With discovered codes its audit.json says which code is which class; of an imported
            generator that never saw photographs here, each code is a class, and the set has no lineage.
        out_dir: the set; image n of a class has the same bytes however many are asked for.
        image_format: png and webp keep every pixel.
        background: "tied" to the child code as in training, or "random" among all codes; default "random" where the
            background stage learned what background is, else "tied": it may show the object.
        placement: "crop": the object fills the image as in the training crops; "frame": it lies where and as large as
            objects lie in the training photographs. Default: "frame" where boxes are known.
        canvas_px: side of a "frame" image; default the generator's resolution.
        by_code: each child code is a class of its own, as of an imported generator, and needs no audit; a teacher may
            then name the images one by one (`teacher.name_synthetic`).
        fraction, pair: draw of the labelled budget, noted in the lineage.

    Returns:
        The folder.

    Raises:
        CheckpointError: no good checkpoint.
        ConfigError: the folder holds another or a larger set, other files or photographs; an impossible number.
        DataError: a class has no code.
        RunLockedError: another process writes the set.
    """
    run_dir, out_dir = Path(run_dir), Path(out_dir)
    run = open_run(run_dir)
    config, imported = run.config, (run_dir / IMPORTED).exists()
    manifest = read_manifest(run_dir / "data.jsonl") if not imported or (run_dir / "data.jsonl").exists() else None
    check_classes(run, manifest)
    if placement == "frame" and manifest is None:
        raise ConfigError(f"{run_dir} was imported and holds no photographs with objects", "use --placement crop")
    placement = placement or ("crop" if config.boxes == "none" or manifest is None else "frame")
    background = background or ("random" if config.judges_background else "tied")
    canvas_px = (canvas_px or config.resolution) if placement == "frame" else config.resolution
    about = (seed, image_format, background, placement, canvas_px, by_code)
    settings = SynthesisSettings(run.checkpoint_sha256, per_class, *about)
    check(settings, out_dir, manifest)
    state = launched()
    with held_together(out_dir, state):
        written = settle(settings, out_dir)
        classes = _class_names(run_dir, manifest, config.num_children if by_code else None)
        codes, code_to_class = _codes_by_class(config, run_dir, seen=manifest is not None and not by_code)
        places = object_places(manifest, config.boxes) if manifest and placement == "frame" else None
        generator = run.generator.to(state.device)

        # Every process draws its share of the blocks; whatever lies in the folder already is not drawn again.
        blocks = [(label, first) for label in range(len(codes)) for first in range(0, per_class, BLOCK)]
        mine = blocks[state.process_index :: state.num_processes]

        def draw(label: int, first: int) -> Pictures:
            latents = draw_latents(config, codes[label], label, first, settings)
            return _draw(generator, latents, places, settings, label, first)

        with Progress(len(blocks) * BLOCK / 1000, label="kimg", enabled=state.is_main_process) as progress:
            for done in _write_blocks(mine, classes, settings, out_dir, draw, written):
                progress.advance_to(done * BLOCK * state.num_processes / 1000)
        state.wait_for_everyone()

        if state.is_main_process:
            rows = [
                row
                for label, first in blocks
                for row in _rows(config, classes, codes[label], label, first, settings, out_dir)
            ]
            made_with = {**asdict(settings), "config_sha256": config_sha256(config)}
            seen = None if imported else manifest
            lineage = set_lineage(run, seen, None if by_code else code_to_class, fraction, pair) if seen else None
            write_records(out_dir, Header(classes, canvas_px, image_format, made_with), rows, lineage)
        state.wait_for_everyone()
    return out_dir


@dataclass(frozen=True)
class Latents:
    """What one block of images is drawn from: noise float32 [32, z_dim], codes int64 [32]."""

    z: Tensor
    child: Tensor
    parent: Tensor
    background: Tensor


def draw_latents(config: FineGANConfig, codes: Tensor, label: int, first: int, settings: SynthesisSettings) -> Latents:
    """Noise and codes of images first ... first + 31 of a class, each a function of (seed, class, number)."""
    numbers = list(range(first, first + BLOCK))
    z = torch.from_numpy(normals(seed_for(settings.seed, "sample", label), numbers, config.z_dim)).float()
    u = torch.from_numpy(uniforms(seed_for(settings.seed, "sample-codes", label), numbers, 2))
    child = codes[(u[:, 0] * len(codes)).long()]
    parent = torch.tensor(config.child_to_parent)[child]
    free = (u[:, 1] * (config.num_children or 1)).long()
    return Latents(z, child, parent, child if settings.background == "tied" else free)


@torch.no_grad()
def _draw(
    generator: Generator,
    latents: Latents,
    places: Tensor | None,
    settings: SynthesisSettings,
    label: int,
    first: int,
) -> Pictures:
    """One block, uint8 [32, S, S, 3]."""
    device = next(generator.parameters()).device
    grid = None
    if places is not None:
        u = uniforms(seed_for(settings.seed, "sample-place", label), list(range(first, first + BLOCK)), 2)
        grid = placement_grid(places, torch.from_numpy(u), settings.canvas_px).to(device)
    stages: Stages = generator(
        latents.z.to(device),
        latents.child.to(device),
        latents.parent.to(device),
        latents.background.to(device),
        grid=grid,
    )
    pictures: Pictures = to_uint8(stages.child).permute(0, 2, 3, 1).numpy()
    return pictures


def _write_blocks(
    blocks: list[tuple[int, int]],
    classes: tuple[str, ...],
    settings: SynthesisSettings,
    out_dir: Path,
    draw: Callable[[int, int], Pictures],
    written: Mapping[str, str | None],
) -> Iterator[int]:
    """Draws and writes what is not there yet, or not as it was `written` (file to SHA-256), and yields how many blocks
    are done; draws one while writing another.
    """

    def is_whole(file: str) -> bool:
        path = out_dir / file
        return path.is_file() and written.get(file) in (None, sha256_file(path))

    with ThreadPoolExecutor(WRITERS) as writers:
        writing: Iterator[None] = iter(())
        for done, (label, first) in enumerate(blocks, start=1):
            numbers = range(first, min(first + BLOCK, settings.per_class))
            files = [file_name(classes[label], label, n, settings.image_format) for n in numbers]
            if not all(map(is_whole, files)):
                pictures = draw(label, first)
                list(writing)  # waits for the block before, and raises what went wrong with it
                paths = [out_dir / file for file in files]
                writing = writers.map(_write, paths, pictures, repeat(settings.image_format))
            yield done
        list(writing)


def _write(file: Path, picture: Pictures, image_format: ImageFormat) -> None:
    write_bytes(file, encode(picture, image_format))


def _rows(
    config: FineGANConfig,
    classes: tuple[str, ...],
    codes: Tensor,
    label: int,
    first: int,
    settings: SynthesisSettings,
    out_dir: Path,
) -> list[SyntheticRow]:
    latents = draw_latents(config, codes, label, first, settings)
    found = []
    for i, number in enumerate(range(first, min(first + BLOCK, settings.per_class))):
        file = file_name(classes[label], label, number, settings.image_format)
        found.append(
            SyntheticRow(
                file,
                classes[label],
                label,
                number,
                child=int(latents.child[i]),
                parent=int(latents.parent[i]),
                background=int(latents.background[i]),
                seed=settings.seed,
                sha256=sha256_file(out_dir / file),
            )
        )
    return found


def _class_names(run_dir: Path, manifest: Manifest | None, num_codes: int | None) -> tuple[str, ...]:
    """Those of the codes, of the photographs, or what an imported run calls its codes."""
    if num_codes is not None:
        return tuple(f"code-{code:03d}" for code in range(num_codes))
    path = run_dir / "config.json"
    return manifest.classes if manifest else tuple(read_field(read_json(path), path, "classes", list[str]))


def _codes_by_class(config: FineGANConfig, run_dir: Path, *, seen: bool) -> tuple[list[Tensor], tuple[int, ...]]:
    """Child codes of each class, and the class of each code (-1: none); without photographs each code is a class."""
    classes = (config.num_classes if seen else config.num_children) or 0
    if not seen:
        mapping = torch.arange(classes)
    elif config.labels == "tied":
        mapping = child_to_class(classes, config.modes_per_class)
    else:
        path = run_dir / "audit.json"
        if not path.exists():
            raise DataError(
                f"discovered codes need an audit, found no {path.name} in {run_dir}", "run finegan-aug evaluate first"
            )
        listed = read_field(read_json(path), path, "code_to_class", list[int])
        if len(listed) != config.num_children or not all(-1 <= label < classes for label in listed):
            raise DataError(
                f"{path}: code_to_class must hold a class from -1 to {classes - 1} for each of {config.num_children} "
                f"codes, found {len(listed)} from {min(listed, default=0)} to {max(listed, default=0)}",
                "run finegan-aug evaluate again",
            )
        mapping = torch.tensor(listed, dtype=torch.int64)
    codes = [torch.nonzero(mapping == label).flatten() for label in range(classes)]
    empty = [label for label, found in enumerate(codes) if len(found) == 0]
    if empty:
        raise DataError(
            f"every class needs a code, found none for class {', '.join(map(str, empty[:5]))}",
            "use tied labels, more codes or a longer training",
        )
    return codes, tuple(mapping.tolist())
