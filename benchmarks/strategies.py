"""Ways to draw, by how near to real and how true to the words their pictures are.

python benchmarks/strategies.py --data CORPUS --alignment alignment.safetensors
    [--model FOLDER] [--split test_style] [--pictures 128] [--seeds 3] [--most 8]
    [--picture strategies.png]

For each way and each number of candidates, of which the bi-encoder keeps the one that
agrees best with the words (Yu et al. 2023, §3.1 and Fig. 4): the Fréchet distance to
the captions' own pictures and the alignment with their words, both by networks that do
not choose; mean and spread over the seeds. The pool takes every second candidate from
CD-K. What a way does not say is as in the model's own options. Needs [evaluation].
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import cm3leon
from cm3leon.cli.bar import bar
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.pool import strategies
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.drawing import colour_pictures, draw_captions
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.evaluation.frechet import frechet_distance
from cm3leon.images.pixels import square

POOL = "pool"


def ways(options: GenerationOptions) -> dict[str, GenerationOptions]:
    """Name -> options, all but the pool."""
    plain = replace(options, guidance_scale=1.0, top_p=1.0)
    found = {
        f"temperature {t:g}": replace(plain, temperature=t) for t in (0.5, 0.7, 1.0)
    }
    found["top-p 0.9"] = replace(options, guidance_scale=1.0, top_p=0.9)
    for scale in (1.5, 2.0, 3.0, 5.0, 7.0):
        found[f"guidance {scale:g}"] = replace(options, guidance_scale=scale)
    found["CD-K"] = strategies(options)[1]
    return found


class Candidates:
    """Pictures of captions, candidate by candidate, and what each is worth.

    Args:
        features: candidates captions width.
        scores: candidates captions, by the bi-encoder.
    """

    def __init__(self, features: torch.Tensor, scores: np.ndarray) -> None:
        self.features, self.scores = features, scores

    @classmethod
    def of(
        cls,
        engine: Engine,
        see: PictureFeatures,
        captions: Sequence[str],
        options: GenerationOptions,
        seeds: Sequence[int],
    ) -> "Candidates":
        """Draw one candidate of each caption a seed."""
        features, scores = [], []
        for seed in seeds:
            drawn = draw_captions(engine, captions, replace(options, seed=seed))
            features.append(see(drawn))
            scores.append(engine.retriever.agreement(captions, drawn))
        return cls(torch.stack(features), np.array(scores))

    def best(self, count: int) -> torch.Tensor:
        """Features of the best of the first `count`, for each caption."""
        chosen = torch.from_numpy(self.scores[:count].argmax(0))
        return self.features[chosen, torch.arange(len(chosen))]

    def with_every_second_of(self, other: "Candidates") -> "Candidates":
        """The paper's pool: half of these, half of others."""
        features, scores = self.features.clone(), self.scores.copy()
        features[1::2] = other.features[: len(scores) // 2]
        scores[1::2] = other.scores[: len(scores) // 2]
        return Candidates(features, scores)


def chart(rows: dict[str, dict[int, np.ndarray]], path: Path) -> None:
    """Both measures against the number of candidates, a line a way."""
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    for name, counts in rows.items():
        means = np.array([values.mean(0) for values in counts.values()])
        for column, axes in enumerate(sides):
            axes.plot(list(counts), means[:, column], marker=".", label=name)
    for axes, label in zip(sides, ("Fréchet distance", "alignment"), strict=True):
        axes.set(xlabel="candidates", ylabel=label, xscale="log")
        axes.set_xticks(list(counts), [str(count) for count in counts])
    sides[1].legend(fontsize="xx-small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--alignment", required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--split", default="test_style")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=8, help="candidates, a power of 2")
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()
    engine = cm3leon.load(arguments.model, compiled=True)
    see, read = PictureFeatures(), TextFeatures()
    alignment = Alignment.load(arguments.alignment)
    pictures = colour_pictures(arguments.data, arguments.split, arguments.pictures)
    captions = [one.caption for one in pictures]
    side = engine.image_tokenizer.pixels
    real = see([square(one.image, side) for one in pictures])
    words = read([one.label for one in pictures])
    counts = [1 << n for n in range(arguments.most.bit_length())]
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    asked = ways(engine.options)
    base = f"guidance {engine.options.guidance_scale:g}"
    asked.setdefault(base, engine.options)
    with bar("Drawing", arguments.seeds * len(asked)) as at:
        for seed in range(arguments.seeds):
            seeds = range(seed * arguments.most, (seed + 1) * arguments.most)
            drawn = {}
            for name, options in asked.items():
                at(seed * len(asked) + len(drawn))
                drawn[name] = Candidates.of(engine, see, captions, options, seeds)
            drawn[POOL] = drawn[base].with_every_second_of(drawn["CD-K"])
            for name, candidates in drawn.items():
                for count in counts:
                    seen = candidates.best(count)
                    pair = (
                        frechet_distance(seen, real),
                        float(alignment.score(seen, words).mean()),
                    )
                    found.setdefault(name, {}).setdefault(count, []).append(pair)
    rows = {
        name: {count: np.array(pairs) for count, pairs in by_count.items()}
        for name, by_count in found.items()
    }
    print(f"{len(pictures)} captions of {arguments.split}; {see.name}")
    print("| way | candidates | Fréchet distance | alignment |")
    print("|---|---:|---:|---:|")
    for name, by_count in rows.items():
        for count, values in by_count.items():
            (distance, score), (far, off) = values.mean(0), values.std(0)
            print(
                f"| {name} | {count} | {distance:.0f} ± {far:.0f} "
                f"| {score:.3f} ± {off:.3f} |"
            )
    if arguments.picture:
        chart(rows, arguments.picture)


if __name__ == "__main__":
    main()
