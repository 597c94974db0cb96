"""Classifier-free guidance on logits. Yu et al. 2023, §3.1, eq. 1-2, and §4.1.

    l = l_u + s (l_c - l_u)
    l = l_0 + s_i (l_i - l_0) + s_t (l_c - l_i)    editing (Brooks et al. 2023, eq. 3)

l_c: logits given the prompt; l_u: given `<mask>` in its place; s: the guidance scale.
l_i: given the picture to edit without the instruction; l_0: given neither. The model
learns to read `<mask>` from the CM3 objective, so guidance needs no training.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def guide(
    conditional: Float[Tensor, "batch vocab"],
    unconditional: Float[Tensor, "batch vocab"],
    scale: float | Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch vocab"]:
    """Guided logits: 1 is the conditional ones exactly, 0 the unconditional ones.

    >>> guide(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 1.0]]), scale=3.0)
    tensor([[4., 1.]])
    """
    return torch.lerp(unconditional, conditional, scale)


def guide_edit(
    conditional: Float[Tensor, "batch vocab"],
    pictured: Float[Tensor, "batch vocab"],
    unconditional: Float[Tensor, "batch vocab"],
    *,
    image_scale: float | Float[Tensor, "batch 1"],
    text_scale: float | Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch vocab"]:
    """Logits guided by a picture and an instruction, each with its own scale.

    With both scales 1 they are the conditional ones, with an image scale of 1 those
    that `guide` makes of the first two.

    >>> full, pictured = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> nothing = torch.tensor([[0.5, 0.0]])
    >>> guide_edit(full, pictured, nothing, image_scale=2.0, text_scale=3.0)
    tensor([[7.5000, 0.0000]])
    """
    image = torch.lerp(unconditional, pictured, image_scale)
    return image + text_scale * (conditional - pictured)


def scale_at(
    drawn: Float[Tensor, " batch"], scale: float, start: float, stop: float
) -> Float[Tensor, "batch 1"]:
    """The scale where `start <= drawn < stop`, elsewhere 1, which is no guidance.

    What guidance costs in variety it may cost for a part of the picture only.
    Kynkäänniemi et al. 2024 do so for noise levels, this for shares of the codes.

    >>> scale_at(torch.tensor([0.0, 0.25, 0.5]), 3.0, 0.25, 0.5).flatten()
    tensor([1., 3., 1.])
    """
    inside = (drawn >= start) & (drawn < stop)
    return torch.where(inside, scale, 1.0)[:, None]
