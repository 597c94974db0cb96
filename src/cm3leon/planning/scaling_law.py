"""Loss against compute, over several runs: L(C) = E + A C^-a.

E: the loss that no compute removes; C: training FLOPs of a run; L: its last held-out
loss. Kaplan et al. 2020 with the floor of Hoffmann et al. 2022. For a given exponent a
the rest is linear, so the least squares are a search over one number.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cm3leon.config import NONE
from cm3leon.errors import DataError

FEWEST = 4  # runs, for three numbers
EXPONENTS = (0.01, 3.0)  # searched


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finished run."""

    run: str
    flops: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """What was fitted."""

    floor: float  # E
    scale: float  # A
    exponent: float  # a
    error: float  # root of the mean squared difference

    def loss(self, flops: float) -> float:
        """That of a run of so many FLOPs."""
        return self.floor + self.scale * math.pow(flops, -self.exponent)


def read_point(run: Path, loss: str) -> Point | str:
    """The end of a run, or in a few words why it has none that counts.

    It has one if its metrics hold such a loss, it made all steps of its settings, and
    its FLOPs are all that were spent on its weights: it began from no other's.

    Args:
        run: its folder.
        loss: a key of `metrics.jsonl`; the last finite one counts.

    Raises:
        DataError: a line is no JSON table.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return f"no {loss}"
    records: list[dict[str, float]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            step = record["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number} is no report of a step") from error
        # a run that was killed makes the steps after its checkpoint once more
        while records and records[-1]["step"] >= step:
            records.pop()
        records.append(record)
    losses = [
        value
        for record in records
        if math.isfinite(value := record.get(loss, math.nan))
    ]
    flops = sum(record.get("flops", 0.0) for record in records)
    if not losses or not flops:
        return f"no {loss}"
    try:
        settings = tomllib.loads((run / "settings.toml").read_text("utf-8"))
        steps, start = settings["loop"]["steps"], settings["model"]["start"]
    except (OSError, ValueError, TypeError, KeyError):
        return "no settings.toml of a pretraining"
    if start != NONE:
        return f"began from {start}"
    if (step := records[-1]["step"]) < steps:
        return f"at step {step:,} of {steps:,}"
    return Point(run=run.name, flops=flops, loss=losses[-1])


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those that no run of as little compute beats, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.flops, point.loss)):
        if not best or point.loss < best[-1].loss:
            best.append(point)
    return best


def fit(points: Sequence[Point]) -> ScalingLaw:
    """The law with the least squared error.

    Raises:
        DataError: the points are too few, or follow no power law.
    """
    if len(points) < FEWEST:
        raise DataError(
            f"a fit of three numbers needs {FEWEST} runs that differ in FLOPs and of "
            f"which none is beaten by a cheaper one, here are {len(points)}; train more"
        )
    flops = np.array([point.flops for point in points])
    losses = np.array([point.loss for point in points])
    middle = float(np.exp(np.log(flops).mean()))
    low, high = EXPONENTS
    for _ in range(4):
        tried = np.geomspace(low, high, 200)
        errors = [_linear(flops / middle, losses, exponent)[2] for exponent in tried]
        best = int(np.argmin(errors))
        low, high = tried[max(0, best - 1)], tried[min(len(tried) - 1, best + 1)]
    exponent = float(tried[best])
    floor, scale, error = _linear(flops / middle, losses, exponent)
    if not EXPONENTS[0] * 1.01 < exponent < EXPONENTS[1] / 1.01:
        raise DataError(
            f"the exponent is not within {EXPONENTS}: these {len(points)} runs follow "
            "no power law; train some of much more or less compute"
        )
    return ScalingLaw(
        floor=floor, scale=scale * middle**exponent, exponent=exponent, error=error
    )


def _linear(
    flops: Float[np.ndarray, " run"], losses: Float[np.ndarray, " run"], exponent: float
) -> tuple[float, float, float]:
    """Floor (at least 0) and scale of least squared error, and that error's root."""
    powers = flops**-exponent
    columns = np.stack([np.ones_like(powers), powers], axis=1)
    floor, scale = np.linalg.lstsq(columns, losses)[0]
    if floor < 0:
        floor, scale = 0.0, powers @ losses / (powers @ powers)
    error = np.sqrt(np.mean((floor + scale * powers - losses) ** 2))
    return float(floor), float(scale), float(error)


def plot(points: Sequence[Point], law: ScalingLaw, label: str, path: Path) -> None:
    """Write a picture of the runs and the law through them.

    Args:
        points: the runs.
        law: fitted to them.
        label: of the losses.
        path: of the picture; its ending says the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([p.flops for p in points], [p.loss for p in points], zorder=2)
    for point in points:
        axes.annotate(point.run, (point.flops, point.loss), fontsize=7)
    ends = points[0].flops / 2, points[-1].flops * 10
    line = np.geomspace(*ends, 200)
    words = f"{law.floor:.3g} + {law.scale:.3g} $C^{{-{law.exponent:.3g}}}$"
    axes.plot(line, [law.loss(flops) for flops in line], label=words, zorder=1)
    axes.set(xlabel="training FLOPs $C$", ylabel=label, xscale="log")
    axes.legend()
    figure.savefig(path, dpi=110)
