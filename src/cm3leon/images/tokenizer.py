"""Pictures <-> codes: the one place that knows sizes, codes per image and codebook."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cm3leon import fingerprints
from cm3leon.errors import CheckpointError, ConfigError, RequestError
from cm3leon.images.pixels import square, to_images, to_tensor
from cm3leon.images.quantizer import QuantizerConfig
from cm3leon.images.vqgan import VQGAN, VQGANConfig
from cm3leon.precision import autocast


class ImageTokenizer:
    """A trained VQGAN as a two-way dictionary between pictures and codes."""

    def __init__(self, vqgan: VQGAN) -> None:
        self.vqgan = vqgan.eval().requires_grad_(False)
        self.vqgan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def pixels(self) -> int:
        """Side of the pictures it draws."""
        return self.vqgan.config.pixels

    @property
    def codes_per_image(self) -> int:
        """Codes of one picture, in raster order of a square grid."""
        return self.vqgan.config.codes_per_image

    @property
    def codebook_size(self) -> int:
        """Codes run from 0 to this, exclusive."""
        return self.vqgan.config.quantizer.codebook_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what makes codes, in hexadecimal: encoder and codebook.

        Codes of one fingerprint mean the same, whatever has become of the decoder, and
        whether the weights are stored in fp32 or, as in a model folder, in fp16.
        """
        parts = ("encoder.", "to_code.", "quantizer.codebook")
        weights = self.vqgan.state_dict().items()
        return fingerprints.of_weights(
            {name: tensor.half() for name, tensor in weights if name.startswith(parts)}
        )

    @torch.inference_mode()
    def encode(
        self, images: Sequence[Image.Image], batch: int = 64
    ) -> Int[Tensor, "batch code"]:
        """Codes of pictures of any size: the centre square, scaled, on white.

        The convolutions run in bf16 where the processor has it; near ties between two
        codes may fall otherwise in fp32.
        """
        parts = [torch.empty(0, self.codes_per_image, dtype=torch.long)]
        for start in range(0, len(images), batch):
            squares = [square(x, self.pixels) for x in images[start : start + batch]]
            pixels = to_tensor(squares).to(memory_format=torch.channels_last)
            with autocast():
                parts.append(self.vqgan.encode(pixels))
        return torch.cat(parts)

    @torch.inference_mode()
    def decode(self, codes: Int[Tensor, "batch code"]) -> list[Image.Image]:
        """Pictures from codes.

        Raises:
            RequestError: another number of codes, a code outside the codebook, or no
                decoder.
        """
        self.check_decodes()
        if codes.shape[1] != self.codes_per_image:
            raise RequestError(
                f"a picture has {self.codes_per_image} codes, not {codes.shape[1]}"
            )
        if len(codes) == 0:
            return []
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.codebook_size:
            raise RequestError(
                f"codes run from 0 to {self.codebook_size - 1}; got {low} to {high}"
            )
        return to_images(self.vqgan.decode(codes))

    def check_decodes(self) -> None:
        """Whether pictures can be drawn, asked before any work.

        Raises:
            RequestError: there is no decoder.
        """
        if not self.vqgan.config.decodes:
            raise RequestError(
                "this image tokenizer came without its decoder: it reads pictures and "
                "draws none; import the model again with the decoder's file"
            )

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write `config.json` and `model.safetensors` (without training statistics).

        With `half` the weights are stored in fp16.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(asdict(self.vqgan.config), indent=1)
        (folder / "config.json").write_text(config + "\n")
        tensors = {
            name: (tensor.half() if half else tensor).contiguous()
            for name, tensor in self.vqgan.state_dict().items()
            if name not in ("quantizer.counts", "quantizer.sums")
        }
        save_file(tensors, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: str | Path) -> "ImageTokenizer":
        """Read what `save` wrote; half-precision weights are widened to fp32.

        Raises:
            CheckpointError: a file is missing, or the weights do not fit the shape.
        """
        folder = Path(folder)
        config = shape_of(folder)
        try:
            tensors = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} holds no image tokenizer ({error})"
            ) from error
        vqgan = VQGAN(config)
        if "quantizer.sums" in vqgan.state_dict() and "quantizer.codebook" in tensors:
            # training that goes on from here averages on from this codebook
            codebook = tensors["quantizer.codebook"].float()
            tensors["quantizer.counts"] = torch.ones(len(codebook))
            tensors["quantizer.sums"] = codebook.clone()
        try:
            vqgan.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{folder}/model.safetensors does not fit its config.json: {reason}"
            ) from error
        return cls(vqgan)


def shape_of(folder: Path) -> VQGANConfig:
    """The shape of the image tokenizer in a folder, whose weights are not read.

    Raises:
        CheckpointError: there is none, or its `config.json` is damaged.
    """
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
        return config_from(json.loads(text))
    except (OSError, ValueError, TypeError, KeyError, ConfigError) as error:
        raise CheckpointError(f"{folder} holds no image tokenizer ({error})") from error


def config_from(settings: dict[str, Any]) -> VQGANConfig:
    """The shape written in a `config.json`."""
    settings = dict(settings)
    settings["quantizer"] = QuantizerConfig(**settings["quantizer"])
    for name in ("multipliers", "attention"):
        settings[name] = tuple(settings[name])
    return VQGANConfig(**settings)
