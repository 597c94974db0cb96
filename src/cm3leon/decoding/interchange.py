"""Model folders <-> folders that transformers reads as OPT.

Exported are a `config.json`, a `model.safetensors` and a `tokenizer.json` as
`OPTForCausalLM` and `AutoTokenizer` expect them, and beside them, as they were, the
files no other program knows: so the way back needs nothing else (docs/formats.md).
Neither way needs transformers.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cm3leon import weight_files
from cm3leon.decoding import transformers_files as files
from cm3leon.decoding.folder import FORMAT, SHAPE, located, settings_of
from cm3leon.errors import CheckpointError, RequestError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.model import opt
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.model.weights import fit
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import Vocabulary

VOCABULARY = "vocabulary.json"
TEXT_TOKENIZER = "text_tokenizer.json"
PICTURES = "image_tokenizer"
NEEDED = (VOCABULARY, TEXT_TOKENIZER, PICTURES)
WELCOME = ("generation.json", "LICENSE", "NOTICE", "NOTICE.md")
CARD, ORIGINAL_CARD = "README.md", "MODEL_CARD.md"


def export_transformers(model_folder: Path | None, out: Path) -> Path:
    """Write a model folder as `OPTForCausalLM.from_pretrained` reads it.

    Args:
        model_folder: a folder as training writes it; None is the shipped one.
        out: a new or empty folder; it appears when all of it is written.

    Raises:
        CheckpointError: `model_folder` is no model folder, or its weights do not fit.
        DataError: its vocabulary or text tokenizer is damaged.
        RequestError: `out` is not empty.
    """
    model_folder = located(model_folder)
    config, slot = _read_config(model_folder)
    vocabulary = _vocabulary(model_folder, config)
    TextTokenizer.load(model_folder / TEXT_TOKENIZER)
    ImageTokenizer.load(model_folder / PICTURES)
    file = model_folder / "model.safetensors"
    ours = weight_files.load(file)
    _check(ours, config, file)
    tensors = opt.to_opt(ours)
    with new_folder(out) as partial:
        settings = opt.settings_to_opt(config, pad=vocabulary.pad, eos=vocabulary.eos)
        _write(partial / "config.json", settings | {"position_slot": slot})
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        _carry((model_folder,), partial)
        text = _json(partial / TEXT_TOKENIZER)
        drawing = partial / "generation.json"
        options = _json(drawing) if drawing.exists() else {}
        for name, table in (
            ("tokenizer.json", files.model_tokenizer(text, vocabulary)),
            ("tokenizer_config.json", files.tokenizer_settings(config.context)),
            ("generation_config.json", files.generation_settings(options, vocabulary)),
        ):
            _write(partial / name, table)
        if (model_folder / CARD).exists():
            shutil.copyfile(model_folder / CARD, partial / ORIGINAL_CARD)
        card = files.card(config, slot, vocabulary, ORIGINAL_CARD)
        (partial / CARD).write_text(card, encoding="utf-8")
    return out


def import_transformers(folder: Path, out: Path, like: Path | None = None) -> Path:
    """Write a model folder from one that transformers reads: the way back.

    Args:
        folder: an OPT folder, exported by us or saved by transformers after training.
        out: a new or empty folder; it appears when all of it is written.
        like: a model folder with the vocabulary, the tokenizers and the position slot
            that `folder` was trained with, where `folder` does not hold them.

    Raises:
        CheckpointError: `folder` is no OPT, lacks a file of weights, or computes
            another function.
        DataError: the vocabulary is damaged.
        RequestError: `out` is not empty, or nothing says which ids the model reads.
    """
    origin = str(folder / "config.json")
    settings = _json(folder / "config.json")
    config = opt.settings_from_opt(settings, origin)
    theirs: dict[str, Tensor] = {}
    for file in weight_files.parts(folder):
        theirs |= weight_files.load(file)
    tensors = opt.from_opt(theirs, config.layers, str(folder))
    _check(tensors, config, folder)
    sources = (folder,) if like is None else (folder, like)
    for name in NEEDED:
        if not any((source / name).exists() for source in sources):
            raise RequestError(
                f"{folder} holds no {name}; name with --model the model folder whose "
                "ids it was trained with"
            )
    slot = settings.get("position_slot")
    if slot is None:
        slot = _read_config(like)[1] if like is not None else 0
    with new_folder(out) as partial:
        shape = {"format": FORMAT, **asdict(config), "position_slot": slot}
        _write(partial / "config.json", shape)
        save_file(tensors, partial / "model.safetensors")
        _carry(sources, partial)
        _vocabulary(partial, _read_config(partial)[0])
        for name in (ORIGINAL_CARD, CARD):
            if (folder / name).exists():
                shutil.copyfile(folder / name, partial / CARD)
                break
    return out


def _read_config(folder: Path) -> tuple[TransformerConfig, int]:
    """Shape and position slot of a model folder."""
    settings = settings_of(folder)
    shape = {name: settings[name] for name in SHAPE}
    return TransformerConfig(**shape), settings["position_slot"]


def _check(tensors: Mapping[str, Tensor], config: TransformerConfig, at: Path) -> None:
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    fit(state, tensors, at)


def _vocabulary(folder: Path, config: TransformerConfig) -> Vocabulary:
    vocabulary = Vocabulary.load(folder / VOCABULARY)
    if vocabulary.size != config.vocabulary_size:
        raise CheckpointError(
            f"{folder / VOCABULARY} has {vocabulary.size} rows, the model "
            f"{config.vocabulary_size}; they are not of one model"
        )
    return vocabulary


def _json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent} holds no model ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is no table of settings")
    return settings


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    text = json.dumps(settings, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _carry(sources: tuple[Path, ...], out: Path) -> None:
    """Copy the files that stay as they are, each from the first folder that has it."""
    for name in (*NEEDED, *WELCOME):
        for source in sources:
            path = source / name
            if path.is_dir():
                shutil.copytree(path, out / name)
            elif path.exists():
                shutil.copyfile(path, out / name)
            else:
                continue
            break


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` if nothing goes wrong."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} is not an empty folder; name a new one or remove it")
    partial = out.with_name(f".partial-{out.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
