"""Captions, and pictures of them, for what is measured on drawn pictures."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from cm3leon.data.pictures import Picture, Pictures
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.options import GenerationOptions
from cm3leon.tokens.document import Document, Text

BATCH = 64


def colour_pictures(data: str, split: str, count: int) -> list[Picture]:
    """Up to `count` colour drawings of a split, the same on each run.

    Args:
        data: a folder of `cm3leon data build`.
        split: which.
        count: most pictures.
    """
    opened = Pictures.open(data, split)
    order = np.random.default_rng(0).permutation(opened.groups("tier")["core"])
    return [opened[int(number)] for number in order[:count]]


def draw_captions(
    engine: Engine,
    captions: Sequence[str],
    options: GenerationOptions,
    on_progress: Callable[[int, int], object] | None = None,
) -> list[Image.Image]:
    """One picture of each caption, at the model's own size.

    The i-th is what `options.seed * 100,000 + i` draws of it alone.

    Args:
        engine: the model.
        captions: words.
        options: how to draw; with a seed.
        on_progress: called with pictures done and pictures in all.
    """
    first = (options.seeded().seed or 0) * 100_000
    drawn: list[Image.Image] = []
    for start in range(0, len(captions), BATCH):
        group = captions[start : start + BATCH]
        seeds = [first + start + number for number in range(len(group))]
        documents = [Document(Text(caption)) for caption in group]
        for document in engine.extend(documents, options, seeds=seeds):
            pixels = document.images[-1].pixels
            assert pixels is not None  # the engine decodes what it draws
            drawn.append(pixels)
        if on_progress:
            on_progress(len(drawn), len(captions))
    return drawn
