"""The one optimisation loop: step, validate, sample, save, resume, stop on a signal."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm3leon.data.stream import Batch, TokenStream
from cm3leon.errors import ConfigError
from cm3leon.model.transformer import Transformer
from cm3leon.objective.loss import Tally, head_loss, per_id_loss
from cm3leon.precision import autocast, has_bfloat16, uses_bfloat16
from cm3leon.tokens.vocabulary import Vocabulary
from cm3leon.training import checkpoint
from cm3leon.training.metrics import Metrics, metrics
from cm3leon.training.optimizer import Optimizer

BUCKET = 128  # positions whose loss is told together


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how precisely and how often things happen; all counts are steps."""

    steps: int = 1000
    accumulate: int = 1  # batches per step
    bfloat16: bool | None = None  # products; by default where the processor has it
    image_weight: float = 1.0  # of image codes in the loss; the paper: 1
    text_weight: float = 1.0
    report_every: int = 20
    validate_every: int = 500
    sample_every: int = 1000
    checkpoint_every: int = 200
    keep: int = 2  # checkpoints

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "accumulate",
            "report_every",
            "validate_every",
            "sample_every",
            "checkpoint_every",
            "keep",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 1")


def matrix_peak(seconds: float = 0.5, side: int = 2048) -> float:
    """FLOP/s of this machine's matrix product, the base of the utilisation.

    In bf16 where the processor has it, else in fp32.
    """
    left = torch.randn(side, side)
    if has_bfloat16():
        left = left.bfloat16()
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, left)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def loss_weights(batch: Batch, vocabulary: Vocabulary, config: LoopConfig) -> Tensor:
    """Weight of each target: 0 on padding, else that of its modality."""
    if config.image_weight == config.text_weight == 1.0:
        return batch.weights
    image = (batch.targets >= vocabulary.image.start) & (
        batch.targets < vocabulary.image.stop
    )
    weights = torch.where(image, config.image_weight, config.text_weight)
    return batch.weights * weights


def parts_of(batch: Batch) -> dict[str, Tensor]:
    """The weights of a batch by what its loss is reported by.

    By number of neighbours in the row, and by the id's place in its document if there
    are several.
    """
    parts: dict[str, Tensor] = {}
    counts = batch.neighbours[:, None].expand_as(batch.weights)
    places = batch.positions // BUCKET * BUCKET
    for name, values in (("neighbours", counts), ("position", places)):
        found = values[batch.weights > 0].unique().tolist()
        if len(found) > 1 or name == "neighbours":
            for value in found:
                parts[f"{name}_{value}"] = batch.weights * (values == value)
    return parts


