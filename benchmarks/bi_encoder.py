"""How well a bi-encoder finds pictures by words and words by pictures.

python benchmarks/bi_encoder.py --data CORPUS --encoder FOLDER
    [--alignment alignment.safetensors]

Recall at 1, 5 and 10 among all pictures of test_style and of test_concept, by their
main captions and by the bare names of what they show; any picture of the concept is
right. Beside it the frozen networks with one linear map of `benchmarks/alignment.py`.
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from cm3leon.data.pictures import Pictures
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.retrieval.encoder import BiEncoder
from cm3leon.training.bi_encoder import concept, recall


def line(split: str, asked: str, who: str, relevances: Tensor, right: Tensor) -> str:
    """A row of the table."""
    shares = [*recall(relevances, right), *recall(relevances.T, right)]
    return (
        f"| {split} | {asked} | {who} | "
        + " | ".join(f"{x:.1%}" for x in shares)
        + " |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--encoder", required=True, help="folder of a CLIPModel")
    parser.add_argument("--alignment", default=None)
    arguments = parser.parse_args()
    encoder = BiEncoder.load(arguments.encoder)
    alignment = Alignment.load(arguments.alignment) if arguments.alignment else None
    see, read = PictureFeatures(), TextFeatures()
    print(
        "| split | asked by | encoder | text to picture @1 | @5 | @10 | back @1 ",
        end="",
    )
    print("| @5 | @10 |")
    print("|---|---|---|" + "---:|" * 6)
    for split in ("test_style", "test_concept"):
        pictures = list(Pictures.open(arguments.data, split))
        images = [picture.image for picture in pictures]
        names = np.array([concept(picture) for picture in pictures])
        right = torch.from_numpy(names[:, None] == names[None, :])
        shown = encoder.images(images)
        seen = alignment.pictures(see(images)) if alignment else None
        for asked, texts in (
            ("caption", [picture.caption for picture in pictures]),
            ("name", [picture.label for picture in pictures]),
        ):
            ours = encoder.texts(texts) @ shown.T
            print(line(split, asked, "bi-encoder", ours, right), flush=True)
            if alignment is None or seen is None:
                continue
            theirs = alignment.texts(read(texts)) @ seen.T
            print(line(split, asked, "frozen networks, linear map", theirs, right))


if __name__ == "__main__":
    main()
