"""Text and pictures as unit vectors of one space: a frozen CLIP. Yu et al. 2023, §2.1.

    d = (t + i) / |t + i|      the vector of a document
    r(q, m) = <q, m>           its relevance to another one, at most 1

t, i: unit vectors of its text and of its picture, encoded apart; d is the one there is
where the other is missing.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize

from cm3leon import fingerprints
from cm3leon.errors import CheckpointError, RequestError
from cm3leon.images.pixels import on_white
from cm3leon.precision import autocast


class BiEncoder:
    """Two towers of any `CLIPModel` of transformers, as a folder holds them.

    Args:
        model: a `CLIPModel`.
        tokenizer: its fast tokenizer; texts begin and end as the text tower expects.
        processor: its `CLIPImageProcessorPil`, which needs no torchvision.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.processor = processor

    @classmethod
    def load(cls, path: str | Path) -> "BiEncoder":
        """Read a folder, or the model of a hub's name: openai/clip-vit-base-patch32.

        Half-precision weights are widened to fp32.

        Raises:
            CheckpointError: nothing is there, a file is missing or damaged, it is no
                `CLIPModel`, or its files are not of one model.
        """
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        source = source_of(path)
        with _quiet():
            with _named(path, "CLIPModel"):
                model = _model(CLIPModel, source)
            with _named(path, "tokenizer of a CLIPModel"):
                tokenizer = AutoTokenizer.from_pretrained(source)
            with _named(path, "preprocessor_config.json of a CLIPModel"):
                processor = CLIPImageProcessorPil.from_pretrained(source)
            encoder = cls(model, tokenizer, processor)
            with _named(path, "CLIPModel"):
                encoder._check()
        return encoder

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write a folder that `load` and transformers read; other files in it stay.

        Everything is written beside its place and then moved. With `half` the weights
        are stored in fp16, so that what is loaded has another `fingerprint`.

        Raises:
            CheckpointError: it could not be written.
        """
        folder = Path(folder)
        partial = folder / ".partial"
        weights = {
            name: tensor.half() if half else tensor
            for name, tensor in self.model.state_dict().items()
        }
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with _quiet():
                self.model.save_pretrained(partial, state_dict=weights)
                self.tokenizer.save_pretrained(partial)
                self.processor.save_pretrained(partial)
            for file in sorted(partial.iterdir()):
                file.replace(folder / file.name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the bi-encoder was not written to {folder} ({error}); free some "
                "space or choose another folder, and save again"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.model.config.projection_dim)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, in hexadecimal.

        Vectors of one fingerprint can be compared.
        """
        return fingerprints.of_weights(self.model.state_dict())

    @torch.inference_mode()
    def texts(
        self, texts: Sequence[str], batch: int = 64
    ) -> Float[Tensor, "text width"]:
        """Unit vectors of texts, fp32; what exceeds the tower's context is cut off.

        Raises:
            RequestError: a text holds half a surrogate pair.
        """
        parts = [torch.empty(0, self.width)]
        for start in range(0, len(texts), batch):
            ids, mask = self.read(texts[start : start + batch])
            with autocast():
                parts.append(self.text_vectors(ids, mask))
        return torch.cat(parts)

    @torch.inference_mode()
    def images(
        self, images: Sequence[Image.Image], batch: int = 64
    ) -> Float[Tensor, "image width"]:
        """Unit vectors of pictures of any size, fp32; white shows through them."""
        parts = [torch.empty(0, self.width)]
        for start in range(0, len(images), batch):
            pixels = self.pixels(images[start : start + batch])
            with autocast():
                parts.append(self.image_vectors(pixels))
        return torch.cat(parts)

    def read(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "text time"], Int[Tensor, "text time"]]:
        """Ids of texts, padded to the longest, and 1 where they are no padding."""
        try:
            read = self.tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            )
        except TypeError as error:  # what the library says of half a surrogate pair
            raise RequestError(
                "a text cannot be read; is half a surrogate pair in it?"
            ) from error
        return read["input_ids"], read["attention_mask"]

    def pixels(
        self, images: Sequence[Image.Image]
    ) -> Float[Tensor, "image 3 side side"]:
        """Pictures as the image tower reads them: scaled, cropped, normalised."""
        white = [on_white(image) for image in images]
        pixels: Tensor = self.processor(white, return_tensors="pt")["pixel_values"]
        return pixels

    def text_vectors(
        self, ids: Int[Tensor, "text time"], mask: Int[Tensor, "text time"]
    ) -> Float[Tensor, "text width"]:
        """Unit vectors, fp32, of what `read` gives; gradients flow."""
        tower = self.model.text_model(input_ids=ids, attention_mask=mask)
        vectors = self.model.text_projection(tower.pooler_output)
        return normalize(vectors.float(), dim=-1)

    def image_vectors(
        self, pixels: Float[Tensor, "image 3 side side"]
    ) -> Float[Tensor, "image width"]:
        """Unit vectors, fp32, of what `pixels` gives; gradients flow."""
        tower = self.model.vision_model(pixel_values=pixels)
        vectors = self.model.visual_projection(tower.pooler_output)
        return normalize(vectors.float(), dim=-1)

    def _check(self) -> None:
        """Do tokenizer, processor and model belong together?"""
        ids, rows = len(self.tokenizer), self.model.config.text_config.vocab_size
        if self.tokenizer.pad_token is None or not rows / 2 < ids <= rows:
            raise CheckpointError(
                f"its tokenizer has {ids} ids, the text tower {rows}; use one model's"
            )
        made = self.pixels([Image.new("RGB", (8, 9))]).shape[-1]
        side = self.model.config.vision_config.image_size
        if made != side:
            raise CheckpointError(
                f"pictures are scaled to {made} pixels, the image tower reads {side}"
            )


