"""`cm3leon data`: build the corpus, check captioned pictures."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from rich.progress import Progress

    from cm3leon.corpus.build import Built
    from cm3leon.data.build import NeighbourSearch
    from cm3leon.data.picture_report import Report
    from cm3leon.data.pictures import Pictures

app = App(name="data", help="Build a corpus, check captioned pictures.")

_NAMES_SHOWN = 20


@app.command
def build(
    folder: Path,
    /,
    *,
    share_alike: Annotated[bool, Parameter(negative="")] = False,
    only: str | None = None,
    limit: int | None = None,
    cache: Path | None = None,
) -> None:
    """Build the corpus of captioned free pictures into a folder.

    Pictures come from pinned packages of npm and Debian, which are fetched with npm
    and apt-get and not installed. By default only pictures whose licence asks for
    attribution at most. A build that was stopped goes on where it was.

    For example:

    ```
    cm3leon data build corpus
    cm3leon data build corpus --only npm
    cm3leon data build corpus --only twemoji,noto --limit 100
    cm3leon data build corpus --share-alike --cache archives
    ```

    Parameters
    ----------
    folder
        Where to; about 1 GB with the archives.
    share_alike
        Add pictures under share-alike licences and the GPL.
    only
        Sources with commas between, or npm for all that need no Debian package.
    limit
        About the most pictures of each source.
    cache
        Where archives are kept; FOLDER/archives if not given.
    """
    from cm3leon.corpus.build import build as build_corpus

    with _progress() as progress:
        built = build_corpus(
            folder,
            share_alike=share_alike,
            only=only,
            limit=limit,
            cache=cache,
            watch=_Bars(progress),
        )
    _print_built(built)


@app.command
def sources(*, style: Literal["table", "markdown", "notice"] = "table") -> None:
    """Show where the corpus comes from: sources, versions, licences, authors.

    For example:

    ```
    cm3leon data sources
    cm3leon data sources --style notice > NOTICE
    ```

    Parameters
    ----------
    style
        As a table of all sources; or of those the shipped model was trained on, in
        Markdown or as the text of NOTICE.
    """
    from cm3leon.corpus.credits import notice, shipped_table

    if style == "notice":
        print(notice(), end="")
    elif style == "markdown":
        print(shipped_table())
    else:
        _print_sources()


@app.command
def check(
    path: Path,
    /,
    *,
    split: str = "train",
    image: str | None = None,
    caption: str | None = None,
    cache: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Decode every picture once; count and name those that cannot be used.

    Takes a corpus, a folder of pictures with metadata.jsonl or a .txt file beside
    each, webdataset tars, or Parquet files with a picture and a text column.

    For example:

    ```
    cm3leon data check corpus --split val_concept
    cm3leon data check holidays
    cm3leon data check shards --image jpg --caption txt
    cm3leon data check pictures.parquet --json
    ```

    Parameters
    ----------
    path
        A folder or a file.
    split
        Which split, where there are several.
    image
        The column of pictures; found by its type if not given.
    caption
        The column of captions; found by its name if not given.
    cache
        Where an index of the pictures is kept; ~/.cache/cm3leon if not given.
    json_
        Print everything as JSON, with the name of each picture.
    """
    from cm3leon.data.pictures import Pictures

    pictures = Pictures.open(path, split, image=image, caption=caption, cache=cache)
    with _progress() as progress:
        bar = progress.add_task("checking", total=len(pictures))
        report = pictures.scan(advance=lambda: progress.advance(bar))
    if json_:
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        _print_report(report)


