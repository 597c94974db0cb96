"""Fit the alignment measure on the train split and print what it can tell apart.

python benchmarks/alignment.py --data CORPUS --out alignment.safetensors [--pairs 9000]

Recall of the right picture among a held-out split's by its caption, and the way back.
A caption's concept counts: any picture of it is right. Needs the extra [evaluation].
"""

import argparse

import numpy as np
import torch

from cm3leon.data.pictures import Picture, Pictures
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.training.bi_encoder import concept, recall


def some(data: str, split: str, count: int) -> list[Picture]:
    """Up to `count` pictures of a split, the same on each run."""
    pictures = Pictures.open(data, split)
    order = np.random.default_rng(0).permutation(len(pictures))[:count]
    return [pictures[int(number)] for number in order]


def main() -> None:
    """Fit, save and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--out", required=True)
    parser.add_argument("--pairs", type=int, default=9000)
    arguments = parser.parse_args()
    see, read = PictureFeatures(), TextFeatures()
    pairs = some(arguments.data, "train", arguments.pairs)
    fitted = Alignment.fit(
        see([pair.image for pair in pairs]), read([pair.label for pair in pairs])
    )
    fitted.save(arguments.out)
    print(f"{see.name} -> {read.name}, fitted on {len(pairs):,} pairs of train")
    print("| split | pictures | text to picture @1 | @5 | picture to text @1 | @5 |")
    print("|---|---:|---:|---:|---:|---:|")
    for split in ("val_concept", "test_style", "test_concept"):
        held = some(arguments.data, split, 500)
        texts = fitted.texts(read([one.label for one in held]))
        seen = fitted.pictures(see([one.image for one in held]))
        names = np.array([concept(one) for one in held])
        right = torch.from_numpy(names[:, None] == names[None, :])
        there, back = recall(texts @ seen.T, right), recall(seen @ texts.T, right)
        print(
            f"| {split} | {len(held)} | {there[0]:.1%} | {there[1]:.1%} "
            f"| {back[0]:.1%} | {back[1]:.1%} |"
        )


if __name__ == "__main__":
    main()
