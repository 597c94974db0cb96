"""VQGAN: convolutional encoder and decoder around a quantizer. Esser et al. 2021, §3.1.

    codes = quantise(encode(x)),   x' = decode(codebook[codes])

The paper's tokenizer is Make-A-Scene's (Gafni et al. 2022), a VQGAN with f = 8; its
shape is the preset `vqgan-8192`. `patch` > 1 folds squares of pixels into channels
before the first convolution and unfolds them after the last, which saves the costly
full-resolution layers: that is what the shipped preset does. Without it, and from 128
`channels` on, where norms have 32 groups, this is taming-transformers' network, whose
weights `images.checkpoint` reads.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cm3leon.errors import ConfigError
from cm3leon.images.quantizer import Quantizer, QuantizerConfig


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Shape of an image tokenizer. The defaults are the paper's (256 px, f = 8)."""

    pixels: int = 256  # side of the square picture
    patch: int = 1  # pixels folded into channels, per side
    channels: int = 128  # at the highest resolution
    multipliers: tuple[int, ...] = (1, 1, 2, 4)  # of `channels`, one per resolution
    blocks: int = 2  # residual blocks per resolution of the encoder
    decoder_blocks: int = 3  # and of the decoder
    attention: tuple[int, ...] = (32,)  # sides of the grids that attend
    latent: int = 256  # channels between the convolutions and the quantizer
    decodes: bool = True  # some public tokenizers come without their decoder
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        if self.pixels % self.factor:
            raise ConfigError(
                f"pixels is {self.pixels}, not a multiple of the reduction "
                f"{self.factor}; change pixels, patch or multipliers"
            )

    @property
    def factor(self) -> int:
        """Pixels per code, along one side."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    @property
    def grid(self) -> int:
        """Codes along one side."""
        return self.pixels // self.factor

    @property
    def codes_per_image(self) -> int:
        """Codes of one picture."""
        return self.grid**2


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


class Residual(nn.Module):
    """Two 3x3 convolutions, each after norm and swish, added to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        )

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """The same grid with `outputs` channels."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.shortcut(x) + y
        return out


class Attention(nn.Module):
    """Single-head attention among the cells of a grid, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """The same grid, each cell informed by all others."""
        y = self.norm(x)
        q, k, v = (
            part(y).flatten(2).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return out


class Down(nn.Module):
    """Half the resolution, by a strided convolution padded right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """A grid of half the sides."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Up(nn.Module):
    """Twice the resolution: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """A grid of twice the sides."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def _stage(inputs: int, outputs: int, blocks: int, attend: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers.append(Residual(inputs, outputs))
        if attend:
            layers.append(Attention(outputs))
        inputs = outputs
    return layers


def _middle(channels: int) -> list[nn.Module]:
    return [
        Residual(channels, channels),
        Attention(channels),
        Residual(channels, channels),
    ]


def encoder(config: VQGANConfig) -> nn.Sequential:
    """Pixels in [-1, 1] -> a grid of `latent` channels."""
    side = config.pixels // config.patch
    width = config.channels * config.multipliers[0]
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(config.patch),
        nn.Conv2d(3 * config.patch**2, width, 3, padding=1),
    ]
    for level, multiplier in enumerate(config.multipliers):
        outputs = config.channels * multiplier
        layers += _stage(width, outputs, config.blocks, side in config.attention)
        width = outputs
        if level < len(config.multipliers) - 1:
            layers.append(Down(width))
            side //= 2
    layers += _middle(width)
    layers += [_norm(width), nn.SiLU(), nn.Conv2d(width, config.latent, 3, padding=1)]
    return nn.Sequential(*layers)


def decoder(config: VQGANConfig) -> nn.Sequential:
    """A grid of `latent` channels -> pixels, about in [-1, 1]."""
    side = config.grid
    width = config.channels * config.multipliers[-1]
    layers: list[nn.Module] = [nn.Conv2d(config.latent, width, 3, padding=1)]
    layers += _middle(width)
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        outputs = config.channels * multiplier
        layers += _stage(
            width, outputs, config.decoder_blocks, side in config.attention
        )
        width = outputs
        if level > 0:
            layers.append(Up(width))
            side *= 2
    layers += [
        _norm(width),
        nn.SiLU(),
        nn.Conv2d(width, 3 * config.patch**2, 3, padding=1),
        nn.PixelShuffle(config.patch),
    ]
    return nn.Sequential(*layers)


class Reconstruction(NamedTuple):
    """A picture through the bottleneck and what the quantizer said of it."""

    pixels: Tensor  # batch 3 height width
    codes: Tensor  # batch code
    vectors: Tensor  # vector width, before the quantizer
    loss: Tensor  # scalar


class VQGAN(nn.Module):
    """Pixels <-> codes."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        width = config.quantizer.code_width
        self.encoder = encoder(config)
        self.to_code = nn.Conv2d(config.latent, width, 1)
        self.quantizer = Quantizer(config.quantizer)
        self.from_code = nn.Conv2d(width, config.latent, 1)
        self.decoder = decoder(config) if config.decodes else nn.Sequential()

    def vectors(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch code_width rows columns"]:
        """The grid before the quantizer."""
        out: Tensor = self.to_code(self.encoder(pixels))
        return out

    def encode(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Int[Tensor, "batch code"]:
        """Codes in raster order, from pixels in [-1, 1]."""
        grid = self.vectors(pixels).float().permute(0, 2, 3, 1)
        flat = self.quantizer.project(grid).flatten(0, 2)
        return self.quantizer.nearest(flat).view(len(pixels), -1)

    def decode(
        self, codes: Int[Tensor, "batch code"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixels, about in [-1, 1], from codes in raster order of a square grid."""
        side = round(codes.shape[1] ** 0.5)
        grid = self.quantizer.lookup(codes).unflatten(1, (side, side))
        out: Tensor = self.decoder(self.from_code(grid.permute(0, 3, 1, 2)))
        return out

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"], *, quantise: bool = True
    ) -> Reconstruction:
        """Through the bottleneck and back; without the quantizer if not `quantise`."""
        grid = self.vectors(pixels)
        flat = grid.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
        quantized = self.quantizer(grid)
        passed = quantized.vectors
        if not quantise:
            projected = self.quantizer.project(grid.permute(0, 2, 3, 1))
            passed = projected.permute(0, 3, 1, 2)
        out = self.decoder(self.from_code(passed.to(grid.dtype)))
        return Reconstruction(out, quantized.codes.flatten(1), flat, quantized.loss)


PRESETS = {
    # Yu et al. 2023, §2.1: 256 px, 1,024 codes of 8,192; the rest is taming's f = 8
    "vqgan-8192": VQGANConfig(),
    # the shipped one: 64 px, 64 codes of 2,048
    "shipped": VQGANConfig(
        pixels=64,
        patch=4,
        channels=96,
        multipliers=(1, 2),
        blocks=1,
        decoder_blocks=1,
        attention=(8,),
        latent=128,
        quantizer=QuantizerConfig(
            codebook_size=2048, code_width=12, normalise=True, learning="average"
        ),
    ),
    # for tests: 16 px, 16 codes of 64
    "tiny": VQGANConfig(
        pixels=16,
        patch=2,
        channels=16,
        multipliers=(1, 2),
        blocks=1,
        decoder_blocks=1,
        attention=(4,),
        latent=16,
        quantizer=QuantizerConfig(
            codebook_size=64, code_width=8, normalise=True, learning="average"
        ),
    ),
}


def preset(name: str) -> VQGANConfig:
    """The named shape.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"no image tokenizer preset {name!r}; there are: {known}")
    return PRESETS[name]
