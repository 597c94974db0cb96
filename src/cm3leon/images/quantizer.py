"""Vectors -> nearest of a codebook. van den Oord et al. 2017, §3; Esser et al. 2021.

    code(z)  = argmin_k |z - e_k|
    codebook = |sg(z) - e|^2          pulls codes to vectors (gradient form only)
    commit   = |z - sg(e)|^2          pulls vectors to codes

sg stops the gradient; the output is z + sg(e - z), the straight-through estimate. The
commitment has the weight beta; taming-transformers gave it to the other term by mistake
and kept that as its default (`legacy`): there it is `codebook_weight` that is beta.
With `normalise`, z and e lie on the unit sphere (Yu et al. 2022, ViT-VQGAN §3.2).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer says of a grid of vectors."""

    vectors: Tensor  # batch channel height width, straight-through
    codes: Tensor  # batch height width
    loss: Tensor  # scalar: commitment, plus the codebook term in gradient form


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Shape and learning rule of a codebook."""

    codebook_size: int = 8192
    code_width: int = 256
    normalise: bool = False
    learning: Literal["gradient", "average"] = "gradient"
    commitment: float = 0.25
    codebook_weight: float = 1.0  # of the codebook term; learning = "gradient" only
    decay: float = 0.99  # of the moving averages; learning = "average" only


class Quantizer(nn.Module):
    """A codebook learnt by gradient or by moving averages, with dead codes revived."""

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        size, width = config.codebook_size, config.code_width
        codebook = torch.empty(size, width).uniform_(-1 / size, 1 / size)
        if config.normalise:
            codebook = F.normalize(torch.randn(size, width), dim=-1)
        if config.learning == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("counts", torch.ones(size), persistent=True)
            self.register_buffer("sums", codebook.clone(), persistent=True)

    def project(self, vectors: Float[Tensor, "*axes width"]) -> Tensor:
        """The vectors as they are compared: on the unit sphere if `normalise`."""
        return F.normalize(vectors, dim=-1) if self.config.normalise else vectors

    def nearest(self, vectors: Float[Tensor, "vector width"]) -> Int[Tensor, " vector"]:
        """The code of each (projected) vector."""
        codebook = self.project(self.codebook)
        scores = vectors @ codebook.T
        if not self.config.normalise:  # equal lengths need no correction
            scores = scores - codebook.square().sum(-1) / 2
        return scores.argmax(-1)

    def lookup(self, codes: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes width"]:
        """The codebook vector of each code."""
        return F.embedding(codes, self.project(self.codebook))

    def forward(self, grid: Float[Tensor, "batch width height columns"]) -> Quantized:
        """Quantise a grid of vectors; in training also learn the codebook."""
        batch, _, height, columns = grid.shape
        flat = self.project(grid.float().permute(0, 2, 3, 1).flatten(0, 2))
        with torch.no_grad():
            codes = self.nearest(flat)
            if self.training and self.config.learning == "average":
                self._average(flat, codes)
        chosen = self.lookup(codes)
        loss = self.config.commitment * F.mse_loss(flat, chosen.detach())
        if self.config.learning == "gradient":
            pull = F.mse_loss(chosen, flat.detach())
            loss = loss + self.config.codebook_weight * pull
        passed = flat + (chosen - flat).detach()
        vectors = passed.unflatten(0, (batch, height, columns)).permute(0, 3, 1, 2)
        return Quantized(vectors, codes.view(batch, height, columns), loss)

    @torch.no_grad()
    def _average(self, vectors: Tensor, codes: Tensor) -> None:
        decay = self.config.decay
        ones = torch.ones(len(codes), device=codes.device)
        used = torch.zeros_like(self.counts).index_add_(0, codes, ones)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.counts.lerp_(used, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        mean = self.sums / self.counts.clamp_min(1e-5)[:, None]
        alive = self.counts > 1e-3
        self.codebook.copy_(torch.where(alive[:, None], mean, self.codebook))
        self.codebook.copy_(self.project(self.codebook))

    @torch.no_grad()
    def start(
        self,
        vectors: Float[Tensor, "vector width"],
        generator: torch.Generator,
        rounds: int = 10,
    ) -> None:
        """Place the codebook on vectors seen so far, by k-means."""
        vectors = self.project(vectors.float())
        size = self.config.codebook_size
        chosen = torch.randint(len(vectors), (size,), generator=generator)
        self._place(torch.arange(size), vectors[chosen])
        for _ in range(rounds):
            codes = self.nearest(vectors)
            used = torch.bincount(codes, minlength=size).float()
            sums = torch.zeros_like(self.codebook).index_add_(0, codes, vectors)
            alive = (used > 0).nonzero()[:, 0]
            self._place(alive, sums[alive] / used[alive, None])

    @torch.no_grad()
    def revive(
        self,
        used: Num[Tensor, " code"],
        vectors: Float[Tensor, "vector width"],
        generator: torch.Generator,
    ) -> int:
        """Move codes that were never drawn onto vectors of the batch; how many moved.

        Args:
            used: how often each code was drawn since the last call.
            vectors: unquantised vectors to move them to.
            generator: chooses among the vectors.
        """
        dead = (used == 0).nonzero()[:, 0]
        if len(dead):
            chosen = torch.randint(len(vectors), (len(dead),), generator=generator)
            self._place(dead, self.project(vectors.float())[chosen])
        return len(dead)

    def _place(self, codes: Tensor, vectors: Tensor) -> None:
        self.codebook.data[codes] = self.project(vectors)
        if self.config.learning == "average":
            self.counts[codes] = 1.0
            self.sums[codes] = self.codebook[codes]
