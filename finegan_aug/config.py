"""The configuration of a generator and its training: one frozen dataclass, presets as a table.

No torch here: the command line reads this file to print its help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from finegan_aug.errors import ConfigError
from finegan_aug.presets import PRESETS, WIDTHS
from finegan_aug.typed import check_fields

Labels = Literal["tied", "discovered"]
Boxes = Literal["given", "from_masks", "none"]
Norm = Literal["batch", "group", "none"]
Precision = Literal["auto", "fp32", "bf16"]
WithoutBoxes = Literal["skip", "border"]
Judge = Literal["trunk", "projected"]
OnNonfinite = Literal["stop", "rollback"]
Choice = Literal["last", "kid"]
Knowledge = Literal["own", "packaged"]  # learned from these photographs alone, or on top of ImageNet features


MOST_CODES = 100_000  # each has weights of its own, and places in every table
_ABOVE_ZERO = (
    *("width", "z_dim", "ndf", "modes_per_class", "batch_size", "total_kimg", "lr"),
    *("log_kimg", "grid_kimg", "checkpoint_kimg"),
)


@dataclass(frozen=True)
class FineGANConfig:
    """Everything that decides what a training run computes. Written to run_dir/config.json.

    Counts that are None are inferred from the data before anything starts (`resolve`). Lengths are thousands of real
    images shown (kimg), never iterations.

    Raises:
        ConfigError: a value out of range, or codes that do not fit each other.
    """

    network: str = "slim-64"  # layer table: classic, slim-32, slim-64, slim-128 or slim-256; set by the preset
    resolution: int = 64  # side of the square image, pixels
    width: float = 1.0  # multiplier on the channels of the generator
    z_dim: int = 100  # length of the noise
    ndf: int = 32  # channels of the first discriminator layer
    d_norm: Norm = "none"  # normalisation in the parent and child discriminators

    labels: Labels = "tied"  # tied: a code belongs to a class from the start; discovered: codes are matched and audited
    num_classes: int | None = None  # classes of the data; None: counted
    clusters: bool = False  # discovered: codes begin as clusters of packaged ImageNet features of the photographs
    modes_per_class: int = 2  # tied: codes for each class
    num_children: int | None = None  # child codes; tied: classes * modes
    num_parents: int | None = None  # parent codes; None: a tenth of the child codes, at least 2
    child_to_parent: tuple[int, ...] | None = None  # parent of each child code; None: equal neighbouring groups
    balanced_codes: bool = True  # deal every child code equally often instead of drawing with replacement

    boxes: Boxes = "given"  # where the object is: box files, masks, or not known
    background_without_boxes: WithoutBoxes = "skip"  # what the patch discriminator sees without boxes
    warp: bool = True  # boxes none: in training, objects are moved, turned and scaled before they are composed

    background_weight: float = 10.0  # real/fake loss of the background patches (official: 10)
    judge: Judge = "trunk"  # says real or fake of whole images; projected: from frozen features of an ImageNet network
    judge_px: int | None = None  # projected: side that it sees images at; None: their own, at least 64
    class_weight: float = 1.0  # tied: class of real labelled crops, information head
    child_code_weight: float = 1.0  # child code on the masked object; less leaves images of one code more freedom
    composite_code_weight: float = 1.0  # tied: child code on the composite image beside the masked object
    projection: bool = True  # tied: the child discriminator judges an image together with its class
    label_trunk: bool = True  # tied: the class of real labelled crops also trains the child discriminator's trunk
    r1_gamma: float = 0.0  # weight of the gradient penalty on real crops, child and background discriminator; 0: off
    r1_interval: int = 8  # updates between two penalties; each then counts so many times
    batch_deviation: int = 0  # child discriminator: neighbours in a batch whose spread it sees; 0: off
    mask_size_weight: float = 10.0  # keeps the area of masks within mask_area
    mask_area: tuple[float, float] = (0.1, 0.5)  # smallest and largest share of the image that a mask covers
    mask_entropy_weight: float = 0.4  # makes masks say yes or no
    mask_tie_weight: float = 0.0  # makes parent and child draw one outline, chosen by the parent code; 0: off
    one_mask: bool = False  # the parent's mask is the child's too, so that the parent code alone draws the outline
    split_noise: bool = False  # half of z is the background's alone: what lies on it cannot paint it, masks must fit
    free_parent_share: float = 0.0  # share of the batch drawn again, with any parent, for the head to read it there
    spread_weight: float = 0.0  # keeps images of one code as different from each other as photographs are; 0: off
    diffaugment: tuple[str, ...] = ("translation",)  # of color, translation, cutout; child discriminator's inputs
    pseudo_labels: float | None = 0.95  # tied: name unlabelled images above this confidence of a teacher; None: never
    teacher: Knowledge = "own"  # who names them: a network trained on the labelled ones, or packaged ImageNet features

    official_crops: bool = False  # official data path: object crops resized twice (at 128 px: 304, 256, 128 pixels)

    batch_size: int = 32  # real images in one update, all processes together
    shards: int = 0  # strict mode: parts of a batch that fix its bits on any number of processes dividing it; 0: off
    total_kimg: float = 500.0  # length of training
    hard_negative_kimg: float = 0.0  # last part of training, every other update of it on hard samples
    hard_negative_from_ema: bool = True  # the generator begins the hard-negative part with its averaged weights
    lr: float = 1e-3  # Adam's learning rate, all networks
    lr_decay: float = 0.0  # last share of training over which the learning rate falls to zero
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam
    ema_halflife_kimg: float = 11.0  # half-life of the averaged generator
    ema_ramp: float | None = 0.05  # half-life at most this share of the images seen; None: off
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it and gains by it, else fp32
    compile_backend: str | None = None  # torch.compile the networks with this backend, such as inductor; None: off
    seed: int = 0
    on_nonfinite: OnNonfinite = "stop"  # or go on from the last checkpoint with other noise, three times at most

    log_kimg: float = 0.5  # between lines of metrics.jsonl
    grid_kimg: float = 20.0  # between image grids
    checkpoint_kimg: float = 20.0  # between checkpoints
    keep_checkpoints: int = 2  # the newest ones
    choose_checkpoint: Choice = "last"  # to draw from; kid: the nearest to the photographs, by packaged features

    def __post_init__(self) -> None:
        if self.network not in WIDTHS:
            raise ConfigError(f"network must be one of {', '.join(WIDTHS)}, got {self.network!r}", "change --preset")
        needed = PRESETS[self.network]["resolution"]
        if self.resolution != needed:
            raise ConfigError(
                f"resolution must be {needed} for preset {self.network}, got {self.resolution}",
                f"use --preset slim-{self.resolution}" if f"slim-{self.resolution}" in PRESETS else "drop --resolution",
            )
        words = {"labels": Labels, "boxes": Boxes, "d_norm": Norm, "precision": Precision}
        words |= {"background_without_boxes": WithoutBoxes, "judge": Judge, "teacher": Knowledge}
        words |= {"choose_checkpoint": Choice, "on_nonfinite": OnNonfinite}
        for name, kind in words.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}",
                    f"change --{name}",
                )
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}", f"raise --{name}")
        if self.r1_gamma < 0 or self.r1_interval < 1 or self.batch_deviation < 0:
            raise ConfigError(
                "r1_gamma, r1_interval and batch_deviation must be at least 0, 1 and 0, "
                f"got {self.r1_gamma:g}, {self.r1_interval} and {self.batch_deviation}",
                "correct them",
            )
        if not 0 <= self.lr_decay <= 1:
            raise ConfigError(f"lr_decay must be from 0 to 1, got {self.lr_decay}", "change --lr_decay")
        if not 0 <= self.hard_negative_kimg < self.total_kimg:
            raise ConfigError(
                f"hard_negative_kimg must be at least 0 and below total_kimg = {self.total_kimg:g}, "
                f"got {self.hard_negative_kimg:g}",
                "lower --hard_negative_kimg, or set it to 0 to leave that phase out",
            )
        unknown = set(self.diffaugment) - {"color", "translation", "cutout"}
        if unknown:
            raise ConfigError(
                f"diffaugment must hold color, translation, cutout only, got {', '.join(sorted(unknown))}",
                "change --diffaugment",
            )
        if not 0 <= self.free_parent_share <= 1:
            raise ConfigError(
                f"free_parent_share must be from 0 to 1, got {self.free_parent_share:g}", "change --free_parent_share"
            )
        if self.network == "classic" and (self.one_mask or self.split_noise):
            raise ConfigError("one_mask and split_noise must be off for preset classic, found one on", "drop them")
        if self.clusters and self.labels == "tied":
            raise ConfigError("clusters need labels discovered, got 'tied'", "drop --clusters or change --labels")
        self._check_shards()
        self._check_judge()
        self._check_codes()

    def _check_shards(self) -> None:
        if self.shards == 0:
            return
        power_of_two = self.shards > 0 and self.shards & (self.shards - 1) == 0
        if not power_of_two or self.batch_size % self.shards or self.batch_size < 2 * self.shards:
            raise ConfigError(
                "shards must be 0 or a power of two that divides batch_size into parts of 2 images or more, "
                f"got {self.shards} for batch_size {self.batch_size}",
                "change --shards or --batch_size, or drop --shards",
            )

    def _check_judge(self) -> None:
        if self.judge_px is not None and (self.judge_px not in (64, 128, 256) or self.judge_px < self.resolution):
            raise ConfigError(
                f"judge_px must be 64, 128 or 256 and at least the resolution {self.resolution}, got {self.judge_px}",
                "change --judge_px",
            )
        if self.judge != "projected":
            return
        if self.network == "classic":
            raise ConfigError("judge must be trunk for preset classic, got 'projected'", "drop --judge")
        if self.r1_gamma > 0 or self.batch_deviation > 0:
            raise ConfigError(
                "judge projected needs r1_gamma and batch_deviation of 0, "
                f"got {self.r1_gamma:g} and {self.batch_deviation}",
                "set both to 0, or drop --judge",
            )

    def _check_codes(self) -> None:
        for name in ("num_children", "modes_per_class"):
            if (getattr(self, name) or 0) > MOST_CODES:
                raise ConfigError(f"{name} must be at most {MOST_CODES}, got {getattr(self, name)}", f"lower --{name}")
        if self.labels == "tied" and self.num_classes is not None and self.num_children is not None:
            expected = self.num_classes * self.modes_per_class
            if self.num_children != expected:
                raise ConfigError(
                    f"tied labels need num_children = classes * modes = {expected}, got {self.num_children}",
                    "drop --num_children",
                )
        if self.num_children is not None and self.num_parents is not None and self.num_parents >= self.num_children:
            raise ConfigError(
                f"num_parents must be smaller than num_children, got {self.num_parents} and {self.num_children}",
                "lower --num_parents",
            )
        if self.num_children is None or self.num_parents is None or self.child_to_parent is None:
            return  # `resolve` fills them
        children, parents, mapping = self.num_children, self.num_parents, self.child_to_parent
        if len(mapping) != children or set(mapping) != set(range(parents)):
            raise ConfigError(
                f"child_to_parent must hold {children} parents and use each of 0 to {parents - 1}, "
                f"got {len(mapping)} values with {len(set(mapping))} parents",
                "correct or drop --child_to_parent",
            )

    @classmethod
    def preset(cls, name: str, **values: Any) -> FineGANConfig:
        """A preset with some fields set: `preset("slim-32", labels="tied", num_classes=12, num_parents=4)`.

        Raises:
            ConfigError: an unknown preset or field, or values that do not fit.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}", "change --preset")
        merged = {"network": name, **PRESETS[name], **values}
        if name == "classic" and (values.get("labels") == "tied" or values.get("clusters")):
            # The official values are for codes that the game finds alone.
            merged |= {"num_children": None, "num_parents": None, "class_weight": 1.0, "composite_code_weight": 1.0}
            merged |= values
        if merged.get("labels", "tied") == "tied" and merged.get("num_classes") and merged.get("num_children") is None:
            merged["num_children"] = merged["num_classes"] * merged.get("modes_per_class", 2)
        return cls.from_json(merged)

    def resolve(self, num_classes: int) -> FineGANConfig:
        """Fills what is inferred from the data: classes, codes, parents and their map.

        Raises:
            ConfigError: the data have another number of classes, or more codes than make sense.
        """
        if self.num_classes not in (None, num_classes):
            raise ConfigError(
                f"num_classes is {self.num_classes} but the data have {num_classes} classes", "drop --num_classes"
            )
        tied = self.labels == "tied"
        children = self.num_children or (num_classes * self.modes_per_class if tied else 2 * num_classes)
        if self.child_to_parent:
            inferred = max(self.child_to_parent) + 1
        else:
            inferred = max(1, min(max(2, -(-children // 10)), children - 1))
        parents = self.num_parents or inferred
        mapping = self.child_to_parent or tuple(c * parents // children for c in range(children))
        return replace(
            self, num_classes=num_classes, num_children=children, num_parents=parents, child_to_parent=mapping
        )

    def learning_rate(self, seen_images: int) -> float:
        """Adam's learning rate after so many images: constant, then linear to zero over the last `lr_decay`."""
        if self.lr_decay == 0:
            return self.lr
        left = 1 - seen_images / (self.total_kimg * 1000)
        return self.lr * min(1.0, left / self.lr_decay)

    @property
    def hard_negative_step(self) -> int:
        """Number of the update, from 0, that begins the hard-negative phase; without one, that after the last."""
        before_images = round(self.total_kimg * 1000) - round(self.hard_negative_kimg * 1000)
        return -(-before_images // self.batch_size)

    @property
    def modes(self) -> int:
        """Codes for each class, or cluster, that photographs are known to show; 0: none is known."""
        return self.modes_per_class if self.labels == "tied" else int(self.clusters)

    @property
    def judged_px(self) -> int:
        """Side at which the projected judge sees images: at 64 pixels its deepest map is 2 x 2, below that nothing."""
        return self.judge_px or max(64, self.resolution)

    @property
    def judges_background(self) -> bool:
        """Whether there is a background discriminator: a place where background can be seen for sure."""
        return self.boxes != "none" or self.background_without_boxes == "border"

    def to_json(self) -> dict[str, Any]:
        """A dictionary that survives JSON and `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FineGANConfig:
        """Reads what `to_json` gave.

        Raises:
            ConfigError: an unknown key, a value of another type or out of range, or codes that do not fit each other.
        """
        check_fields(cls, content)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**values)
