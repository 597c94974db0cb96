"""How much training neighbours save, at equal held-out loss.

python benchmarks/retrieval_compute.py --shards SHARDS --tokenizers TOKENIZERS
    [--steps 300] [--rows 48] [--picture curve.png]

SHARDS has the folders train and val_concept, with neighbours; the picture needs the
extra [evaluation]. The shipped shape is trained twice from nothing, on rows without and
with two neighbours, as many ids a step, and validated as it was trained. In 40 % of the
rows with neighbours the document may be one of them, as in the shipped recipe: a model
of this size does not learn to look at real ones alone (docs/log.md). Prints nats per
image code against training FLOPs and, where one reaches a loss of the other, the ratio
of their compute. The learning rate is constant after its warm-up, so that every point
is one of a longer training.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cm3leon.data.shards import Shards
from cm3leon.data.stream import StreamConfig, TokenStream
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer
from cm3leon.objective.cm3 import CM3Config
from cm3leon.randomness import torch_generator
from cm3leon.tokens.vocabulary import Vocabulary
from cm3leon.training.loop import LoopConfig, Run, validate
from cm3leon.training.optimizer import Optimizer, OptimizerConfig
from cm3leon.training.pretrain import Parts, held_out_batches

SLOT = 32
ITSELF = 0.4
MIXTURE = {"core": 0.62, "avatar": 0.12, "mono": 0.1, "skin": 0.1, "icon": 0.06}


def run_of(
    shards: Path, vocabulary: Vocabulary, neighbours: int, steps: int, rows: int
) -> Run:
    """A training that has not begun."""
    shape = preset("shipped", vocabulary_size=vocabulary.size, context=None)
    model = Transformer(shape, torch_generator(0, "parameters"))
    shares = (*[0.0] * neighbours, 1.0)
    config = StreamConfig(
        shards=str(shards / "train"),
        mixture=MIXTURE,
        rows=rows,
        isolate_documents=True,
        position_slot=SLOT,
        first_alternative=0.2,
        neighbours=shares,
        itself=ITSELF if neighbours else 0.0,
    )
    objective = CM3Config(mean_spans=0.5, whole_segment_share=0.5)
    context = model.config.context
    rates = OptimizerConfig(
        kind="muon", learning_rate=2e-3, warmup_steps=20, decay="constant"
    )
    return Run(
        model,
        Optimizer(model, rates, steps),
        TokenStream(config, objective, vocabulary, context, seed=0),
        vocabulary,
        LoopConfig(steps=steps),
    )


def curve(
    run: Run, shards: Path, neighbours: int, every: int
) -> Iterator[tuple[float, float]]:
    """FLOPs so far, and nats per held-out code after them."""
    held_out = held_out_batches(
        Shards(shards / "val_concept"),
        run.vocabulary,
        run.model.config.context,
        SLOT,
        neighbours,
    )
    spent = 0.0
    for number in range(run.config.steps):
        run.step(number)
        if (number + 1) % every == 0:
            spent += run.take()["flops"]
            loss = validate(run.model, held_out, run.vocabulary, None)
            yield spent, loss["validation/image"]


def ratio(plain: np.ndarray, near: np.ndarray) -> str:
    """Compute without neighbours over compute with them, at the last common loss."""
    level = max(plain[-1, 1], near[-1, 1])
    needed = [
        float(np.interp(-level, -points[:, 1], points[:, 0]))
        for points in (plain, near)
    ]
    return f"at {level:.2f} nats per code: {needed[0] / needed[1]:.2f}"


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--tokenizers", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()
    vocabulary = Parts.load(arguments.tokenizers).vocabulary
    curves = {}
    print("| neighbours | training PFLOPs | nats per held-out code |")
    print("|---:|---:|---:|")
    for neighbours in (0, 2):
        run = run_of(
            arguments.shards, vocabulary, neighbours, arguments.steps, arguments.rows
        )
        points = []
        for flops, nats in curve(run, arguments.shards, neighbours, arguments.every):
            points.append((flops, nats))
            print(f"| {neighbours} | {flops / 1e15:.3f} | {nats:.3f} |", flush=True)
        curves[neighbours] = np.array(points)
    print(f"compute without over with neighbours, {ratio(curves[0], curves[2])}")
    if arguments.picture:
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
        for neighbours, points in curves.items():
            axes.plot(
                points[:, 0] / 1e15, points[:, 1], label=f"{neighbours} neighbours"
            )
        axes.set(
            xlabel="training PFLOPs", ylabel="nats per held-out code", xscale="log"
        )
        axes.legend()
        figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