class Run:
    """A model, its optimizer and its stream, moving together."""

    def __init__(
        self,
        model: Transformer,
        optimizer: Optimizer,
        stream: TokenStream,
        vocabulary: Vocabulary,
        config: LoopConfig,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.stream = stream
        self.vocabulary = vocabulary
        self.config = config
        self.peak = matrix_peak()
        self._totals: dict[str, float] = defaultdict(float)
        self._tally = Tally(vocabulary.image)
        self._parts: dict[str, Tally] = {}
        self._since = time.perf_counter()

    def step(self, number: int) -> None:
        """One optimizer step, its measurements added to the running totals."""
        totals = self._totals
        for _ in range(self.config.accumulate):
            waited = time.perf_counter()
            batch = next(self.stream)
            totals["data_seconds"] += time.perf_counter() - waited
            with autocast(self.config.bfloat16):
                hidden = self.model.hidden(batch.ids, batch.positions)
            if uses_bfloat16(self.config.bfloat16):
                hidden = hidden.bfloat16()
            weights = loss_weights(batch, self.vocabulary, self.config)
            rows = self.model.embedding.weight
            loss, losses = head_loss(hidden, rows, batch.targets, weights)
            (loss / self.config.accumulate).backward()
            self._count(batch, losses)
        totals["gradient_norm"] += self.optimizer.step(number)
        totals["steps"] += 1

    def _count(self, batch: Batch, losses: Tensor) -> None:
        totals = self._totals
        self._tally.add(losses, batch.targets, batch.weights)
        for name, share in parts_of(batch).items():
            tally = self._parts.setdefault(name, Tally(self.vocabulary.image))
            tally.add(losses, batch.targets, share)
        totals["ids"] += float(batch.weights.sum())
        per_id = self.model.config.flops_per_id(batch.ids.shape[1])
        totals["flops"] += per_id * batch.ids.numel()
        totals["spans"] += batch.spans
        totals["hidden"] += batch.hidden_captions
        totals["batches"] += 1

    def take(self) -> dict[str, float]:
        """Means since the last call."""
        totals, now = self._totals, time.perf_counter()
        seconds = now - self._since
        values = {
            "loss/image": self._tally.image,
            "loss/text": self._tally.text,
            "gradient_norm": totals["gradient_norm"] / max(1, totals["steps"]),
            "tokens_per_second": totals["ids"] / seconds,
            "flops": totals["flops"],
            "flops_utilisation": totals["flops"] / seconds / self.peak,
            "data_wait_share": totals["data_seconds"] / seconds,
            "objective/spans_per_row": totals["spans"] / max(1, totals["batches"]),
            "objective/hidden_captions": totals["hidden"] / max(1, totals["batches"]),
        }
        for name, tally in self._parts.items():
            values[f"loss/image/{name}"] = tally.image
        self._totals = defaultdict(float)
        self._tally = Tally(self.vocabulary.image)
        self._parts = {}
        self._since = time.perf_counter()
        return values

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the parameters."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "stream": json.dumps(self.stream.state()),
        }

    def restore(self, tensors: Mapping[str, Tensor], parts: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        checkpoint.fit(self.model, tensors, "the checkpoint")
        self.optimizer.load_state_dict(parts["optimizer"])
        self.stream.restore(json.loads(parts["stream"]))


def validate(
    model: Transformer,
    batches: list[Batch],
    vocabulary: Vocabulary,
    bfloat16: bool | None,
) -> dict[str, float]:
    """Held-out loss by modality: nats per image code and per text id."""
    tally = Tally(vocabulary.image)
    model.eval()
    with torch.inference_mode(), autocast(bfloat16):
        for batch in batches:
            losses = per_id_loss(model(batch.ids, batch.positions), batch.targets)
            tally.add(losses, batch.targets, batch.weights)
    model.train()
    return {"validation/image": tally.image, "validation/text": tally.text}


def line(values: Mapping[str, float]) -> str:
    """The numbers that stand beside the progress bar."""
    parts = [
        f"image {values['loss/image']:.3f}",
        f"text {values['loss/text']:.3f}",
    ]
    if "validation/image" in values:
        parts.append(f"held out {values['validation/image']:.3f} nats per code")
    parts.append(f"{values['tokens_per_second']:.0f} tokens/s")
    parts.append(f"{values['flops_utilisation']:.0%} of peak")
    return " · ".join(parts)


def train(
    run: Run,
    folder: Path,
    held_out: Mapping[int, list[Batch]],
    sample: Callable[[int], None] | None = None,
) -> bool:
    """Train to the last step, resuming if `folder` has a checkpoint.

    Args:
        run: model, optimizer and stream, freshly made.
        folder: the run's folder.
        held_out: batches to validate on, by the number of neighbours in their rows;
            may be empty.
        sample: draws a sheet for a step, every `sample_every` steps.

    Returns:
        Whether the last step was reached; False after SIGTERM or SIGINT, which save.
    """
    config = run.config
    done = 0
    if found := checkpoint.load(folder):
        done, tensors, parts = found
        run.restore(tensors, parts)
    if done >= config.steps:
        return True
    with (
        metrics(folder, config.steps, done) as numbers,
        checkpoint.stop_on_signal() as stop,
    ):
        run.take()
        for number in range(done, config.steps):
            run.step(number)
            finished = number + 1
            last = finished == config.steps or stop.asked
            due = finished % config.validate_every == 0
            if last or due or finished % config.report_every == 0:
                _report(run, numbers, finished, held_out if last or due else {})
            if last or finished % config.checkpoint_every == 0:
                parameters = run.model.state_dict()
                checkpoint.save(
                    folder, finished, parameters, run.state(), keep=config.keep
                )
            if sample and (last or finished % config.sample_every == 0):
                sample(finished)
                run.take()
            if stop.asked and finished < config.steps:
                numbers.say(f"stopped after step {finished}; the same command resumes")
                return False
    return True


def _report(
    run: Run, numbers: Metrics, step: int, held_out: Mapping[int, list[Batch]]
) -> None:
    values = run.take()
    if not math.isfinite(values["loss/image"] + values["loss/text"]):
        numbers.say(f"the loss at step {step} is not finite; lower the learning rate")
    for neighbours, batches in held_out.items():
        precise = run.config.bfloat16
        measured = validate(run.model, batches, run.vocabulary, precise)
        suffix = f"/neighbours_{neighbours}" if neighbours else ""
        values |= {name + suffix: value for name, value in measured.items()}
        run.take()
    numbers.report(step, values, line(values))
