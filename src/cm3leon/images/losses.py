"""What a reconstruction is judged by. Esser et al. 2021, §3.1; Gafni et al. 2022.

    L = absolute·|x - x'| + squared·|x - x'|^2 + edges·|dx - dx'| + log·log mse(x, x')
        + structure·(1 - SSIM(x, x')) + perceptual·P(x, x') + codebook + lambda·G

dx are differences of neighbouring pixels at three scales; the logarithm of each
picture's squared error is its PSNR up to a factor, so no picture outweighs the others.
SSIM (Wang et al. 2004) compares means, contrasts and shapes in windows of 11 pixels.
P and G (patch-GAN) are off unless asked for: no weights of P ship with the package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cm3leon.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Weights of the terms that need no other network."""

    absolute: float = 1.0
    squared: float = 0.5
    edges: float = 0.0
    log: float = 0.0
    structure: float = 0.0
    perceptual: float = 0.0
    perceptual_weights: str | None = None  # safetensors of a VGG16 trunk

    def __post_init__(self) -> None:
        if (self.perceptual > 0) != (self.perceptual_weights is not None):
            raise ConfigError(
                f"perceptual is {self.perceptual} and perceptual_weights "
                f"{self.perceptual_weights}; give both, or neither"
            )


def edge_loss(
    difference: Float[Tensor, "batch 3 height width"], scales: tuple[int, ...]
) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbouring errors, averaged over the scales."""
    total = difference.new_zeros(())
    for scale in scales:
        x = F.avg_pool2d(difference, scale) if scale > 1 else difference
        total = total + (x[..., 1:] - x[..., :-1]).abs().mean()
        total = total + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
    return total / len(scales)


def reconstruction_loss(
    original: Float[Tensor, "batch 3 height width"],
    decoded: Float[Tensor, "batch 3 height width"],
    config: ReconstructionConfig,
    perceptual: "Callable[[Tensor, Tensor], Tensor] | None" = None,
) -> Float[Tensor, ""]:
    """The weighted sum of the pixel terms and of `perceptual` if given."""
    difference = decoded.float() - original
    loss = config.absolute * difference.abs().mean()
    if config.squared:
        loss = loss + config.squared * difference.square().mean()
    if config.log:
        errors = difference.square().mean((1, 2, 3))
        loss = loss + config.log * (errors + 1e-3).log().mean()
    if config.edges:
        loss = loss + config.edges * edge_loss(difference, (1, 2, 4))
    if config.structure:
        from pytorch_msssim import ssim  # of the extra [training]

        similar: Tensor = ssim(decoded.float() + 1, original + 1, data_range=2.0)
        loss = loss + config.structure * (1 - similar)
    if perceptual is not None and config.perceptual:
        loss = loss + config.perceptual * perceptual(original, decoded)
    return loss


class Perceptual(nn.Module):
    """Distance of two pictures in the features of a VGG16 trunk (Zhang et al. 2018).

    The features of five stages are normalised per cell and their squared differences
    averaged. Weights come from a safetensors file with torchvision's names
    (`features.N.weight`, `features.N.bias`).

    Raises:
        CheckpointError: the file is damaged, lacks a layer or has another shape.
    """

    STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} holds no weights ({error})") from error
        self.stages = nn.ModuleList()
        inputs, position = 3, 0
        for widths in self.STAGES:
            layers: list[nn.Module] = []
            for width in widths:
                convolution = nn.Conv2d(inputs, width, 3, padding=1)
                for name in ("weight", "bias"):
                    key = f"features.{position}.{name}"
                    if key not in weights:
                        raise CheckpointError(
                            f"{path} has no {key}; a VGG16 trunk with torchvision's "
                            "names is needed"
                        )
                    ours, theirs = getattr(convolution, name), weights[key]
                    if ours.shape != theirs.shape:
                        raise CheckpointError(
                            f"{path}: {key} is {list(theirs.shape)}, a VGG16 trunk's "
                            f"is {list(ours.shape)}"
                        )
                    ours.data.copy_(theirs)
                layers += [convolution, nn.ReLU()]
                inputs, position = width, position + 2
            self.stages.append(nn.Sequential(*layers))
            position += 1  # the pooling between stages has a number of its own
        self.requires_grad_(False)

    def forward(
        self,
        original: Float[Tensor, "batch 3 height width"],
        decoded: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, ""]:
        """Mean over stages; 0 for equal pictures."""
        mean = original.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        spread = original.new_tensor([0.229, 0.224, 0.225])[:, None, None]
        x = torch.cat([original, decoded.to(original.dtype)])
        x = ((x + 1) / 2 - mean) / spread
        total = original.new_zeros(())
        for index, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if index else x)
            left, right = F.normalize(x, dim=1).chunk(2)
            total = total + (left - right).square().sum(1).mean()
        return total / len(self.stages)


def adversarial_weight(
    reconstruction: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    last: Tensor,
    scale: float = 0.8,
) -> Float[Tensor, ""]:
    """lambda: ratio of the losses' gradients at the last layer (Esser et al., eq. 7).

    Args:
        reconstruction: loss of the pixel and perceptual terms.
        adversarial: the generator's loss.
        last: weight of the decoder's last convolution.
        scale: factor on the ratio, which is kept in [0, 1e4].
    """
    (of_pixels,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (of_critic,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    ratio = of_pixels.norm() / (of_critic.norm() + 1e-4)
    weight: Tensor = scale * ratio.clamp(0, 1e4).detach()
    return weight
