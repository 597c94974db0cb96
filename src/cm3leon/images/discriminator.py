"""Patch discriminator: is each patch of a picture real? Isola et al. 2017, §3.2.2."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Strided 4x4 convolutions down to one score per patch."""

    def __init__(self, channels: int = 64, layers: int = 2) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for _ in range(1, layers):
            steps += [
                nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
                nn.GroupNorm(8, width * 2),
                nn.LeakyReLU(0.2),
            ]
            width *= 2
        steps.append(nn.Conv2d(width, 1, 4, 1, 1))
        self.steps = nn.Sequential(*steps)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """Scores per patch; above 0 means real."""
        out: Tensor = self.steps(pixels)
        return out


def hinge_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """The discriminator's loss: real scores above 1, fake ones below -1.

    >>> import torch
    >>> hinge_loss(torch.tensor([2.0]), torch.tensor([0.0])).item()
    0.5
    """
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
