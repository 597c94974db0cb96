"""What 0, 1, 2 and 3 retrieved neighbours do for pictures that were never trained on.

python benchmarks/retrieval_ablation.py --data CORPUS --shards SHARDS
    --alignment alignment.safetensors [--model FOLDER] [--pictures 640] [--seeds 3]
    [--neighbours 0,1,2,3] [--sheet sheet.png]

For captions of test_style and of test_concept, none of whose pictures is in the bank:
the Fréchet distance of drawn to real pictures and the alignment with the words, mean
and spread over the seeds, both by networks that do not retrieve; and nats per image
code over the whole split, the neighbours found by the caption as at a prompt. Beside it
what real pictures reach through the image tokenizer, which is the limit. Needs the
extra [evaluation]. The sheet shows prompts, neighbours and drawings.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cm3leon
from cm3leon.data.pictures import Pictures
from cm3leon.data.shards import Shards
from cm3leon.decoding.engine import Engine
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.drawing import draw_captions
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.evaluation.frechet import frechet_distance
from cm3leon.evaluation.likelihood import Reader, Retrieved, held_out_loss
from cm3leon.images.pixels import square
from cm3leon.images.sheet import contact_sheet
from cm3leon.retrieval.retriever import Retriever

SPLITS = ("test_style", "test_concept")
SHOWN = (  # on the sheet
    "a flat emoji of a red heart",
    "a rendered 3d emoji of a red apple",
    "a grinning face, flat colour emoji",
    "a shaded emoji of an orange heart",
    "an evergreen tree",
    "a flat avatar of a person with long brown hair smiling in a red shirt",
)


def nats(engine: Engine, retriever: Retriever, shards: Path, count: int) -> float:
    """Per image code over a split, under the captions with their neighbours."""
    opened = Shards(shards)
    records = [opened[number] for number in range(len(opened))]
    found = Retrieved(records, retriever, engine.codec, count) if count else None
    reader = Reader(
        engine.model, engine.codec.vocabulary, engine.position_slot, neighbours=found
    )
    return held_out_loss(reader, records).image


def sheet(engine: Engine, retriever: Retriever, numbers: list[int]) -> Image.Image:
    """A row a prompt: the first two neighbours, then a drawing for each number."""
    cells: list[tuple[str, Image.Image]] = []
    drawings = {
        count: draw_captions(
            engine, SHOWN, replace(engine.options, neighbours=count, seed=0)
        )
        for count in numbers
    }
    for row, prompt in enumerate(SHOWN):
        for one in retriever.by_text([prompt], 2)[0]:
            (picture,) = engine.image_tokenizer.decode(
                torch.tensor([one.document.codes])
            )
            cells.append((f"found: {one.document.text}", picture))
        for count in numbers:
            cells.append((f"{count} neighbours: {prompt}", drawings[count][row]))
    return contact_sheet(cells, columns=2 + len(numbers))


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--alignment", required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=640)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--neighbours", default="0,1,2,3")
    parser.add_argument("--sheet", type=Path, default=None)
    arguments = parser.parse_args()
    numbers = [int(word) for word in arguments.neighbours.split(",")]
    engine = cm3leon.load(arguments.model)
    retriever = engine.retriever
    assert isinstance(retriever, Retriever)
    if arguments.sheet:
        sheet(engine, retriever, [n for n in numbers if n < 3]).save(arguments.sheet)
    see, read = PictureFeatures(), TextFeatures()
    alignment = Alignment.load(arguments.alignment)
    print(f"{arguments.pictures} captions a split, {arguments.seeds} seeds; {see.name}")
    print("| split | neighbours | Fréchet distance | alignment | nats per code |")
    print("|---|---|---:|---:|---:|")
    for split in SPLITS:
        opened = Pictures.open(arguments.data, split)
        order = np.random.default_rng(0).permutation(len(opened))
        pictures = [opened[int(one)] for one in order[: arguments.pictures]]
        captions = [picture.caption for picture in pictures]
        labels = [one.label for one in pictures]
        words = read(labels)
        side = engine.image_tokenizer.pixels
        originals = [square(picture.image, side) for picture in pictures]
        real = see(originals)
        through = see(
            engine.image_tokenizer.decode(engine.image_tokenizer.encode(originals))
        )
        print(
            f"| {split} | real, through codes | {frechet_distance(through, real):.1f} "
            f"| {alignment.score(through, words).mean():.3f} | |",
            flush=True,
        )
        for count in numbers:
            rows = []
            for seed in range(arguments.seeds):
                options = replace(engine.options, neighbours=count, seed=seed)
                seen = see(draw_captions(engine, captions, options))
                score = float(alignment.score(seen, words).mean())
                rows.append((frechet_distance(seen, real), score))
            (distance, score), (far, off) = np.mean(rows, axis=0), np.std(rows, axis=0)
            loss = nats(engine, retriever, arguments.shards / split, count)
            print(
                f"| {split} | {count} | {distance:.1f} ± {far:.1f} "
                f"| {score:.3f} ± {off:.3f} | {loss:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
