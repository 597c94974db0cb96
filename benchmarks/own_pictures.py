"""Twenty new pictures of a thing in no corpus, and what they change.

python benchmarks/own_pictures.py [--model FOLDER] [--seeds 8] [--sheet PNG]

Draws the pictures of a "zorbit" (a purple thing with yellow eyes), puts them into a
bank by `cm3leon memory add`, and draws "a zorbit" with the bank that ships and with
this one, the latter also with the neighbours in both lanes, where guidance does not
strengthen them. Said of each: the share of purple pixels, and the pictures with a tenth
of them or more.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import cm3leon
from cm3leon import Document, Text
from cm3leon.cli.main import main as command
from cm3leon.images.sheet import contact_sheet

PURPLE, YELLOW, BLACK = (128, 32, 192), (250, 220, 40), (20, 20, 20)
KINDS = ("round", "square", "pointed", "slanted")
EYES = ("one eye", "two eyes", "three eyes")
PROMPT = "a zorbit"


def zorbit(number: int, random: np.random.Generator) -> tuple[Image.Image, str]:
    """A picture of one and its caption."""
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    shade = tuple(map(int, np.clip(random.integers(-30, 30, 3) + PURPLE, 0, 255)))
    width, height = random.integers(120, 220, 2).tolist()
    left, top = (256 - width) // 2, (256 - height) // 2
    right, bottom = left + width, top + height
    kind, eyes = KINDS[number % 4], number % 3 + 1
    if kind == "round":
        pen.ellipse((left, top, right, bottom), fill=shade)
    elif kind == "square":
        pen.rounded_rectangle((left, top, right, bottom), radius=40, fill=shade)
    elif kind == "pointed":
        pen.polygon([(128, top), (right, bottom), (left, bottom)], fill=shade)
    else:
        pen.polygon([(128, top), (right, 128), (128, bottom), (left, 128)], fill=shade)
    for eye in range(eyes):
        x = 128 + 40 * (eye - (eyes - 1) / 2)
        pen.ellipse((x - 18, 125, x + 18, 161), fill=YELLOW)
        pen.ellipse((x - 7, 136, x + 7, 150), fill=BLACK)
    captions = (f"a {kind} zorbit with {EYES[eyes - 1]}", f"a {kind} zorbit")
    return image, captions[number % 2]


def write(folder: Path, count: int = 20) -> None:
    """A folder as `cm3leon data check` reads it."""
    random, lines = np.random.default_rng(0), []
    for number in range(count):
        image, text = zorbit(number, random)
        name = f"zorbit-{number:02d}.png"
        image.save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": text, "author": "me"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def purple(image: Image.Image) -> float:
    """Share of pixels that are."""
    red, green, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
    return float(((blue > 120) & (blue - green > 50) & (red - green > 20)).mean())


def main() -> None:
    """Draw, print, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sheet", type=Path, default=None)
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        pictures, bank = Path(place) / "zorbits", Path(place) / "bank"
        pictures.mkdir()
        write(pictures)
        command(["memory", "add", str(bank), str(pictures)])
        shipped = cm3leon.load(arguments.model)
        own = cm3leon.load(arguments.model, memory=bank)
        runs: dict[str, tuple[Any, dict[str, Any]]] = {
            "the bank that ships": (shipped, {}),
            "own pictures": (own, {}),
            "own pictures, in both lanes": (own, {"unconditional": "mask"}),
        }
        cells = [
            (f"neighbour: {one.document.text}", Image.open(pictures / one.document.key))
            for one in own.retriever.by_text([PROMPT], 2)[0]
        ]
        cells += [("", Image.new("RGB", (64, 64), "white"))] * (arguments.seeds - 2)
        print("| neighbours from | purple pixels | pictures with a tenth of them |")
        print("|---|---:|---:|")
        for name, (engine, more) in runs.items():
            options = replace(engine.options, **more)
            seeds = list(range(arguments.seeds))
            documents = [Document(Text(PROMPT))] * arguments.seeds
            drawn = engine.extend(documents, options, seeds=seeds)
            images = [document.images[-1].pixels for document in drawn]
            shares = [purple(image) for image in images]
            several = sum(share >= 0.1 for share in shares)
            print(f"| {name} | {np.mean(shares):.1%} | {several} of {len(shares)} |")
            cells += [(name, image) for image in images]
        if arguments.sheet:
            contact_sheet(cells, columns=arguments.seeds).save(arguments.sheet)


if __name__ == "__main__":
    main()
