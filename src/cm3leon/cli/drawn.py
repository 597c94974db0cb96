"""What the verbs that draw share: where pictures go, and how they are told of."""

import json as json_module
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

    from cm3leon.decoding.engine import Engine
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.tokens.document import Document

    Follow = Callable[[int, int], None]
    Ask = Callable[[list[Document], list[int], Follow], list["Answer"]]

BATCH = 16  # pictures drawn at once
MOST_PIXELS = 8192  # a side


class Answer(NamedTuple):
    """A document that ends in the picture asked for, and how it was drawn."""

    document: "Document"
    options: "GenerationOptions"  # its seed among them
    candidates: Sequence[dict[str, Any]] = ()  # it was chosen from, the best first


@dataclass(frozen=True)
class Drawn:
    """A picture as the model draws it."""

    prompt: str
    picture: "Image"
    options: "GenerationOptions"
    seconds: float  # its share of the time its batch took
    attribution: list[dict[str, Any]]  # of its neighbours
    candidates: list[dict[str, Any]]  # seeds and scores, if it was chosen from several


@dataclass(frozen=True)
class Place:
    """Where pictures go, and how large: checked before anything is loaded."""

    out: Path  # a folder, or the name of a single picture
    size: int | None
    grid: Path | None  # a sheet of them all
    upscale: int | None = None  # times, by a network that sharpens

    def check(self, pictures: int) -> None:
        """Refuse what cannot come to a good end.

        Raises:
            ConfigError: the size is out of its range.
            RequestError: a file is there already, or the pictures are too many for one.
        """
        from cm3leon.errors import ConfigError, RequestError

        if self.upscale not in (None, 4):
            raise ConfigError(f"upscale is {self.upscale}; the network does 4 times")
        if self.upscale is not None and self.size is not None:
            raise ConfigError("size and upscale are two ways to enlarge; give one")
        if self.size is not None and not 1 <= self.size <= MOST_PIXELS:
            raise ConfigError(f"size is {self.size}, outside 1 to {MOST_PIXELS} pixels")
        if self.named and pictures > 1:
            raise RequestError(
                f"{pictures} pictures do not fit into {self.out}; name a folder"
            )
        for file in (self.grid, self.out if self.named else None):
            if file is not None and file.exists():
                raise RequestError(
                    f"{file} is there already; delete it or choose another name"
                )

    @property
    def named(self) -> bool:
        """Whether `out` is a picture, not a folder."""
        return self.out.suffix.lower() == ".png" and not self.out.is_dir()


def check_words(words: Sequence[str], count: int) -> None:
    """Refuse prompts and counts that mean nothing."""
    from cm3leon.errors import ConfigError, RequestError

    if count < 1:
        raise ConfigError(f"count is {count}, below 1; say how many pictures to draw")
    for text in words:
        if not text.strip():
            raise RequestError("a prompt is empty; say what to draw")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the prompt {text!r} is no text in UTF-8") from None


def plain(
    documents: "Sequence[Document]", options: "GenerationOptions", seeds: Sequence[int]
) -> list[Answer]:
    """What was drawn with one seed each."""
    pairs = zip(documents, seeds, strict=True)
    return [Answer(document, replace(options, seed=seed)) for document, seed in pairs]


def draw(
    asked: "Sequence[tuple[str, int, Document]]", ask: "Ask", size: int = BATCH
) -> Iterator[Drawn]:
    """Every picture that is asked for, a batch at a time, with a bar on stderr.

    Args:
        asked: of each its words, its seed, and the document to ask with.
        ask: documents, seeds and progress -> answers.
        size: pictures asked for at once.
    """
    from cm3leon.cli.bar import bar

    with bar("drawing", len(asked)) as advance:
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]

            def follow(
                done: int, steps: int, start: int = start, pictures: int = len(batch)
            ) -> None:
                advance(start + pictures * done / steps)

            began = time.perf_counter()
            answers = ask(
                [document for _, _, document in batch],
                [seed for _, seed, _ in batch],
                follow,
            )
            seconds = (time.perf_counter() - began) / len(batch)
            for (text, _, _), answer in zip(batch, answers, strict=True):
                image = answer.document.images[-1]
                assert image.pixels is not None
                yield Drawn(
                    text,
                    image.pixels,
                    answer.options,
                    seconds,
                    [dict(one) for one in image.attribution],
                    list(answer.candidates),
                )


def deliver(
    drawn: Iterable[Drawn], place: Place, engine: "Engine", model: str, json: bool
) -> None:
    """Write pictures as they come, and the sheet; print a line for each, or JSON."""
    enlarge, how = _enlarger(place, engine.image_tokenizer.pixels)
    told, pictures = [], []
    for one in drawn:
        picture = enlarge(one.picture)
        path = _write(one, picture, place, {"model": model, "enlarged": how})
        record: dict[str, Any] = {"path": str(path), "prompt": one.prompt}
        record |= asdict(one.options)
        seconds = round(one.seconds, 3)
        record |= {"seconds": seconds, "attribution": one.attribution}
        told.append(record | ({"candidates": one.candidates} if one.candidates else {}))
        pictures.append((one.prompt, picture))
        if not json:
            print(f"{path}  seed {one.options.seed}  {one.seconds:.2f} s", flush=True)
            if one.attribution and len(one.attribution) < one.options.neighbours:
                print(f"  {len(one.attribution)} neighbours: no more pass the rules")
    if place.grid is not None:
        _write_sheet(pictures, place.grid)
        if not json:
            print(place.grid)
    if json:
        print(json_module.dumps(told, indent=1))


def _enlarger(place: Place, pixels: int) -> "tuple[Callable[[Image], Image], str]":
    """What makes a drawn picture as large as wanted, and its name."""
    from functools import partial

    from cm3leon.decoding.pictures import enlarge, enlargement

    times = enlargement(pixels, place.size)
    if place.upscale is not None:
        from cm3leon.images.upscale import TIMES, Upscaler

        times = TIMES
        try:
            upscaler = Upscaler()
        except ModuleNotFoundError:
            print(
                "--upscale needs the extra [upscale]: pip install 'cm3leon[upscale]'; "
                "enlarged by interpolation",
                file=sys.stderr,
            )
        else:
            return upscaler, upscaler.name
    return partial(enlarge, times=times), "Lanczos interpolation"


def _write(
    drawn: Drawn, picture: "Image", place: Place, notes: Mapping[str, str]
) -> Path:
    """The file that the enlarged picture is in."""
    import cm3leon
    from cm3leon.decoding.pictures import save_new, slug

    about: dict[str, Any] = {
        "prompt": drawn.prompt,
        "seed": str(drawn.options.seed),
        "options": asdict(drawn.options),
        "attribution": drawn.attribution,
        **notes,
        "Software": f"cm3leon {cm3leon.__version__}",
    }
    path = place.out
    if not place.named:
        path = place.out / f"{slug(drawn.prompt)}-{drawn.options.seed}.png"
    return save_new(picture, path, about, number=not place.named)


def _write_sheet(drawn: list[tuple[str, "Image"]], grid: Path) -> None:
    from cm3leon.decoding.pictures import save_new
    from cm3leon.images.sheet import contact_sheet

    side = min(picture.width for _, picture in drawn)
    sheet = contact_sheet(drawn, side=side)
    save_new(sheet, grid, {}, number=False)
