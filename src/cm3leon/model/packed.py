"""Weights of a model that only draws, laid out as a processor reads them fastest.

A step of drawing reads every weight once and multiplies it by a few rows, so its speed
is that of reading:

    bf16   oneDNN's own blocks: the same sums to the bit, 1.6 times as fast to read
    int8   w = s q, one scale s per output and q in -127 … 127: half as much to read

Either way each `nn.Linear` is replaced; the model can no longer learn.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cm3leon.model.exact import Linear
from cm3leon.model.kernels import Kernels

Packing = Literal["bf16", "int8"]
FEW = 16  # rows; for more, int8 weights are widened first


class PackedLinear(nn.Module):
    """x W^T in bf16, W in oneDNN's blocks."""

    blocks: Tensor

    def __init__(self, weight: Float[Tensor, "out inner"]) -> None:
        super().__init__()
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 2)
        self.register_buffer("blocks", blocks, persistent=False)

    def forward(self, x: Float[Tensor, "*batch inner"]) -> Float[Tensor, "*batch out"]:
        """The product."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.blocks, None, "none", [], ""
        )
        return out


class Int8Linear(nn.Module):
    """x W^T in bf16, W as int8 with a scale for each output."""

    quantized: Tensor
    scales: Tensor

    def __init__(
        self, weight: Float[Tensor, "out inner"], kernels: Kernels | None = None
    ) -> None:
        super().__init__()
        outs, inner = weight.shape
        self.kernels = None if outs % 4 or inner % 64 else kernels
        quantized, scales = quantize(weight)
        self.register_buffer("quantized", quantized, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, x: Float[Tensor, "*batch inner"]) -> Float[Tensor, "*batch out"]:
        """The product."""
        rows = x.flatten(0, -2)
        if len(rows) <= FEW and self.kernels is not None:
            out = self.kernels.int8_linear(rows, self.quantized, self.scales)
        elif len(rows) <= FEW:
            out = torch._weight_int8pack_mm(rows, self.quantized, self.scales)
        else:
            out = F.linear(rows, self.quantized.to(x.dtype)) * self.scales
        return out.view(*x.shape[:-1], -1)


def quantize(
    weight: Float[Tensor, "out inner"],
) -> tuple[Int[Tensor, "out inner"], Float[Tensor, " out"]]:
    """A weight as int8 and scales: the largest of each row becomes ±127."""
    wide = weight.detach().float()
    scales = (wide.abs().amax(1) / 127).clamp(min=1e-12).bfloat16()
    quantized = (wide / scales.float()[:, None]).round().clamp(-127, 127)
    return quantized.to(torch.int8), scales


def linear(
    weight: Float[Tensor, "out inner"],
    packing: Packing | None,
    kernels: Kernels | None = None,
) -> nn.Module:
    """What multiplies by a weight: packed, or as it is where it cannot be."""
    if packing == "int8":
        return Int8Linear(weight, kernels)
    if packing == "bf16" and can_pack(weight):
        return PackedLinear(weight)
    plain = Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    return plain


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN multiplies this weight here."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def pack(model: nn.Module, packing: Packing, kernels: Kernels | None = None) -> None:
    """Replace all linear layers of a bf16 model."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, linear(child.weight, packing, kernels).eval())
