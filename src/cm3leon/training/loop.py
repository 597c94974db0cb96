"""The one optimisation loop: step, validate, sample, save, resume, stop on a signal."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cm3leon.data.stream import Batch, TokenStream
from cm3leon.errors import CheckpointError, ConfigError, TrainingError
from cm3leon.model.transformer import Transformer
from cm3leon.objective.loss import Tally, head_loss, per_id_loss
from cm3leon.precision import has_bfloat16
from cm3leon.tokens.vocabulary import Vocabulary
from cm3leon.training import checkpoint
from cm3leon.training.allocation import return_unused_memory
from cm3leon.training.distributed import World, sums
from cm3leon.training.metrics import Metrics, metrics, peak_memory
from cm3leon.training.optimizer import Optimizer
from cm3leon.training.sharded_checkpoint import Checkpoints

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
    guard: Literal["stop", "skip"] = "stop"  # where a loss or gradient is not finite
    norm_limit: float = 0.0  # a gradient norm above it counts as not finite; 0: none
    most_skips: int = 10  # updates left out in a row; one more ends the run

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "accumulate",
            "report_every",
            "validate_every",
            "sample_every",
            "checkpoint_every",
            "keep",
            "most_skips",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 1")


def matrix_peak(
    seconds: float = 0.5, side: int = 2048, device: torch.device | None = None
) -> float:
    """FLOP/s of this machine's matrix product, the base of the utilisation.

    In bf16 where the processor has it, else in fp32; on a GPU in bf16.
    """
    gpu = device is not None and device.type == "cuda"
    left = torch.randn(4 * side if gpu else side, side, device=device)
    if gpu or has_bfloat16():
        left = left.bfloat16()
    right = left[:side]
    flops = 2.0 * len(left) * side**2
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right)
        if gpu:
            torch.cuda.synchronize(device)
        best = max(best, flops / (time.perf_counter() - started))
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

    By number of the document's neighbours, and by the id's place in its document if
    there are several.
    """
    parts: dict[str, Tensor] = {}
    places = batch.positions // BUCKET * BUCKET
    for name, values in (("neighbours", batch.neighbours), ("position", places)):
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
        world: World | None = None,
    ) -> None:
        """Start at nothing.

        Args:
            model: in parts where `world` has a mesh.
            optimizer: of its parameters.
            stream: this process's share of every batch.
            vocabulary: the layout of ids.
            config: how long and how precisely.
            world: this process among others; by default alone.
        """
        self.world = world = world or World()
        self.bfloat16 = world.bfloat16(config.bfloat16)
        self.skipped = 0  # updates left out in a row
        self.model = model
        self.optimizer = optimizer
        self.stream = stream
        self.vocabulary = vocabulary
        self.config = config
        self.peak = sum(world.gather(matrix_peak(device=world.device)))
        self._totals: dict[str, float] = defaultdict(float)
        self._tally = Tally(vocabulary.image)
        self._parts: dict[str, Tally] = {}
        self._since = time.perf_counter()

    def step(self, number: int) -> str | None:
        """One optimizer step, its measurements added to the running totals.

        Returns:
            Why nothing was updated, if `guard` is "skip" and there was a reason.

        Raises:
            TrainingError: `guard` is "stop" and there was a reason, or skipping did not
                help; nothing was updated.
        """
        totals = self._totals
        wrong: list[tuple[int, int]] = []  # batch and row of losses that are no numbers
        for number_of_batch in range(self.config.accumulate):
            waited = time.perf_counter()
            batch = self._next()
            totals["data_seconds"] += time.perf_counter() - waited
            with self.world.autocast(self.bfloat16):
                hidden = self.model.hidden(batch.ids, batch.positions)
            if self.bfloat16:
                hidden = hidden.bfloat16()
            weights = loss_weights(batch, self.vocabulary, self.config)
            total = self.world.sum(weights.sum())
            rows = self.model.embedding.weight
            loss, losses = head_loss(hidden, rows, batch.targets, weights, total)
            (loss / self.config.accumulate).backward()
            finite = (losses.isfinite() | (batch.weights == 0)).all(1)
            if finite.all():
                self._count(batch, losses)
            else:
                found = (~finite).nonzero().flatten().tolist()
                wrong += [(number_of_batch, self._row(row)) for row in found]
        norm = self.optimizer.clip()
        if reason := self._reason(norm, wrong):
            self.optimizer.forget()
            self._skip(number, reason)
            return reason
        self.optimizer.move(number)
        self.skipped = 0
        totals["gradient_norm"] += norm
        totals["steps"] += 1
        return None

    def _next(self) -> Batch:
        return next(self.stream).each(lambda column: column.to(self.world.device))

    def _row(self, own: int) -> int:
        """The number in its batch of a row of this process."""
        return self.world.rank + own * self.world.ranks

    def _reason(self, norm: float, wrong: list[tuple[int, int]]) -> str | None:
        """Why this step may not update anything; the same on all processes."""
        limit = self.config.norm_limit
        sound = math.isfinite(norm) and (not limit or norm <= limit)
        if not self.world.any(bool(wrong) or not sound):
            return None
        if rows := sorted(chain.from_iterable(self.world.gather(wrong))):
            places = ", ".join(f"row {row} of batch {batch}" for batch, row in rows[:4])
            return f"the loss is not finite in {places} (of {len(rows)} such rows)"
        above = f", above norm_limit = {limit:g}" if math.isfinite(norm) else ""
        return f"the gradient norm is {norm:g}{above}"

    def _skip(self, number: int, reason: str) -> None:
        """Count an update that was left out, or end the run."""
        self.skipped += 1
        self._totals["skipped"] += 1
        what = f"step {number + 1} was not made: {reason}"
        if self.config.guard == "stop":
            raise TrainingError(
                f"{what}; lower the learning rate, or leave such updates out with "
                'loop.guard = "skip"'
            )
        if self.skipped > self.config.most_skips:
            raise TrainingError(
                f"{what}, nor were the {self.skipped - 1} before it (most_skips = "
                f"{self.config.most_skips}); lower the learning rate"
            )

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
        """Means since the last call, over all processes, which all must ask."""
        seconds = time.perf_counter() - self._since
        memory = peak_memory(self.world.device)
        own = (dict(self._totals), self._tally, self._parts, seconds, memory)
        records, tallies, parts, times, memories = zip(
            *self.world.gather(own), strict=True
        )
        totals: dict[str, float] = defaultdict(float, sums(records))
        seconds = sum(times) / len(times)
        image = self.vocabulary.image
        tally = Tally(image).merge(tallies)
        values = {
            "loss/image": tally.image,
            "loss/text": tally.text,
            "gradient_norm": totals["gradient_norm"] / max(1, totals["steps"]),
            "tokens_per_second": totals["ids"] / seconds,
            "flops": totals["flops"],
            "flops_utilisation": totals["flops"] / seconds / self.peak,
            "data_wait_share": totals["data_seconds"] / sum(times),
            "memory_bytes": max(memories),
            "skipped_updates": totals["skipped"] / self.world.ranks,
            "objective/spans_per_row": totals["spans"] / max(1, totals["batches"]),
            "objective/hidden_captions": totals["hidden"] / max(1, totals["batches"]),
        }
        for name in dict.fromkeys(name for part in parts for name in part):
            found = Tally(image).merge(part[name] for part in parts if name in part)
            values[f"loss/image/{name}"] = found.image
        self._totals = defaultdict(float)
        self._tally = Tally(image)
        self._parts = {}
        self._since = time.perf_counter()
        return values

    def save(self, checkpoints: Checkpoints, step: int) -> None:
        """Begin to write a checkpoint of this step."""
        stream = json.dumps(self.stream.state())
        checkpoints.save(step, self.model, self.optimizer, stream)

    def resume(self, checkpoints: Checkpoints) -> int:
        """Go on from the newest checkpoint, if there is one; the steps done."""
        if (folder := checkpoints.newest()) is None:
            return 0
        if not (folder / "model.safetensors").exists():
            stream = checkpoints.load(folder, self.model, self.optimizer)
            self.stream.restore(json.loads(stream))
        elif found := checkpoint.load(checkpoints.run):  # as this package once wrote
            if self.world.mesh is not None:
                raise CheckpointError(
                    f"{folder} was written by one process of an older version; resume "
                    "it without torchrun up to its next checkpoint first"
                )
            _, tensors, parts = found
            checkpoint.fit(self.model, tensors, "the checkpoint")
            self.optimizer.load_state_dict(parts["optimizer"])
            self.stream.restore(json.loads(parts["stream"]))
        return int(folder.name)


