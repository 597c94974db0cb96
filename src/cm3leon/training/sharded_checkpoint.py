"""Checkpoints that some number of processes writes and any other number reads.

    RUN/checkpoints/0000001500/__0_0.distcp, …   what each process held
                              /.metadata          which part of what lies where

torch.distributed.checkpoint writes and reads them. Processes go on training while a
copy of their state is written; the folder gets its name once all have written.
"""

import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from cm3leon.errors import CheckpointError
from cm3leon.model import weights
from cm3leon.training import checkpoint
from cm3leon.training.distributed import World, lost
from cm3leon.training.optimizer import Optimizer


class _RenamedWhenWritten(FileSystemWriter):
    """A folder beside its place until the last process has written."""

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder.parent / f".partial-{folder.name}")
        self.folder = folder
        self.keep = keep

    def set_up_storage_writer(
        self, is_coordinator: bool, *words: Any, **named: Any
    ) -> None:
        super().set_up_storage_writer(is_coordinator, *words, **named)
        if is_coordinator:  # what a killed save left behind
            shutil.rmtree(self.path, ignore_errors=True)

    def finish(self, metadata: Metadata, results: Any) -> None:
        """The first process's part, once all have done theirs."""
        super().finish(metadata, results)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        Path(self.path).rename(self.folder)
        checkpoint.keep_newest(self.folder.parents[1], self.keep)


class Checkpoints:
    """Those of one run. All processes do everything together."""

    def __init__(self, run: Path, world: World, *, keep: int = 2) -> None:
        """Where they are and who writes them.

        Args:
            run: the run's folder, which all processes see.
            world: this process among them.
            keep: how many stay.
        """
        self.run = run
        self.keep = keep
        self.world = world
        self._pending: Future[Any] | None = None
        self._step = 0
        self._group = None
        if world.mesh is not None:  # apart: it works while the others train
            self._group = distributed.new_group(
                backend="gloo", timeout=timedelta(seconds=world.timeout)
            )

    def newest(self) -> Path | None:
        """The folder that was last completed when the first process looked."""
        found = self.world.gather(checkpoint.steps(self.run))[0]
        if not found:
            return None
        return self.run / checkpoint.FOLDER / f"{found[-1]:010d}"

    def save(
        self, step: int, model: nn.Module, optimizer: Optimizer, stream: str
    ) -> None:
        """Begin to write; on a mesh it goes on in the background.

        Raises:
            CheckpointError: this one, or the one before, could not be written.
        """
        self.wait()
        self._step = step
        state = self._state(model, optimizer) | {"stream": stream}
        folder = self.run / checkpoint.FOLDER / f"{step:010d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        writer = _RenamedWhenWritten(folder, self.keep)
        with self._written():
            if self._group is None:
                with _alone():
                    save(state, storage_writer=writer, no_dist=True)
            else:
                pending = async_save(
                    state, storage_writer=writer, process_group=self._group
                )
                assert isinstance(pending, Future), "staged before it returns"
                self._pending = pending

    def wait(self) -> None:
        """Until what was begun is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._written():
                pending.result()

    def load(self, folder: Path, model: nn.Module, optimizer: Optimizer) -> str:
        """Put model and optimizer back; what `save` was told of the stream.

        Raises:
            CheckpointError: it is damaged, or another model's.
        """
        try:
            reader = FileSystemReader(folder)
            found = reader.read_metadata().state_dict_metadata
        except Exception as error:  # unpickling damaged bytes raises many kinds
            raise _damaged(folder, error) from error
        stored = {
            name.removeprefix("model."): torch.empty(entry.size, device="meta")
            for name, entry in found.items()
            if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
        }
        weights.fit(model.state_dict(), stored, "the checkpoint")
        state = self._state(model, optimizer) | {"stream": ""}
        try:
            with _alone():
                load(
                    state,
                    storage_reader=reader,
                    process_group=self._group,
                    no_dist=self._group is None,
                )
        except (Exception, CheckpointException) as error:
            raise _damaged(folder, _cause(error)) from error
        set_state_dict(
            model,
            optimizer.parts,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        return str(state["stream"])

    def _state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """By the names of parameters, so that it fits any number of processes."""
        tensors, moments = get_state_dict(model, optimizer.parts)
        return {"model": tensors, "optimizer": moments}

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, CheckpointException) as error:
            cause = _cause(error)
            if lost(cause):
                raise cause from error
            raise CheckpointError(
                f"checkpoint of step {self._step} not written to {self.run} ({cause}); "
                "the last good one is untouched: free some space and start the same "
                "command again"
            ) from error


def _cause(error: BaseException) -> BaseException:
    """What went wrong on the first process where something did."""
    if isinstance(error, CheckpointException):
        for cause, _ in error.failures.values():
            return cause
    return error


def _damaged(folder: Path, error: BaseException) -> CheckpointError:
    said = (str(error) or type(error).__name__).splitlines()[0]
    return CheckpointError(
        f"{folder} is damaged or of another optimizer ({said}); delete it to resume "
        "from an older one"
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Without the warning that there is only one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
