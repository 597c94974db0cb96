"""PIL pictures <-> float tensors in [-1, 1].

Preprocessing follows the successor's (Chameleon): transparency on white, short side to
the target with Lanczos, centre crop; decoded pixels are clamped (docs/paper.md).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def on_white(image: Image.Image) -> Image.Image:
    """The picture in RGB, its transparent parts white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        ground.alpha_composite(layered)
        return ground.convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, side: int) -> Image.Image:
    """The centre square of a picture, in RGB on white, `side` pixels wide."""
    image = on_white(image)
    if image.size == (side, side):
        return image
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, top, left + edge, top + edge)
    return image.resize((side, side), Image.Resampling.LANCZOS, box=box)


def to_tensor(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """Equally large RGB pictures as one tensor in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """A tensor in [-1, 1] (values outside are clamped) as RGB pictures."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    arrays = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]
