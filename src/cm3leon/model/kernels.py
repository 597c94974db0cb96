"""Two kernels in C++, for large models on a processor with AVX-512.

    attend        softmax(q k^T / sqrt(d)) v of a few queries over bf16 keys and values
    int8_linear   a few rows times int8 weights, one scale an output

Torch attends to bf16 keys slower than to fp32 ones, which are twice as much to read,
and multiplies int8 weights slower than they can be read (docs/log.md). torch's own C++
extension compiles `kernels.cpp` in 20 seconds when they are first asked for, if there
are a C++ compiler and ninja. If not, or on another processor, nothing changes.
"""

import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

FLAGS = ["-O3", "-march=native", "-ffast-math", "-fopenmp"]
WIDE = 16  # floats in a register


@runtime_checkable
class Kernels(Protocol):
    """What is compiled; shapes stand in kernels.cpp."""

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        prefix_keys: Tensor | None,
        prefix_values: Tensor | None,
        prefix_lengths: Tensor | None,
    ) -> Tensor:
        """Store new keys and values, and attend to all there are."""

    def int8_linear(self, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        """The product, in bf16."""


@cache
def kernels(head_dim: int) -> Kernels | None:
    """The kernels for heads of this width, compiled if they are not yet; None: without.

    Args:
        head_dim: a multiple of 16, or there are none.
    """
    if not torch.cpu._is_avx512_supported() or head_dim % WIDE:
        return None
    # an environment that is not activated has its ninja beside its Python
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PATH"] = beside
    if not (shutil.which("ninja") and shutil.which("c++")):
        return None
    from torch.utils import cpp_extension

    try:
        module = cpp_extension.load(
            name=f"cm3leon_kernels_{head_dim}",
            sources=[str(Path(__file__).with_suffix(".cpp"))],
            extra_cflags=[*FLAGS, f"-DHEAD_DIM={head_dim}"],
        )
    except (OSError, RuntimeError):  # no headers, no room, another compiler
        return None
    return cast(Kernels, module)
