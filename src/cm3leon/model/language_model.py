"""The two models that are asked in the same way, and what differs to those who ask."""

from torch import Tensor

from cm3leon.model.chameleon import Chameleon
from cm3leon.model.transformer import Transformer

LanguageModel = Transformer | Chameleon


def head_of(model: LanguageModel) -> Tensor:
    """The rows that score ids, [vocab, width]: the embedding's where they are tied."""
    table = model.head if isinstance(model, Chameleon) else model.embedding
    return table.weight
