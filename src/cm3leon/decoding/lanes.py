"""Lanes: conditionings read side by side in one batch, each with its own start.

    <pad> <pad> <eos> <mask:0> <break>   c1 c2 …      unconditional
    <eos> a     red   apple    <break>   c1 c2 …      conditional, fed the same ids

Padding is on the left, so all lanes take their next id at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.model.transformer import Transformer


@dataclass(frozen=True)
class Lane:
    """Ids before the first drawn one, and the place of each in the document."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    next_position: int  # of the first drawn id; the others count on


class Lanes:
    """Several lanes and the keys and values of what they have read."""

    def __init__(self, model: Transformer, lanes: Sequence[Lane], room: int) -> None:
        """Read all of each lane but its last id.

        Args:
            model: what reads.
            lanes: of any length from 1.
            room: most ids that `read` will be given per lane.
        """
        longest = max(len(lane.ids) for lane in lanes)
        padding = [longest - len(lane.ids) for lane in lanes]
        device = model.embedding.weight.device
        ids, places = torch.zeros(2, len(lanes), longest, dtype=torch.long)
        for row, (lane, pads) in enumerate(zip(lanes, padding, strict=True)):
            ids[row, pads:] = torch.tensor(lane.ids)
            places[row, pads:] = torch.tensor(lane.positions)
        ids, places = ids.to(device), places.to(device)
        after = torch.tensor([lane.next_position for lane in lanes], device=device)

        self._model = model
        self._cache = model.cache(len(lanes), longest - 1 + room)
        self._cache.starts = torch.tensor(padding, device=device)
        self._place, self._after = places[:, -1], after
        self.last = ids[:, -1]  # the first to `read`
        if longest > 1:
            model(ids[:, :-1], places[:, :-1], self._cache, head=ids[0, :1])

    def read(
        self, ids: Int[Tensor, " batch"], head: Int[Tensor, " vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Read one id in each lane; logits of what follows it, for `head` rows only."""
        places = self._place[:, None]
        logits = self._model(ids[:, None], places, self._cache, head=head)
        # A lane whose answer has ended is still fed, and must not leave the table.
        self._place = self._after.clamp(max=self._model.config.context - 1)
        self._after = self._after + 1
        out: Tensor = logits[:, 0].float()
        return out
