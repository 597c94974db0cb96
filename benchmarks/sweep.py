"""Options of drawing, compared on the captions of val_concept, which is for choosing.

python benchmarks/sweep.py --data CORPUS --alignment alignment.safetensors
    [--model FOLDER] [--pictures 256] [--seeds 1] [--over NAME=VALUE,VALUE ...]

Every combination of the named options (`cm3leon.decoding.options`), for example
`--over guidance_scale=1.5,2 temperature=0.5,0.7` or `--over guidance_scale=1
contrast_k=3,10 contrast_alpha=0.1,0.5`; the rest is as the model's own options say.
Prints the Fréchet distance of the drawn pictures to the captions' own, and how well
they match the captions (alignment, `benchmarks/alignment.py`), beside that of the real
pictures, which is the limit. Needs the extra [evaluation].
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

import cm3leon
from cm3leon.cli.bar import bar
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.drawing import colour_pictures, draw_captions
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.evaluation.frechet import frechet_distance
from cm3leon.images.pixels import square

OVER = ("guidance_scale=1,1.5,2,3", "temperature=0.5,0.7,1", "top_p=0.9,1")


def values(over: str) -> tuple[str, list[int | float | str]]:
    """`"top_p=0.9,1"` -> ("top_p", [0.9, 1])."""
    name, _, words = over.partition("=")
    return name, [number(word) for word in words.split(",")]


def number(word: str) -> int | float | str:
    """A word as the number that it is, if it is one."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--alignment", required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--over", nargs="+", default=OVER, metavar="NAME=VALUE,VALUE")
    arguments = parser.parse_args()
    engine = cm3leon.load(arguments.model)
    over = dict(map(values, arguments.over))
    combined = [dict(zip(over, one, strict=True)) for one in product(*over.values())]
    asked = [replace(engine.options, **one) for one in combined]
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
    print(f"| {' | '.join(over)} | Fréchet distance | alignment |")
    print("|" + "---:|" * (len(over) + 2))
    rest = " |" * len(over)
    print(f"| real pictures{rest} 0 | {alignment.score(real, words).mean():.3f} |")
    print(
        f"| through their codes{rest} {frechet_distance(through, real):.1f} "
        f"| {alignment.score(through, words).mean():.3f} |"
    )
    with bar("Drawing", len(asked) * arguments.seeds) as at:
        for place, (one, options) in enumerate(zip(combined, asked, strict=True)):
            rows = []
            for seed in range(arguments.seeds):
                at(place * arguments.seeds + seed)
                drawn = draw_captions(engine, captions, replace(options, seed=seed))
                seen = see(drawn)
                score = float(alignment.score(seen, words).mean())
                rows.append((frechet_distance(seen, real), score))
            (distance, score), (far, off) = np.mean(rows, axis=0), np.std(rows, axis=0)
            print(
                f"| {' | '.join(map(str, one.values()))} | {distance:.1f} ± {far:.1f} "
                f"| {score:.3f} ± {off:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
