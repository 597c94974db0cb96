"""Documents <-> ids. Yu et al. 2023, appendix B.1 (Fig. 8, 9), and §3.1.

    <eos> T1 <break> I1 <break> … Tq <break> Iq <eos>

Neighbours first, the document last; `<eos>` only at the very start and end; one
`<break>` between segments, save between words and a hole for words: an answer is filled
in within its text (`Question: … Answer: <mask:0> <break> I`).

Chameleon's documents (Chameleon Team 2024, §2.1) have other ends, and pictures that are
opened and closed:

    <s> T <break> I <end> T </s>

It knows no holes. Its unconditional lane is the document without its words.
"""

from collections.abc import Sequence
from typing import Literal

from cm3leon.errors import DataError, RequestError
from cm3leon.tokens.document import Document, Hole, Image, Segment, Text
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import Vocabulary

Part = tuple[Literal["text", "image"], Sequence[int]]


def assemble(vocabulary: Vocabulary, parts: Sequence[Part]) -> list[int]:
    """Text ids and codes, each in its own alphabet, as one document's ids."""
    ids = [vocabulary.eos]
    for number, (kind, values) in enumerate(parts):
        if number:
            ids.append(vocabulary.break_)
        first = (vocabulary.text if kind == "text" else vocabulary.image).start
        ids += [first + value for value in values]
    return [*ids, vocabulary.eos]


def positions(vocabulary: Vocabulary, ids: Sequence[int], slot: int) -> list[int]:
    """The place of every id when each picture is to start at a multiple of `slot`.

    Places count up by one, but the `<break>` before a picture (or before whatever is to
    be drawn after the last id) waits for the place just before the next multiple. So a
    cell of the picture has the same place whatever the caption's length. With slot 0
    places are 0, 1, 2, …, as in the paper.
    """
    if slot == 0:
        return list(range(len(ids)))
    places, place = [], 0
    for index, value in enumerate(ids):
        if value == vocabulary.break_:
            following = ids[index + 1] if index + 1 < len(ids) else None
            if following is None or following in vocabulary.image:
                place += (slot - 1 - place) % slot
        places.append(place)
        place += 1
    return places


def without_words(document: Document) -> Document:
    """The document with a hole for each run of its texts."""
    masked: list[Segment] = []
    for segment in document.segments:
        worded = isinstance(segment, Text) or segment == Hole("text")
        if not worded:
            masked.append(segment)
        elif not masked or masked[-1] != Hole("text"):
            masked.append(Hole("text"))
    return Document(*masked)


def check_holes(vocabulary: Vocabulary, holes: int) -> None:
    """Whether a model can have been trained with any holes.

    Raises:
        RequestError: there are some, and it cannot.
    """
    if holes and not vocabulary.masks:
        raise RequestError(
            "this model knows no holes: it goes on after a document, and fills none"
        )


