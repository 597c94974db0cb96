"""The Chameleon transformer, apart from ours. Chameleon Team 2024, §2.3.

    a = x + out(attention(norm(x)));      y = a + feed(norm(a))        norm before
    a = x + norm(out(attention(x)));      y = a + norm(feed(a))        norm after
    feed(x) = down(silu(gate(x)) * up(x));                 logits = head(norm(x))

RMSNorm, SwiGLU and rotary positions as in Llama 2, with two additions against logits
that grow: queries and keys pass a LayerNorm over each head before they are rotated, and
the largest public model has its norms behind the two parts of a block (the public
settings call that `swin_norm`), not before them. Each head has a scale and shift
of its own: the public models were trained on several ranks, each with one of its own.

Rotary positions turn pairs of a head's channels, channel i with i + head_dim / 2, by
position · theta^(-2i / head_dim).
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
from cm3leon.model.transformer import attend

DEVIATION = 0.02  # of fresh weights; the paper gives none
HEAD_EPSILON = 1e-5  # of the norm over a head

Turn = tuple[Tensor, Tensor]  # cosine and sine of each id's angles


@dataclass(frozen=True, kw_only=True)
class ChameleonConfig:
    """Shape of a Chameleon transformer."""

    vocabulary_size: int
    context: int  # most ids it reads
    width: int
    layers: int
    heads: int  # of queries
    key_heads: int  # of keys and values, each read by heads / key_heads of queries
    inner: int  # width within the feed-forward part
    norm_after: bool = False  # behind each part of a block, not before it
    theta: float = 10_000.0
    epsilon: float = 1e-5  # of RMSNorm

    def __post_init__(self) -> None:
        counts = ("vocabulary_size", "context", "width", "layers", "heads", "key_heads")
        for name in (*counts, "inner"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 1")
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"width is {self.width}, not a multiple of 2 x {self.heads} heads"
            )
        if self.heads % self.key_heads:
            raise ConfigError(
                f"heads is {self.heads}, not a multiple of key_heads = {self.key_heads}"
            )
        if self.theta <= 0 or self.epsilon <= 0:
            raise ConfigError(
                f"theta is {self.theta}, epsilon {self.epsilon}; both must be above 0"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Numbers that learn: blocks, embedding, head and norms."""
        heads = self.heads + self.key_heads
        attention = 2 * heads * self.head_dim * self.width + 2 * heads * self.head_dim
        block = attention + 3 * self.inner * self.width + 2 * self.width
        return self.layers * block + (2 * self.vocabulary_size + 1) * self.width


