"""`cm3leon train`: settings from a TOML file and `key=value` words, then one call."""

from pathlib import Path
from typing import Any

from cyclopts import App

app = App(
    name="train",
    help="""Train a tokenizer or a model.

    Every run resumes from its last checkpoint when the same command is given again, and
    saves one when it is asked to stop (Ctrl-C or SIGTERM).

    For example:

    ```
    cm3leon train text-tokenizer data=corpus run=runs/tokenizers size=3072
    cm3leon train image-tokenizer configs/image_tokenizer/shipped.toml
    cm3leon train pretrain configs/pretrain/shipped.toml loop.steps=500
    cm3leon train bi-encoder configs/bi_encoder/shipped.toml
    ```
    """,
)

_MODULES = {
    "text-tokenizer": ("text_tokenizer", "TextTokenizerTraining"),
    "image-tokenizer": ("image_tokenizer", "ImageTokenizerTraining"),
    "pretrain": ("pretrain", "Pretrain"),
    "bi-encoder": ("bi_encoder", "BiEncoderTraining"),
}


def __getattr__(name: str) -> Any:
    """`SETTINGS`: what is trained -> its settings class; importing them takes torch."""
    if name == "SETTINGS":
        return {what: _load(what)[1] for what in _MODULES}
    raise AttributeError(name)


def _load(what: str) -> tuple[Any, type]:
    from importlib import import_module

    module_name, settings = _MODULES[what]
    module = import_module(f"cm3leon.training.{module_name}")
    return module, getattr(module, settings)


def _run(what: str, words: tuple[str, ...]) -> None:
    from cm3leon.config import load_settings
    from cm3leon.training.allocation import keep_freed_memory

    keep_freed_memory()
    file = None
    if words and "=" not in words[0]:
        file, words = Path(words[0]), words[1:]
    module, settings_class = _load(what)
    out = module.train(load_settings(settings_class, file, words))
    if out is not None:
        print(out)


@app.command(name="text-tokenizer")
def text_tokenizer(*words: str) -> None:
    """Learn a byte-level BPE from a corpus's captions or a text file.

    Example: cm3leon train text-tokenizer text=books.txt run=tokenizers size=56320

    Parameters
    ----------
    words
        A TOML file, then key=value words: data, text, split, size, run.
    """
    _run("text-tokenizer", words)


@app.command(name="image-tokenizer")
def image_tokenizer(*words: str) -> None:
    """Train a VQGAN; curves and sheets of reconstructions go to the run folder.

    Example: cm3leon train image-tokenizer configs/image_tokenizer/shipped.toml

    Parameters
    ----------
    words
        A TOML file, then key=value words such as steps=6000 or batch=32.
    """
    _run("image-tokenizer", words)


@app.command
def pretrain(*words: str) -> None:
    """Train a transformer on token shards under the CM3 objective.

    Example: cm3leon train pretrain configs/pretrain/tiny.toml optimizer.kind=adamw

    On several GPUs: torchrun --nproc-per-node 8 -m cm3leon train pretrain FILE

    Parameters
    ----------
    words
        A TOML file, then key=value words such as loop.steps=500.
    """
    _run("pretrain", words)


@app.command(name="bi-encoder")
def bi_encoder(*words: str) -> None:
    """Train a small CLIP on captioned pictures, to find pictures by their vectors.

    Example: cm3leon train bi-encoder configs/bi_encoder/shipped.toml batch=128

    Parameters
    ----------
    words
        A TOML file, then key=value words such as steps=3000.
    """
    _run("bi-encoder", words)
