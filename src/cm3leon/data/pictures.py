"""Captioned pictures of any collection, decoded one at a time when asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cm3leon.data.picture_report import Problem, Report
from cm3leon.data.picture_rows import Table, clean_captions, encoded_picture
from cm3leon.data.picture_tables import Columns, read_table
from cm3leon.errors import DataError
from cm3leon.images.picture_files import MOST_PIXELS, Refusal, decode

CACHE = Path("~/.cache/cm3leon")
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture with its captions.

    Args:
        image: RGB, on white where it was transparent.
        caption: the one to use if only one is wanted.
        captions: all of them, at least one.
        metadata: what else its collection says, such as `source`, `licence`, `tier`.
    """

    id: str
    image: Image.Image
    caption: str
    captions: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The thing alone, without style and colours, where its collection tells it."""
        return str(self.metadata.get("label") or self.caption)


class Pictures:
    """A collection of captioned pictures; indexing decodes.

    What cannot be used is never fatal and never silent: pictures without a caption and
    files that are missing are left out from the start, damaged ones once `scan` or an
    iteration has met them, and `report` counts and names them all. Pickled, a
    collection is how to open it, and is opened again where it is unpickled.

    Args:
        table: its rows.
        opening: how `open` was called.
    """

    def __init__(self, table: Table, opening: Mapping[str, Any]) -> None:
        self._table = table
        self._opening = opening
        self._path = Path(opening["path"])
        self._most_pixels = int(opening["most_pixels"])
        self._problems: list[Problem] = list(table.problems)
        self._damaged: dict[int, Problem] = {}
        self._rows = self._with_captions()
        self.check_some_left()

    @classmethod
    def open(
        cls,
        path: str | Path,
        split: str = "train",
        *,
        image: str | None = None,
        caption: str | None = None,
        cache: str | Path | None = None,
        most_pixels: int = MOST_PIXELS,
    ) -> "Pictures":
        """The pictures of one split.

        Args:
            path: a corpus; a folder of pictures with `metadata.jsonl` or .txt files;
                webdataset tars; Parquet files with a picture and a text column.
            split: which part, where there are several.
            image: the column of pictures in Parquet files; found by its type if `None`.
            caption: the column of captions; found by its name if `None`.
            cache: where a mapped copy of Parquet files is kept; `CACHE` if `None`.
            most_pixels: no picture of more is decoded.

        Raises:
            DataError: nothing is there, or nothing of it can be used.
        """
        path = Path(path).expanduser()
        folder = Path(CACHE if cache is None else cache).expanduser()
        columns = Columns(image=image, caption=caption)
        opening = {"path": path, "split": split, "image": image}
        opening |= {"caption": caption, "cache": folder, "most_pixels": most_pixels}
        return cls(read_table(path, split, columns, folder), opening)

    def __reduce__(self) -> tuple[Any, ...]:
        opening = {**self._opening, "path": self._path.absolute()}
        return _opened_again, (opening, len(self._table.rows), self._damaged)

    def __len__(self) -> int:
        """Pictures that are not known to be damaged."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Picture:
        """One picture, decoded now.

        Raises:
            DataError: it is damaged or too large; after `scan` none is.
        """
        picture = self._read(self._rows[index])
        if isinstance(picture, Problem):
            raise DataError(f"{picture.name}: {picture.kind}: {picture.reason}")
        return picture

    def some(self, numbers: Iterable[int]) -> Iterator[Picture | Problem]:
        """Some pictures, decoded now, or why one cannot be used."""
        for number in numbers:
            yield self._read(self._rows[number])

    def __iter__(self) -> Iterator[Picture]:
        """Every picture that can be decoded; the others go into the report."""
        some = False
        for row in list(self._rows):
            picture = self._read(row)
            if isinstance(picture, Problem):
                self._damaged[row] = picture
            else:
                some = True
                yield picture
        if not some:
            self._rows = []
            self.check_some_left()

    def captions(
        self, numbers: Sequence[int] | None = None
    ) -> Iterator[tuple[str, ...]]:
        """The captions of each picture, or of some of them, nothing decoded."""
        wanted = range(len(self._rows)) if numbers is None else numbers
        for start in range(0, len(wanted), _ROWS_AT_ONCE):
            some = wanted[start : start + _ROWS_AT_ONCE]
            yield from self._captions_of([self._rows[number] for number in some])

    def ids(self, numbers: Iterable[int] | None = None) -> Iterator[str]:
        """What each picture is called, or some of them, nothing decoded."""
        table = self._table
        named = "id" if "id" in table.rows.column_names else table.image
        rows = table.rows.select_columns(list({named, table.image}))
        wanted = range(len(self._rows)) if numbers is None else numbers
        for row in map(self._rows.__getitem__, wanted):
            yield table.name(row, rows[row])

    def groups(self, name: str) -> dict[str, list[int]]:
        """The numbers of the pictures by what their metadata says of `name`."""
        groups: dict[str, list[int]] = {}
        table = self._table
        columns = [table.packed] if table.packed else table.rows.column_names
        columns = [column for column in columns if column != table.image]
        rows = table.rows.select_columns(columns)
        for number, row in enumerate(self._rows):
            value = str(table.metadata(rows[row]).get(name, "all"))
            groups.setdefault(value, []).append(number)
        return groups

    def scan(self, advance: Callable[[], object] | None = None) -> Report:
        """Decode every picture once and leave the damaged ones out from now on.

        Args:
            advance: called after each.

        Raises:
            DataError: none is left.
        """
        good = []
        for row in self._rows:
            picture = self._read(row)
            if isinstance(picture, Problem):
                self._damaged[row] = picture
            else:
                good.append(row)
            if advance is not None:
                advance()
        self._rows = good
        self.check_some_left()
        return self.report

    @property
    def report(self) -> Report:
        """What is known to be wrong so far."""
        good = len(set(self._rows) - set(self._damaged))
        damaged = [self._damaged[row] for row in sorted(self._damaged)]
        return Report(good=good, problems=[*self._problems, *damaged])

    def _with_captions(self) -> list[int]:
        """The rows that have a caption; the others become problems."""
        rows = []
        table = self._table.rows
        for start in range(0, len(table), _ROWS_AT_ONCE):
            group = range(start, min(start + _ROWS_AT_ONCE, len(table)))
            for row, captions in zip(group, self._captions_of(group), strict=True):
                if captions:
                    rows.append(row)
                else:
                    name = self._table.name(row, table[row])
                    self._problems.append(Problem("no caption", name, "it is empty"))
        return rows

    def _captions_of(self, rows: range | list[int]) -> list[tuple[str, ...]]:
        columns = list(self._table.captions)
        group = self._table.rows.select_columns(columns)[rows]
        return [
            clean_captions(*values)
            for values in zip(*(group[name] for name in columns), strict=True)
        ]

    def _read(self, row: int) -> Picture | Problem:
        table = self._table
        cells = table.rows[row]
        name = table.name(row, cells)
        content = encoded_picture(cells[table.image], table.folder)
        if content is None:
            return Problem("no picture", name, "it is empty or its file is not there")
        image = decode(content, self._most_pixels)
        if isinstance(image, Refusal):
            return Problem(image.kind, name, image.reason)
        captions = clean_captions(*(cells[column] for column in table.captions))
        main = clean_captions(cells.get("caption"))
        return Picture(
            id=name,
            image=image,
            caption=main[0] if main else captions[0],
            captions=captions,
            metadata=table.metadata(cells),
        )

    def check_some_left(self, report: Report | None = None) -> None:
        """Whether there is anything to use.

        Args:
            report: what is known; by default `self.report`.

        Raises:
            DataError: there is nothing.
        """
        report = report or self.report
        if not report.good:
            raise DataError(
                f"no picture of {self._path} can be used: {report}; "
                f"see cm3leon data check"
            )


def _opened_again(
    opening: Mapping[str, Any], rows: int, damaged: dict[int, Problem]
) -> Pictures:
    """A collection as it was elsewhere, what is known to be damaged left out."""
    pictures = Pictures.open(**opening)
    found = len(pictures._table.rows)
    if found != rows:
        raise DataError(
            f"{opening['path']} has {found:,} pictures here and {rows:,} where it was "
            "opened; give every machine the same files"
        )
    pictures._damaged = damaged
    pictures._rows = [row for row in pictures._rows if row not in damaged]
    return pictures