def rotate(
    x: Float[Tensor, "batch heads time head_dim"], turn: Turn
) -> Float[Tensor, "batch heads time head_dim"]:
    """Each pair of channels turned by its angle. Su et al. 2021, §3.2."""
    cosine, sine = turn
    first, second = x.chunk(2, -1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return torch.cat(turned, -1).to(x.dtype)


class HeadNorm(nn.Module):
    """LayerNorm over each head's channels, with each head's own scale and shift."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))

    def forward(
        self, x: Float[Tensor, "batch heads time head_dim"]
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """The normed heads."""
        normed = F.layer_norm(x, x.shape[-1:], eps=HEAD_EPSILON)
        return normed * self.weight[:, None] + self.bias[:, None]


class Block(nn.Module):
    """Attention and feed-forward, each normed on one side and added to the stream."""

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__()
        self.config = config
        width, head_dim = config.width, config.head_dim
        self.attention_norm = nn.RMSNorm(width, eps=config.epsilon)
        self.q = Linear(width, width, bias=False)
        self.k = Linear(width, config.key_heads * head_dim, bias=False)
        self.v = Linear(width, config.key_heads * head_dim, bias=False)
        self.q_norm = HeadNorm(config.heads, head_dim)
        self.k_norm = HeadNorm(config.key_heads, head_dim)
        self.out = Linear(width, width, bias=False)
        self.feed_norm = nn.RMSNorm(width, eps=config.epsilon)
        self.gate = Linear(width, config.inner, bias=False)
        self.up = Linear(width, config.inner, bias=False)
        self.down = Linear(config.inner, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        turn: Turn,
        bias: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "batch time width"]:
        """The stream after this block."""
        q, k, v = self.queries_keys_values(x, turn)
        mixed = cache.attend(layer, q, k, v) if cache else attend(q, k, v, bias)
        mixed = self.out(mixed.transpose(1, 2).reshape(x.shape))
        if self.config.norm_after:
            x = x + self.attention_norm(mixed)
            out: Tensor = x + self.feed_norm(self._feed(x))
            return out
        x = x + mixed
        return x + self._feed(self.feed_norm(x))

    def queries_keys_values(
        self, x: Float[Tensor, "batch time width"], turn: Turn
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What attention needs, each batch heads time head_dim."""
        if not self.config.norm_after:
            x = self.attention_norm(x)
        q, k, v = (
            part(x).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        q, k = rotate(self.q_norm(q), turn), rotate(self.k_norm(k), turn)
        each = self.config.heads // self.config.key_heads
        if each > 1:
            k, v = k.repeat_interleave(each, 1), v.repeat_interleave(each, 1)
        return q, k, v

    def _feed(
        self, x: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Chameleon(LanguageModel):
    """Ids -> logits, called as `Transformer` is."""

    def __init__(
        self, config: ChameleonConfig, generator: torch.Generator | None = None
    ) -> None:
        """Fresh weights of this shape.

        Args:
            config: the shape.
            generator: draws the weights; by default torch's own.
        """
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.epsilon)
        # a table like the embedding, of which some rows are scored
        self.head = nn.Embedding(config.vocabulary_size, config.width)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if "norm" not in name:
                    weight.normal_(std=DEVIATION, generator=generator)

    @property
    def head_rows(self) -> Float[Tensor, "vocab width"]:
        """The rows that score ids, not tied to the embedding."""
        return self.head.weight

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        head: Int[Tensor, " rows"] | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits of the id after each id.

        Args:
            ids: what to read; with a cache, what follows the ids it holds.
            positions: by default they count on from what the cache has read.
            cache: keys and values of earlier ids; it grows by these.
            head: score only these vocabulary rows, in this order.
            documents: which of several documents packed into a row each id is of; ids
                see only their own. Give the positions too. Without a cache.
        """
        hidden = self.hidden(ids, positions, cache, documents)
        rows = self.head.weight if head is None else self.head.weight[head]
        return F.linear(hidden, rows)

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        documents: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """What the head multiplies: the normed stream after the last block."""
        assert cache is None or documents is None, "a lane of a cache is one document"
        x, turn = self.embedded(ids, positions, cache)
        bias = self._bias(ids, documents) if cache is None else None
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, bias, cache, layer)
        if cache is not None:
            cache.advance(ids.shape[1])
        normed: Tensor = self.norm(x)
        return normed

    def embedded(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"] | None,
        cache: KVCache | None,
    ) -> tuple[Float[Tensor, "batch time width"], Turn]:
        """What the first block reads, and its angles; a cache is made ready for it."""
        if cache is not None:
            cache.begin(ids.shape[1])
        if positions is None:
            positions = counted_on(ids, cache)
        pairs = torch.arange(0, self.config.head_dim, 2, device=ids.device)
        speeds = 1 / self.config.theta ** (pairs.float() / self.config.head_dim)
        angles = positions[:, None, :, None].float() * speeds
        return self.embedding(ids), (angles.cos(), angles.sin())

    def _bias(
        self,
        ids: Int[Tensor, "batch time"],
        documents: Int[Tensor, "batch time"] | None,
    ) -> Tensor | None:
        """`causal`, and within a document if there are several in a row."""
        if documents is None:
            return causal(ids)
        same = documents[:, None, :, None] == documents[:, None, None]
        return torch.zeros(same.shape, device=ids.device).masked_fill(
            ~same.tril(), -torch.inf
        )
