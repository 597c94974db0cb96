"""`cm3leon edit`: a picture, changed as the words say."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cm3leon.cli.drawn import Answer, Drawing, deliver, draw, plain

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow

IMAGE_SCALE = 1.5  # Yu et al. 2023, §4.1


def edit(
    picture: Path,
    text: str,
    *,
    image_guidance_scale: float = IMAGE_SCALE,
    drawing: Drawing = Drawing(),  # noqa: B008
) -> None:
    """Draw a picture again as an instruction changes it.

    Needs a model that was tuned to edit. The one that ships was not: it takes the
    picture for one that stands before the next.

    For example:

    ```
    cm3leon edit apple.png "make it green" --model tuned
    cm3leon edit apple.png "a green apple" --image-guidance-scale 2 --count 4
    ```

    Args:
        picture: a file of any common format.
        text: the instruction.
        image_guidance_scale: how closely to follow the picture; --guidance-scale is
            that of the words. The paper edits with 1.5 and 7.5.
        drawing: see `Drawing`.
    """
    from cm3leon.tokens.document import Document, Image, Text

    given = drawing.options(image_guidance_scale=image_guidance_scale)
    drawing.check([text])
    opened = Image.open(picture)

    outline = drawing.outline()
    options = replace(outline.options, **given, neighbours=0).seeded()
    assert options.seed is not None
    outline.writer.extend(Document(outline.picture, Text(text)), "image", options)
    engine = drawing.load()
    document = Document(opened, Text(text))
    asked = [(text, options.seed + number, document) for number in range(drawing.count)]

    def changed(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        drawn = engine.extend(documents, options, seeds=seeds, on_progress=follow)
        return plain(drawn, options, seeds)

    deliver(draw(asked, changed, engine.codec.codes_per_image), drawing, engine)
