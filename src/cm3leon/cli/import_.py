"""`cm3leon import`: public weights, reported on and written as folders of ours."""

from collections.abc import Mapping
from pathlib import Path

from cyclopts import App

app = App(
    name="import",
    help="""Read models of other programs.

    What does not fit is said before anything long is done; code in a file is never run.

    For example:

    ```
    cm3leon import chameleon data/models/7b
    cm3leon import chameleon Anole-7b-v0.1-hf --tokenizer data/tokenizer --to anole
    cm3leon import vqgan last.ckpt model.yaml --to image_tokenizer
    ```
    """,
)


@app.command
def chameleon(
    folder: Path, /, *, tokenizer: Path | None = None, to: Path | None = None
) -> None:
    """Read a Chameleon, an Anole or a Lumina-mGPT 1: print what is in it, and write it.

    Both layouts are read, that of transformers and Meta's own.

    For example:

    ```
    cm3leon import chameleon data/models/7b
    cm3leon import chameleon Anole-7b-v0.1-hf --tokenizer data/tokenizer --to anole
    ```

    Args:
        folder: the folder with `config.json` or `params.json`.
        tokenizer: a folder with Meta's `text_tokenizer.json`, `vqgan.ckpt` and
            `vqgan.yaml`; those of transformers cannot draw pictures without it.
        to: the model folder to write; without it there is only the report.
    """
    from cm3leon.decoding import chameleon_folder

    found = chameleon_folder.find(folder, tokenizer)
    _print(found.report())
    if to is not None:
        print(chameleon_folder.save(found, to))


@app.command
def vqgan(weights: Path, settings: Path, /, *, to: Path | None = None) -> None:
    """Read an image tokenizer of taming-transformers or its descendants.

    For example:

    ```
    cm3leon import vqgan last.ckpt model.yaml --to image_tokenizer
    ```

    Args:
        weights: its `.ckpt`, or safetensors.
        settings: the `.yaml` beside it.
        to: the folder to write; without it there is only the report.
    """
    from cm3leon.errors import RequestError
    from cm3leon.images import checkpoint
    from cm3leon.images.tokenizer import ImageTokenizer

    if to is not None and to.exists():
        raise RequestError(f"{to} exists; name a new folder or remove it")
    tokenizer = ImageTokenizer(checkpoint.read(weights, settings))
    parameters = sum(weight.numel() for weight in tokenizer.vqgan.parameters())
    _print(
        {
            "parameters": f"{parameters:,}",
            "pictures": f"{tokenizer.pixels} x {tokenizer.pixels} pixels, "
            f"{tokenizer.codes_per_image:,} codes each",
            "codebook": f"{tokenizer.codebook_size:,} codes",
            "fingerprint": tokenizer.fingerprint,
        }
    )
    if to is not None:
        tokenizer.save(to)
        print(to)


def _print(rows: Mapping[str, str]) -> None:
    """Rows of a name and what it is, each in a line however long."""
    widest = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{widest}}  {value}")
