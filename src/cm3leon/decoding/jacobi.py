"""Several codes of a picture in one pass: speculative Jacobi decoding, which is exact.

    drawn    x x x x             a pass reads the last x and all drafts but the last,
    drafts           d d d d     and predicts p for the place of each draft

    d stays with probability min(1, p(d) / q(d)); else it is drawn from max(0, p - q)

q: what d was drawn from; p: the distribution of its place now, after guidance,
contrast, temperature, top-k and top-p. Up to the first draft that changes, and with it,
every p was predicted from drawn ids alone: these drafts are drawn ids now. Those behind
it have the distribution p and are the next pass's drafts. A place that is new repeats
the draft before it, a guess that is certain: q = 1. Teng et al. 2024; that drafts
behind the first change are not drawn afresh but obey the rule as well: So et al. 2025.

Why one code at a time would have the same distribution: take all that happens in all
passes at the places before one place as given. This fixes each p and q of the place,
since no pass looks ahead, and the pass in which it becomes a drawn id. With chance of
its own the rule makes a draft of distribution q one of distribution p: an id stays with
min(p, q), and what is missing is max(0, p - q). So after every pass the draft has the
distribution p, and after its last pass that is the model's, given the drawn ids.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from cm3leon.decoding.lanes import Lanes, Room
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import Prompt
from cm3leon.decoding.sampling import pick, probabilities
from cm3leon.model.language_model import LanguageModel

Combine = Callable[[Sequence[Tensor], GenerationOptions, Tensor], Tensor]


def renew(
    drafts: Int[Tensor, " batch"],
    q: Float64[Tensor, "batch vocab"],
    p: Float64[Tensor, "batch vocab"],
    chance: Float64[Tensor, "batch 2"],
) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Drafts drawn from q as drafts drawn from p, and which of them stayed.

    Args:
        drafts: columns of q.
        q: probabilities they were drawn with.
        p: those they are to have.
        chance: two numbers in [0, 1) for each, used for nothing else.

    >>> q, p = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]], dtype=torch.float64)
    >>> renew(torch.tensor([0]), q, p, torch.tensor([[0.6, 0.3]]).double())
    (tensor([1]), tensor([False]))
    """
    each = drafts[:, None]
    stay = chance[:, 0] * q.gather(1, each)[:, 0] < p.gather(1, each)[:, 0]
    rest = (p - q).clamp(min=0)
    # where p is q but for rounding, nothing may be left
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)
    return torch.where(stay, drafts, pick(rest.log(), chance[:, 1])), stay


@torch.inference_mode()
def steps(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    chances: Sequence[torch.Generator],
    combine: Combine,
) -> Iterator[tuple[list[list[int]], bool]]:
    """As `drawing.steps`, for pictures, one pass a step.

    Args:
        model: what scores ids.
        prompts: of pictures.
        options: how to draw.
        chances: a stream for each prompt, moved in its own passes only.
        combine: makes one row of logits of those of a prompt's lanes, told how to draw
            and which share of the prompt's ids stands before.

    Raises:
        RequestError: they do not fit the memory.
    """
    requests, ids = [prompt.lanes for prompt in prompts], prompts[0].constraint.ids
    longest = max(prompt.most for prompt in prompts)
    lanes = Lanes(model, Room.of(model, requests, longest + options.window), ids)
    lanes.join(requests)
    count, head = len(requests[0]), ids.to(lanes.last.device)
    most = torch.tensor([prompt.most for prompt in prompts], device=head.device)
    width = options.window
    known = _known(prompts, longest + width).to(head.device)
    rows: list[list[int]] = [[] for _ in prompts]
    done = torch.zeros_like(most)
    last = lanes.last  # of each lane; those of a prompt may end differently
    drafts = torch.zeros(len(prompts), width, dtype=torch.long, device=head.device)
    q = F.one_hot(drafts, len(head)).double()
    while bool((done < most).any()):
        width = min(width, max(2, int((most - done).max())))  # never a row alone
        places = torch.arange(width, device=head.device)
        given = known.gather(1, done[:, None] + places)
        drafts = torch.where(given < 0, drafts[:, :width], given)
        behind = head[drafts[:, :-1]].repeat_interleave(count, 0)
        logits = lanes.read_ahead(torch.cat([last[:, None], behind], 1))
        each = [logits[lane::count].flatten(0, 1) for lane in range(count)]
        before = ((done[:, None] + places) / most[:, None]).flatten()
        p = probabilities(combine(each, options, before), options)
        chance = _chance(chances, (done < most).tolist(), options.window)[:, :width]
        new, stay = renew(
            drafts.flatten(),
            q[:, :width].flatten(0, 1),
            p,
            chance.flatten(0, 1).to(head.device),
        )
        new = torch.where(given < 0, new.view_as(given), given)
        stay = stay.view_as(given) | (given >= 0)
        counts = (stay.cumprod(1).sum(1) + 1).clamp(max=width).minimum(most - done)
        drawn = head[new]
        for row, found, end in zip(rows, drawn.tolist(), counts.tolist(), strict=True):
            row += found[:end]
        done = done + counts
        yield rows, bool((done == most).all())
        read = counts.repeat_interleave(count)
        lanes.keep(read, width)
        ids = torch.cat([last[:, None], drawn.repeat_interleave(count, 0)], 1)
        last = ids.gather(1, read[:, None])[:, 0]
        at = places + counts[:, None]
        fresh, at = at >= width, at.clamp(max=width - 1)
        drafts = new.gather(1, at)
        q = p.view(*at.shape, -1).take_along_dim(at[..., None], 1)
        q[fresh] = F.one_hot(drafts[fresh], len(head)).double()


def _known(prompts: Sequence[Prompt], room: int) -> Int[Tensor, "batch room"]:
    """Columns of ids that are not to be drawn, at their places; -1 at all others."""
    known = torch.full((len(prompts), room), -1)
    for row, prompt in enumerate(prompts):
        for place, id in prompt.known.items():
            known[row, place] = id - prompt.constraint.inside.start
    return known


def _chance(
    streams: Sequence[torch.Generator], going: Sequence[bool], window: int
) -> Float64[Tensor, "batch window 2"]:
    """Two numbers for each draft; a request that has ended leaves its stream alone."""
    shape = (window, 2)
    return torch.stack(
        [
            torch.rand(shape, generator=stream, dtype=torch.float64)
            if goes
            else torch.zeros(shape, dtype=torch.float64)
            for stream, goes in zip(streams, going, strict=True)
        ]
    )
