"""`cm3leon generate`: words in, pictures out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow


def generate(
    *prompts: str,
    out: Path = Path(),
    seed: int | None = None,
    count: int = 1,
    candidates: int = 1,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    contrast_k: int | None = None,
    contrast_alpha: float | None = None,
    neighbours: int | None = None,
    memory: Path | None = None,
    encoder: str | None = None,
    model: Path | None = None,
    size: int | None = None,
    upscale: int | None = None,
    grid: Path | None = None,
    prompts_file: Annotated[Path | None, Parameter(name="--prompts")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
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
        out: folder for the pictures, or the name of a single one, ending in .png.
        seed: of the first picture of each prompt; the next have the numbers after it.
        count: pictures per prompt.
        candidates: drawn for each picture, half of them by CD-K, of which the
            bi-encoder keeps the best.
        guidance_scale: how closely to follow the words; 1 is no guidance.
        temperature: how freely to draw; 0 always takes the likeliest code.
        top_p: draw among the likeliest codes that hold this share of the probability.
        top_k: draw among this many of the likeliest codes.
        contrast_k: contrastive decoding among what is about as likely as the k-th
            likeliest code; usually with --guidance-scale 1.
        contrast_alpha: how much less likely, as a share.
        neighbours: captioned pictures retrieved from a memory bank for each prompt,
            for the model to look at; 0 is none. `cite` tells which they were.
        memory: the memory bank; by default the model's own.
        encoder: the CLIPModel the bank was built with; by default the model's own.
        model: a model folder; by default the model that ships.
        size: pixels a side, a multiple of what the model draws; by default about 256.
        upscale: 4 enlarges that many times by Real-ESRGAN, which sharpens.
        grid: also write all pictures, with their words, on this one sheet.
        prompts_file: a text file with a prompt a line, after those given as words.
        json: print one JSON list.
    """
    from cm3leon.cli.drawn import (
        BATCH,
        Answer,
        Place,
        check_words,
        deliver,
        draw,
        plain,
    )
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.errors import ConfigError

    words = [*prompts, *_lines(prompts_file)]
    if not words:
        raise CycloptsError(msg='Say what to draw: cm3leon generate "a red apple".')
    given: dict[str, Any] = {
        "guidance_scale": guidance_scale,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "contrast_k": contrast_k,
        "contrast_alpha": contrast_alpha,
        "neighbours": neighbours,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    GenerationOptions(**given)  # refused before the model is loaded
    check_words(words, count)
    if candidates < 1:
        raise ConfigError(f"candidates is {candidates}, below 1; 1 keeps what is drawn")
    place = Place(out, size, grid, upscale)
    place.check(len(words) * count)

    from cm3leon.decoding.card import name
    from cm3leon.decoding.folder import load
    from cm3leon.decoding.pool import pool
    from cm3leon.tokens.document import Document, Text

    engine = load(model, memory=memory, encoder=encoder)
    options = replace(engine.options, **given).seeded()
    assert options.seed is not None
    asked = [
        (text, options.seed + number * candidates, Document(Text(text)))
        for text in words
        for number in range(count)
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
    drawn = draw(asked, ask, max(1, BATCH // candidates))
    deliver(drawn, place, engine, name(model), json)


def _lines(file: Path | None) -> list[str]:
    from cm3leon.errors import DataError

    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip() and line[0] != "#"]
