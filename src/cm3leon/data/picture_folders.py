"""Folders and tars of captioned pictures -> rows that point at the pictures.

    folder   captions in metadata.jsonl or .csv (`file_name`, `caption` or `text` ...),
             or in a .txt file of the picture's name, a caption a line
    tar      webdataset: the files of one key follow each other: 7.jpg, 7.txt, 7.json

The readers of `datasets` end at the first broken line, missing caption or cut-off
tar; here each of these is a problem with a name, and the rest is read.
"""

import csv
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from cm3leon.data.picture_report import Problem
from cm3leon.data.picture_rows import (
    Found,
    caption_names,
    clean_captions,
    find_captions,
)
from cm3leon.images.picture_files import SUFFIXES

TAR_SUFFIX = ".tar"
_METADATA = ("metadata.jsonl", "metadata.csv")
_LARGEST_TEXT = 1_000_000  # bytes of one caption or metadata file in a tar


def read_folder(folder: Path, above: Path) -> Iterator[Found | Problem]:
    """Every picture below `folder`, by name; `above` may hold their metadata too."""
    records: dict[Path, Mapping[str, Any]] = {}
    for file in _metadata_files(folder, above):
        for record in _read_metadata(file):
            if isinstance(record, Problem):
                yield record
                continue
            path = _inside(file.parent, record.get("file_name"))
            if path is None:
                name = f"{file}: {record.get('file_name')!r}"
                yield Problem("no picture", name, "no file below the folder")
            elif path.is_relative_to(_absolute(folder)):
                records[path] = record
    for path in sorted(_files(folder)):
        if path.suffix.lower() in SUFFIXES:
            yield _in_folder(path, folder, records.pop(_absolute(path), {}))
    for path in records:
        yield Problem("no picture", str(path), "metadata names it, but it is not there")


def read_tar(path: Path) -> Iterator[Found | Problem]:
    """Every picture of a tar, in its order."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = (member for member in tar if member.isfile())
            for key, group in groupby(members, key=lambda member: _key(member.name)):
                yield _in_tar(tar, path, key, list(group))
    except (tarfile.TarError, EOFError, OSError) as error:
        yield Problem("unreadable file", str(path), f"{error}; read up to there")


def _in_folder(path: Path, folder: Path, record: Mapping[str, Any]) -> Found | Problem:
    captions = find_captions(record)
    beside = path.with_suffix(".txt")
    if not captions and beside.is_file():
        try:
            captions = clean_captions(beside.read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError as error:
            return Problem("no caption", str(path), f"{beside.name}: {error}")
    if not captions:
        return Problem("no caption", str(path), "neither in metadata nor beside it")
    name = str(path.relative_to(folder))
    return Found(name, _absolute(path), captions, metadata=_others(record))


def _in_tar(
    tar: tarfile.TarFile, path: Path, key: str, members: list[tarfile.TarInfo]
) -> Found | Problem:
    by_suffix = {_suffix(member.name): member for member in members}
    name = f"{path.name}/{key}"
    image = next((by_suffix[s] for s in by_suffix if f".{s}" in SUFFIXES), None)
    if image is None:
        return Problem("no picture", name, f"only {', '.join(sorted(by_suffix))}")
    if image.offset_data + image.size > path.stat().st_size:
        return Problem("unreadable picture", name, "the tar ends inside it")
    try:
        record = _json(tar, by_suffix.get("json"))
        captions = clean_captions(_text(tar, by_suffix.get("txt")).splitlines())
    except ValueError as error:
        return Problem("unreadable metadata", name, str(error))
    captions = clean_captions(captions, find_captions(record))
    if not captions:
        return Problem("no caption", name, "neither in .txt nor in .json")
    return Found(
        name, _absolute(path), captions, image.offset_data, image.size, _others(record)
    )


def _metadata_files(folder: Path, above: Path) -> list[Path]:
    below = [path for path in sorted(_files(folder)) if path.name in _METADATA]
    own = [above / name for name in _METADATA] if above != folder else []
    return [path for path in own if path.is_file()] + below


def _read_metadata(file: Path) -> Iterator[Mapping[str, Any] | Problem]:
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        if file.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _record(line, f"{file} line {number}")


def _record(line: str, name: str) -> Mapping[str, Any] | Problem:
    try:
        record = json.loads(line)
    except ValueError as error:
        return Problem("unreadable metadata", name, str(error))
    if isinstance(record, dict):
        return record
    return Problem("unreadable metadata", name, "not a JSON object")


def _inside(folder: Path, name: object) -> Path | None:
    """A file below the folder; `None` for any other, such as `../secret.png`."""
    if not isinstance(name, str) or not name:
        return None
    path = _absolute(folder / name)
    return path if path.is_relative_to(_absolute(folder)) else None


def _absolute(path: Path) -> Path:
    """Without dots; links stay as they are, they are the owner's."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps the dots


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name)


def _json(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Mapping[str, Any]:
    text = _text(tar, member)
    record = json.loads(text) if text else {}
    return record if isinstance(record, dict) else {}


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> str:
    if member is None:
        return ""
    if member.size > _LARGEST_TEXT:
        limit = f"{_LARGEST_TEXT:,}"
        raise ValueError(f"{member.name} has {member.size:,} bytes, more than {limit}")
    file = tar.extractfile(member)
    return "" if file is None else file.read().decode("utf-8")


def _key(name: str) -> str:
    """The path up to the first dot of the file's name."""
    folder, _, file = name.rpartition("/")
    stem = file.partition(".")[0]
    return f"{folder}/{stem}" if folder else stem


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _others(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says beside file and captions."""
    known = {"file_name", *caption_names(record)}
    return {key: value for key, value in record.items() if key not in known}
