"""Which ids may come next: image codes, or text until a stop.

Only legal ids are scored, so columns of logits are places in `Constraint.ids`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.tokens.codec import Codec

Kind = Literal["image", "text"]


@dataclass(frozen=True)
class Constraint:
    """Legal ids, and which of them end the segment."""

    kind: Kind
    inside: range  # ids of the segment
    stops: tuple[int, ...] = ()  # legal from the second id on; they end it

    @classmethod
    def image(cls, codec: Codec) -> "Constraint":
        """Image codes; a picture ends when it has all its codes."""
        return cls("image", codec.vocabulary.image)

    @classmethod
    def extending(cls, codec: Codec) -> "Constraint":
        """Text up to the next segment or the document's end."""
        return cls("text", _text(codec), codec.vocabulary.stops)

    @classmethod
    def filling(cls, codec: Codec) -> "Constraint":
        """Text up to `<end>`, which closes a moved span."""
        return cls("text", _text(codec), (codec.vocabulary.end,))

    @cached_property
    def ids(self) -> Int[Tensor, " vocab"]:
        """The legal ids, stops last: the vocabulary rows worth scoring."""
        return torch.tensor([*self.inside, *self.stops])

    def restrict(
        self, logits: Float[Tensor, "batch vocab"], first: Sequence[bool]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits of `ids` without those not legal as the first of a segment.

        No segment is empty in training, so a stop is never first.

        Args:
            logits: of `ids`.
            first: of each row, whether nothing has been drawn yet.
        """
        if not self.stops or not any(first):
            return logits
        logits = logits.clone()
        rows = list(compress(range(len(first)), first))
        logits[rows, len(self.inside) :] = -torch.inf
        return logits


def _text(codec: Codec) -> range:
    """Text ids that mean something; a vocabulary may have room for more."""
    start = codec.vocabulary.text.start
    return range(start, start + codec.text_tokenizer.size)
