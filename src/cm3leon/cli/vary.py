"""`cm3leon vary`: other pictures like a picture."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cm3leon.cli.drawn import Answer, Drawing, deliver, draw, plain

if TYPE_CHECKING:
    from cm3leon.cli.drawn import Follow

LONGEST = 24  # text ids that the model may need to say what it sees


def vary(
    picture: Path,
    text: str = "",
    *,
    drawing: Drawing = Drawing(),  # noqa: B008
) -> None:
    """Draw other pictures like a picture, of the same thing or of another.

    The picture and its words stand before the prompt as a retrieved neighbour would.

    For example:

    ```
    cm3leon vary apple.png "a red apple" --count 4 --grid sheet.png
    cm3leon vary apple.png
    ```

    Args:
        picture: a file of any common format; its centre square is taken.
        text: what it shows; without it the model says, as `caption` does.
        drawing: see `Drawing`.
    """
    from cm3leon.tokens.document import Document, Hole, Image, Text

    given = drawing.options()
    drawing.check([text or picture.stem])
    opened = Image.open(picture)

    from cm3leon.decoding.options import GenerationOptions

    outline = drawing.outline()
    options = replace(outline.options, **given, neighbours=0).seeded()
    assert options.seed is not None
    if text:
        like = Document(Text(text), outline.picture)
        outline.writer.extend(Document(Text(text)), "image", options, [like])
    engine = drawing.load()
    if not text:
        reading = GenerationOptions(
            temperature=0.0, max_text=LONGEST, seed=options.seed
        )
        text = engine.fill(Document(Hole(), opened), reading).text
    like = Document(Text(text), opened)
    wanted = Document(Text(text))
    seeds = range(options.seed, options.seed + drawing.count)
    asked = [(text, seed, wanted) for seed in seeds]

    def others(
        documents: list[Document], seeds: list[int], follow: "Follow"
    ) -> list[Answer]:
        near = [[like]] * len(seeds)
        drawn = engine.extend(
            documents, options, neighbours=near, seeds=seeds, on_progress=follow
        )
        return plain(drawn, options, seeds)

    deliver(draw(asked, others, engine.codec.codes_per_image), drawing, engine)
