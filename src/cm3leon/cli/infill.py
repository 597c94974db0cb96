"""`cm3leon infill`: part of a picture drawn again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cm3leon.cli.drawn import Answer, Drawing, deliver, draw, plain

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow


def infill(
    picture: Path,
    text: str = "",
    *,
    box: str | None = None,
    mask: Path | None = None,
    drawing: Drawing = Drawing(),  # noqa: B008
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
        drawing: see `Drawing`.
    """
    from cm3leon.errors import RequestError
    from cm3leon.tokens.document import Document, Image, Text

    given = drawing.options()
    if (box is None) == (mask is None):
        raise RequestError("say what to draw again: --box or --mask, one of the two")
    words = text or picture.stem
    drawing.check([words])
    opened = Image.open(picture)

    outline = drawing.outline()
    cells = _cells(box, mask, outline.grid)
    options = replace(outline.options, **given, neighbours=0).seeded()
    assert options.seed is not None
    about = [Text(text)] if text else []
    outline.writer.redraw(Document(*about, outline.picture), cells, options)
    engine = drawing.load()
    document = Document(*about, opened)
    asked = [
        (words, options.seed + number, document) for number in range(drawing.count)
    ]

    def again(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        masks = [cells] * len(seeds)
        drawn = engine.redraw(
            documents, masks, options, seeds=seeds, on_progress=follow
        )
        return plain(drawn, options, seeds)

    drawn = draw(asked, again, len(cells))
    deliver(drawn, drawing, engine)


def _cells(box: str | None, mask: Path | None, grid: int) -> list[int]:
    """The cells of the box or the mask, if they are some of the picture's, not all."""
    from cm3leon.decoding.regions import (
        box_of,
        cells_of_box,
        cells_of_mask,
        check_hidden,
    )
    from cm3leon.errors import RequestError

    if box is not None:
        cells, told = cells_of_box(box_of(box), grid), f"box {box}"
    else:
        assert mask is not None
        try:
            cells, told = cells_of_mask(mask, grid), f"mask {mask}"
        except RequestError as error:
            raise RequestError(f"mask {error}") from error
    check_hidden(cells, grid**2, told)
    return cells
