"""What the verbs that draw share: where pictures go, and how they are told of."""

import json as json_module
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

if TYPE_CHECKING:
    from PIL.Image import Image

    from cm3leon.decoding.engine import Engine
    from cm3leon.decoding.folder import Outline
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.tokens.document import Document

    Follow = Callable[[int, int], None]
    Ask = Callable[[list[Document], list[int], Follow], list["Answer"]]

BATCH = 16  # pictures drawn at once
MOST_PIXELS = 8192  # a side
OPTIONS = (
    "seed",
    "guidance_scale",
    "guidance_from",
    "guidance_until",
    "temperature",
    "top_p",
    "top_k",
    "contrast_k",
    "contrast_alpha",
    "strong_temperature",
    "weak_temperature",
    "unconditional",
    "window",
)


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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What every verb that draws can be told.

    Args:
        out: folder for the pictures, or the name of a single one, ending in .png.
        seed: of the first picture of each prompt; the next have the numbers after it.
        count: pictures per prompt.
        guidance_scale: how closely to follow the words; 1 is no guidance.
        guidance_from: share of a picture's codes, from its top, that is drawn before
            guidance begins; 0 guides from the first.
        guidance_until: and at which it ends; 1 guides to the last.
        temperature: how freely to draw; 0 always takes the likeliest code.
        top_p: draw among the likeliest codes that hold this share of the probability.
        top_k: draw among this many of the likeliest codes.
        contrast_k: contrastive decoding among what is about as likely as the k-th
            likeliest code; usually with --guidance-scale 1.
        contrast_alpha: how much less likely, as a share.
        strong_temperature: in contrastive decoding, of the codes' likelihoods with the
            words, the expert's.
        weak_temperature: and of those without them, the amateur's.
        unconditional: what guidance and contrast lead away from, where neighbours stand
            before the words: mask, the neighbours and a mask for the words; absent,
            the neighbours alone; alone, the mask without neighbours.
        window: codes looked at in one pass, of which it draws one or more; 1 draws
            them one by one. It changes the picture of a seed, not how likely it is.
        model: a model folder; by default the model that ships.
        precision: of the model's weights: fp32, bf16 or int8; by default bf16 where
            the processor has it.
        compiled: draw with kernels compiled for this processor, which pays for large
            models: 20 seconds once. Takes a C++ compiler and the extra [compiled].
        size: pixels a side, a multiple of what the model draws; by default about 256.
        upscale: 4 enlarges that many times by Real-ESRGAN, which sharpens.
        grid: also write all pictures, with their words, on this one sheet.
        json: print one JSON list.
    """

    out: Path = Path()
    seed: int | None = None
    count: int = 1
    guidance_scale: float | None = None
    guidance_from: float | None = None
    guidance_until: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    contrast_k: int | None = None
    contrast_alpha: float | None = None
    strong_temperature: float | None = None
    weak_temperature: float | None = None
    unconditional: Literal["mask", "absent", "alone"] | None = None
    window: int | None = None
    model: Path | None = None
    precision: Literal["fp32", "bf16", "int8"] | None = None
    compiled: Annotated[bool, Parameter(negative="")] = False
    size: int | None = None
    upscale: int | None = None
    grid: Path | None = None
    json: Annotated[bool, Parameter(negative="")] = False

    def options(self, **more: Any) -> dict[str, Any]:
        """Those for drawing that were given, checked before a model is loaded.

        Raises:
            ConfigError: one is out of its range.
        """
        from cm3leon.decoding.options import GenerationOptions

        every = {name: getattr(self, name) for name in OPTIONS} | more
        given = {name: value for name, value in every.items() if value is not None}
        GenerationOptions(**given)
        return given

    def check(self, words: Sequence[str], candidates: int = 1) -> None:
        """Refuse what cannot come to a good end, before anything is loaded.

        Args:
            words: the prompts; `count` pictures are drawn of each.
            candidates: drawn for each picture.

        Raises:
            ConfigError: a number is out of its range.
            RequestError: a prompt is empty or no text, a file is there already or
                stands where a folder is to be, or the pictures are too many for one.
        """
        from cm3leon.errors import ConfigError, RequestError

        check_words(words)
        if self.count < 1:
            raise ConfigError(
                f"count is {self.count}, below 1; say how many pictures to draw"
            )
        check_seeds(self.seed, self.count * candidates)
        if self.upscale not in (None, 4):
            raise ConfigError(f"upscale is {self.upscale}; the network does 4 times")
        if self.upscale is not None and self.size is not None:
            raise ConfigError("size and upscale are two ways to enlarge; give one")
        if self.size is not None and not 1 <= self.size <= MOST_PIXELS:
            raise ConfigError(f"size is {self.size}, outside 1 to {MOST_PIXELS} pixels")
        pictures = len(words) * self.count
        if self.named and pictures > 1:
            raise RequestError(
                f"{pictures} pictures do not fit into {self.out}; name a folder"
            )
        self._check_places()

    def _check_places(self) -> None:
        """Whether everything can be written where it is to go."""
        from cm3leon.errors import RequestError

        files = [self.out] if self.named else []
        files += [] if self.grid is None else [self.grid]
        for file in files:
            if file.exists():
                raise RequestError(
                    f"{file} is there already; delete it or choose another name"
                )
        if len({file.resolve() for file in files}) < len(files):
            raise RequestError(
                f"out and grid are both {self.out}; choose another name for one"
            )
        folders = [file.parent for file in files] + [self.out] * (not self.named)
        for folder in folders:
            for place in (folder, *folder.parents):
                if place.exists() and not place.is_dir():
                    raise RequestError(
                        f"{place} is a file where a folder is wanted; name a folder, "
                        "or a single picture ending in .png"
                    )

    def outline(self) -> "Outline":
        """What the model can be asked, without loading it.

        Raises:
            CheckpointError: there is no such model, or it is damaged.
            RequestError: it draws no pictures of the size.
        """
        from cm3leon.decoding.folder import outline
        from cm3leon.decoding.pictures import enlargement

        found = outline(self.model)
        enlargement(found.pixels, self.size)
        return found

    def load(self, memory: Path | None = None, encoder: str | None = None) -> "Engine":
        """The engine of the model, with another bank and encoder if they are named.

        Raises:
            CheckpointError: there is no such model, or it is damaged.
        """
        from cm3leon.decoding.folder import load

        return load(
            self.model,
            memory=memory,
            encoder=encoder,
            precision=self.precision,
            compiled=self.compiled,
        )

    @property
    def named(self) -> bool:
        """Whether `out` is a picture, not a folder."""
        return self.out.suffix.lower() == ".png" and not self.out.is_dir()


def check_words(words: Sequence[str]) -> None:
    """Refuse prompts that mean nothing."""
    from cm3leon.errors import RequestError

    for text in words:
        if not text.strip():
            raise RequestError("a prompt is empty; say what to draw")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the prompt {text!r} is no text in UTF-8") from None


def check_seeds(first: int | None, count: int) -> None:
    """Refuse a seed from which one could not count on, for `count` seeds in all."""
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.errors import ConfigError

    if first is None:
        return
    try:
        GenerationOptions(seed=first + count - 1)
    except ConfigError as error:
        raise ConfigError(f"of {count} seeds from {first} the last {error}") from error


def plain(
    documents: "Sequence[Document]", options: "GenerationOptions", seeds: Sequence[int]
) -> list[Answer]:
    """What was drawn with one seed each."""
    pairs = zip(documents, seeds, strict=True)
    return [Answer(document, replace(options, seed=seed)) for document, seed in pairs]


def draw(
    asked: "Sequence[tuple[str, int, Document]]",
    ask: "Ask",
    codes: int,
    size: int = BATCH,
) -> Iterator[Drawn]:
    """Every picture that is asked for, a batch at a time, with a bar on stderr.

    Args:
        asked: of each its words, its seed, and the document to ask with.
        ask: documents, seeds and progress -> answers.
        codes: that are drawn for each of them.
        size: pictures asked for at once.
    """
    from cm3leon.cli.bar import bar

    with bar("drawing", len(asked) * codes, "codes") as advance:
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]

            def follow(
                done: int, steps: int, start: int = start, pictures: int = len(batch)
            ) -> None:
                advance(codes * (start + pictures * done / steps))

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


def deliver(drawn: Iterable[Drawn], drawing: Drawing, engine: "Engine") -> None:
    """Write pictures as they come, and the sheet; print a line for each, or JSON."""
    from cm3leon.decoding.card import name

    enlarge, how = _enlarger(drawing, engine.image_tokenizer.pixels)
    precision = engine.model.packing or "fp32"
    notes = {"model": name(drawing.model), "precision": precision, "enlarged": how}
    told, pictures, known = [], [], []
    for one in drawn:
        picture = enlarge(one.picture)
        about = _about(one, notes)
        path = _write(one, picture, drawing, about)
        known.append(about)
        record: dict[str, Any] = {"path": str(path), "prompt": one.prompt}
        record |= asdict(one.options)
        seconds = round(one.seconds, 3)
        record |= {"seconds": seconds, "attribution": one.attribution}
        told.append(record | ({"candidates": one.candidates} if one.candidates else {}))
        pictures.append((one.prompt, picture))
        if not drawing.json:
            print(f"{path}  seed {one.options.seed}  {one.seconds:.2f} s", flush=True)
        found, wanted = len(one.attribution), one.options.neighbours
        if found < wanted:
            asked = f"{wanted} neighbour{'s' * (wanted > 1)}"
            print(
                f"{path}  {found} of {asked}: no more pass the rules", file=sys.stderr
            )
    if drawing.grid is not None:
        _write_sheet(pictures, drawing.grid, known)
        if not drawing.json:
            print(drawing.grid)
    if drawing.json:
        print(json_module.dumps(told, indent=1))


def _enlarger(drawing: Drawing, pixels: int) -> "tuple[Callable[[Image], Image], str]":
    """What makes a drawn picture as large as wanted, and its name."""
    from functools import partial

    from cm3leon.decoding.pictures import enlarge, enlargement

    times = enlargement(pixels, drawing.size)
    if drawing.upscale is not None:
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
    return partial(enlarge, times=times), "bicubic interpolation"


def _about(drawn: Drawn, notes: Mapping[str, str]) -> dict[str, Any]:
    """What is kept inside a picture."""
    import cm3leon

    return {
        "prompt": drawn.prompt,
        "seed": str(drawn.options.seed),
        "options": asdict(drawn.options),
        "attribution": drawn.attribution,
        **notes,
        "Software": f"cm3leon {cm3leon.__version__}",
    }


def _write(
    drawn: Drawn, picture: "Image", drawing: Drawing, about: Mapping[str, Any]
) -> Path:
    """The file that the enlarged picture is in."""
    from cm3leon.decoding.pictures import save_new, slug

    path = drawing.out
    if not drawing.named:
        path = drawing.out / f"{slug(drawn.prompt)}-{drawn.options.seed}.png"
    return save_new(picture, path, about, number=not drawing.named)


def _write_sheet(
    drawn: list[tuple[str, "Image"]], grid: Path, known: list[dict[str, Any]]
) -> None:
    from cm3leon.decoding.pictures import save_new
    from cm3leon.images.sheet import contact_sheet

    side = min(picture.width for _, picture in drawn)
    sheet = contact_sheet(drawn, side=side)
    about = {"pictures": known, "Software": known[0]["Software"]}
    save_new(sheet, grid, about, number=False)
