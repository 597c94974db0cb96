"""Weights in files of others, read without running anything that is in them.

safetensors holds tensors only. A pickle (.pth, .ckpt, .bin) may hold code: it is opened
with `weights_only`, which knows tensors and plain containers and refuses the rest.
Either way tensors stay on disk until they are used, so looking at shapes costs nothing.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cm3leon.errors import CheckpointError

STEMS = ("model.safetensors", "pytorch_model.bin")  # transformers' names, best first
WRAPPER = "state_dict"  # Lightning's files hold the tensors under this


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, mapped from the disk.

    Raises:
        CheckpointError: it is missing or damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of old forms of pickle
            mapped = zipfile.is_zipfile(path)
            table = torch.load(path, "cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors ({found[1]}), which is not run; save "
                "its tensors alone, best as safetensors"
            ) from error
        raise _damaged(path, "not a file of tensors") from error
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).partition(":")[0] or "cut short"
        raise _damaged(path, reason) from error
    if isinstance(table, Mapping) and isinstance(table.get(WRAPPER), Mapping):
        table = table[WRAPPER]
    if not isinstance(table, Mapping):
        raise _damaged(path, f"a {type(table).__name__}, not tensors by name")
    return {name: x for name, x in table.items() if isinstance(x, Tensor)}


def parts(folder: Path) -> list[Path]:
    """The files of weights in a folder of transformers: one, or those of its index.

    Raises:
        CheckpointError: there are none, or one of them is missing.
    """
    for stem in STEMS:
        index = folder / f"{stem}.index.json"
        if index.is_file():
            files = settings(index).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise _damaged(index, "no weight_map")
            names = sorted(set(files.values()))
            for name in names:
                if not (folder / name).is_file():
                    raise CheckpointError(
                        f"{folder} lacks {name}, one of the {len(names)} files of "
                        f"{index.name}; copy it again"
                    )
            return [folder / name for name in names]
        if (folder / stem).is_file():
            return [folder / stem]
    raise CheckpointError(f"{folder} holds none of {', '.join(STEMS)}")


def settings(path: Path) -> dict[str, Any]:
    """A JSON table.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(table, dict):
        raise _damaged(path, "no table of settings")
    return table


def on_meta(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same names, shapes and kinds of number, without the numbers."""
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def take(tensors: dict[str, Tensor], name: str, origin: str) -> Tensor:
    """Remove a tensor from those that are left to read.

    Raises:
        CheckpointError: there is none of that name.
    """
    if name not in tensors:
        raise CheckpointError(f"{origin} lacks {name}; is it another model's?")
    return tensors.pop(name)


def shaped(tensor: Tensor, shape: Sequence[int], name: str, origin: str) -> Tensor:
    """The tensor, if it has the shape the model needs.

    Raises:
        CheckpointError: it has not.
    """
    if list(tensor.shape) != list(shape):
        raise CheckpointError(
            f"{origin}: {name} is {list(tensor.shape)}, the model needs {list(shape)}; "
            "use the weights and the settings of one model"
        )
    return tensor


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is missing or damaged ({reason}); copy it again")
