"""FineGAN as the training loop sees it: the networks, what each player minimises, and who owns which weight.

The loop calls three verbs (`sample_codes`, `forward`, the two losses) and knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug import losses
from finegan_aug.augment import DRAWS_PER_IMAGE, diff_augment, random_grid
from finegan_aug.codes import deal_codes, uniform_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.stream import RealBatch
from finegan_aug.models.fake_batch import FakeBatch, Freed
from finegan_aug.models.finegan import (
    BackgroundDiscriminator,
    ChildDiscriminator,
    Generator,
    InformationHead,
    ParentDiscriminator,
    Stages,
)
from finegan_aug.models.projected import FrozenFeatures, ProjectedJudge, packaged_stages
from finegan_aug.patches import patch_geometry
from finegan_aug.randomness import normals, seed_for, uniforms

Terms = dict[str, Tensor]


@contextmanager
def frozen(networks: Sequence[nn.Module]) -> Iterator[None]:
    """While it is entered, gradients pass through these networks and none stays in them."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class FineGAN:
    """Networks and losses of one configuration.

    With `judge` projected, frozen features and their judge say real or fake of whole images; the trunk of the child
    discriminator then only reads codes and classes.

    Args:
        config: resolved.

    Raises:
        ConfigError: the configuration needs a package that is not installed.
    """

    def __init__(self, config: FineGANConfig) -> None:
        self.config = config
        self.noise_seed = config.seed  # of codes, noise and augmentation of generated images
        self.geometry = patch_geometry(config.resolution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.seed, "init"))
            self.generator: nn.Module = Generator(config)
            self.parent_d: nn.Module = ParentDiscriminator(config)
            child_d = ChildDiscriminator(config)
            self.info: nn.Module = InformationHead(child_d.trunk.channels, config.num_children or 0, config.d_norm)
            self.child_d: nn.Module = child_d
            self.background_d: nn.Module | None = None
            if config.judges_background:
                self.background_d = BackgroundDiscriminator(config)
            self.judge: nn.Module | None = None
            self.features: FrozenFeatures | None = None
            if config.judge == "projected":
                self.judge = ProjectedJudge(config)
                stages, seed = packaged_stages(), seed_for(config.seed, "frozen features")
                self.features = FrozenFeatures(stages, config.judged_px, seed)
        self.child_to_parent = torch.tensor(config.child_to_parent, dtype=torch.int64)

    def renew_noise(self, rollbacks: int) -> None:
        """Other noise for the same photographs, after a run was set back so many times; 0: that of the seed."""
        seed = self.config.seed
        self.noise_seed = seed_for(seed, "rollback", rollbacks) if rollbacks else seed

    def networks(self) -> dict[str, nn.Module]:
        """Name to network: what is trained, saved and moved to the device."""
        found = {
            "generator": self.generator,
            "parent_d": self.parent_d,
            "child_d": self.child_d,
            "info": self.info,
            "background_d": self.background_d,
            "judge": self.judge,
        }
        return {name: network for name, network in found.items() if network is not None}

    def discriminator_networks(self) -> list[nn.Module]:
        """Networks of the discriminator's optimiser: real/fake with its trunk, background patches."""
        judge = self.child_d if self.judge is None else self.judge
        return [judge, *([self.background_d] if self.background_d is not None else [])]

    def generator_networks(self) -> list[nn.Module]:
        """Networks of the generator's optimiser: the generator and everything that reads codes."""
        return [self.generator, self.parent_d, *self.code_readers()]

    def code_readers(self) -> list[nn.Module]:
        """What reads child codes and classes and belongs to the generator's optimiser, where the loss that names the
        class of real crops leaves gradients too. Beside a projected judge the trunk is among them: real and fake do not
        train it, so it learns as the parent discriminator does.
        """
        return [self.info] if self.judge is None else [self.info, self.child_d]

    @contextmanager
    def frozen_discriminators(self) -> Iterator[None]:
        """While it is entered, gradients pass through the discriminators and none stays in them."""
        with frozen(self.discriminator_networks()):
            yield

    def sample_codes(self, positions: range, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Noise float32 [N, z_dim] and child codes int64 [N] of these places in the endless stream of fakes.

        Args:
            positions: places in the stream.
            seed: of another stream than that of the run.
        """
        config = self.config
        seed = self.noise_seed if seed is None else seed
        z = normals(seed_for(seed, "latent"), list(positions), config.z_dim)
        draw = deal_codes if config.balanced_codes else uniform_codes
        share = 2 if config.spread_weight > 0 else 1  # neighbours that have one code, to be compared
        places = torch.tensor(positions) // share
        first, last = positions.start // share, (positions.stop - 1) // share
        codes = draw(seed, first, last - first + 1, config.num_children or 0)
        return torch.from_numpy(z).float(), codes[places - first]

    def forward(self, z: Tensor, child: Tensor, positions: range) -> FakeBatch:
        """One generator forward in training mode, with the draws of its augmentation."""
        config, grid = self.config, None
        if config.boxes == "none" and config.warp:
            u = torch.from_numpy(uniforms(seed_for(self.noise_seed, "warp"), list(positions), 4)).float()
            grid = random_grid(u.to(z.device), config.resolution)
        parent = self.child_to_parent.to(child.device)[child]
        draws = uniforms(seed_for(self.noise_seed, "diffaug", "fake"), list(positions), DRAWS_PER_IMAGE)
        fake = FakeBatch(self.generator(z, child, parent, grid=grid), child, parent, torch.from_numpy(draws).to(z))
        share = config.free_parent_share
        again = [i for i, place in enumerate(positions) if int((place + 1) * share) > int(place * share)]
        if not again:
            return fake
        u = torch.from_numpy(uniforms(seed_for(self.noise_seed, "free parents"), [positions[i] for i in again], 1))
        freed = (u[:, 0] * (config.num_parents or 0)).long().to(parent)
        moved = None if grid is None else grid[again]
        stages = self.generator(z[again], child[again], freed, grid=moved)
        return fake._replace(freed=Freed(stages.child, freed))

    def discriminator_losses(self, real: RealBatch, fake: FakeBatch, step: int = 0) -> Terms:
        """Terms whose sum the discriminators minimise (finegan.md 4.2, 4.3; with tied labels also 5.2)."""
        config, terms = self.config, {}
        penalised = config.r1_gamma > 0 and step % config.r1_interval == 0
        penalties = list[Tensor]()
        if self.background_d is not None and real.frames is not None and real.outside is not None:
            frames = real.frames.requires_grad_(penalised)
            real_rf, real_aux = self.background_d(frames)
            fake_rf, _ = self.background_d(self._seen_background(fake.stages).detach())
            weight = config.background_weight
            terms["background_real"] = weight * losses.background_real_loss(real_rf, real.outside)
            terms["background_fake"] = weight * losses.fake_loss(fake_rf)
            if real_aux is not None:
                terms["background_aux"] = losses.background_aux_loss(real_aux, real.outside)
            if penalised:
                penalties.append(losses.gradient_penalty(real_rf.mean(dim=(2, 3)), frames))
        objects = diff_augment(real.objects, real.draws, config.diffaugment).requires_grad_(penalised)
        generated = diff_augment(fake.stages.child.detach(), fake.draws, config.diffaugment)
        features, real_logits, fake_logits = self._judge(objects, generated, real.labels, self._classes(fake.child))
        hinge = self.judge is not None
        terms["child_real"] = losses.hinge_real_loss(real_logits) if hinge else losses.real_loss(real_logits)
        terms["child_fake"] = losses.hinge_fake_loss(fake_logits) if hinge else losses.fake_loss(fake_logits)
        if penalised:
            penalties.append(losses.gradient_penalty(real_logits, objects))
        if config.r1_gamma > 0:
            # Zero between two penalties: the terms keep their names.
            total = sum(penalties, start=real.objects.new_zeros(()))
            terms["r1"] = 0.5 * config.r1_gamma * config.r1_interval * total
        if config.modes > 0 and config.class_weight > 0:
            # The head's gradient waits in .grad for the generator's optimiser, which owns the head.
            if features is None:
                features, _ = self.child_d(objects, real.labels)
            scores = self.info(features if config.label_trunk else features.detach())
            terms["child_class"] = config.class_weight * losses.class_loss(scores, real.labels, config.modes)
        return terms

    def generator_losses(self, fake: FakeBatch, real: RealBatch | None = None) -> Terms:
        """Terms whose sum the generator and the code readers minimise (finegan.md 4.4, 5.2, 6.4).

        Args:
            fake: one forward of the generator.
            real: photographs of the update; with `spread_weight` only, which compares with them.
        """
        config, stages, terms = self.config, fake.stages, {}
        if self.background_d is not None:
            rf, aux = self.background_d(self._seen_background(stages))
            terms["g_background"] = config.background_weight * losses.real_loss(rf)
            if aux is not None:
                terms["g_background_aux"] = losses.real_loss(aux)
        no_box = config.boxes == "none"
        parent_object = stages.parent_mask * (stages.parent if no_box else stages.parent_foreground)
        child_object = self._child_object(stages)
        terms["g_parent_code"] = losses.code_loss(self.parent_d(parent_object), fake.parent)
        composite = diff_augment(stages.child, fake.draws, config.diffaugment)
        classes = self._classes(fake.child)
        features, object_features, logits = self._views(composite, child_object, classes)
        hinge = self.judge is not None
        terms["g_child"] = losses.hinge_generator_loss(logits) if hinge else losses.real_loss(logits)
        terms["g_child_code"] = config.child_code_weight * losses.code_loss(self.info(object_features), fake.child)
        if (config.modes > 0 or no_box) and config.composite_code_weight > 0:
            code = losses.code_loss(self.info(features), fake.child)
            terms["g_composite_code"] = config.composite_code_weight * code
        for name, mask in (("parent", stages.parent_mask), ("child", stages.child_mask)):
            if config.mask_size_weight > 0:
                size = losses.mask_size_loss(mask, *config.mask_area)
                terms[f"g_{name}_mask_size"] = config.mask_size_weight * size
            if config.mask_entropy_weight > 0:
                terms[f"g_{name}_mask_entropy"] = config.mask_entropy_weight * losses.mask_entropy_loss(mask)
        if config.mask_tie_weight > 0:
            tie = losses.mask_tie_loss(stages.parent_mask, stages.child_mask)
            terms["g_mask_tie"] = config.mask_tie_weight * tie
        if fake.freed is not None:
            # What the head knows of parents it learned from photographs: the generator shall draw for it, not it
            # learn what the generator draws.
            with frozen(self.code_readers()):
                features, _ = self.child_d(fake.freed.images, torch.full_like(fake.freed.parent, -1))
                scores = self.info(features)
            to_parent = self.child_to_parent.to(scores.device)
            terms["g_free_parent"] = losses.parent_loss(scores, fake.freed.parent, to_parent)
        if config.spread_weight > 0:
            assert real is not None, "spread_weight compares with photographs"
            pairs = len(fake.child) // 2 * 2
            alike = fake.child[0:pairs:2] == fake.child[1:pairs:2]  # hard samples are no pairs
            missing = losses.spread_loss(losses.spread(stages.child), alike, losses.spread(real.objects))
            terms["g_spread"] = config.spread_weight * missing
        return terms

    def code_surprisal(self, fake: FakeBatch) -> Tensor:
        """-log of the probability that the masked object gives to its own child code, float32 [N] from 0 up."""
        features, _ = self.child_d(self._child_object(fake.stages), self._classes(fake.child))
        return F.cross_entropy(self.info(features), fake.child, reduction="none")

    def _child_object(self, stages: Stages) -> Tensor:
        """What the information head reads: the masked foreground, without boxes cut out of the composite."""
        return stages.child_mask * (stages.child if self.config.boxes == "none" else stages.child_foreground)

    def _judge(
        self, real: Tensor, fake: Tensor, real_classes: Tensor, fake_classes: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Trunk features of the real images if they were needed, logits of real and of fake.

        One pass unless batch norm keeps them apart.
        """
        if self.judge is not None and self.features is not None:
            maps = self.features(torch.cat([real, fake]))
            logits = self.judge(maps, torch.cat([real_classes, fake_classes]))
            return None, logits[: len(real)], logits[len(real) :]
        if self.config.d_norm == "batch":
            features, real_logits = self.child_d(real, real_classes)
            return features, real_logits, self.child_d(fake, fake_classes)[1]
        features, logits = self.child_d(torch.cat([real, fake]), torch.cat([real_classes, fake_classes]))
        count = len(real)
        return features[:count], logits[:count], logits[count:]

    def _views(self, composite: Tensor, child_object: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trunk features of the composite and of the masked object, and real/fake logits of the composite."""
        if self.config.d_norm == "batch":  # its statistics belong to one kind of image
            features, logits = self.child_d(composite, classes)
            object_features, _ = self.child_d(child_object, classes)
        else:
            both, logits = self.child_d(torch.cat([composite, child_object]), torch.cat([classes, classes]))
            features, object_features = both.chunk(2)
        if self.judge is not None and self.features is not None:
            logits = self.judge(self.features(composite), classes)
        return features, object_features, logits[: len(classes)]

    def _seen_background(self, stages: Stages) -> Tensor:
        """The background as the patch discriminator takes it: classic resizes, slim cuts the middle."""
        if stages.background_126 is not None:
            return stages.background_126
        margin = (self.config.resolution - self.geometry.input_px) // 2
        if margin == 0:
            return stages.background
        return stages.background[..., margin:-margin, margin:-margin]

    def _classes(self, child: Tensor) -> Tensor:
        """Class or cluster of each child code; -1 where photographs have none."""
        return child // self.config.modes if self.config.modes else torch.full_like(child, -1)
