"""The authors' rows (metaseq's `scaling_racm3`) <-> records: JSONL of documents.

    {"text": D, "retrieved_docs_from_txt": [D, …], "retrieved_docs_from_img": [D, …]}
    D: <img alt="CAPTION" src="I5 I812 … ">

Nothing is escaped within D: the codes hold no quotation mark, so what stands before the
last `" src="` is the caption. In the authors' vocabulary (`Vocabulary.authors`) a code
is the id 56,320 + code, a text id of the tokenizer 4 + id.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cm3leon.data.shards import Alphabets, Record, TokenSegment
from cm3leon.errors import DataError
from cm3leon.tokens.text import TextTokenizer

BY_TEXT, BY_IMAGE = "retrieved_docs_from_txt", "retrieved_docs_from_img"
_DOCUMENT = re.compile(r'<img alt="(.*)" src="(I\d+(?: I\d+)*) ?">', re.DOTALL)

Segments = tuple[TokenSegment, ...]


def spell(caption: str, codes: Sequence[int]) -> str:
    """A captioned picture as the authors write it.

    >>> spell("a cat", [5, 812])
    '<img alt="a cat" src="I5 I812 ">'
    """
    return f'<img alt="{caption}" src="{"".join(f"I{code} " for code in codes)}">'


def parse(text: str) -> tuple[str, tuple[int, ...]]:
    """The inverse of `spell`; the last space may be missing.

    >>> parse('<img alt="a cat" src="I5 I812 ">')
    ('a cat', (5, 812))

    Raises:
        DataError: it is no captioned picture.
    """
    found = _DOCUMENT.fullmatch(text)
    if not found:
        raise DataError(f'{text[:60]!r} is no <img alt="CAPTION" src="I5 I812 … ">')
    return found[1], tuple(int(code[1:]) for code in found[2].split())


def read_rows(
    file: Path, text_tokenizer: TextTokenizer, alphabets: Alphabets
) -> Iterator[Record]:
    """The records of a file, in its order; captions are right-stripped, as by metaseq.

    Raises:
        DataError: a line is no row, or has codes of another image tokenizer.
    """

    def segments(text: str) -> Segments:
        caption, codes = parse(text)
        most = alphabets.codebook_size
        if len(codes) != alphabets.codes_per_image or max(codes) >= most:
            raise DataError(
                f"{len(codes)} codes up to {max(codes)}; the image tokenizer's "
                f"pictures have {alphabets.codes_per_image} below {most}"
            )
        ids = tuple(text_tokenizer.encode(caption.rstrip()))
        return TokenSegment("text", (ids,)), TokenSegment("image", (codes,))

    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            name = f"{file.name} line {number}"
            try:
                row = json.loads(line)
                near = [*(row.get(BY_TEXT) or ()), *(row.get(BY_IMAGE) or ())]
                own, *others = map(segments, (row["text"], *near))
            except (
                DataError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:
                raise DataError(f"{file} line {number} is no row: {error}") from error
            yield Record(name, "all", own, tuple(others))


def row_of(record: Record, text_tokenizer: TextTokenizer) -> dict[str, Any]:
    """A record as a row: its first caption, and its picture as it is.

    Records do not say by what each neighbour was found: the first half, the odd one
    included, goes to those found by text. Training pools them.

    Raises:
        DataError: it is not one caption and one picture.
    """

    def spelled(segments: Segments) -> str:
        if [segment.kind for segment in segments] != ["text", "image"]:
            raise DataError(f"record {record.key!r} is no caption and picture")
        ids, codes = (segment.alternatives[0] for segment in segments)
        return spell(text_tokenizer.decode(ids), codes)

    near = [spelled(neighbour) for neighbour in record.neighbours]
    half = (len(near) + 1) // 2
    return {
        "text": spelled(record.segments),
        BY_IMAGE: near[half:],
        BY_TEXT: near[:half],
    }