class Codec:
    """One vocabulary and its tokenizers' sizes, speaking documents."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        text_tokenizer: TextTokenizer,
        codes_per_image: int,
    ) -> None:
        if text_tokenizer.size > len(vocabulary.text):
            raise DataError(
                f"the text tokenizer has {text_tokenizer.size} ids, the vocabulary "
                f"room for {len(vocabulary.text)}"
            )
        self.vocabulary = vocabulary
        self.text_tokenizer = text_tokenizer
        self.codes_per_image = codes_per_image

    def encode(
        self, document: Document, neighbours: Sequence[Document] = ()
    ) -> list[int]:
        """A whole document as one training sequence."""
        if document.holes:
            raise RequestError("a document with a hole has no ids; fill it first")
        return [*self._prefix(neighbours, document), self.vocabulary.eos]

    def extend_prompt(
        self, document: Document, neighbours: Sequence[Document] = ()
    ) -> list[int]:
        """What stands before a further segment: `<eos> … TEXT <break>`."""
        if document.holes:
            raise RequestError("a document with a hole is filled, not extended")
        return [*self._prefix(neighbours, document), self.vocabulary.break_]

    def mask_prompt(
        self, document: Document, neighbours: Sequence[Document] = ()
    ) -> list[int]:
        """The unconditional lane of `extend_prompt`: a mask for each of its texts."""
        if self.vocabulary.order == "chameleon":
            pictures = [x for x in document.segments if isinstance(x, Image)]
            return self.extend_prompt(Document(*pictures), neighbours)
        prefix = self._prefix(neighbours, without_words(document))
        return [*prefix, self.vocabulary.break_]

    def fill_prompt(
        self,
        document: Document,
        neighbours: Sequence[Document] = (),
        *,
        hole: int = 0,
    ) -> list[int]:
        """What a hole's content follows: `<eos> … <mask:0> … <eos> <infill:0>`.

        Args:
            document: with holes.
            neighbours: those that stand before it.
            hole: which of its holes the content is for.
        """
        if not document.holes:
            raise RequestError("the document has no hole to fill")
        v = self.vocabulary
        return [*self._prefix(neighbours, document), v.eos, v.infills[hole]]

    def decode(self, ids: Sequence[int]) -> Document:
        """The document of unrotated ids; padding is ignored.

        Raises:
            DataError: an id has no place in a document, or an image has another number
                of codes.
        """
        v = self.vocabulary
        found: list[Segment] = []
        run: list[int] = []
        between = {*v.stops, v.begin, v.pad}
        if v.order == "chameleon":
            between.add(v.end)
        for value in [*ids, v.break_]:
            if value in between:
                if run:
                    found.append(self._segment(run))
                run = []
            elif v.kind(value) in ("text", "image"):
                run.append(value)
            elif value in v.masks:
                found.append(Hole())
            else:
                raise DataError(f"id {value} has no place in a document")
        return Document(*found)

    def _segment(self, run: list[int]) -> Segment:
        v = self.vocabulary
        kinds = {v.kind(value) for value in run}
        if kinds == {"text"}:
            return Text(self.text_tokenizer.decode(x - v.text.start for x in run))
        if kinds == {"image"}:
            if len(run) != self.codes_per_image:
                raise DataError(
                    f"an image of {len(run)} codes; one has {self.codes_per_image}"
                )
            return Image(codes=tuple(v.code(value) for value in run))
        raise DataError("text and image codes without a <break> between them")

    def _prefix(self, neighbours: Sequence[Document], document: Document) -> list[int]:
        v = self.vocabulary
        if any(one.holes for one in neighbours):
            raise RequestError("a neighbour has a hole; only the document may have one")
        check_holes(v, len(document.holes))
        if len(document.holes) > len(v.masks):
            raise RequestError(
                f"{len(document.holes)} holes; this vocabulary has masks for "
                f"{len(v.masks)}"
            )
        ids = [v.begin]
        masks = iter(v.masks)
        for one in (*neighbours, document):
            wordy = False  # whether the segment before is text, which no break divides
            for segment in one.segments:
                text = isinstance(segment, Text) or segment == Hole("text")
                if v.order == "cm3" and len(ids) > 1 and not (text and wordy):
                    ids.append(v.break_)
                if isinstance(segment, Hole):
                    ids.append(next(masks))
                elif v.order == "chameleon" and isinstance(segment, Image):
                    ids += [v.break_, *self._ids(segment), v.end]
                else:
                    ids += self._ids(segment)
                wordy = text
        return ids

    def _ids(self, segment: Text | Image) -> list[int]:
        v = self.vocabulary
        if isinstance(segment, Text):
            return [
                v.text.start + x
                for x in self.text_tokenizer.encode(segment.text.rstrip())
            ]
        if segment.codes is None:
            raise RequestError(
                "a picture without codes; the image tokenizer makes them"
            )
        if len(segment.codes) != self.codes_per_image:
            raise RequestError(
                f"a picture of {len(segment.codes)} codes; this model's have "
                f"{self.codes_per_image}"
            )
        return [v.image_id(code) for code in segment.codes]
