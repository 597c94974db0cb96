"""PSNR, SSIM and codebook use of an image tokenizer on the held-out pictures.

python benchmarks/image_tokenizer.py --data CORPUS [--tokenizer FOLDER]

Beside it: each picture scaled down to as many bytes as its codes take, and up again.
Prints a Markdown table; the bar is 23.0 dB and 0.82 with 64 codes of 2,048.
"""

import argparse
import math
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from cm3leon.data.pictures import Pictures
from cm3leon.images.pixels import square
from cm3leon.images.quality import psnr, ssim
from cm3leon.images.tokenizer import ImageTokenizer


def scaled(picture: Image.Image, size: int) -> Image.Image:
    """The picture through `size` bytes of RGB pixels."""
    side = max(1, math.isqrt(size // 3))
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of `cm3leon data build`")
    parser.add_argument("--tokenizer", type=Path, default=None)
    arguments = parser.parse_args()
    folder = arguments.tokenizer or Path(str(files("cm3leon"))) / "shipped"
    if (folder / "image_tokenizer").exists():
        folder = folder / "image_tokenizer"
    tokenizer = ImageTokenizer.load(folder)
    size = math.ceil(tokenizer.codes_per_image * math.log2(tokenizer.codebook_size) / 8)
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    used: set[int] = set()
    for split in ("test_concept", "test_style"):
        pictures = Pictures.open(arguments.data, split)
        for start in range(0, len(pictures), 64):
            numbers = range(start, min(start + 64, len(pictures)))
            group = [pictures[index] for index in numbers]
            originals = [square(picture.image, tokenizer.pixels) for picture in group]
            codes = tokenizer.encode(originals)
            used |= set(codes.flatten().tolist())
            for picture, original, decoded in zip(
                group, originals, tokenizer.decode(codes), strict=True
            ):
                small = scaled(original, size)
                row = (
                    psnr(original, decoded),
                    ssim(original, decoded),
                    psnr(original, small),
                    ssim(original, small),
                )
                for name in ("all", split, str(picture.metadata.get("tier", "other"))):
                    rows[name].append(row)
    print(
        f"{tokenizer.codes_per_image} codes of {tokenizer.codebook_size} "
        f"= {size} bytes a picture of {tokenizer.pixels} px; "
        f"codebook used by the held-out pictures: "
        f"{len(used) / tokenizer.codebook_size:.1%} (bar 95 %)"
    )
    print("| pictures | n | PSNR, dB | SSIM | scaled to the same bytes: PSNR | SSIM |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, values in rows.items():
        a, b, c, d = np.mean(values, axis=0)
        print(f"| {name} | {len(values)} | {a:.2f} | {b:.3f} | {c:.2f} | {d:.3f} |")


if __name__ == "__main__":
    main()
