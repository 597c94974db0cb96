"""Training of the VQGAN: two optimizers, so its own loop. Esser et al. 2021, §3.1.

The first steps run unquantised; then k-means places the codebook on the vectors seen
(`quantise_from`), moving averages or gradients refine it, and codes that were never
drawn are moved onto vectors of the batch. The discriminator joins at
`adversarial_from`, if ever.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grain
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cm3leon.data.mixture import Indexed, Selection, interleave
from cm3leon.data.pictures import Pictures
from cm3leon.errors import ConfigError
from cm3leon.images.discriminator import Discriminator, hinge_loss
from cm3leon.images.losses import (
    Perceptual,
    ReconstructionConfig,
    adversarial_weight,
    reconstruction_loss,
)
from cm3leon.images.pixels import square
from cm3leon.images.quality import psnr, ssim
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.images.vqgan import VQGAN, preset
from cm3leon.precision import autocast
from cm3leon.randomness import torch_generator
from cm3leon.training import checkpoint, picture_loop
from cm3leon.training.muon import Muon
from cm3leon.training.picture_loop import PictureTraining


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerTraining(PictureTraining):
    """Settings of one training of an image tokenizer."""

    preset: str = "shipped"
    start: str | None = None  # an image tokenizer's folder to go on from
    freeze: Literal["nothing", "codebook", "codes"] = "nothing"  # see `Trainer`
    mixture: Mapping[str, float] = field(default_factory=dict)  # tier -> share; {}: all
    steps: int = 6000
    batch: int = 32
    learning_rate: float = 1.2e-3  # peak, of AdamW
    muon_learning_rate: float | None = None  # peak, for convolutions; None: AdamW's
    warmup_steps: int = 60
    weight_decay: float = 0.01
    clip: float = 1.0
    quantise_from: int = 100  # step at which a new codebook starts
    revive_every: int = 100  # steps between revivals of unused codes
    revive_until: float = 0.85  # share of the training after which codes stay put
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adversarial_from: int | None = None  # step at which the discriminator joins
    checkpoint_every: int = 300  # steps
    validation_pictures: int = 512
    bfloat16: bool | None = None  # by default where the processor has it

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ConfigError(
                f"steps is {self.steps} and batch {self.batch}; both must be at least 1"
            )
        if self.freeze != "nothing" and self.start is None:
            raise ConfigError(
                f"freeze is {self.freeze!r}, which needs start, a trained image "
                "tokenizer"
            )
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}, not above 0")

    @property
    def unquantised_steps(self) -> int:
        """Steps before the codebook starts; one to go on from is there at once."""
        return self.quantise_from if self.start is None else 0


@dataclass(frozen=True)
class _Flip:
    """Grain transform: a picture as uint8, mirrored half the time."""

    side: int

    def __call__(self, picture: Any, random: np.random.Generator) -> np.ndarray:
        array = np.asarray(square(picture.image, self.side))
        return array[:, ::-1].copy() if random.random() < 0.5 else array


def picture_stream(
    pictures: Pictures,
    side: int,
    batch: int,
    seed: int,
    mixture: Mapping[str, float] | None = None,
) -> Any:
    """Endless shuffled batches of uint8 pictures; its state resumes exactly.

    Raises:
        ConfigError: the mixture names a tier that no picture is of.
    """
    groups: Mapping[str, Indexed] = {"all": pictures}
    shares = mixture or {"all": 1.0}
    if mixture:
        tiers = pictures.groups("tier")
        if missing := sorted(set(mixture) - set(tiers)):
            raise ConfigError(
                f"no picture is of tier {missing[0]!r}; there are: {', '.join(tiers)}"
            )
        groups = {name: Selection(pictures, tiers[name]) for name in mixture}
    stream = interleave(groups, shares, seed).random_map(_Flip(side)).batch(batch)
    return iter(stream.to_iter_dataset(grain.ReadOptions(1, 4 * batch)))


def scale(pixels: np.ndarray) -> Float[Tensor, "batch 3 height width"]:
    """uint8 pictures, channels last, as floats in [-1, 1]."""
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def share_of_peak(settings: ImageTokenizerTraining, step: int) -> float:
    """The learning rate over its peak: warm-up, then half a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
    return warm * (0.02 + 0.98 * cosine)


