"""`cm3leon infill`: part of a picture drawn again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow


def infill(
    picture: Path,
    text: str = "",
    *,
    box: str | None = None,
    mask: Path | None = None,
    out: Path = Path(),
    seed: int | None = None,
    count: int = 1,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    model: Path | None = None,
    size: int | None = None,
    upscale: int | None = None,
    grid: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw a part of a picture again, to fit the rest and a text.

    The picture's centre square becomes codes. Those that the box or the painted mask
    touches are drawn again; all others stay.

    For example:

    ```
    cm3leon infill face.png "a smiling face" --box 0,0.5,1,1
    cm3leon infill face.png --mask painted.png --count 4 --grid sheet.png
    ```

    Args:
        picture: a file of any common format.
        text: what the whole picture shows; without it the rest alone decides.
        box: left,top,right,bottom of the part, as shares of the side from 0 to 1.
        mask: a picture that is light where to draw again, dark elsewhere.
        out: folder for the pictures, or the name of a single one, ending in .png.
        seed: of the first picture; the next have the numbers after it.
        count: pictures to draw.
        guidance_scale: how closely to follow the words; 1 is no guidance.
        temperature: how freely to draw; 0 always takes the likeliest code.
        top_p: draw among the likeliest codes that hold this share of the probability.
        top_k: draw among this many of the likeliest codes.
        model: a model folder; by default the model that ships.
        size: pixels a side, a multiple of what the model draws; by default about 256.
        upscale: 4 enlarges that many times by Real-ESRGAN, which sharpens.
        grid: also write all pictures on this one sheet.
        json: print one JSON list.
    """
    from cm3leon.cli.drawn import Answer, Place, check_words, deliver, draw, plain
    from cm3leon.decoding.options import GenerationOptions
    from cm3leon.decoding.regions import box_of
    from cm3leon.errors import RequestError
    from cm3leon.tokens.document import Document, Image, Text

    given: dict[str, Any] = {
        "guidance_scale": guidance_scale,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    GenerationOptions(**given)  # refused before the model is loaded
    if (box is None) == (mask is None):
        raise RequestError("say what to draw again: --box or --mask, one of the two")
    check_words([text] if text else [], count)
    place = Place(out, size, grid, upscale)
    place.check(count)
    corners = None if box is None else box_of(box)
    opened = Image.open(picture)

    from cm3leon.decoding.card import name
    from cm3leon.decoding.folder import load
    from cm3leon.decoding.regions import cells_of_box, cells_of_mask

    engine = load(model)
    side = round(engine.codec.codes_per_image**0.5)
    if corners is not None:
        cells = cells_of_box(corners, side)
    else:
        assert mask is not None
        cells = cells_of_mask(mask, side)
    options = replace(engine.options, **given).seeded()
    assert options.seed is not None
    document = Document(*([Text(text)] if text else []), opened)
    words = text or picture.stem
    asked = [(words, options.seed + number, document) for number in range(count)]

    def again(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        masks = [cells] * len(seeds)
        drawn = engine.redraw(
            documents, masks, options, seeds=seeds, on_progress=follow
        )
        return plain(drawn, options, seeds)

    drawn = draw(asked, again)
    deliver(drawn, place, engine, name(model), json)
