"""Logits -> ids: repetition penalty, temperature, top-k, top-p, draw.

Yu et al. 2023, §3.1; the penalty, of text only: Keskar et al. 2019, §4.1.

Each step is a pure function on logits; what is left out becomes -inf. Top-p keeps an
id while the mass of all likelier ones is below p (metaseq), and those as likely as the
last one kept, so one id always remains.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from cm3leon.decoding.options import GenerationOptions


def sample(
    logits: Float[Tensor, "batch vocab"],
    options: GenerationOptions,
    generators: Sequence[torch.Generator],
) -> Int[Tensor, " batch"]:
    """The next id of each request, as a column of `logits`.

    Args:
        logits: -inf where an id is not legal; one legal id at least.
        options: temperature, top_k and top_p.
        generators: one stream of chance per request, moved by one number each; with
            temperature 0 they are left alone.
    """
    if options.temperature == 0:
        return logits.argmax(-1)
    drawn = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
    return pick(_narrowed(logits, options), torch.stack(drawn).to(logits.device))


def probabilities(
    logits: Float[Tensor, "batch vocab"], options: GenerationOptions
) -> Float64[Tensor, "batch vocab"]:
    """What `sample` draws from; with temperature 0 all of it lies on one id.

    >>> greedy = GenerationOptions(temperature=0.0)
    >>> probabilities(torch.tensor([[1.0, 3.0, 2.0]]), greedy).tolist()
    [[0.0, 1.0, 0.0]]
    """
    if options.temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    return _narrowed(logits, options).softmax(-1)


def _narrowed(
    logits: Float[Tensor, "batch vocab"], options: GenerationOptions
) -> Float64[Tensor, "batch vocab"]:
    """Logits by temperature, top-k and top-p."""
    logits = temper(logits, options.temperature)
    if options.top_k is not None:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p < 1:
        logits = keep_top_p(logits, options.top_p)
    return logits


def penalise(
    logits: Float[Tensor, "batch vocab"],
    seen: Bool[Tensor, "batch vocab"],
    penalty: float,
) -> Float[Tensor, "batch vocab"]:
    """Logits of ids that were drawn before, over a penalty; negative ones times it.

    >>> logits = torch.tensor([[2.0, -1.0, 2.0]])
    >>> penalise(logits, torch.tensor([[True, True, False]]), 2.0)
    tensor([[ 1., -2.,  2.]])
    """
    less = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, less, logits)


def temper(
    logits: Float[Tensor, "batch vocab"], temperature: float
) -> Float64[Tensor, "batch vocab"]:
    """Logits over a temperature above 0; the largest of each row becomes 0."""
    wide = logits.double()  # however small the temperature, no overflow
    return (wide - wide.amax(-1, keepdim=True)) / temperature


def keep_top_k(
    logits: Float[Tensor, "batch vocab"], k: int
) -> Float[Tensor, "batch vocab"]:
    """Only the k likeliest ids, and those as likely as the k-th.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[-inf, 3., 2.]])
    """
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(
    logits: Float[Tensor, "batch vocab"], p: float
) -> Float[Tensor, "batch vocab"]:
    """Only ids before which less than `p` of the mass lies, the likeliest first.

    >>> keep_top_p(torch.tensor([[0.2, 0.5, 0.3]]).log(), 0.6).exp()
    tensor([[0.0000, 0.5000, 0.3000]])
    """
    probabilities = logits.softmax(-1, dtype=torch.float64)
    mass = _descending(probabilities)
    before = mass.cumsum(-1) - mass
    before[:, 0] = 0.0
    kept = (before < p).sum(-1, keepdim=True)
    return logits.masked_fill(probabilities < mass.gather(-1, kept - 1), -torch.inf)


def _descending(
    values: Float64[Tensor, "batch vocab"],
) -> Float64[Tensor, "batch vocab"]:
    """Each row sorted; NumPy does it ten times as fast as torch on a CPU."""
    if values.is_cuda:
        return values.sort(-1, descending=True).values
    return -torch.from_numpy(np.sort(-values.numpy()))


def pick(
    logits: Float[Tensor, "batch vocab"], uniform: Float64[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """The column at which the running sum of probabilities passes a number in [0, 1).

    >>> half = torch.tensor([0.5], dtype=torch.float64)
    >>> pick(torch.tensor([[0.2, 0.5, 0.3]]).log(), half)
    tensor([1])
    """
    running = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    total = running[:, -1:]
    below = total.nextafter(torch.zeros_like(total))  # rounding must not reach total
    point = torch.minimum(uniform[:, None] * total, below)
    return torch.searchsorted(running, point, right=True)[:, 0]