def optimizers(
    vqgan: VQGAN, settings: ImageTokenizerTraining
) -> list[torch.optim.Optimizer]:
    """AdamW for what learns; with a rate of its own, Muon for the convolutions.

    The two convolutions beside the codebook stay with AdamW: they are narrow.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in vqgan.named_parameters():
        inner = name.startswith(("encoder.", "decoder.")) and weight.ndim == 4
        if weight.requires_grad:
            muon = inner and settings.muon_learning_rate is not None
            (matrices if muon else others).append(weight)
    adamw = torch.optim.AdamW(
        others,
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    if settings.muon_learning_rate is None:
        return [adamw]
    rate, decay = settings.muon_learning_rate, settings.weight_decay
    return [adamw, Muon(matrices, lr=rate, weight_decay=decay)]


class Trainer:
    """Networks, optimizers and codebook statistics of one training.

    What `freeze` names stays as it was in `start`: with "codes" encoder and codebook,
    so that every picture keeps its codes and only the decoder learns; with "codebook"
    that alone, so that a code goes on meaning about what it meant to a transformer.
    """

    def __init__(self, settings: ImageTokenizerTraining) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.vqgan = VQGAN(preset(settings.preset))
        if settings.start is not None:
            begun = ImageTokenizer.load(settings.start).vqgan.state_dict()
            checkpoint.fit(self.vqgan, begun, settings.start)
        self.vqgan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._freeze()
        self.optimizers = optimizers(self.vqgan, settings)
        self.peaks = [part.param_groups[0]["lr"] for part in self.optimizers]
        self.perceptual = (
            Perceptual(Path(settings.reconstruction.perceptual_weights))
            if settings.reconstruction.perceptual_weights
            else None
        )
        self.discriminator = Discriminator()
        self.critic = torch.optim.AdamW(
            self.discriminator.parameters(),
            lr=settings.learning_rate,
            betas=(0.5, 0.9),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        size = self.vqgan.config.quantizer.codebook_size
        self.used = torch.zeros(size)
        self.recent: list[Tensor] = []

    @property
    def model(self) -> VQGAN:
        """What is trained, the discriminator aside."""
        return self.vqgan

    def step(self, number: int, batch: np.ndarray) -> dict[str, float]:
        """One optimizer step on uint8 pictures, channels last; what it measured."""
        settings, pixels = self.settings, scale(batch)
        quantise = number >= settings.unquantised_steps
        joins = settings.adversarial_from
        adversarial = joins is not None and number >= joins
        generator = torch_generator(settings.seed, "codebook", number)
        if number == settings.unquantised_steps and self.recent:
            self.vqgan.quantizer.start(torch.cat(self.recent), generator)
            self.recent = []
        self.vqgan.train()
        self._freeze()
        with autocast(settings.bfloat16):
            out = self.vqgan(pixels, quantise=quantise)
        loss = reconstruction_loss(
            pixels, out.pixels, settings.reconstruction, self.perceptual
        )
        values = {"loss/reconstruction": loss.item()}
        if quantise:
            loss = loss + out.loss
            values["loss/codebook"] = out.loss.item()
        if adversarial:
            loss = loss + self._adversarial(loss, out.pixels, values)
        self.vqgan.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.vqgan.parameters(), settings.clip)
        for part, peak in zip(self.optimizers, self.peaks, strict=True):
            part.param_groups[0]["lr"] = peak * share_of_peak(settings, number)
            part.step()
        values["gradient_norm"] = norm.item()
        if adversarial:
            self._critic_step(pixels, out.pixels.detach(), values)
        self._codebook(number, out.codes, out.vectors, values, generator)
        return values

    def _freeze(self) -> None:
        """What is frozen neither learns nor averages."""
        parts: list[torch.nn.Module] = []
        if self.settings.freeze != "nothing":
            parts.append(self.vqgan.quantizer)
        if self.settings.freeze == "codes":
            parts += [self.vqgan.encoder, self.vqgan.to_code]
        for part in parts:
            part.eval().requires_grad_(False)

    def _adversarial(
        self, loss: Tensor, decoded: Tensor, values: dict[str, float]
    ) -> Tensor:
        adversarial = -self.discriminator(decoded.float()).mean()
        last = next(
            layer.weight
            for layer in reversed(list(self.vqgan.decoder))
            if isinstance(layer, torch.nn.Conv2d)
        )
        weight = adversarial_weight(loss, adversarial, last)
        values["loss/adversarial"] = adversarial.item()
        weighted: Tensor = weight * adversarial
        return weighted

    def _critic_step(
        self, pixels: Tensor, decoded: Tensor, values: dict[str, float]
    ) -> None:
        real = self.discriminator(pixels)
        loss = hinge_loss(real, self.discriminator(decoded.float()))
        self.critic.zero_grad(set_to_none=True)
        loss.backward()
        self.critic.step()
        values["loss/discriminator"] = loss.item()

    def _codebook(
        self,
        number: int,
        codes: Tensor,
        vectors: Tensor,
        values: dict[str, float],
        generator: torch.Generator,
    ) -> None:
        settings = self.settings
        if number < settings.unquantised_steps:
            self.recent = [*self.recent, vectors][-20:]
            return
        self.used += torch.bincount(codes.flatten(), minlength=len(self.used))
        share = self.used / self.used.sum()
        entropy = -(share * share.clamp_min(1e-12).log()).sum().item()
        values["codebook/perplexity"] = math.exp(entropy)
        if (number + 1) % settings.revive_every == 0:
            values["codebook/used"] = (self.used > 0).float().mean().item()
            revives = number < settings.revive_until * settings.steps
            if revives and settings.freeze == "nothing":
                moved = self.vqgan.quantizer.revive(self.used, vectors, generator)
                values["codebook/revived"] = float(moved)
            self.used.zero_()

    def state(self) -> dict[str, Any]:
        """Everything but the VQGAN that a resumed training needs."""
        return {
            "optimizers": [part.state_dict() for part in self.optimizers],
            "discriminator": self.discriminator.state_dict(),
            "critic": self.critic.state_dict(),
            "codebook": {"used": self.used, "recent": self.recent},
        }

    def restore(self, model: dict[str, Tensor], parts: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        checkpoint.fit(self.vqgan, model, "the checkpoint")
        for part, saved in zip(self.optimizers, parts["optimizers"], strict=True):
            part.load_state_dict(saved)
        self.discriminator.load_state_dict(parts["discriminator"])
        self.critic.load_state_dict(parts["critic"])
        self.used = parts["codebook"]["used"]
        self.recent = parts["codebook"]["recent"]


@torch.inference_mode()
def validate(
    vqgan: VQGAN, pictures: list[Image.Image]
) -> tuple[dict[str, float], Image.Image]:
    """PSNR, SSIM, share of codes drawn; and a sheet of originals over decoded ones."""
    vqgan.eval()
    tokenizer = ImageTokenizer(vqgan)
    codes = tokenizer.encode(pictures)
    decoded = [image for part in codes.split(64) for image in tokenizer.decode(part)]
    vqgan.train().requires_grad_(True)
    pairs = list(zip(pictures, decoded, strict=True))
    values = {
        "validation/psnr": float(np.mean([psnr(a, b) for a, b in pairs])),
        "validation/ssim": float(np.mean([ssim(a, b) for a, b in pairs])),
        "validation/codes": len(codes.unique()) / tokenizer.codebook_size,
    }
    return values, sheet(pairs[:24])


def sheet(pairs: list[tuple[Image.Image, Image.Image]]) -> Image.Image:
    """Originals in one row, what was decoded below each, twelve pairs a row."""
    side = pairs[0][0].width
    columns = min(12, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    out = Image.new("RGB", (columns * side, rows * 2 * side), "white")
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        for below, image in enumerate(pair):
            out.paste(image, (column * side, (row * 2 + below) * side))
    return out


def _line(values: Mapping[str, float], rate: float) -> str:
    parts = [f"loss {values['loss/reconstruction']:.4f}"]
    if "codebook/perplexity" in values:
        parts.append(f"perplexity {values['codebook/perplexity']:.0f}")
    if "validation/psnr" in values:
        parts.append(f"PSNR {values['validation/psnr']:.2f} dB")
        parts.append(f"SSIM {values['validation/ssim']:.3f}")
        parts.append(f"codes {values['validation/codes']:.1%}")
    return " · ".join([*parts, f"{rate:.1f} pictures/s"])


def train(settings: ImageTokenizerTraining) -> Path:
    """Train, or resume, an image tokenizer; the folder it was written to.

    The run folder holds checkpoints, `metrics.jsonl`, TensorBoard curves, a sheet of
    reconstructions per validation, and at the end `image_tokenizer/`.

    Raises:
        CheckpointError: the run folder holds a checkpoint of another shape.
    """
    run = Path(settings.run)
    trainer = Trainer(settings)
    pictures = Pictures.open(settings.data, settings.split)
    side = trainer.vqgan.config.pixels
    held_out = [square(one.image, side) for one in settings.held_out()]

    def check(step: int) -> dict[str, float]:
        measured, sheet = validate(trainer.vqgan, held_out)
        sheet.save(run / f"reconstructions-{step:07d}.png")
        return measured

    stream = picture_stream(
        pictures, side, settings.batch, settings.seed, settings.mixture
    )
    whole = picture_loop.train(
        trainer, stream, settings, pictures, check if held_out else None, _line
    )
    if not whole:
        return run
    folder = run / "image_tokenizer"
    ImageTokenizer(trainer.vqgan).save(folder)
    return folder
