"""Several candidates of one picture, the best first. Yu et al. 2023, §3.1.

    half are drawn by top-p with guidance, half by CD-K
    score(text, picture) = <t, i>      the bi-encoder's unit vectors of the two

The bi-encoder that retrieves judges, as the paper's CLIP does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cm3leon.decoding.drawing import Progress
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document

CONTRAST_K = 3  # of the half by CD-K, unless the options name one


@dataclass(frozen=True)
class Candidate:
    """One of the pictures that were drawn."""

    document: Document  # what was asked, and the picture
    options: GenerationOptions  # which draw this one again
    score: float  # in [-1, 1], higher is better


def strategies(options: GenerationOptions) -> tuple[GenerationOptions, ...]:
    """The two of the paper: as the options say, and by CD-K without guidance.

    Options that ask for CD-K come first, too, and then the same without it. Temperature
    and top-p are those of the options in both.
    """
    if options.contrast_k is not None:
        return (options, replace(options, contrast_k=None))
    contrasted = replace(
        options, image_guidance_scale=None, contrast_k=CONTRAST_K, guidance_scale=1.0
    )
    return (options, contrasted)


def pool(
    engine: Engine,
    documents: Sequence[Document],
    count: int,
    options: GenerationOptions | None = None,
    *,
    seeds: Sequence[int] | None = None,
    on_progress: Progress | None = None,
) -> list[list[Candidate]]:
    """All candidates of each document's next picture, the best first.

    Args:
        engine: a model with a bi-encoder.
        documents: what is to be drawn, in words.
        count: of candidates; the first, third, … are drawn as the options say, the
            others by CD-K, or if that is what they say, without.
        options: how to draw; by default the model's own.
        seeds: of each document's first candidate, the next have the numbers after it;
            by default all begin at the options' seed.
        on_progress: called after every step.

    Raises:
        RequestError: a document has no words to judge by, or the model no bi-encoder.
    """
    if count < 1:
        raise RequestError(f"candidates is {count}, below 1")
    if any(not document.text.strip() for document in documents):
        raise RequestError("candidates are judged by the words, and there are none")
    options = (options or engine.options).seeded()
    assert options.seed is not None
    seeds = seeds or [options.seed] * len(documents)
    found: list[list[Candidate]] = [[] for _ in documents]
    ways = strategies(options)[:count]
    for first, way in enumerate(ways):
        numbers = range(first, count, len(ways))
        asked = [(row, n) for row in range(len(documents)) for n in numbers]
        own = [seeds[row] + number for row, number in asked]

        def follow(done: int, steps: int, before: int = first) -> None:
            if on_progress:
                on_progress(before * steps + done, len(ways) * steps)

        drawn = engine.extend(
            [documents[row] for row, _ in asked], way, seeds=own, on_progress=follow
        )
        pictures = [one.images[-1].pixels for one in drawn]
        scores = engine.retriever.agreement(
            [documents[row].text for row, _ in asked],
            [picture for picture in pictures if picture is not None],
        )
        for (row, _), seed, one, score in zip(asked, own, drawn, scores, strict=True):
            found[row].append(Candidate(one, replace(way, seed=seed), score))
    return [sorted(row, key=lambda one: -one.score) for row in found]
