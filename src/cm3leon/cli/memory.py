"""`cm3leon memory`: banks of documents that stand before a prompt."""

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from cm3leon.data.pictures import Pictures
    from cm3leon.retrieval.encoder import BiEncoder
    from cm3leon.retrieval.manifest import Manifest
    from cm3leon.retrieval.vector_index import Progress

MOST_GIB = 2**20
JSON = Annotated[bool, Parameter(negative="")]

app = App(
    name="memory",
    help="""Build, change and search memory banks of captioned pictures.

    For example:

    ```
    cm3leon memory add my-bank my-pictures
    cm3leon memory search my-bank "a red apple"
    cm3leon generate "a red apple" --memory my-bank
    cm3leon memory build corpus bank --encoder openai/clip-vit-base-patch32
    ```
    """,
)


@app.command
def build(
    pictures: Path,
    bank: Path,
    *,
    encoder: str | None = None,
    model: Path | None = None,
    tokenizers: Path | None = None,
    split: str = "train",
    part: int = 0,
    parts: int = 1,
    exact_below: int = 50_000,
    memory_gib: float = 4.0,
    ray: str | None = None,
) -> None:
    """Build a bank of captioned pictures, or finish one whose build was stopped.

    Several machines share the work with --ray; or, without Ray, each builds one of
    several parts, and `memory merge` joins them.

    For example:

    ```
    cm3leon memory build corpus bank --encoder openai/clip-vit-base-patch32
    cm3leon memory build corpus part-0 --part 0 --parts 2 --encoder bi_encoder
    cm3leon memory build corpus bank --encoder bi_encoder --ray auto
    ```

    Parameters
    ----------
    pictures
        A corpus, a folder of pictures with captions, webdataset tars or Parquet files.
    bank
        The bank's folder.
    encoder
        A CLIPModel: a folder, or its name on the hub; by default the model's own.
    model
        The model whose image tokenizer makes the codes; by default the one that ships.
    tokenizers
        A folder with image_tokenizer/ to make the codes, while there is no model yet.
    split
        Which split, where there are several.
    part
        Which part of the pictures, from 0.
    parts
        Into how many parts they are divided; of 2 or more none is searched by itself.
    exact_below
        Up to so many documents are all compared; above, an approximate index is built.
    memory_gib
        What an approximate index may take once it is open.
    ray
        Share the work among Ray's processors: auto for the cluster this machine is in,
        HOST:PORT to name it, local for this machine alone. All machines must see the
        folders under the same paths.
    """
    from cm3leon.data.pictures import Pictures
    from cm3leon.errors import ConfigError
    from cm3leon.retrieval.vector_index import IndexSettings

    if not 0 <= part < parts:
        raise ConfigError(f"part is {part}, outside 0 to {parts - 1} of {parts} parts")
    if not 0 < memory_gib <= MOST_GIB:  # nor may it be nan
        raise ConfigError(f"memory_gib is {memory_gib}, outside (0, {MOST_GIB}]")
    settings = IndexSettings(
        exact_below=exact_below, memory_bytes=int(memory_gib * 2**30)
    )
    parted = (part, parts)
    found = Pictures.open(pictures, split)  # first: without them no bank is made
    _fill(found, bank, encoder, model, settings, parted, tokenizers, ray)


