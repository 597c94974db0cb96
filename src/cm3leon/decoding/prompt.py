"""What is asked of the model: a document to extend, or one with a hole to fill.

    extend   conditional    <eos> TEXT <break>              Yu et al. 2023, §3.1
             unconditional  <eos> <mask:0> <break>
    with K   conditional    <eos> (Ti <break> Ii <break>)K TEXT <break>
    neigh-   unconditional  <eos> (Ti <break> Ii <break>)K <mask:0> <break>
    bours     or, "absent"  <eos> (Ti <break> Ii <break>)K
              or, "alone"   <eos> <mask:0> <break>
    edit     conditional    <eos> IMAGE <break> TEXT <break>        §4.1, two scales
             unconditional  <eos> IMAGE <break> <mask:0> <break>
             nothing        <eos> <mask:0> <break>
    fill     conditional    <eos> <mask:0> <break> IMAGE <eos> <infill:0>
    a pic-   conditional    <eos> TEXT <break> <mask:0> <eos> <infill:0>
    ture     unconditional  <eos> <mask:0> <break> <mask:1> <eos> <infill:1>
    redraw   conditional    <eos> TEXT <break> CODES <mask:0> CODES <eos> <infill:0>
             unconditional  <eos> <mask:0> <break> CODES <mask:1> CODES <eos> <infill:1>

A prompt's lanes all end where the same drawn ids begin. Positions are those the ids
had in training: with a position slot, ids that moved keep the place they came from.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

from cm3leon.decoding.constraints import Constraint, Kind
from cm3leon.decoding.lanes import Lane
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.regions import check_hidden
from cm3leon.errors import RequestError
from cm3leon.tokens.codec import Codec, check_holes, positions, without_words
from cm3leon.tokens.document import Document, Hole, Image, Text


@dataclass(frozen=True)
class Prompt:
    """Lanes to read, and what may be drawn after them."""

    conditional: Lane
    unconditional: Lane | None  # of guided pictures
    constraint: Constraint
    most: int  # ids to draw; a picture takes all of them
    known: Mapping[int, int] = field(default_factory=dict)  # step -> id not to draw
    nothing: Lane | None = None  # of edited pictures

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The conditional lane, and behind it the others that there are."""
        lanes = (self.conditional, self.unconditional, self.nothing)
        return tuple(lane for lane in lanes if lane is not None)


