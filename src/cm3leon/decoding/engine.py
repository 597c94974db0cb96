"""`Engine`: documents in, longer or filled documents out.

What is asked together is drawn in one batch, but each request draws from its own stream
of chance, so what it becomes does not depend on what else is asked.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, get_args, overload, runtime_checkable

import torch
from PIL import Image as Pixels

from cm3leon.decoding.constraints import Kind
from cm3leon.decoding.drawing import Progress, draw, steps
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import Prompt, PromptWriter
from cm3leon.errors import CheckpointError, RequestError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.model.language_model import LanguageModel
from cm3leon.randomness import torch_generator
from cm3leon.tokens.codec import Codec
from cm3leon.tokens.document import Document, Hole, Image, Segment, Text

Attribution = tuple[Mapping[str, Any], ...]


@runtime_checkable
class Retrieves(Protocol):
    """What the engine asks of `retrieval.retriever.Retriever`, a second to import."""

    def by_text(self, texts: Sequence[str], count: int) -> list[list[Any]]:
        """Up to `count` neighbours of each text."""

    def agreement(self, texts: Sequence[str], images: Sequence[Any]) -> list[float]:
        """How well each picture shows its text, in [-1, 1]."""


@dataclass(frozen=True)
class Prepared:
    """A document to be extended, as the model reads it, and what was found for it."""

    document: Document  # with codes
    prompt: Prompt
    attribution: Attribution


class Engine:
    """A model with its tokenizers, ready to be asked."""

    def __init__(
        self,
        model: LanguageModel,
        codec: Codec,
        image_tokenizer: ImageTokenizer,
        position_slot: int = 0,
        options: GenerationOptions | None = None,
        retriever: Callable[[], Retrieves] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            model: ids -> logits.
            codec: documents <-> ids.
            image_tokenizer: pictures <-> codes.
            position_slot: pictures start at multiples of it, as in training; 0: never.
            options: what a call without options uses.
            retriever: opens what finds neighbours; called when first needed.

        Raises:
            CheckpointError: the parts are not of one model.
        """
        vocabulary = codec.vocabulary
        for what, one, other in (
            ("ids", model.config.vocabulary_size, vocabulary.size),
            ("codes", image_tokenizer.codebook_size, len(vocabulary.image)),
            ("codes a picture", image_tokenizer.codes_per_image, codec.codes_per_image),
        ):
            if one != other:
                raise CheckpointError(
                    f"the model's parts do not fit: {one} {what} against {other}; "
                    "take all of them from one model folder"
                )
        self.model = model
        self.codec = codec
        self.image_tokenizer = image_tokenizer
        self.position_slot = position_slot
        self.options = options or GenerationOptions()
        self._open_retriever = retriever
        self._writer = PromptWriter(
            codec=codec, context=model.config.context, position_slot=position_slot
        )

    @overload
    def extend(
        self,
        document: Document,
        options: GenerationOptions | None = None,
        want: Kind = "image",
        *,
        neighbours: Sequence[Sequence[Document]] | None = None,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> Document: ...

    @overload
    def extend(
        self,
        document: Sequence[Document],
        options: GenerationOptions | None = None,
        want: Kind = "image",
        *,
        neighbours: Sequence[Sequence[Document]] | None = None,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> list[Document]: ...

    def extend(
        self,
        document: Document | Sequence[Document],
        options: GenerationOptions | None = None,
        want: Kind = "image",
        *,
        neighbours: Sequence[Sequence[Document]] | None = None,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> Document | list[Document]:
        """Go on after a document: with a picture, or with text.

        Args:
            document: one, or several to be extended in one batch. Pixels are encoded.
            options: how to draw; by default the model's own.
            want: what comes next. Text after text goes on within it.
            neighbours: for each document those that stand before it, in order
                (Yu et al. 2023, §2.1); by default, of a picture, the
                `options.neighbours` most relevant to its text that the retriever
                finds, or as many as its rules let through.
            seeds: one per document, each as if it were the only one; by default the
                i-th draws from stream i of `options.seed`.
            on_progress: called after every step.

        Returns:
            The document and what was drawn: an `Image` with codes, pixels and the
            attribution of what was retrieved for it, or text.

        Raises:
            RequestError: what is asked is impossible or too long; the message says why.
        """
        options = (options or self.options).seeded()
        documents = _several(document)
        prepared = self.prepare(documents, options, want, neighbours)
        chances = random_streams(len(prepared), options, seeds)
        prompts = [one.prompt for one in prepared]
        rows = draw(self.model, prompts, options, chances, on_progress)
        extended = self.finish(prepared, rows)
        return extended[0] if isinstance(document, Document) else extended

    def prepare(
        self,
        documents: Sequence[Document],
        options: GenerationOptions,
        want: Kind = "image",
        neighbours: Sequence[Sequence[Document]] | None = None,
    ) -> list[Prepared]:
        """Make ready to extend documents: all that `extend` does before it draws.

        Raises:
            RequestError: as `extend`.
        """
        if want == "image":
            self.image_tokenizer.check_decodes()
        documents = self._with_codes(documents)
        attributions: Sequence[Attribution] = [()] * len(documents)
        if neighbours is None:
            wanted = options.neighbours if want == "image" else 0
            neighbours, attributions = self._retrieve(documents, wanted)
        if len(neighbours) != len(documents):
            raise RequestError(
                f"neighbours for {len(neighbours)} documents, {len(documents)} are "
                "asked; give a list for each"
            )
        prompts = [
            self._writer.extend(one, want, options, self._with_codes(others))
            for one, others in zip(documents, neighbours, strict=True)
        ]
        return [*map(Prepared, documents, prompts, attributions)]

    def finish(
        self, prepared: Sequence[Prepared], rows: Sequence[Sequence[int]]
    ) -> list[Document]:
        """Documents and the ids drawn for them: the documents extended."""
        kind = prepared[0].prompt.constraint.kind if prepared else "text"
        segments = self._segments(kind, rows)
        return [
            _joined(
                one.document,
                replace(segment, attribution=one.attribution)
                if isinstance(segment, Image)
                else segment,
            )
            for one, segment in zip(prepared, segments, strict=True)
        ]

    def sketch(self, prepared: Prepared, ids: Sequence[int]) -> Image:
        """A picture of which some ids are drawn, the other cells white.

        It has codes when it is whole.
        """
        codes = tuple(map(self.codec.vocabulary.code, ids))
        grid = torch.tensor([[*codes, *self._white[len(codes) :]]])
        (pixels,) = self.image_tokenizer.decode(grid)
        whole = codes if len(codes) == len(self._white) else None
        return Image(codes=whole, pixels=pixels, attribution=prepared.attribution)

    @cached_property
    def _white(self) -> list[int]:
        """The codes of a white picture."""
        white = Pixels.new("RGB", (self.image_tokenizer.pixels,) * 2, "white")
        codes: list[int] = self.image_tokenizer.encode([white])[0].tolist()
        return codes

    def stream(
        self,
        document: Document,
        options: GenerationOptions | None = None,
        *,
        neighbours: Sequence[Document] | None = None,
        rows: int = 1,
    ) -> Iterator[Image]:
        """The picture that `extend` would draw after a document, while it is drawn.

        Cells that are not drawn yet are as in a white picture. The last `Image` has all
        codes and is the one of `extend`. Closing the iterator ends the work.

        Args:
            document: words, and pictures between them if any.
            options: how to draw; by default the model's own.
            neighbours: those that stand before it; by default as in `extend`.
            rows: of the grid between two pictures.

        Raises:
            RequestError: as `extend`, or `rows` is below 1.
        """
        if rows < 1:
            raise RequestError(f"rows is {rows}, below 1")
        options = (options or self.options).seeded()
        given = None if neighbours is None else [neighbours]
        (prepared,) = self.prepare([document], options, "image", given)
        every = rows * round(self.codec.codes_per_image**0.5)
        chances = random_streams(1, options, None)
        shown = 0
        for (ids,), last in steps(self.model, [prepared.prompt], options, chances):
            if last or len(ids) // every > shown:
                shown = len(ids) // every
                yield self.sketch(prepared, ids)

    @overload
    def fill(
        self,
        document: Document,
        options: GenerationOptions | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> Document: ...

    @overload
    def fill(
        self,
        document: Sequence[Document],
        options: GenerationOptions | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> list[Document]: ...

    def fill(
        self,
        document: Document | Sequence[Document],
        options: GenerationOptions | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> Document | list[Document]:
        """Put text, or a picture, where a document has a hole.

        Several holes are filled one after the other, each knowing the earlier answers.
        `extend` tells of the arguments.

        Raises:
            RequestError: what is asked is impossible or too long; the message says why.
        """
        options = (options or self.options).seeded()
        documents = self._with_codes(_several(document))
        chances = random_streams(len(documents), options, seeds)
        waiting = list(range(len(documents)))
        while waiting:
            prompts = [self._writer.fill(documents[i], options) for i in waiting]
            streams = [chances[i] for i in waiting]
            rows = self._draw(prompts, options, streams, on_progress)
            for kind in get_args(Kind):  # pictures are decoded together
                some = [n for n, p in enumerate(prompts) if p.constraint.kind == kind]
                answers = self._segments(kind, [rows[n] for n in some])
                for n, answer in zip(some, answers, strict=True):
                    i = waiting[n]
                    documents[i] = _filled(documents[i], answer)
            waiting = [i for i in waiting if documents[i].holes]
        return documents[0] if isinstance(document, Document) else documents

    def redraw(
        self,
        documents: Sequence[Document],
        hidden: Sequence[Collection[int]],
        options: GenerationOptions | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_progress: Progress | None = None,
    ) -> list[Document]:
        """Draw some codes of the pictures that end documents again: image infilling.

        All other codes stay as they are. `extend` tells of the other arguments.

        Args:
            documents: each ends in a picture; words before it say what it shows.
            hidden: for each the cells of its grid, in raster order from 0.
            options: how to draw.
            seeds: one per document.
            on_progress: called after every step.

        Raises:
            RequestError: what is asked is impossible or too long; the message says why.
        """
        options = (options or self.options).seeded()
        documents = self._with_codes(documents)
        if len(hidden) != len(documents):
            raise RequestError(
                f"masks for {len(hidden)} of {len(documents)} documents; give each one"
            )
        prompts = [
            self._writer.redraw(document, cells, options)
            for document, cells in zip(documents, hidden, strict=True)
        ]
        chances = random_streams(len(prompts), options, seeds)
        rows = self._draw(prompts, options, chances, on_progress)
        if not rows:
            return []
        vocabulary, whole = self.codec.vocabulary, []
        for document, cells, row in zip(documents, hidden, rows, strict=True):
            codes = list(document.images[-1].codes or ())
            codes[min(cells) : max(cells) + 1] = map(vocabulary.code, row)
            whole.append(codes)
        pixels = self.image_tokenizer.decode(torch.tensor(whole))
        return [
            Document(*one.segments[:-1], Image(codes=tuple(codes), pixels=picture))
            for one, codes, picture in zip(documents, whole, pixels, strict=True)
        ]

    def _draw(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        chances: Sequence[torch.Generator],
        on_progress: Progress | None,
    ) -> list[list[int]]:
        """As `draw`, for prompts of any kind; those of one kind side by side."""
        kinds: dict[tuple[Kind, int], list[int]] = {}
        for place, prompt in enumerate(prompts):
            kind = (prompt.constraint.kind, len(prompt.lanes))
            kinds.setdefault(kind, []).append(place)
        rows: list[list[int]] = [[] for _ in prompts]
        for places in kinds.values():
            asked = [prompts[place] for place in places]
            streams = [chances[place] for place in places]
            drawn = draw(self.model, asked, options, streams, on_progress)
            for place, row in zip(places, drawn, strict=True):
                rows[place] = row
        return rows

    @cached_property
    def retriever(self) -> Retrieves:
        """What finds neighbours.

        Raises:
            RequestError: the engine has none.
        """
        if self._open_retriever is None:
            raise RequestError(
                "this model has no memory bank to take neighbours from; name one, or "
                "ask for 0 neighbours"
            )
        return self._open_retriever()

    def _retrieve(
        self, documents: Sequence[Document], count: int
    ) -> tuple[list[list[Document]], list[Attribution]]:
        """Neighbours by the documents' words, and whose they are."""
        if count == 0:
            return [[] for _ in documents], [() for _ in documents]
        found = self.retriever.by_text([one.text for one in documents], count)
        return (
            [
                [self._cut(neighbour.document.document()) for neighbour in one]
                for one in found
            ],
            [tuple(neighbour.attribution() for neighbour in one) for one in found],
        )

    def _cut(self, neighbour: Document) -> Document:
        """A neighbour with no more words than one has in training."""
        cut = self.codec.text_tokenizer.cut
        return Document(
            *(
                Text(cut(s.text)) if isinstance(s, Text) else s
                for s in neighbour.segments
            )
        )

    def _with_codes(self, documents: Sequence[Document]) -> list[Document]:
        """The documents, their pictures encoded where there are only pixels."""
        pictures = [
            image.pixels
            for document in documents
            for image in document.images
            if image.codes is None and image.pixels is not None
        ]
        rows = iter(self.image_tokenizer.encode(pictures).tolist())

        def coded(segment: Segment) -> Segment:
            if not isinstance(segment, Image) or segment.codes is not None:
                return segment
            if segment.pixels is None:
                raise RequestError("a picture has neither codes nor pixels; give one")
            return Image(codes=tuple(next(rows)), pixels=segment.pixels)

        return [Document(*map(coded, one.segments)) for one in documents]

    def _segments(
        self, kind: Kind, rows: Sequence[Sequence[int]]
    ) -> list[Text | Image]:
        """Drawn ids as segments."""
        if not rows:
            return []
        if kind == "text":
            return [Text(self.codec.decode(list(row)).text) for row in rows]
        vocabulary = self.codec.vocabulary
        codes = [[vocabulary.code(id) for id in row] for row in rows]
        pixels = self.image_tokenizer.decode(torch.tensor(codes))
        pairs = zip(codes, pixels, strict=True)
        return [Image(codes=tuple(row), pixels=picture) for row, picture in pairs]


def _several(document: Document | Sequence[Document]) -> list[Document]:
    return [document] if isinstance(document, Document) else list(document)


def random_streams(
    requests: int, options: GenerationOptions, seeds: Sequence[int] | None
) -> list[torch.Generator]:
    """One stream per request, whatever else is in the batch."""
    if seeds is None:
        assert options.seed is not None
        seed = options.seed
        return [torch_generator(seed, "request", i) for i in range(requests)]
    if len(seeds) != requests:
        raise RequestError(f"{len(seeds)} seeds for {requests} documents; give as many")
    return [torch_generator(seed, "request", 0) for seed in seeds]


def _joined(document: Document, answer: Text | Image) -> Document:
    """The document and its extension; text goes on within the text before it."""
    if isinstance(answer, Image):
        return Document(*document.segments, answer)
    *before, last = document.segments
    if isinstance(last, Text):
        return Document(*before, Text(last.text.rstrip() + answer.text))
    return Document(*before, last, Text(answer.text.strip()))


def _filled(document: Document, answer: Text | Image) -> Document:
    """The document with its first hole filled."""
    if isinstance(answer, Text):
        answer = Text(answer.text.strip())
    segments = list(document.segments)
    first = next(i for i, s in enumerate(segments) if isinstance(s, Hole))
    segments[first] = answer
    return Document(*segments)
