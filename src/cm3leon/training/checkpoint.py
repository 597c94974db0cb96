"""Checkpoints of one run: written whole or not at all, read back exactly.

    RUN/checkpoints/0000001500/model.safetensors   the parameters
                              /NAME.pt             everything else: optimizer, stream, …

A checkpoint is written beside its place and renamed into it, so a crash or a full disk
leaves the last good one untouched.
"""

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cm3leon.errors import CheckpointError
from cm3leon.model import weights
from cm3leon.training.distributed import part_of

FOLDER = "checkpoints"


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    parts: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint atomically and delete all but the newest `keep`.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        model: the model's state, written as safetensors.
        parts: further state of plain Python values and tensors, one file each.
        keep: how many checkpoints stay.

    Raises:
        CheckpointError: it could not be written; the older ones still load.
    """
    folder = run / FOLDER / f"{step:010d}"
    partial = run / FOLDER / f".partial-{step:010d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {name: tensor.contiguous() for name, tensor in model.items()}
        save_file(tensors, partial / "model.safetensors")
        for name, value in parts.items():
            torch.save(value, partial / f"{name}.pt")
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint of step {step} not written to {run} ({error}); the last good "
            "one is untouched: free some space and start the same command again"
        ) from error
    keep_newest(run, keep)
    return folder


def keep_newest(run: Path, keep: int) -> None:
    """Delete all checkpoints of a run but the newest `keep`."""
    for old in steps(run)[:-keep]:
        shutil.rmtree(run / FOLDER / f"{old:010d}")


def steps(run: Path) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def load(run: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Step, model state and other parts of the newest checkpoint, if there is one.

    Raises:
        CheckpointError: a file is damaged.
    """
    if not (found := steps(run)):
        return None
    folder = run / FOLDER / f"{found[-1]:010d}"
    try:
        model = load_file(folder / "model.safetensors")
        parts = {
            path.stem: torch.load(path, weights_only=True)
            for path in sorted(folder.glob("*.pt"))
        }
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise CheckpointError(
            f"{folder} is damaged ({error}); delete it to resume from an older one"
        ) from error
    return found[-1], model, parts


def fit(model: torch.nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load tensors into a model of exactly that shape.

    Raises:
        CheckpointError: a name or a shape differs; the first is named.
    """
    expected = model.state_dict()
    weights.fit(expected, tensors, origin)
    model.load_state_dict(
        {name: part_of(tensor, expected[name]) for name, tensor in tensors.items()}
    )


class Stop:
    """Whether a signal asked the run to save and end."""

    asked = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within the block SIGTERM and SIGINT set `asked` instead of ending the process."""
    stop = Stop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True

    previous = {
        number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
