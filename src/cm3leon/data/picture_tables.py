"""A path -> the table of its captioned pictures, whatever kind of collection it is."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from cm3leon.data.picture_folders import TAR_SUFFIX, read_folder, read_tar
from cm3leon.data.picture_report import Problem
from cm3leon.data.picture_rows import Found, Table, caption_names
from cm3leon.errors import DataError
from cm3leon.images.picture_files import SUFFIXES

_SHARD = re.compile(r"^(?P<split>.+)-\d{5}-of-\d{5}$")
_FEATURES = {
    "id": datasets.Value("string"),
    "image": {
        "path": datasets.Value("string"),
        "offset": datasets.Value("int64"),
        "size": datasets.Value("int64"),
    },
    "captions": datasets.List(datasets.Value("string")),
    "metadata": datasets.Value("string"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of Parquet files that the caller names; `None`: found by us."""

    image: str | None = None
    caption: str | None = None


def read_table(path: Path, split: str, columns: Columns, cache: Path) -> Table:
    """The pictures of one split.

    Args:
        path: a Parquet file or a tar, or a folder of such or of pictures.
        split: which part, where the collection has several.
        columns: which columns of Parquet files to read.
        cache: where `datasets` keeps its copy of Parquet files.

    Raises:
        DataError: there is nothing of the kind, no such split, or no such column.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if files := _files(path, split, ".parquet"):
        return _from_parquet(files, columns, cache)
    if columns != Columns():
        raise DataError(f"{path} has no Parquet files, so no column can be chosen")
    if files := _files(path, split, TAR_SUFFIX):
        found = (picture for file in files for picture in read_tar(file))
        return _from_found(found, path)
    if path.is_dir():
        folder = _split_folder(path, split)
        return _from_found(read_folder(folder, path), path)
    kinds = "a folder, a .parquet file or an uncompressed .tar"
    raise DataError(f"{path} is not a collection of pictures; give {kinds}")


def _files(path: Path, split: str, suffix: str) -> list[Path]:
    """The files of a split; none if there are no files of this kind at all.

    A split is told by names (`train-00000-of-00002.parquet`) or a folder (`train/`).
    Files that name no split are all of `train`.

    Raises:
        DataError: there are such files, but of other splits.
    """
    if path.is_file():
        return [path] if path.suffix == suffix else []
    own = sorted((path / split).glob(f"*{suffix}"))
    if own:
        return own
    files = sorted([*path.glob(f"*{suffix}"), *path.glob(f"data/*{suffix}")])
    by_split: dict[str, list[Path]] = {}
    for file in files:
        named = _SHARD.match(file.stem)
        by_split.setdefault(named["split"] if named else "train", []).append(file)
    if files and split not in by_split:
        raise DataError(f"{path} has no split {split}; it has {', '.join(by_split)}")
    return by_split.get(split, [])


def _split_folder(path: Path, split: str) -> Path:
    if (path / split).is_dir():
        return path / split
    if split == "train":
        return path
    raise DataError(f"{path} has no split {split}: there is no folder {path / split}")


def _from_found(found: Iterable[Found | Problem], folder: Path) -> Table:
    problems: list[Problem] = []
    columns: dict[str, list[Any]] = {name: [] for name in _FEATURES}
    for picture in found:
        if isinstance(picture, Problem):
            problems.append(picture)
        else:
            for name, value in _row(picture).items():
                columns[name].append(value)
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(_FEATURES))
    if not len(rows) and not problems:
        known = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{folder} holds no pictures: no .parquet, .tar, {known}")
    return Table(
        rows=rows,
        image="image",
        captions=("captions",),
        packed="metadata",
        folder=folder,
        problems=problems,
    )


def _row(picture: Found) -> dict[str, Any]:
    return {
        "id": picture.id,
        "image": {
            "path": str(picture.path),
            "offset": picture.offset,
            "size": picture.size,
        },
        "captions": list(picture.captions),
        "metadata": json.dumps(picture.metadata, default=str),
    }


def _from_parquet(files: Sequence[Path], columns: Columns, cache: Path) -> Table:
    names, problems = [], []
    for file in files:
        try:
            names.append((file.name, pq.read_metadata(file).num_rows))
        except (OSError, pa.ArrowInvalid) as error:
            reason = " ".join(str(error).split())
            problems.append(Problem("unreadable file", str(file), reason))
    folder = files[0].parent
    sound = [str(folder / name) for name, _ in names]
    if not sound:
        raise DataError(f"{problems[0].name} cannot be read: {problems[0].reason}")
    try:
        with _quiet():
            rows = datasets.Dataset.from_parquet(sound, cache_dir=str(cache))
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        cause = error.__cause__ or error
        raise DataError(f"{folder}: {' '.join(str(cause).split())}") from error
    image = columns.image or _image_column(rows, folder)
    captions = [columns.caption] if columns.caption else _caption_columns(rows, folder)
    for name in (image, *captions):
        if name not in rows.column_names:
            has = ", ".join(rows.column_names)
            raise DataError(f"{folder} has no column {name}; it has {has}")
    if isinstance(rows.features[image], datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))
    return Table(
        rows=rows,
        image=image,
        captions=captions,
        folder=folder,
        names=names,
        problems=problems,
    )


def _image_column(rows: datasets.Dataset, folder: Path) -> str:
    """The column of pictures by its type, else of bytes."""
    features = rows.features
    images = [name for name in features if isinstance(features[name], datasets.Image)]
    encoded = [name for name in features if _holds_bytes(features[name])]
    if len(images or encoded) == 1:
        return str((images or encoded)[0])
    has = ", ".join(features)
    raise DataError(f"{folder}: which column holds the pictures? it has {has}")


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature
    return isinstance(feature, datasets.Value) and feature.dtype in (
        "binary",
        "large_binary",
    )


def _caption_columns(rows: datasets.Dataset, folder: Path) -> list[str]:
    """The columns of the usual names, else the only one of text."""
    features = rows.features
    if usual := caption_names(features):
        return usual
    texts = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Value)
        and feature.dtype in ("string", "large_string")
    ]
    if len(texts) == 1:
        return texts
    has = ", ".join(features)
    raise DataError(f"{folder}: which column holds the captions? it has {has}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`; ours are enough."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
