"""`cm3leon generate`: words in, pictures out."""

import json as json_module
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter

if TYPE_CHECKING:
    from PIL.Image import Image

    from cm3leon.decoding.engine import Engine
    from cm3leon.decoding.options import GenerationOptions

BATCH = 16  # pictures drawn at once
MOST_PIXELS = 8192  # a side


def generate(
    *prompts: str,
    out: Path = Path(),
    seed: int | None = None,
    count: int = 1,
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
    cm3leon generate "a red apple" --neighbours 2 --memory bank --encoder bi_encoder
    ```

    Args:
        prompts: what to draw.
        out: folder for the pictures, or the name of a single one, ending in .png.
        seed: of the first picture of each prompt; the next have the numbers after it.
        count: pictures per prompt.
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
        grid: also write all pictures, with their words, on this one sheet.
        prompts_file: a text file with a prompt a line, after those given as words.
        json: print one JSON list.
    """
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.decoding.pictures import enlargement

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
    _check(words, count, size, out, grid)

    from cm3leon.decoding.card import name
    from cm3leon.decoding.folder import load

    engine = load(model, memory=memory, encoder=encoder)
    options = replace(engine.options, **given).seeded()
    assert options.seed is not None
    jobs = [(text, options.seed + i) for text in words for i in range(count)]
    times = enlargement(engine.image_tokenizer.pixels, size)
    told, drawn = [], []
    for one in _draw(engine, jobs, options):
        picture, path = _write(one, times, out, name(model))
        record = {"path": str(path), "prompt": one.prompt, **asdict(one.options)}
        seconds = round(one.seconds, 3)
        told.append({**record, "seconds": seconds, "attribution": one.attribution})
        drawn.append((one.prompt, picture))
        if not json:
            print(f"{path}  seed {one.options.seed}  {one.seconds:.2f} s", flush=True)
            if len(one.attribution) < options.neighbours:
                print(f"  {len(one.attribution)} neighbours: no more pass the rules")
    if grid is not None:
        _write_sheet(drawn, grid)
        if not json:
            print(grid)
    if json:
        print(json_module.dumps(told, indent=1))


@dataclass(frozen=True)
class _Drawn:
    """A picture as the model draws it."""

    prompt: str
    picture: "Image"
    options: "GenerationOptions"
    seconds: float  # its share of the time its batch took
    attribution: list[dict[str, Any]]  # of its neighbours


def _lines(file: Path | None) -> list[str]:
    from cm3leon.errors import DataError

    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip() and line[0] != "#"]


def _check(
    words: list[str], count: int, size: int | None, out: Path, grid: Path | None
) -> None:
    """Refuse what cannot come to a good end, before anything is loaded."""
    from cm3leon.errors import ConfigError, RequestError

    if count < 1:
        raise ConfigError(f"count is {count}, below 1; say how many pictures to draw")
    if size is not None and not 1 <= size <= MOST_PIXELS:
        raise ConfigError(f"size is {size}, outside 1 to {MOST_PIXELS} pixels")
    for text in words:
        if not text.strip():
            raise RequestError("a prompt is empty; say what to draw")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the prompt {text!r} is no text in UTF-8") from None
    if _is_picture(out) and len(words) * count > 1:
        raise RequestError(
            f"{len(words) * count} pictures do not fit into {out}; name a folder"
        )
    for file in (grid, out if _is_picture(out) else None):
        if file is not None and file.exists():
            raise RequestError(
                f"{file} is there already; delete it or choose another name"
            )


def _is_picture(out: Path) -> bool:
    return out.suffix.lower() == ".png" and not out.is_dir()


def _draw(
    engine: "Engine", jobs: list[tuple[str, int]], options: "GenerationOptions"
) -> Iterator[_Drawn]:
    """Every job's picture, a batch at a time, with a bar on stderr."""
    from cm3leon.cli.bar import bar
    from cm3leon.tokens.document import Document, Text

    with bar("drawing", len(jobs)) as advance:
        for start in range(0, len(jobs), BATCH):
            batch = jobs[start : start + BATCH]

            def follow(
                done: int, steps: int, start: int = start, size: int = len(batch)
            ) -> None:
                advance(start + size * done / steps)

            began = time.perf_counter()
            documents = engine.extend(
                [Document(Text(text)) for text, _ in batch],
                options,
                seeds=[seed for _, seed in batch],
                on_progress=follow,
            )
            seconds = (time.perf_counter() - began) / len(batch)
            for (text, seed), document in zip(batch, documents, strict=True):
                image = document.images[-1]
                assert image.pixels is not None
                own = replace(options, seed=seed)
                credits = [dict(one) for one in image.attribution]
                yield _Drawn(text, image.pixels, own, seconds, credits)


def _write(drawn: _Drawn, times: int, out: Path, model: str) -> tuple["Image", Path]:
    """The enlarged picture, and the file it is in."""
    import cm3leon
    from cm3leon.decoding.pictures import enlarge, save_new, slug

    picture = enlarge(drawn.picture, times)
    notes: dict[str, Any] = {
        "prompt": drawn.prompt,
        "seed": str(drawn.options.seed),
        "options": asdict(drawn.options),
        "attribution": drawn.attribution,
        "model": model,
        "Software": f"cm3leon {cm3leon.__version__}",
    }
    named = _is_picture(out)
    path = out if named else out / f"{slug(drawn.prompt)}-{drawn.options.seed}.png"
    return picture, save_new(picture, path, notes, number=not named)


def _write_sheet(drawn: list[tuple[str, "Image"]], grid: Path) -> None:
    from cm3leon.decoding.pictures import save_new
    from cm3leon.images.sheet import contact_sheet

    side = min(picture.width for _, picture in drawn)
    sheet = contact_sheet(drawn, side=side)
    save_new(sheet, grid, {}, number=False)
