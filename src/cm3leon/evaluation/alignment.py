"""How well a picture shows what its words say: a linear map between two networks.

    W = argmin_W sum_i |W f_i - t_i|^2 + p |W|^2    f: of pictures, t: of texts
    alignment(x, words) = cos(W f(x), t(words))

A small CLIP made of frozen parts (features.py) and one ridge regression on captioned
pictures. It is no CLIP score and compares with none; it tells models of one corpus
apart.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from cm3leon.errors import CheckpointError


@dataclass(frozen=True)
class Alignment:
    """A fitted map."""

    centre: Float[Tensor, " width"]  # mean of the features it was fitted on
    origin: Float[Tensor, " text_width"]  # and of the text vectors
    weight: Float[Tensor, "width text_width"]

    @classmethod
    def fit(
        cls,
        features: Float[Tensor, "pair width"],
        vectors: Float[Tensor, "pair text_width"],
        penalty: float = 30.0,
    ) -> "Alignment":
        """Fit on pairs of picture features and unit vectors of their captions.

        Args:
            features: of pictures.
            vectors: of their captions.
            penalty: p in the formula above, times the mean square of a feature.
        """
        centre, origin = features.double().mean(0), vectors.double().mean(0)
        x, y = features.double() - centre, vectors.double() - origin
        ridge = penalty * x.square().mean() * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
        return cls(centre.float(), origin.float(), weight.float())

    def pictures(
        self, features: Float[Tensor, "picture width"]
    ) -> Float[Tensor, "picture text_width"]:
        """Pictures' unit vectors in the space of texts."""
        return normalize((features - self.centre) @ self.weight, dim=-1)

    def texts(
        self, vectors: Float[Tensor, "text text_width"]
    ) -> Float[Tensor, "text text_width"]:
        """Texts' unit vectors there."""
        return normalize(vectors - self.origin, dim=-1)

    def score(
        self,
        features: Float[Tensor, "pair width"],
        vectors: Float[Tensor, "pair text_width"],
    ) -> Float[Tensor, " pair"]:
        """The alignment of each picture with its text, in [-1, 1]."""
        return (self.pictures(features) * self.texts(vectors)).sum(-1)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        save_file({name: part.contiguous() for name, part in vars(self).items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Alignment":
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or of another kind.
        """
        try:
            parts = load_file(path)
            return cls(parts["centre"], parts["origin"], parts["weight"])
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} holds no alignment ({error!r})") from error
