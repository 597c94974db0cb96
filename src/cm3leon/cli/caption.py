"""`cm3leon caption`: pictures in, words out."""

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter

BATCH = 16  # captions drawn at once
FREELY = 0.7  # temperature, if several captions of a picture are wanted


def caption(
    *pictures: Path,
    count: int = 1,
    seed: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    repetition_penalty: float | None = None,
    max_text: int | None = None,
    model: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say what is in pictures.

    Prints a line for each caption: the picture's file and the words.

    For example:

    ```
    cm3leon caption apple.png
    cm3leon caption apple.png car.jpg --count 3 --seed 7
    ```

    Args:
        pictures: files of any common format.
        count: captions per picture.
        seed: of the first caption of each picture; the next have the numbers after it.
        temperature: how freely to draw words; 0 always takes the likeliest, and is the
            default for a single caption.
        top_p: draw among the likeliest words that hold this share of the probability.
        top_k: draw among this many of the likeliest words.
        repetition_penalty: above 1 says words less often that were said already.
        max_text: most text ids of a caption.
        model: a model folder; by default the model that ships.
        json: print one JSON list.
    """
    from cm3leon.cli.drawn import check_seeds
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.errors import ConfigError
    from cm3leon.tokens.document import Document, Hole, Image

    if not pictures:
        raise CycloptsError(msg="Name a picture: cm3leon caption apple.png.")
    if count < 1:
        raise ConfigError(f"count is {count}, below 1; say how many captions to write")
    if temperature is None:
        temperature = 0.0 if count == 1 else FREELY
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "max_text": max_text,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    GenerationOptions(**given)  # refused before the model is loaded
    check_seeds(seed, count)
    opened = [Image.open(path) for path in pictures]

    from cm3leon.cli.bar import bar
    from cm3leon.decoding.folder import load

    engine = load(model)
    options = replace(engine.options, **given).seeded()
    assert options.seed is not None
    jobs = [(i, options.seed + j) for i in range(len(opened)) for j in range(count)]
    told = []
    with bar("reading", len(jobs)) as advance:
        for start in range(0, len(jobs), BATCH):
            batch = jobs[start : start + BATCH]
            asked = [Document(Hole(), opened[i]) for i, _ in batch]
            seeds = [seed for _, seed in batch]
            filled = engine.fill(asked, options, seeds=seeds)
            advance(start + len(batch))
            for (i, own), document in zip(batch, filled, strict=True):
                words = " ".join(document.text.split())
                told.append({"path": str(pictures[i]), "caption": words, "seed": own})
                if not json:
                    print(f"{pictures[i]}: {words}", flush=True)
    if json:
        print(json_module.dumps(told, indent=1, ensure_ascii=False))
