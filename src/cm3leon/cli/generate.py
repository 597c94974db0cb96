"""`cm3leon generate`: words in, pictures out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter

from cm3leon.cli.drawn import BATCH, Answer, Drawing, deliver, draw, plain

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow

NEIGHBOURS = 2  # from a bank that is named, where the model's own number is 0


def generate(
    *prompts: str,
    candidates: int = 1,
    neighbours: int | None = None,
    memory: Path | None = None,
    encoder: str | None = None,
    prompts_file: Annotated[Path | None, Parameter(name="--prompts")] = None,
    drawing: Drawing = Drawing(),  # noqa: B008
) -> None:
    """Draw pictures of texts.

    Writes PNG files and prints for each its path, its seed and the seconds its drawing
    took; a picture's seed draws it again. Nothing that exists is overwritten.

    For example:

    ```
    cm3leon generate "a red apple"
    cm3leon generate "a red apple" "a blue car" --count 4 --out drawn
    cm3leon generate "a red apple" --out apple.png --seed 7 --guidance-scale 5
    cm3leon generate --prompts prompts.txt --grid sheet.png --top-p 0.9
    cm3leon generate "a red apple" --candidates 8 --json
    cm3leon generate "a red apple" --memory my-bank
    ```

    Args:
        prompts: what to draw.
        candidates: drawn for each picture, half of them by CD-K, of which the
            bi-encoder keeps the best.
        neighbours: captioned pictures retrieved from a memory bank for each prompt,
            for the model to look at; 0 is none. By default as many as the model is
            used to, or 2 if --memory is given. `cite` tells which they were.
        memory: the memory bank; by default the model's own.
        encoder: the CLIPModel the bank was built with; by default the model's own.
        prompts_file: a text file with a prompt a line, after those given as words.
        drawing: see `Drawing`.
    """
    from cm3leon.errors import ConfigError

    words = [*prompts, *_lines(prompts_file)]
    if not words:
        raise CycloptsError(msg='Say what to draw: cm3leon generate "a red apple".')
    given = drawing.options(neighbours=neighbours)
    if candidates < 1:
        raise ConfigError(f"candidates is {candidates}, below 1; 1 keeps what is drawn")
    drawing.check(words, candidates)
    _check_retrieval(memory, encoder, neighbours)

    from cm3leon.decoding.pool import pool
    from cm3leon.tokens.document import Document, Text

    outline = drawing.outline()
    if memory is not None:  # it is named to be used
        given.setdefault("neighbours", outline.options.neighbours or NEIGHBOURS)
    options = replace(outline.options, **given).seeded()
    assert options.seed is not None
    for text in words:  # neighbours that are found may still make it too long
        outline.writer.extend(Document(Text(text)), "image", options)
    engine = drawing.load(memory, encoder)
    asked = [
        (text, options.seed + number * candidates, Document(Text(text)))
        for text in words
        for number in range(drawing.count)
    ]

    def one_each(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        drawn = engine.extend(documents, options, seeds=seeds, on_progress=follow)
        return plain(drawn, options, seeds)

    def best_of_several(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        found = pool(
            engine, documents, candidates, options, seeds=seeds, on_progress=follow
        )
        return [
            Answer(
                row[0].document,
                row[0].options,
                [{"score": one.score, **asdict(one.options)} for one in row],
            )
            for row in found
        ]

    ask = one_each if candidates == 1 else best_of_several
    codes = engine.codec.codes_per_image * candidates
    drawn = draw(asked, ask, codes, max(1, BATCH // candidates))
    deliver(drawn, drawing, engine)


def _check_retrieval(
    memory: Path | None, encoder: str | None, neighbours: int | None
) -> None:
    """Refuse a bank or a bi-encoder that is not there, or a bank that is not used."""
    from cm3leon.errors import ConfigError

    if memory is not None and neighbours == 0:
        raise ConfigError(
            f"neighbours is 0, so nothing would be taken from {memory}; leave out "
            "--memory or --neighbours"
        )
    if memory is not None:
        from cm3leon.retrieval.memory import MemoryBank

        MemoryBank.open(memory, verify=False)
    if encoder is not None:
        from cm3leon.retrieval.encoder import source_of

        source_of(encoder)


def _lines(file: Path | None) -> list[str]:
    from cm3leon.errors import DataError

    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip() and line[0] != "#"]
