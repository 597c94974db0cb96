"""Prompts -> drawn ids: all lanes of all prompts in one batch with one cache.

The prompts are read once, then one id a step: score the legal ids, guide, contrast,
restrict, sample, and feed what was drawn to every lane of its prompt. Yu et al. 2023,
§3.1.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cm3leon.decoding import jacobi
from cm3leon.decoding.contrastive import contrast
from cm3leon.decoding.guidance import guide, guide_edit
from cm3leon.decoding.lanes import Lanes
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
    most = max(prompt.most for prompt in prompts)
    rows: list[list[int]] = []
    for rows, last in steps(model, prompts, options, chances):
        if on_progress is not None:
            on_progress(most if last else max(map(len, rows)), most)
    return rows


@torch.inference_mode()
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
        prompts: one at least, all of one constraint, all guided or none.
        options: how to draw.
        chances: a stream of chance for each prompt.
    """
    constraint = prompts[0].constraint
    assert all(prompt.constraint == constraint for prompt in prompts)
    each = {len(prompt.lanes) for prompt in prompts}
    assert len(each) == 1, "some prompts are guided, some are not"
    (count,) = each
    most = max(prompt.most for prompt in prompts)
    window = options.window if constraint.kind == "image" else 1
    room = most if window == 1 else most + window
    lanes = Lanes(model, [prompt.lanes for prompt in prompts], room, constraint.ids)
    if window > 1:
        yield from jacobi.steps(lanes, prompts, options, chances, _combined)
        return
    head = constraint.ids.to(lanes.last.device)

    rows: list[list[int]] = [[] for _ in prompts]
    penalised = constraint.kind == "text" and options.repetition_penalty != 1
    seen = torch.zeros(len(prompts), len(head), dtype=torch.bool, device=head.device)
    going = set(range(len(prompts)))
    ids = lanes.last
    for step in range(most):
        logits = lanes.read(ids)
        logits = _combined([logits[lane::count] for lane in range(count)], options)
        if penalised:
            logits = penalise(logits, seen, options.repetition_penalty)
        column = sample(constraint.restrict(logits, step), options, chances)
        if penalised:
            seen[range(len(prompts)), column] = column < len(constraint.inside)
        chosen = head[column]
        for row, prompt in enumerate(prompts):
            chosen[row] = prompt.known.get(step, chosen[row])
        for row in sorted(going):
            id = int(chosen[row])
            if id not in constraint.stops:
                rows[row].append(id)
            if id in constraint.stops or len(rows[row]) == prompts[row].most:
                going.discard(row)
        yield rows, not going
        if not going:
            return
        ids = chosen.repeat_interleave(count)


def _combined(
    lanes: Sequence[Float[Tensor, "batch vocab"]], options: GenerationOptions
) -> Float[Tensor, "batch vocab"]:
    """Logits of all lanes as one: guided, then contrasted if that is asked for."""
    if len(lanes) == 1:
        return lanes[0]
    if len(lanes) == 3:
        assert options.image_guidance_scale is not None, "so the lane was made"
        return guide_edit(
            *lanes,
            image_scale=options.image_guidance_scale,
            text_scale=options.guidance_scale,
        )
    conditional, unconditional = lanes
    logits = guide(conditional, unconditional, options.guidance_scale)
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
