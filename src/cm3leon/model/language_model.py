"""What is the same in the models that are asked in the same way.

A model has blocks, `packing`, and a table of rows that score ids. It reads

    x, *more = embedded(ids, positions, cache)      more: what each block needs beside x
    x = block(x, *more, bias, cache, layer)         in every block

and a cache is filled, packed weights are made and caches allocated alike for all.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cm3leon.model.cache import KVCache
from cm3leon.model.kernels import Kernels, kernels
from cm3leon.model.packed import Packing, linear, pack

SHORT = 512  # ids of a row up to which a CPU forms all scores at once


class LanguageModel(nn.Module):
    """Ids -> logits; `Transformer` and `Chameleon` say how."""

    config: Any  # its shape: layers, heads, head_dim and what else it has
    embedding: nn.Embedding
    blocks: nn.ModuleList

    def __init__(self) -> None:
        super().__init__()
        self.packing: Packing | None = None  # how its linear layers are stored
        self.kernels: Kernels | None = None  # what it draws with, if compiled

    @property
    def head_rows(self) -> Float[Tensor, "vocab width"]:
        """The rows that score ids: the embedding's where they are tied."""
        return self.embedding.weight

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """What the head multiplies: the normed stream after the last block."""
        raise NotImplementedError

    def embedded(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None,
        cache: KVCache | None,
    ) -> tuple[Any, ...]:
        """What the first block reads, and what each needs beside it."""
        raise NotImplementedError

    def memorise(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None,
        cache: KVCache,
    ) -> None:
        """Put ids into a cache and score nothing: the last block makes keys only."""
        x, *more = self.embedded(ids, positions, cache)
        blocks: list[Any] = [*self.blocks]
        last = blocks.pop()
        for layer, block in enumerate(blocks):
            x = block(x, *more, None, cache, layer)
        _, k, v = last.queries_keys_values(x, *more)
        cache.store(len(blocks), k, v)
        cache.advance(ids.shape[1])

    def pack(self, packing: Packing, compiled: bool = False) -> None:
        """Become bf16, its linear layers packed: faster to draw with, unable to learn.

        Args:
            packing: "bf16", or "int8" for weights of 8 bits, half the size.
            compiled: with the kernels of `kernels.py`, where they can be compiled.
        """
        self.requires_grad_(False).bfloat16()
        self.packing = packing
        self.kernels = kernels(self.config.head_dim) if compiled else None
        pack(self, packing, self.kernels)

    def scorer(self, ids: Int[Tensor, " rows"]) -> nn.Module:
        """What scores these ids only, in this order."""
        rows = self.head_rows[ids.to(self.head_rows.device)]
        return linear(rows, self.packing, self.kernels)

    def cache(
        self, batch: int, capacity: int, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache for this model."""
        cache = KVCache.allocate(
            layers=self.config.layers,
            batch=batch,
            heads=self.config.heads,
            capacity=capacity,
            head_dim=self.config.head_dim,
            dtype=dtype or self.cache_dtype,
            device=self.embedding.weight.device,
        )
        if cache.keys[0].dtype == torch.bfloat16:
            cache.kernels = self.kernels
        cache.exact = self.exact
        return cache

    @property
    def exact(self) -> bool:
        """Whether no lane of a cache depends on others by a bit: in fp32 on a CPU."""
        weight = self.embedding.weight
        return weight.dtype == torch.float32 and not weight.is_cuda

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of keys and values: without kernels on a CPU fp32, which attends faster."""
        weight = self.embedding.weight
        as_it_is = weight.is_cuda or self.kernels is not None
        return weight.dtype if as_it_is else torch.float32

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values of one id in one lane."""
        config = self.config
        numbers: int = 2 * config.layers * config.heads * config.head_dim
        return numbers * self.cache_dtype.itemsize


def counted_on(
    ids: Int[Tensor, "batch time"], cache: KVCache | None
) -> Int[Tensor, "batch time"]:
    """Positions that count on from what a cache has read, or from 0."""
    done = 0 if cache is None else cache.read[:, None]
    return (torch.arange(ids.shape[1], device=ids.device) + done).expand(ids.shape)


def causal(ids: Int[Tensor, "batch time"]) -> Tensor | None:
    """0 where a query sees a key, -inf elsewhere; None for a long row."""
    time = ids.shape[1]
    if ids.device.type != "cpu" or time > SHORT:
        return None
    visible = torch.ones(time, time, dtype=torch.bool).tril()
    return torch.zeros(time, time).masked_fill(~visible, -torch.inf)
