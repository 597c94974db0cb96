"""`cm3leon ask`: a picture and a question in, words out."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def ask(
    picture: Path,
    question: str,
    *,
    count: int = 1,
    seed: int | None = None,
    temperature: float | None = None,
    top_p: float = 1.0,
    max_text: int = 64,
    model: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask a question about a picture.

    The model reads `Question: … Answer:` and fills in what follows. Answers need a
    model that was tuned to give them; the one that ships knows captions only.

    For example:

    ```
    cm3leon ask apple.png "what colour is it?"
    cm3leon ask apple.png "is it a fruit?" --model tuned --count 3 --json
    ```

    Args:
        picture: a file of any common format.
        question: the words.
        count: answers, each on a line.
        seed: of the first answer; the next have the numbers after it.
        temperature: how freely to draw words; 0 always takes the likeliest, and is the
            default for a single answer.
        top_p: draw among the likeliest words that hold this share of the probability.
        max_text: most text ids of an answer.
        model: a model folder; by default the model that ships.
        json: print a JSON table for each answer, on a line.
    """
    from cm3leon.cli.caption import FREELY
    from cm3leon.cli.drawn import check_seeds, check_words
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.errors import ConfigError
    from cm3leon.tokens.document import Document, Hole, Image, Text

    if count < 1:
        raise ConfigError(f"count is {count}, below 1; say how many answers to write")
    if temperature is None:
        temperature = 0.0 if count == 1 else FREELY
    options = GenerationOptions(  # refused before the model is loaded
        temperature=temperature, top_p=top_p, max_text=max_text, seed=seed
    ).seeded()
    assert options.seed is not None
    check_seeds(seed, count)
    check_words([question])
    opened = Image.open(picture)

    from cm3leon.decoding.folder import load, outline

    words = f"Question: {question.strip()} Answer:"
    parts, small = (Text(words), Hole()), outline(model)
    small.writer.fill(Document(*parts, small.picture), options)
    engine = load(model)
    seeds = range(options.seed, options.seed + count)
    filled = engine.fill([Document(*parts, opened)] * count, options, seeds=seeds)
    for seed, one in zip(seeds, filled, strict=True):
        answer = " ".join(one.text.removeprefix(words).split())
        table = {"path": str(picture), "question": question, "answer": answer}
        line = json_module.dumps(table | {"seed": seed}, ensure_ascii=False)
        print(line if json else answer)
