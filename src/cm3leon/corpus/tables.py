"""Rows and pictures -> Parquet files per split, as Hugging Face `datasets` reads them.

    FOLDER/{train,val_concept,test_concept,test_style}-00000-of-0000N.parquet
    FOLDER/README.md    names the splits, so that `load_dataset(FOLDER)` finds them

Files of an earlier build that this one does not replace are deleted last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from cm3leon.corpus.partial import written_whole
from cm3leon.corpus.rows import Row
from cm3leon.corpus.splits import SPLITS, Split
from cm3leon.corpus.staging import read_images

ROWS_PER_FILE = 10_000
_ROWS_AT_ONCE = 500
_COLUMNS = [field.name for field in fields(Row) if field.metadata.get("column", True)]
_TEXT_LISTS = ("captions", "keywords", "colors")
_FLAGS = ("skin_tone",)


def write_tables(
    rows: Sequence[Row], staged: Mapping[str, Path], folder: Path
) -> dict[Split, list[Path]]:
    """Write every split.

    Args:
        rows: in the order in which they are written.
        staged: the file of each source's pictures.
        folder: where to.

    Returns:
        The files of each split; none for a split without rows.
    """
    pictures = _Pictures(staged)
    written: dict[Split, list[Path]] = {}
    for split in SPLITS:
        own = [row for row in rows if row.split == split]
        groups = list(_groups(own, ROWS_PER_FILE))
        names = [
            f"{split}-{number:05}-of-{len(groups):05}.parquet"
            for number in range(len(groups))
        ]
        written[split] = [folder / name for name in names]
        for path, group in zip(written[split], groups, strict=True):
            _write(group, pictures, path)
    _write_card(written, folder)
    for split in SPLITS:
        for path in folder.glob(f"{split}-*-of-*.parquet"):
            if path not in written[split]:
                path.unlink()
    return written


class _Pictures:
    """Pictures of rows, one source in memory at a time."""

    def __init__(self, staged: Mapping[str, Path]) -> None:
        self._staged = staged
        self._source = ""
        self._images: list[bytes] = []

    def png(self, row: Row) -> bytes:
        if row.source != self._source:
            self._images = read_images(self._staged[row.source])
            self._source = row.source
        return self._images[row.place]


def _write(rows: Sequence[Row], pictures: _Pictures, path: Path) -> None:
    schema = _schema()
    with (
        written_whole(path) as partial,
        pq.ParquetWriter(partial, schema) as writer,
    ):
        for group in _groups(rows, _ROWS_AT_ONCE):
            columns = [_columns(row, pictures.png(row)) for row in group]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))


def _columns(row: Row, png: bytes) -> dict[str, Any]:
    columns = {name: value for name, value in asdict(row).items() if name in _COLUMNS}
    return columns | {"image": {"bytes": png, "path": f"{row.id}.png"}}


def _schema() -> pa.Schema:
    """The columns, with the note by which `datasets` knows that one holds pictures."""
    text = datasets.Value("string")
    features: dict[str, Any] = {"id": text, "image": datasets.Image()}
    for name in _COLUMNS:
        if name in _TEXT_LISTS:
            features[name] = datasets.List(text)
        else:
            features[name] = datasets.Value("bool") if name in _FLAGS else text
    schema: pa.Schema = datasets.Features(features).arrow_schema
    return schema


def _write_card(written: Mapping[Split, Sequence[Path]], folder: Path) -> None:
    """The dataset card: its head tells `datasets` which files are which split."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, paths in written.items():
        if paths:
            lines += [f"  - split: {split}", f"    path: {split}-*.parquet"]
    lines += [
        "---",
        "",
        "Captioned pictures of free licences, built by `cm3leon data build`.",
        "Licences and authors: ATTRIBUTION.md, and the columns `licence` and `author`.",
        "",
    ]
    with written_whole(folder / "README.md") as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")


def _groups(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
