"""Muon (Jordan et al. 2024): each matrix moves along its orthogonalised momentum.

    B <- m B + (1 - m) G,   U = (1 - m) G + m B            Nesterov's look ahead
    W <- W - r w W - r sqrt(max(1, rows / columns)) NS(U)

NS is five rounds of a Newton-Schulz iteration that drives all singular values to 1.
torch.optim.Muon does the same to matrices in bf16; ours takes convolutions too, as
matrices of one row per output channel, and multiplies in fp32 where the processor has
no bf16, which is thirty times as fast there (docs/log.md).
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from cm3leon.precision import has_bfloat16

COEFFICIENTS = (3.4445, -4.775, 2.0315)
EPSILON = 1e-7


def orthogonalised(
    matrix: Float[Tensor, "rows columns"], dtype: torch.dtype, rounds: int = 5
) -> Float[Tensor, "rows columns"]:
    """The matrix with all singular values near 1 (between about 0.7 and 1.2).

    Args:
        matrix: not all 0, or 0 comes back.
        dtype: of the products.
        rounds: of the iteration.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=EPSILON)
    for _ in range(rounds):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """For weights of two or more axes; the first is the output's."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(weights, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        assert closure is None, "the loss is not asked for again"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    fast = weight.is_cuda or has_bfloat16()
                    dtype = torch.bfloat16 if fast else torch.float32
                    self._move(weight, weight.grad, group, dtype)

    def _move(
        self,
        weight: Tensor,
        gradient: Tensor,
        group: dict[str, Any],
        dtype: torch.dtype,
    ) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(buffer, group["momentum"])
        if isinstance(ahead, DTensor):  # a matrix moves as a whole: every rank has it
            ahead = ahead.full_tensor()
        ahead = ahead.flatten(1)
        update = orthogonalised(ahead, dtype).to(weight.dtype).view(weight.shape)
        rate = group["lr"] * max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        if isinstance(weight, DTensor):
            mesh, placements = weight.device_mesh, weight.placements
            update = distribute_tensor(update, mesh, placements, src_data_rank=None)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-rate)