@app.command
def shards(
    path: Path,
    folder: Path,
    /,
    *,
    tokenizers: Path,
    split: str = "train",
    mirror: bool = True,
    versions: int = 0,
    memory: Path | None = None,
    encoder: str | None = None,
    most_relevance: float = 0.9,
    seed: int = 0,
    ray: str | None = None,
) -> None:
    """Write captioned pictures as token shards, which training reads.

    Takes whatever check can read. Pictures that cannot be used are counted, named and
    left out. A build that was stopped makes the shards that are missing.

    For example:

    ```
    cm3leon data shards corpus shards/train --tokenizers runs/tokenizers
    cm3leon data shards holidays shards --tokenizers runs/tokenizers --no-mirror
    cm3leon data shards corpus near --tokenizers t --memory bank --encoder bi_encoder
    cm3leon data shards corpus shards/train --tokenizers runs/tokenizers --ray auto
    ```

    Parameters
    ----------
    path
        A corpus, a folder of pictures, webdataset tars or Parquet files.
    folder
        Where the shards go.
    tokenizers
        A folder with text_tokenizer.json and image_tokenizer/.
    split
        Which split, where there are several.
    mirror
        Also encode mirror images of pictures whose captions speak of no side.
    versions
        How many versions of each picture to add, shifted and zoomed a little. Each
        takes as long as the picture itself.
    memory
        A memory bank from which each picture gets neighbours: two by its caption, two
        by its looks. How many of them are used is the training's choice.
    encoder
        The CLIPModel the bank was built with.
    most_relevance
        Neighbours more like the picture, or like each other, are left out as repeats.
    seed
        Of the words left out of captions when neighbours are sought.
    ray
        Share the work among Ray's processors: auto for the cluster this machine is in,
        HOST:PORT to name it, local for this machine alone. All machines must see the
        folders under the same paths.
    """
    from cm3leon.data.build import build_shards
    from cm3leon.data.pictures import Pictures
    from cm3leon.errors import RequestError
    from cm3leon.workers import open_workers

    if versions < 0:
        raise RequestError(f"--versions is {versions}, below 0")
    search = _neighbour_search(memory, encoder, most_relevance, seed)
    pictures = Pictures.open(path, split)
    with _progress() as progress, open_workers(ray) as workers:
        task = progress.add_task("encoding", total=len(pictures))
        report = build_shards(
            pictures,
            folder,
            tokenizers,
            search=search,
            mirror=mirror,
            versions=versions,
            workers=workers,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    if report.problems:
        _print_report(report)
    print(f"{folder}: {report.good:,} records")


@app.command(name="import")
def import_(rows: Path, folder: Path, /, *, tokenizers: Path) -> None:
    """Read the authors' rows as token shards.

    A row of metaseq's CM3Leon is a line of JSON with a caption and the codes of its
    picture, and what was retrieved for it.

    For example:

    ```
    cm3leon data import rows.jsonl shards/train --tokenizers runs/tokenizers
    ```

    Parameters
    ----------
    rows
        A .jsonl file.
    folder
        Where the shards go; a new folder.
    tokenizers
        A folder with text_tokenizer.json and the image_tokenizer/ that made the codes.
    """
    from cm3leon.data.build import alphabets_of
    from cm3leon.data.metaseq import read_rows
    from cm3leon.data.shards import INDEX, write_shards
    from cm3leon.errors import DataError
    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.tokens.text import TextTokenizer

    if (folder / INDEX).exists():
        raise DataError(f"{folder} holds shards already; give another folder")
    text_tokenizer = TextTokenizer.load(tokenizers / "text_tokenizer.json")
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    alphabets = alphabets_of(
        tokenizers, text_tokenizer, image_tokenizer, f"those of {rows.name}"
    )
    records = 0
    with _progress() as progress:
        task = progress.add_task("reading", total=None)
        made = read_rows(rows, text_tokenizer, alphabets)
        for records in write_shards(folder, made, alphabets):
            progress.update(task, completed=records)
    print(f"{folder}: {records:,} records")


@app.command
def export(folder: Path, rows: Path, /, *, tokenizers: Path) -> None:
    """Write token shards as the authors' rows, which import reads.

    Of each record the first caption, the picture as it is, and the neighbours.

    For example:

    ```
    cm3leon data export shards/train rows.jsonl --tokenizers runs/tokenizers
    ```

    Parameters
    ----------
    folder
        Token shards.
    rows
        The .jsonl file to write.
    tokenizers
        A folder with the text_tokenizer.json of the shards.
    """
    from cm3leon import fingerprints
    from cm3leon.data.metaseq import row_of
    from cm3leon.data.shards import Shards
    from cm3leon.errors import DataError
    from cm3leon.tokens.text import TextTokenizer

    file = tokenizers / "text_tokenizer.json"
    text_tokenizer = TextTokenizer.load(file)
    records = Shards(folder)
    if records.alphabets.text_tokenizer != fingerprints.of_file(file):
        raise DataError(f"{folder} was written with another text tokenizer than {file}")
    partial = rows.with_name(rows.name + ".partial")
    with _progress() as progress, partial.open("w", encoding="utf-8") as out:
        for number in progress.track(range(len(records)), description="writing"):
            row = row_of(records[number], text_tokenizer)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.replace(rows)
    print(f"{rows}: {len(records):,} rows")


@app.command
def teacher(path: Path, out: Path, /, *, split: str = "train") -> None:
    """Write what a bi-encoder learns from larger networks: vectors of pictures, words.

    Pictures are seen by EfficientNet-Lite0, texts are read by all-MiniLM-L6-v2; needs
    the extra [evaluation].

    For example:

    ```
    cm3leon data teacher corpus teacher.npz
    cm3leon train bi-encoder configs/bi_encoder/shipped.toml teacher=teacher.npz
    ```

    Parameters
    ----------
    path
        A corpus, a folder of pictures, webdataset tars or Parquet files.
    out
        The file to write, ending in .npz.
    split
        Which split, where there are several.
    """
    from cm3leon.errors import RequestError
    from cm3leon.evaluation.features import PictureFeatures, TextFeatures
    from cm3leon.training.teacher import write_teacher

    if out.suffix != ".npz":
        raise RequestError(f"{out} does not end in .npz")
    see, read = PictureFeatures(), TextFeatures()
    with _progress() as progress:
        pictures, report = _scanned(path, split, progress)
        task = progress.add_task("asking the networks", total=len(pictures))
        write_teacher(
            out,
            pictures,
            see,
            read,
            read.words(),
            lambda done: progress.update(task, completed=done),
        )
    if report.problems:
        _print_report(report)
    print(out)


def _scanned(path: Path, split: str, progress: "Progress") -> "tuple[Pictures, Report]":
    """A collection without its damaged pictures, and what was wrong with these."""
    from cm3leon.data.pictures import Pictures

    pictures = Pictures.open(path, split)
    task = progress.add_task("reading", total=len(pictures))
    return pictures, pictures.scan(lambda: progress.advance(task))


def _neighbour_search(
    memory: Path | None, encoder: str | None, most_relevance: float, seed: int
) -> "NeighbourSearch | None":
    from cm3leon.errors import RequestError

    if (memory is None) != (encoder is None):
        raise RequestError("--memory and --encoder go together; give both or neither")
    if memory is None or encoder is None:
        return None
    from cm3leon.data.build import NeighbourSearch
    from cm3leon.retrieval.encoder import BiEncoder
    from cm3leon.retrieval.memory import MemoryBank
    from cm3leon.retrieval.retriever import Retriever, RetrieverConfig

    rules = RetrieverConfig(most_relevance=most_relevance)
    retriever = Retriever(MemoryBank.open(memory), BiEncoder.load(encoder), rules)
    return NeighbourSearch(retriever, seed)


class _Bars:
    """One line for what is done now, which becomes the next when that begins."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._line = progress.add_task("", total=None)

    def begin(self, name: str, pictures: int | None) -> None:
        self._progress.reset(self._line, description=name, total=pictures)

    def advance(self, pictures: int) -> None:
        self._progress.advance(self._line, pictures)


@contextmanager
def _progress() -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


def _print_built(built: "Built") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "pictures")
    for split, pictures in built.splits.items():
        table.add_row(split, f"{pictures:,}")
    table.add_section()
    table.add_row("all", f"{built.pictures:,}")
    console = Console()
    console.print(table)
    dropped = built.drawn - built.pictures
    console.print(f"left out as near-duplicates: {dropped:,}", highlight=False)
    print(built.folder)


def _print_sources() -> None:
    from rich.console import Console
    from rich.table import Table

    from cm3leon.corpus.packages import PACKAGES
    from cm3leon.corpus.sources import SOURCES

    table = Table("source", "from", "package", "licence", "author", "pictures")
    for source in SOURCES:
        package = PACKAGES[source.package]
        table.add_row(
            source.name,
            package.registry,
            f"{package.name} {package.version}",
            source.licence,
            source.author,
            "--share-alike" if source.share_alike else f"{source.pictures:,}",
        )
    Console().print(table)


def _print_report(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "pictures")
    table.add_row("good", f"{report.good:,}")
    for kind, pictures in report.counts.items():
        table.add_row(kind, f"{pictures:,}")
    table.add_section()
    table.add_row("all", f"{report.total:,}")
    Console().print(table)
    for problem in report.problems[:_NAMES_SHOWN]:
        print(f"{problem.name}: {problem.kind}: {problem.reason}")
    more = len(report.problems) - _NAMES_SHOWN
    if more > 0:
        print(f"and {more:,} more; --json names them all", file=sys.stderr)
