"""A hidden centre drawn again: with the words, without, and filled with the mean.

python benchmarks/infilling.py --data CORPUS [--model FOLDER] [--split test_style]
    [--pictures 256] [--seeds 3] [--sheet sheet.png]

Of held-out colour pictures the middle 4 x 4 of 8 x 8 cells are hidden. Measured on
those pixels alone, mean and spread over the seeds: PSNR to the original, and the
Fréchet distance of the squares to the originals'. The limit is the original through its
codes. That no code outside has changed is asserted. Needs the extra [evaluation].
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Pixels

import cm3leon
from cm3leon.data.pictures import Picture
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.regions import cells_of_box
from cm3leon.evaluation.drawing import colour_pictures
from cm3leon.evaluation.features import PictureFeatures
from cm3leon.evaluation.frechet import frechet_distance
from cm3leon.images.pixels import square
from cm3leon.images.quality import psnr
from cm3leon.images.sheet import contact_sheet
from cm3leon.tokens.document import Document, Image, Text

BOX = (0.25, 0.25, 0.75, 0.75)
BATCH = 64
SHOWN = 6  # rows of the sheet


def centre(image: Pixels.Image) -> Pixels.Image:
    """The pixels that were hidden."""
    left, top, right, bottom = (round(share * image.width) for share in BOX)
    return image.crop((left, top, right, bottom))


def mean_filled(image: Pixels.Image) -> Pixels.Image:
    """The picture with its centre in the mean colour of the rest."""
    pixels = np.asarray(image).astype(float)
    left, top, right, bottom = (round(share * image.width) for share in BOX)
    around = np.ones(pixels.shape[:2], dtype=bool)
    around[top:bottom, left:right] = False
    pixels[top:bottom, left:right] = pixels[around].mean(0)
    return Pixels.fromarray(pixels.round().astype(np.uint8))


def filled(
    engine: Engine, pictures: Sequence[Picture], *, worded: bool, seed: int
) -> list[Pixels.Image]:
    """The pictures with their centres drawn again."""
    cells = cells_of_box(BOX, round(engine.codec.codes_per_image**0.5))
    options = replace(engine.options, seed=seed, neighbours=0)
    coded = engine.image_tokenizer.encode([one.image for one in pictures]).tolist()
    made: list[Pixels.Image] = []
    for start in range(0, len(pictures), BATCH):
        part = slice(start, start + BATCH)
        documents = [
            Document(
                *([Text(one.caption)] if worded else []), Image(codes=tuple(codes))
            )
            for one, codes in zip(pictures[part], coded[part], strict=True)
        ]
        drawn = engine.redraw(documents, [cells] * len(documents), options)
        for before, after in zip(documents, drawn, strict=True):
            old, new = before.images[-1].codes, after.images[-1].codes
            assert old and new
            assert all(old[i] == new[i] for i in range(len(old)) if i not in cells)
            pixels = after.images[-1].pixels
            assert pixels is not None
            made.append(pixels)
    return made


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--split", default="test_style")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sheet", type=Path, default=None)
    arguments = parser.parse_args()
    engine = cm3leon.load(arguments.model)
    see = PictureFeatures()
    pictures = colour_pictures(arguments.data, arguments.split, arguments.pictures)
    tokenizer = engine.image_tokenizer
    real = [square(one.image, tokenizer.pixels) for one in pictures]
    original = see([centre(one) for one in real])
    ways: dict[str, list[list[Pixels.Image]]] = {
        "through its codes": [tokenizer.decode(tokenizer.encode(real))],
        "mean colour": [[mean_filled(one) for one in real]],
    }
    for name, worded in (("with the words", True), ("without", False)):
        ways[name] = [
            filled(engine, pictures, worded=worded, seed=seed)
            for seed in range(arguments.seeds)
        ]
    print(f"{len(pictures)} pictures of {arguments.split}; {see.name}")
    print("| centre | PSNR, dB | Fréchet distance |")
    print("|---|---:|---:|")
    for name, versions in ways.items():
        rows = []
        for images in versions:
            squares = [centre(one) for one in images]
            pairs = zip(map(centre, real), squares, strict=True)
            rows.append(
                (
                    float(np.mean([psnr(*pair) for pair in pairs])),
                    frechet_distance(see(squares), original),
                )
            )
        (close, far), (less, off) = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"| {name} | {close:.2f} ± {less:.2f} | {far:.0f} ± {off:.0f} |")
    if arguments.sheet:
        cells = []
        for row, picture in enumerate(pictures[:SHOWN]):
            hidden = mean_filled(real[row])
            cells += [(picture.caption, real[row]), ("hidden", hidden)]
            cells += [
                (f"{name}, seed {seed}", ways[name][seed][row])
                for name in ("with the words", "without")
                for seed in range(min(2, arguments.seeds))
            ]
        contact_sheet(cells, columns=2 + 2 * min(2, arguments.seeds)).save(
            arguments.sheet
        )


if __name__ == "__main__":
    main()
