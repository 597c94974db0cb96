"""`cm3leon ask`: a picture and a question in, words out."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def ask(
    picture: Path,
    question: str,
    *,
    seed: int | None = None,
    temperature: float = 0.0,
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
    cm3leon ask apple.png "is it a fruit?" --model tuned --json
    ```

    Args:
        picture: a file of any common format.
        question: the words.
        seed: repeats an answer that was drawn freely.
        temperature: how freely to draw words; 0 always takes the likeliest.
        top_p: draw among the likeliest words that hold this share of the probability.
        max_text: most text ids of an answer.
        model: a model folder; by default the model that ships.
        json: print one JSON table.
    """
    from cm3leon.cli.drawn import check_words
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.tokens.document import Document, Hole, Image, Text

    options = GenerationOptions(  # refused before the model is loaded
        temperature=temperature, top_p=top_p, max_text=max_text, seed=seed
    ).seeded()
    check_words([question])
    opened = Image.open(picture)

    from cm3leon.decoding.folder import load

    engine = load(model)
    words = f"Question: {question.strip()} Answer:"
    filled = engine.fill(Document(Text(words), Hole(), opened), options)
    answer = " ".join(filled.text.removeprefix(words).split())
    if json:
        table = {"path": str(picture), "question": question, "answer": answer}
        print(json_module.dumps(table | {"seed": options.seed}, ensure_ascii=False))
    else:
        print(answer)
