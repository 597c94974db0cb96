"""Classifier-free guidance on logits. Yu et al. 2023, §3.1, eq. 1-2.

    l = l_u + s (l_c - l_u)

l_c: logits given the prompt; l_u: given `<mask>` in its place; s: the guidance scale.
The model learns to read `<mask>` from the CM3 objective, so guidance needs no training.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def guide(
    conditional: Float[Tensor, "batch vocab"],
    unconditional: Float[Tensor, "batch vocab"],
    scale: float,
) -> Float[Tensor, "batch vocab"]:
    """Guided logits: 1 is the conditional ones exactly, 0 the unconditional ones.

    >>> guide(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 1.0]]), scale=3.0)
    tensor([[4., 1.]])
    """
    return torch.lerp(unconditional, conditional, scale)
