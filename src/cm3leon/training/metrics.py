"""Numbers of a run: a JSON line per report, TensorBoard curves, a line of progress."""

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard.writer import SummaryWriter


def peak_memory(device: torch.device) -> float:
    """Most bytes that this process has held: on its GPU, else of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class Metrics:
    """Where a run's numbers go: `metrics.jsonl`, TensorBoard and the terminal."""

    def __init__(self, run: Path, progress: Progress, steps: int, done: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.file = (run / "metrics.jsonl").open("a", buffering=1)
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=done or None)
        self.progress = progress
        self.task = progress.add_task("training", total=steps, completed=done, line="")
        self.started = time.time()

    def report(self, step: int, values: Mapping[str, float], line: str) -> None:
        """Write the values of one step; `line` stands beside the progress bar."""
        seconds = round(time.time() - self.started, 2)
        rounded = {name: round(value, 6) for name, value in values.items()}
        record = {"step": step, "seconds": seconds, **rounded}
        self.file.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.progress.update(self.task, completed=step, line=line)
        if not self.progress.console.is_terminal:
            self.progress.console.print(
                f"step {step}: {line}", highlight=False, soft_wrap=True
            )

    def say(self, message: str) -> None:
        """A line for the person who watches."""
        self.progress.console.print(message, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Flush the curves and the JSON lines."""
        self.writer.close()
        self.file.close()


@contextmanager
def metrics(run: Path, steps: int, done: int) -> Iterator[Metrics]:
    """Progress on stderr and open files for the length of a training."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[line]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        numbers = Metrics(run, bar, steps, done)
        try:
            yield numbers
        finally:
            numbers.close()
