"""Prompts -> drawn ids: all lanes of all prompts in one batch with one cache.

The prompts are read once, then one id a step: score the legal ids, guide, contrast,
restrict, sample, and feed what was drawn to every lane of its prompt. Yu et al. 2023,
§3.1.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.decoding import jacobi
from cm3leon.decoding.constraints import Constraint
from cm3leon.decoding.contrastive import contrast
from cm3leon.decoding.guidance import guide, guide_edit, scale_at
from cm3leon.decoding.lanes import Lanes, Room
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import Prompt
from cm3leon.decoding.sampling import penalise, sample
from cm3leon.model.language_model import LanguageModel

Progress = Callable[[int, int], None]  # ids drawn of the longest, most there will be


def draw(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    chances: Sequence[torch.Generator],
    on_progress: Progress | None = None,
) -> list[list[int]]:
    """Ids drawn for each prompt, without the stop that ended them.

    `on_progress` is called after every step; `steps` tells of the other arguments.
    """
    if not prompts:
        return []
    most = max(prompt.most for prompt in prompts)
    rows: list[list[int]] = []
    for rows, last in steps(model, prompts, options, chances):
        if on_progress is not None:
            on_progress(most if last else max(map(len, rows)), most)
    return rows


def steps(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    chances: Sequence[torch.Generator],
) -> Iterator[tuple[list[list[int]], bool]]:
    """After every step the ids drawn so far, and whether it was the last step.

    A list for each prompt, the same ones all the time, growing: by one id a step, or in
    a picture with a window by some.

    Args:
        model: what scores ids.
        prompts: one at least, all of one constraint, all with as many lanes.
        options: how to draw.
        chances: a stream of chance for each prompt.

    Raises:
        RequestError: they do not fit the memory.
    """
    if options.window > 1 and prompts[0].constraint.kind == "image":
        yield from jacobi.steps(model, prompts, options, chances, _combined)
        return
    requests = [
        Request(prompt, options, chance)
        for prompt, chance in zip(prompts, chances, strict=True)
    ]
    most = max(prompt.most for prompt in prompts)
    room = Room.of(model, [prompt.lanes for prompt in prompts], most)
    drawing = Drawing(model, prompts[0].constraint, room)
    drawing.join(requests)
    while drawing.requests:
        drawing.step()
        yield [request.ids for request in requests], not drawing.requests


@dataclass(eq=False)
class Request:
    """A prompt that is being drawn."""

    prompt: Prompt
    options: GenerationOptions
    chance: torch.Generator
    ids: list[int] = field(default_factory=list)  # drawn so far, without the stop


class Drawing:
    """Requests drawn side by side, an id each a step; they come and go at any time.

    Continuous batching (Yu et al. 2022, "Orca", §3). All have one constraint and as
    many lanes; each has its options and its stream of chance.
    """

    def __init__(
        self, model: LanguageModel, constraint: Constraint, room: Room
    ) -> None:
        """Nobody yet.

        Args:
            model: what scores ids.
            constraint: of all requests.
            room: how many of them, and how long.

        Raises:
            RequestError: the room does not fit the memory.
        """
        self.requests: list[Request] = []
        self._groups: list[tuple[GenerationOptions, list[int]]] = []
        self._constraint = constraint
        self._lanes = Lanes(model, room, constraint.ids)
        self._head = constraint.ids.to(self._lanes.last.device)

    @torch.inference_mode()
    def join(self, requests: Sequence[Request]) -> None:
        """Read the prompts of some more; from the next step on they are drawn."""
        assert all(one.prompt.constraint == self._constraint for one in requests)
        self._lanes.join([request.prompt.lanes for request in requests])
        self.requests += requests
        self._group()

    @torch.inference_mode()
    def leave(self, requests: Collection[Request]) -> None:
        """Give up some of them, and their places free."""
        gone = [self.requests.index(request) for request in requests]
        stay = self._lanes.leave(gone)
        self.requests = [self.requests[place] for place in stay]
        self._group()

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Draw an id for each request; those that have ended with it, which leave."""
        count = len(self.requests)
        logits = self._lanes.read(self._lanes.last)
        logits = logits.view(count, -1, logits.shape[-1])
        chosen = torch.empty(count, dtype=torch.long, device=logits.device)
        for options, rows in self._groups:
            some = logits if len(rows) == count else logits[rows]
            chosen[rows] = self._head[self._columns(some, options, rows)]
        ended = []
        for row, (request, id) in enumerate(
            zip(self.requests, chosen.tolist(), strict=True)
        ):
            known = request.prompt.known.get(len(request.ids))
            if known is not None:
                chosen[row] = id = known
            if id not in self._constraint.stops:
                request.ids.append(id)
            if id in self._constraint.stops or len(request.ids) == request.prompt.most:
                ended.append(request)
        self._lanes.last = chosen.repeat_interleave(len(logits[0]))
        if ended:
            self.leave(ended)
        return ended

    def _columns(
        self,
        logits: Float[Tensor, "batch lanes vocab"],
        options: GenerationOptions,
        rows: Sequence[int],
    ) -> Int[Tensor, " batch"]:
        """What some requests with the same options draw, as columns of the head."""
        requests = [self.requests[row] for row in rows]
        drawn = [len(request.ids) / request.prompt.most for request in requests]
        one = _combined(
            logits.unbind(1), options, torch.tensor(drawn, device=logits.device)
        )
        penalty = options.repetition_penalty
        penalised = self._constraint.kind == "text" and penalty != 1
        if penalised:
            seen = torch.zeros_like(one, dtype=torch.bool)
            for row, request in enumerate(requests):
                seen[row] = torch.isin(
                    self._head, torch.tensor(request.ids, device=self._head.device)
                )
            one = penalise(one, seen, penalty)
        one = self._constraint.restrict(one, [not request.ids for request in requests])
        return sample(one, options, [request.chance for request in requests])

    def _group(self) -> None:
        """Put requests together whose options differ by their seed at most."""
        groups: dict[GenerationOptions, list[int]] = {}
        for row, request in enumerate(self.requests):
            options = replace(request.options, seed=None)
            groups.setdefault(options, []).append(row)
        self._groups = list(groups.items())


def _combined(
    lanes: Sequence[Float[Tensor, "batch vocab"]],
    options: GenerationOptions,
    drawn: Float[Tensor, " batch"],
) -> Float[Tensor, "batch vocab"]:
    """Logits of all lanes as one: guided, then contrasted if that is asked for.

    Args:
        lanes: of all prompts the first, of all the second, ...
        options: how to draw.
        drawn: share of the ids of each that stand before this one, in [0, 1).
    """
    if len(lanes) == 1:
        return lanes[0]

    def scale(whole: float) -> float | Float[Tensor, "batch 1"]:
        start, stop = options.guidance_from, options.guidance_until
        always = start == 0 and stop == 1
        return whole if always else scale_at(drawn, whole, start, stop)

    if len(lanes) == 3:
        assert options.image_guidance_scale is not None, "so the lane was made"
        return guide_edit(
            *lanes,
            image_scale=scale(options.image_guidance_scale),
            text_scale=scale(options.guidance_scale),
        )
    conditional, unconditional = lanes
    logits = guide(conditional, unconditional, scale(options.guidance_scale))
    if options.contrast_k is None:
        return logits
    return contrast(
        logits,
        unconditional,
        k=options.contrast_k,
        alpha=options.contrast_alpha,
        strong_temperature=options.strong_temperature,
        weak_temperature=options.weak_temperature,
    )
