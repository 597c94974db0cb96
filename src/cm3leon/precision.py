"""bf16 where the processor multiplies it itself, fp32 elsewhere.

A CPU without bf16 instructions emulates them: the same training step then takes twenty
times as long as in fp32 (docs/log.md), so nothing asks for bf16 without looking here.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # x86, x86, ARM, ARM


@cache
def has_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bf16 in hardware."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in INSTRUCTIONS)


def uses_bfloat16(wanted: bool | None = None, device: str = "cpu") -> bool:
    """A setting as it is meant on a device: None is whatever is faster."""
    if wanted is not None:
        return wanted
    if device == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported())
    return has_bfloat16()


def autocast(wanted: bool | None = None) -> "torch.autocast":
    """Matrix products and convolutions in bf16, if wanted, or if that is faster."""
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=uses_bfloat16(wanted))
