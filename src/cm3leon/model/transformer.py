"""The CM3Leon transformer, and nothing else. Yu et al. 2023, §2.3 and appendix B.2.

    x  = E[ids] + P[positions + 2]
    x += out(attention(norm(x)));  x += fc2(relu(fc1(norm(x))))     in every block
    logits = norm(x) E^T

A decoder-only transformer like OPT with no bias anywhere, LayerNorm without scale or
shift (eps 1e-5), ReLU, learned positions and a tied head. Weights start as a normal
of deviation 0.006 cut at three deviations, positions at 0.0002, and the two layers
that write into the residual stream (`out`, `fc2`) at exactly 0, so every block starts
as the identity. The offset of 2 in the position table is OPT's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cm3leon.errors import ConfigError
from cm3leon.model.cache import KVCache
from cm3leon.model.exact import Linear
from cm3leon.model.language_model import LanguageModel, causal, counted_on

POSITION_OFFSET = 2  # rows of the position table before position 0
DEVIATION = 0.006
POSITION_DEVIATION = 0.0002
EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a transformer."""

    vocabulary_size: int
    context: int  # most ids it reads
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "context", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 1")
        if self.width % self.heads:
            raise ConfigError(
                f"width is {self.width}, not a multiple of heads = {self.heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Numbers that learn: blocks, embedding and positions."""
        blocks = 12 * self.layers * self.width**2
        tables = self.vocabulary_size + self.context + POSITION_OFFSET
        return blocks + tables * self.width

    def flops_per_id(self, time: int) -> float:
        """Forward and backward FLOPs per id of a row of `time` ids, head included."""
        matrices = 12 * self.layers * self.width**2 + self.vocabulary_size * self.width
        attention = self.layers * self.width * time  # causal: half of 2·width·time
        return 6.0 * (matrices + attention)


def norm(x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
    """LayerNorm with nothing to learn."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)


def attend(
    q: Float[Tensor, "batch heads time head_dim"],
    k: Float[Tensor, "batch heads seen head_dim"],
    v: Float[Tensor, "batch heads seen head_dim"],
    bias: Tensor | None,
) -> Float[Tensor, "batch heads time head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + bias) v, the softmax in fp32.

    Without a bias attention is causal and torch's fused kernel does it, as it must
    where scores do not fit memory. Short rows on a CPU come with a bias: two plain
    products are then three times as fast as that kernel (docs/log.md).
    """
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    shares = (scores.float() + bias).softmax(-1)
    return torch.matmul(shares.to(v.dtype), v)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.fc1 = Linear(width, 4 * width, bias=False)
        self.fc2 = Linear(4 * width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        bias: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "batch time width"]:
        """The stream after this block."""
        batch, time, width = x.shape
        q, k, v = self.queries_keys_values(x)
        mixed = cache.attend(layer, q, k, v) if cache else attend(q, k, v, bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        out: Tensor = x + self.fc2(F.relu(self.fc1(norm(x))))
        return out

    def queries_keys_values(
        self, x: Float[Tensor, "batch time width"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What attention needs, each batch heads time head_dim."""
        qkv = self.qkv(norm(x)).view(*x.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


@torch.no_grad()
def initialise(
    name: str, weight: Tensor, generator: torch.Generator | None = None
) -> None:
    """Draw a fresh weight in place. Yu et al. 2023, §2.3.

    Args:
        name: of the parameter in a `Transformer`; in their order they are its weights.
        weight: whole.
        generator: the source of chance; by default torch's own.
    """
    if name.endswith(("out.weight", "fc2.weight")):
        weight.zero_()
        return
    deviation = POSITION_DEVIATION if name == "positions.weight" else DEVIATION
    limit = 3 * deviation
    nn.init.trunc_normal_(weight, std=deviation, a=-limit, b=limit, generator=generator)
    if name == "positions.weight":
        weight[:POSITION_OFFSET].zero_()


class Transformer(LanguageModel):
    """Ids -> logits."""

    def __init__(
        self, config: TransformerConfig, generator: torch.Generator | None = None
    ) -> None:
        """Fresh weights of this shape.

        Args:
            config: the shape.
            generator: draws the weights; by default torch's own.
        """
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context + POSITION_OFFSET, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads) for _ in range(config.layers)
        )
        for name, weight in self.named_parameters():
            if not weight.is_meta:
                initialise(name, weight, generator)

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        head: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits of the id after each id.

        Args:
            ids: what to read; with a cache, what follows the ids it holds.
            positions: 0 … context - 1; by default they count on from what the cache
                has read.
            cache: keys and values of earlier ids; it grows by these.
            head: score only these vocabulary rows, in this order.
        """
        hidden = self.hidden(ids, positions, cache)
        rows = self.embedding.weight if head is None else self.embedding.weight[head]
        return F.linear(hidden, rows)

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """What the head multiplies: the normed stream after the last block."""
        (x,) = self.embedded(ids, positions, cache)
        bias = causal(ids) if cache is None else None
        for layer, block in enumerate(self.blocks):
            x = block(x, bias, cache, layer)
        if cache is not None:
            cache.advance(ids.shape[1])
        return norm(x)

    def embedded(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None,
        cache: KVCache | None,
    ) -> tuple[Float[Tensor, "batch time width"]]:
        """What the first block reads; a cache is made ready for it."""
        if cache is not None:
            cache.begin(ids.shape[1])
        if positions is None:
            positions = counted_on(ids, cache)
        return (self.embedding(ids) + self.positions(positions + POSITION_OFFSET),)
