"""Contrastive decoding with k plausible ids (CD-K). Yu et al. 2023, §3.1, eq. 3.

    V = { y : p_s(y) >= a kmax_k(p_s) }
    score(y) = log p_s(y) - log p_w(y) if y in V, else -inf

p_s: of the strong lane, the model with the text; p_w: of the weak one, without. kmax_k
is the k-th largest probability: with the largest itself (k = 1, Li et al. 2022)
pictures collapse to the greedy one. For a <= 1 at least k ids stay.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def contrast(
    strong: Float[Tensor, "batch vocab"],
    weak: Float[Tensor, "batch vocab"],
    *,
    k: int,
    alpha: float,
    strong_temperature: float = 1.0,
    weak_temperature: float = 1.0,
) -> Float[Tensor, "batch vocab"]:
    """The scores above, to be drawn from as logits.

    Args:
        strong: logits with the text; -inf where an id is not legal.
        weak: logits without it.
        k: which probability the threshold is taken from, 1 the largest.
        alpha: share of it that is plausible enough, above 0 and at most 1.
        strong_temperature: by which `strong` is divided first.
        weak_temperature: by which `weak` is.

    >>> strong, weak = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[0.5, 0.1, 0.4]])
    >>> contrast(strong.log(), weak.log(), k=2, alpha=1.0).exp()
    tensor([[1.2000, 3.0000, 0.0000]])
    """
    likely = (strong / strong_temperature).log_softmax(-1)
    unlikely = (weak / weak_temperature).log_softmax(-1)
    kth = likely.topk(min(k, likely.shape[-1]), dim=-1).values[:, -1:]
    plausible = likely >= kth + torch.tensor(alpha).log().to(likely)
    return torch.where(plausible, likely - unlikely, -torch.inf)