@dataclass(frozen=True, kw_only=True)
class PromptWriter:
    """Documents -> prompts for one model."""

    codec: Codec
    context: int
    position_slot: int = 0

    def extend(
        self,
        document: Document,
        want: Kind,
        options: GenerationOptions,
        neighbours: Sequence[Document] = (),
    ) -> Prompt:
        """Ask for a segment after `document`, or for more of its last text.

        Neighbours stand before it, in order; every lane of a picture sees them, but
        for the unconditional one if that stands "alone".

        Raises:
            RequestError: the document is empty or has a hole, a picture is to follow a
                picture, or it is all too long.
        """
        if want not in ("image", "text"):
            raise RequestError(f"want is {want!r}; it can be 'image' or 'text'")
        if document.holes:
            raise RequestError("the document has a hole; fill it before extending it")
        document = _without_empty_text(document)
        if not document.segments:
            raise RequestError("the document is empty; give it words or a picture")
        worded = isinstance(document.segments[-1], Text)
        if want == "image" and not worded:
            raise RequestError(
                "the document ends in a picture; put text behind it to ask for another"
            )
        vocabulary = self.codec.vocabulary
        ids = self.codec.extend_prompt(document, neighbours)
        if want == "text":
            _refuse_image_guidance(options)
            if worded or vocabulary.order == "chameleon":
                ids = ids[:-1]  # within a text there is no <break>
            lane = self._lane(ids, (), vocabulary.text.start)
            constraint = Constraint.extending(self.codec)
            return self._prompt(constraint, lane, None, options)
        conditional = self._lane(ids, (), vocabulary.image.start)
        unconditional = None
        if options.is_guided:
            alone = options.unconditional == "alone"
            masked = self.codec.mask_prompt(document, () if alone else neighbours)
            if options.unconditional == "absent" and neighbours and not document.images:
                masked = self.codec.extend_prompt(Document(), neighbours)
            unconditional = self._lane(masked, repeat("text"), vocabulary.image.start)
        constraint = Constraint.image(self.codec)
        prompt = self._prompt(
            constraint, conditional, unconditional, options, retrieved=len(neighbours)
        )
        if options.image_guidance_scale is None:
            return prompt
        if not document.images:
            _refuse_image_guidance(options)
        empty = self.codec.mask_prompt(Document(Hole()))
        nothing = self._lane(empty, repeat("text"), vocabulary.image.start)
        return replace(prompt, nothing=nothing)

    def fill(self, document: Document, options: GenerationOptions) -> Prompt:
        """Ask for what stands in the first hole of `document`.

        Raises:
            RequestError: there is no hole, there are too many, the options are for
                editing, or it is all too long.
        """
        _refuse_image_guidance(options)
        vocabulary, holes = self.codec.vocabulary, document.holes
        if not holes:
            raise RequestError("the document has no hole to fill; put a Hole in it")
        check_holes(vocabulary, len(holes))
        if len(holes) > len(vocabulary.masks):
            raise RequestError(
                f"the document has {len(holes)} holes, the model knows "
                f"{len(vocabulary.masks)}; fill some of them first"
            )
        document = _without_empty_text(document)
        lane = self._filling(document, 0)
        if holes[0].wants == "text":
            return self._prompt(Constraint.filling(self.codec), lane, None, options)
        unconditional = None
        masked = without_words(document)
        if options.is_guided and masked != document:
            if len(masked.holes) > len(vocabulary.masks):
                raise RequestError(
                    f"guidance hides the words: {len(masked.holes)} holes, and the "
                    f"model knows {len(vocabulary.masks)}; ask for guidance_scale 1"
                )
            wants = [hole.wants for hole in masked.holes]
            unconditional = self._filling(masked, wants.index("image"))
        constraint = Constraint.image(self.codec)
        return self._prompt(constraint, lane, unconditional, options)

    def _filling(self, document: Document, hole: int) -> Lane:
        """A document with holes, of which the content of one is still to follow."""
        vocabulary = self.codec.vocabulary
        ids = self.codec.fill_prompt(document, hole=hole)
        wants = [one.wants for one in document.holes]
        body = self._lane(ids[:-1], wants, vocabulary.eos)
        infill, after = len(ids) - 1, len(ids)
        if self.position_slot:
            infill = after = body.positions[ids.index(vocabulary.masks[hole])]
        return Lane(tuple(ids), (*body.positions, infill), after)

    def redraw(
        self, document: Document, hidden: Collection[int], options: GenerationOptions
    ) -> Prompt:
        """Ask for some codes of the picture that ends `document` again.

        The span from the first to the last of them is hidden, and what of it is not to
        be drawn is fed as it stands: one span, as in training (Yu et al. 2023, §2.2).

        Args:
            document: a picture with codes, and words before it if they are known.
            hidden: cells of its grid in raster order, from 0.
            options: how to draw.

        Raises:
            RequestError: no picture ends the document, nothing is hidden or everything,
                a cell is not in the grid, or it is all too long.
        """
        _refuse_image_guidance(options)
        vocabulary, count = self.codec.vocabulary, self.codec.codes_per_image
        check_holes(vocabulary, len(hidden))
        document = _without_empty_text(document)
        last = document.segments[-1] if document.segments else None
        if not isinstance(last, Image) or last.codes is None or document.holes:
            raise RequestError("give a document without holes that ends in a picture")
        cells = sorted(set(hidden))
        check_hidden(cells, count)
        if cells[0] < 0 or cells[-1] >= count:
            raise RequestError(f"cells run from 0 to {count - 1}; got {cells}")
        span = range(cells[0], cells[-1] + 1)
        masked = [*self.codec.mask_prompt(document)[:-1], vocabulary.eos]
        worded = any(isinstance(segment, Text) for segment in document.segments)
        if not worded:  # a picture never stands alone in training
            words = Document(Hole(), *document.segments)
            masked = [*self.codec.mask_prompt(words)[:-1], vocabulary.eos]
        lane, unconditional = self._hiding(masked, span), None
        if worded:  # else there is nothing to guide towards
            unconditional = lane if options.is_guided else None
            lane = self._hiding(self.codec.encode(document), span)
        constraint = Constraint.image(self.codec)
        prompt = self._prompt(constraint, lane, unconditional, options, len(span))
        known = {
            place - span.start: vocabulary.image_id(last.codes[place])
            for place in span
            if place not in set(cells)
        }
        return replace(prompt, known=known)

    def _hiding(self, ids: Sequence[int], span: range) -> Lane:
        """A document's ids, with a span of its last picture's codes still to follow."""
        vocabulary = self.codec.vocabulary
        places = self._lane(ids, repeat("text"), vocabulary.eos).positions
        first = len(ids) - 1 - self.codec.codes_per_image
        start, stop = first + span.start, first + span.stop
        masks = sum(id in vocabulary.masks for id in ids)
        mask, infill = vocabulary.masks[masks], vocabulary.infills[masks]
        kept = (*ids[:start], mask, *ids[stop:], infill)
        if not self.position_slot:
            return Lane(kept, tuple(range(len(kept))), len(kept))
        place = places[start]
        moved = (*places[:start], place, *places[stop:], place)
        return Lane(kept, moved, place)

    def _lane(self, ids: Sequence[int], masked: Iterable[Kind], following: int) -> Lane:
        """Ids with their places in the document, of which `following` is the next.

        Args:
            ids: of the prompt.
            masked: what each mask stands for, in order.
            following: an id of the kind that comes after them.
        """
        vocabulary = self.codec.vocabulary
        masks, kinds = frozenset(vocabulary.masks), iter(masked)
        whole: list[int] = []  # the document as if its holes were filled
        kept = []
        for id in ids:
            kept.append(len(whole))
            if id not in masks:
                whole.append(id)
            elif next(kinds) == "text":
                whole.append(vocabulary.text.start)  # its length is not known yet
            else:
                codes = self.codec.codes_per_image if self.position_slot else 1
                whole += [vocabulary.image.start] * codes
        places = positions(vocabulary, [*whole, following], self.position_slot)
        return Lane(tuple(ids), tuple(places[i] for i in kept), places[-1])

    def _prompt(
        self,
        constraint: Constraint,
        conditional: Lane,
        unconditional: Lane | None,
        options: GenerationOptions,
        codes: int | None = None,
        retrieved: int = 0,
    ) -> Prompt:
        picture = constraint.kind == "image"
        least = (codes or self.codec.codes_per_image) if picture else 1
        lanes = [lane for lane in (conditional, unconditional) if lane is not None]
        used = max(max(len(lane.ids), lane.next_position) for lane in lanes)
        furthest = max(max(lane.positions) for lane in lanes)
        if used + least > self.context or furthest >= self.context:
            wanted = f"a picture {least}" if picture else "an answer at least 1"
            raise RequestError(
                f"the prompt takes {max(used, furthest + 1)} ids and {wanted} more, "
                f"the model reads {self.context}; shorten the prompt"
                + (", or ask for fewer neighbours" if retrieved else "")
            )
        most = least if picture else min(options.max_text, self.context - used)
        return Prompt(conditional, unconditional, constraint, most)


def _refuse_image_guidance(options: GenerationOptions) -> None:
    """There is no lane for it but where a picture is edited."""
    if options.image_guidance_scale is not None:
        raise RequestError(
            f"image_guidance_scale is {options.image_guidance_scale}, and it is for "
            "editing: a picture that follows a picture and words; leave it out"
        )


def _without_empty_text(document: Document) -> Document:
    """The document as training would have it: no text is empty there."""
    segments = document.segments
    return Document(
        *(s for s in segments if not isinstance(s, Text) or s.text.rstrip())
    )