@app.command
def add(
    bank: Path,
    pictures: Path,
    *,
    with_own: Annotated[bool, Parameter(negative="")] = False,
    encoder: str | None = None,
    model: Path | None = None,
) -> None:
    """Add captioned pictures to a bank: your own, say. What is there stays as it is.

    A name stands for one picture: another one of a name that is there is refused.

    For example:

    ```
    cm3leon memory add my-bank my-pictures
    cm3leon generate "a red apple" --memory my-bank
    ```

    Parameters
    ----------
    bank
        The bank's folder; if there is none, one is made for these pictures alone.
    pictures
        A folder of pictures with captions, or what else `data check` reads.
    with_own
        Begin a new bank as a copy of the model's own. Words that the bi-encoder never
        learnt may then find the model's pictures rather than yours.
    encoder
        The CLIPModel the bank was built with; by default the model's own.
    model
        The model whose image tokenizer makes the codes; by default the one that ships.
    """
    import shutil

    from cm3leon.data.pictures import Pictures
    from cm3leon.decoding.folder import located
    from cm3leon.errors import RequestError
    from cm3leon.retrieval.manifest import read_manifest

    own = located(model) / "memory"
    if bank.exists() and with_own:
        raise RequestError(
            f"{bank} is there already and --with-own begins a new bank; leave it out, "
            "or name another folder"
        )
    if bank.exists() or with_own:
        read_manifest(own if with_own else bank)
    found = Pictures.open(pictures)  # first: without them no bank is made
    if with_own:
        partial = bank.with_name(bank.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(own, partial)
        partial.rename(bank)
    _fill(found, bank, encoder, model, None, (0, 1))


@app.command
def remove(bank: Path, *keys: str) -> None:
    """Take documents out of a bank.

    For example:

    ```
    cm3leon memory remove bank my-pictures/cat.png my-pictures/dog.png
    ```

    Parameters
    ----------
    bank
        The bank's folder.
    keys
        Their names, as `memory search` prints them.
    """
    from cm3leon.errors import RequestError
    from cm3leon.retrieval import memory
    from cm3leon.retrieval.manifest import read_manifest

    if not keys:
        raise RequestError("no document is named; memory search prints their names")
    left = read_manifest(bank).count - len(keys)
    with _indexing(left) as on_progress:
        manifest = memory.remove(bank, keys, on_progress=on_progress)
    _print(bank, manifest)


@app.command
def merge(bank: Path, *parts: Path) -> None:
    """Join banks that were built apart. No vector is computed again.

    For example:

    ```
    cm3leon memory merge bank part-0 part-1
    ```

    Parameters
    ----------
    bank
        Where to; a new folder.
    parts
        The banks to join.
    """
    from cm3leon.retrieval import memory
    from cm3leon.retrieval.manifest import read_manifest

    with _indexing(sum(read_manifest(part).count for part in parts)) as on_progress:
        manifest = memory.merge(parts, bank, on_progress=on_progress)
    _print(bank, manifest)


@app.command
def search(
    bank: Path,
    text: str | None = None,
    *,
    image: Path | None = None,
    encoder: str | None = None,
    count: int = 5,
    json: JSON = False,
) -> None:
    """Show the neighbours that a text or a picture gets, by the rules of retrieval.

    For example:

    ```
    cm3leon memory search bank "a red apple"
    cm3leon memory search bank --image apple.png --encoder bi_encoder --count 3
    ```

    Parameters
    ----------
    bank
        The bank's folder.
    text
        What to look for.
    image
        A picture to look for, instead of a text.
    encoder
        The CLIPModel the bank was built with; by default that of the model that ships.
    count
        Neighbours wanted; fewer are shown where fewer pass the rules.
    json
        Print one JSON table.
    """
    from cm3leon.errors import RequestError
    from cm3leon.retrieval.memory import MemoryBank
    from cm3leon.retrieval.retriever import Retriever
    from cm3leon.tokens.document import Image

    if (text is None) == (image is None):
        raise RequestError("give a text or --image, one of the two")
    opened = None if image is None else Image.open(image).pixels
    retriever = Retriever(MemoryBank.open(bank), _encoder(encoder, None))
    if opened is not None:
        [found] = retriever.by_image([opened], count)
    else:
        [found] = retriever.by_text([text or ""], count)
    rows = [neighbour.attribution() for neighbour in found]
    if json:
        print(json_module.dumps(rows, indent=1))
        return
    for row in rows:
        credit = ", ".join(row[name] for name in ("author", "licence") if row[name])
        print(f"{row['relevance']:.3f}  {row['key']}  {row['text']}  ({credit})")
    if len(rows) < count:
        print(f"{len(rows)} of {count}: no more documents pass the rules")


@app.command
def check(bank: Path) -> None:
    """Read a whole bank and say what is wrong with it.

    For example:

    ```
    cm3leon memory check bank
    ```

    Parameters
    ----------
    bank
        The bank's folder.
    """
    from cm3leon.errors import DataError
    from cm3leon.retrieval.memory import problems

    found = list(problems(bank))
    for text in found[1:]:
        print(text)
    if found:
        raise DataError(found[0])
    print(f"{bank} is whole")


@app.command
def info(bank: Path, *, json: JSON = False) -> None:
    """Show what a bank holds: documents, sources, licences, index.

    For example:

    ```
    cm3leon memory info bank --json
    ```

    Parameters
    ----------
    bank
        The bank's folder.
    json
        Print one JSON table.
    """
    from cm3leon.retrieval.memory import MemoryBank

    opened = MemoryBank.open(bank)
    found = _described(opened.manifest) | {
        "licences": dict(opened.tally("licence").most_common()),
        "sources": dict(opened.tally("source").most_common()),
    }
    if json:
        print(json_module.dumps(found, indent=1))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key or 'unknown'} {n:,}" for key, n in value.items())
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console(soft_wrap=True).print(table)