def document_vectors(
    texts: Float[Tensor, "doc width"] | None,
    images: Float[Tensor, "doc width"] | None,
    *,
    renormalise: bool = True,
) -> Float[Tensor, "doc width"]:
    """Vectors of documents from the unit vectors of their parts. Yu et al. 2023, §2.1.

    Args:
        texts: of their texts; None if they have none.
        images: of their pictures; None if they have none.
        renormalise: make means unit vectors again, so that a relevance is a cosine;
            the authors' code is silent about it (docs/paper.md).

    Raises:
        RequestError: both parts are missing.
    """
    if texts is None or images is None:
        only = texts if images is None else images
        if only is None:
            raise RequestError("a document has neither text nor picture; give one")
        return only
    mean = (texts + images) / 2
    return normalize(mean, dim=-1) if renormalise else mean


def source_of(path: str | Path) -> str:
    """A folder that exists, or a name that may be one of the hub.

    Raises:
        CheckpointError: it can be neither.
    """
    name = str(path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    if isinstance(path, Path) or name.count("/") != 1 or name[0] in "./~":
        raise CheckpointError(
            f"{path} is no folder; a bi-encoder is what cm3leon train bi-encoder "
            "writes, or the hub's name of a CLIPModel"
        )
    return name


def _model(kind: Any, source: str) -> Any:
    settings, _ = kind.config_class.get_config_dict(source)
    if settings.get("model_type") != "clip":
        raise CheckpointError(
            f"its config.json says {settings.get('model_type')!r}, not 'clip'"
        )
    model, report = kind.from_pretrained(
        source,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report, and named below
    )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"its weights lack {missing[0]}")
    if other := sorted(report["mismatched_keys"]):
        name, found, needed = other[0]
        raise CheckpointError(
            f"{name} is {list(found)}, its config.json needs {list(needed)}"
        )
    return model


@contextmanager
def _named(path: str | Path, what: str) -> Iterator[None]:
    """Whatever goes wrong in the block, in one line that names `path`."""
    try:
        yield
    except Exception as error:  # transformers raises many kinds for a damaged file
        reason = shorten(str(error) or type(error).__name__, 200)
        raise CheckpointError(f"{path} holds no {what}: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports; errors are enough."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
