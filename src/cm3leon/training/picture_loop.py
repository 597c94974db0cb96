"""The loop of trainings that read captioned pictures: exact resume, curves, a signal.

What differs, a step and what is measured on held-out pictures, comes from outside.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from cm3leon.config import dump_settings
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.training import checkpoint
from cm3leon.training.metrics import metrics

REPORT_EVERY = 20  # steps

Values = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class PictureTraining:
    """Settings that all these trainings have."""

    data: str  # a corpus or folder that `Pictures.open` reads
    run: str  # folder of checkpoints, curves and what was trained
    split: str = "train"
    validation_split: str | None = "val_concept"
    validation_pictures: int = 1000
    seed: int = 0
    steps: int
    batch: int  # pictures
    checkpoint_every: int = 100  # steps
    validate_every: int = 300

    def held_out(self) -> list[Picture]:
        """The first pictures of the validation split."""
        if self.validation_split is None:
            return []
        found = Pictures.open(self.data, self.validation_split)
        count = min(self.validation_pictures, len(found))
        return [found[index] for index in range(count)]


@runtime_checkable
class PictureTrainer(Protocol):
    """What learns."""

    @property
    def model(self) -> nn.Module:
        """Its parameters are what a checkpoint holds."""

    def step(self, number: int, batch: Any) -> Values:
        """One optimizer step; what it measured."""

    def state(self) -> dict[str, Any]:
        """Everything but the parameters that a resumed training needs."""

    def restore(self, model: dict[str, Tensor], parts: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


def train(
    trainer: PictureTrainer,
    stream: Any,
    settings: PictureTraining,
    pictures: Pictures,
    validate: Callable[[int], Values] | None,
    line: Callable[[Mapping[str, float], float], str],
) -> bool:
    """Train, or resume; False if a signal stopped it before its last step.

    Args:
        trainer: what learns.
        stream: batches to learn from, an iterator of grain's.
        settings: how long, and where to.
        pictures: what the stream reads; the damaged ones are named.
        validate: measures after that many steps, under names with `validation/`.
        line: what a report shows of values and of pictures per second.

    Raises:
        CheckpointError: the run folder holds a checkpoint of another shape.
    """
    run = Path(settings.run)
    damaged = pictures.scan().problems
    done = 0
    if saved := checkpoint.load(run):
        done, model, parts = saved
        trainer.restore(model, parts)
        stream.set_state(json.loads(parts["stream"]))
    run.mkdir(parents=True, exist_ok=True)
    (run / "settings.toml").write_text(dump_settings(settings))
    with (
        metrics(run, settings.steps, done) as numbers,
        checkpoint.stop_on_signal() as stop,
    ):
        for problem in damaged:
            numbers.say(f"left out {problem.name}: {problem.kind}: {problem.reason}")
        for number in range(done, settings.steps):
            started = time.time()
            values = trainer.step(number, next(stream))
            rate = settings.batch / (time.time() - started)
            finished = number + 1
            last = finished == settings.steps or stop.asked
            due = last or finished % settings.validate_every == 0
            if validate and due:
                values |= validate(finished)
            if due or finished % REPORT_EVERY == 0:
                values["pictures_per_second"] = rate
                numbers.report(finished, values, line(values, rate))
            if last or finished % settings.checkpoint_every == 0:
                state = trainer.state()
                state["stream"] = json.dumps(stream.get_state())
                checkpoint.save(run, finished, trainer.model.state_dict(), state)
            if stop.asked and finished < settings.steps:
                numbers.say(f"stopped after step {finished}; the same command resumes")
                return False
    return True