def validate(
    model: Transformer,
    batches: list[Batch],
    vocabulary: Vocabulary,
    bfloat16: bool | None,
    world: World | None = None,
) -> dict[str, float]:
    """Held-out loss by modality: nats per image code and per text id.

    Processes share the batches. Each reads as many, since a sharded model takes all of
    them to compute: what is left over is read by some that do not count it.
    """
    world = world or World()
    tally = Tally(vocabulary.image)
    model.eval()
    with torch.no_grad(), world.autocast(world.bfloat16(bfloat16)):
        for start in range(0, len(batches), world.ranks):
            number = start + world.rank
            batch = batches[min(number, len(batches) - 1)]
            ids, positions = batch.ids.to(world.device), batch.positions
            logits = model(ids, positions.to(world.device))
            if number < len(batches):
                losses = per_id_loss(logits, batch.targets.to(world.device)).cpu()
                tally.add(losses, batch.targets, batch.weights)
    model.train()
    tally = Tally(vocabulary.image).merge(world.gather(tally))
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
    config, world = run.config, run.world
    checkpoints = Checkpoints(folder, world, keep=config.keep)
    done = run.resume(checkpoints)
    if done >= config.steps:
        return True
    with ExitStack() as stack:
        numbers = None
        if world.first:
            numbers = stack.enter_context(metrics(folder, config.steps, done))
        stop = stack.enter_context(checkpoint.stop_on_signal())
        run.take()
        for number in range(done, config.steps):
            try:
                skipped = run.step(number)
            except TrainingError:
                checkpoints.wait()
                raise
            finished = number + 1
            if skipped and numbers:
                numbers.say(f"step {finished} was left out: {skipped}")
            stopping = world.any(stop.asked)
            last = finished == config.steps or stopping
            due = finished % config.validate_every == 0
            if last or due or finished % config.report_every == 0:
                _report(run, numbers, finished, held_out if last or due else {})
            if last or finished % config.checkpoint_every == 0:
                run.save(checkpoints, finished)
            if last:
                checkpoints.wait()
            if sample and (last or finished % config.sample_every == 0):
                sample(finished)
                run.take()
            if stopping and finished < config.steps:
                if numbers:
                    numbers.say(
                        f"stopped after step {finished}; the same command resumes"
                    )
                return False
    return True


def _report(
    run: Run, numbers: Metrics | None, step: int, held_out: Mapping[int, list[Batch]]
) -> None:
    return_unused_memory()
    values = run.take()
    for neighbours, batches in held_out.items():
        precise = run.config.bfloat16
        measured = validate(run.model, batches, run.vocabulary, precise, run.world)
        suffix = f"/neighbours_{neighbours}" if neighbours else ""
        values |= {name + suffix: value for name, value in measured.items()}
        run.take()
    if numbers:
        numbers.report(step, values, line(values))