def _encoder(encoder: str | None, model: Path | None) -> "BiEncoder":
    """The named one, or the model's own."""
    from cm3leon.decoding.folder import located
    from cm3leon.errors import RequestError
    from cm3leon.retrieval.encoder import BiEncoder

    own = located(model) / "bi_encoder"
    if encoder is None and not own.is_dir():
        raise RequestError(
            f"{own.parent} has no bi-encoder; name one: --encoder FOLDER"
        )
    return BiEncoder.load(encoder or own)


@contextmanager
def _indexing(documents: int) -> Iterator["Progress"]:
    from cm3leon.cli.bar import bar

    with bar("indexing", documents) as advance:
        yield lambda _, done: advance(done)


def _fill(
    pictures: "Pictures",
    bank: Path,
    encoder: str | None,
    model: Path | None,
    settings: Any,
    part: tuple[int, int],
    tokenizers: Path | None = None,
    ray: str | None = None,
) -> None:
    import sys

    from cm3leon.cli.bar import bar
    from cm3leon.data.bank import bank_config, fill
    from cm3leon.decoding.folder import located
    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.retrieval.memory import BankWriter
    from cm3leon.workers import open_workers

    source = tokenizers or located(model)
    image_tokenizer = ImageTokenizer.load(source / "image_tokenizer")
    towers = _encoder(encoder, model)
    writer = BankWriter(bank, bank_config(towers, image_tokenizer), settings)
    with open_workers(ray) as workers:
        with bar("encoding", 1) as advance:
            filled = fill(
                writer,
                pictures,
                towers,
                image_tokenizer,
                part=part[0],
                parts=part[1],
                workers=workers,
                on_progress=lambda done, all: advance(done / all),
            )
        for problem in filled.problems:
            print(
                f"left out {problem.name}: {problem.kind}: {problem.reason}",
                file=sys.stderr,
            )
        with _indexing(len(writer.keys)) as on_progress:
            manifest = writer.finish(
                part=part if part[1] > 1 else None,
                workers=workers,
                on_progress=on_progress,
            )
    there = f", {filled.there:,} were there already" if filled.there else ""
    print(f"added {filled.added:,} documents{there}")
    _print(bank, manifest)


def _described(manifest: "Manifest") -> dict[str, Any]:
    index = manifest.index
    return {
        "documents": manifest.count,
        "bytes": sum(file.bytes for file in manifest.files),
        "width": manifest.config.width,
        "index": index.choice.factory if index else "none: a part to be merged",
        "recall of the ten nearest": index.recall_at_10 if index else None,
    }


def _print(bank: Path, manifest: "Manifest") -> None:
    about = _described(manifest)
    recall = about["recall of the ten nearest"]
    found = "" if recall is None else f", recall {recall:.1%} of the ten nearest"
    print(f"{bank}: {about['documents']:,} documents, index {about['index']}{found}")
