"""Options of drawing, compared on the captions of val_concept, which is for choosing.

python benchmarks/sweep.py --data CORPUS --alignment alignment.safetensors
    [--model FOLDER] [--pictures 256] [--seeds 1] [--scales 2,3,4,6]
    [--temperatures 0.7,1.0] [--top-p 0.9,1.0]

The rest is as the model's own options say. Prints the Fréchet distance of the drawn
pictures to the captions' own, and how well they match the captions (alignment,
`benchmarks/alignment.py`), beside that of the real pictures, which is the limit. Needs
the extra [evaluation].
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

import cm3leon
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.drawing import colour_pictures, draw_captions
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.evaluation.frechet import frechet_distance
from cm3leon.images.pixels import square


def numbers(words: str) -> list[float]:
    """`"2,3.5"` -> [2.0, 3.5]."""
    return [float(word) for word in words.split(",")]


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--alignment", required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scales", type=numbers, default=[2.0, 3.0, 4.0, 6.0])
    parser.add_argument("--temperatures", type=numbers, default=[0.7, 1.0])
    parser.add_argument("--top-p", type=numbers, default=[0.9, 1.0])
    arguments = parser.parse_args()
    engine = cm3leon.load(arguments.model)
    see, read = PictureFeatures(), TextFeatures()
    alignment = Alignment.load(arguments.alignment)
    pictures = colour_pictures(arguments.data, "val_concept", arguments.pictures)
    captions = [picture.caption for picture in pictures]
    side = engine.image_tokenizer.pixels
    originals = [square(picture.image, side) for picture in pictures]
    real = see(originals)
    words = read([one.label for one in pictures])
    decoded = engine.image_tokenizer.decode(engine.image_tokenizer.encode(originals))
    through = see(decoded)
    print(
        f"{len(pictures)} captions of val_concept, {arguments.seeds} seeds; {see.name}"
    )
    print("| guidance | temperature | top-p | Fréchet distance | alignment |")
    print("|---:|---:|---:|---:|---:|")
    print(f"| real pictures | | | 0 | {alignment.score(real, words).mean():.3f} |")
    print(
        f"| the same through their codes | | | {frechet_distance(through, real):.1f} "
        f"| {alignment.score(through, words).mean():.3f} |"
    )
    for scale, temperature, top_p in product(
        arguments.scales, arguments.temperatures, arguments.top_p
    ):
        rows = []
        for seed in range(arguments.seeds):
            options = replace(
                engine.options,
                guidance_scale=scale,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
            seen = see(draw_captions(engine, captions, options))
            score = float(alignment.score(seen, words).mean())
            rows.append((frechet_distance(seen, real), score))
        (distance, score), (far, off) = np.mean(rows, axis=0), np.std(rows, axis=0)
        spread = arguments.seeds > 1
        print(
            f"| {scale:g} | {temperature:g} | {top_p:g} "
            f"| {distance:.1f}{f' ± {far:.1f}' if spread else ''} "
            f"| {score:.3f}{f' ± {off:.3f}' if spread else ''} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
