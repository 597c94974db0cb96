"""Bytes on each GPU while blocks and tables are sharded as torch's FSDP2 does it.

Of P parameters in S shards, n = rows x context ids in a batch, width d, L layers and a
vocabulary of V; p and r are the bytes of a number in a product (bf16: 2) and in the
stream (4: under autocast it stays in fp32):

    weights      4 P / S        fp32, what the optimizer moves
    gradients    4 P / S
    optimizer    8 P / S        AdamW's moments; Muon has one for the blocks' matrices
    activations  n L k          k: what a block keeps of an id, see `kept`
    buffers      g + max(h, b)

    g = p (24 d² + (V + context + 2) d)              gathered: two blocks, the tables
    h = 4 V d + 16 V min(n, CHUNK) + n (r d + 2 p d + 8)                  at the head
    b = p V d + (4 p + 48) d² + n (a + r d + 8 p d)        backward through one block

h: the table's gradient, a chunk of logits (`objective.loss`), the normed stream. b: the
table's gradient, those of a block's weights in p bytes and on their way in fp32, the
activations made again (a, see `made_again`) and the gradients around the ReLU. The
tests compare this with the peak that torch counts.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from cm3leon.model.transformer import POSITION_OFFSET, TransformerConfig
from cm3leon.objective.loss import CHUNK

Checkpointing = Literal["off", "selective", "full"]
MODES: tuple[Checkpointing, ...] = get_args(Checkpointing)
LOGIT_BYTES = 16  # itself, in fp32, its softmax; softmax and gradient of the last chunk


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bytes of a number."""

    product: int = 2  # operand of a matrix product
    stream: int = 4  # of the residual stream, which the norms read


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained; every row is as long as the context."""

    shape: TransformerConfig
    rows: int  # of a batch on one GPU
    accumulate: int  # batches of a step
    steps: int
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Precision = field(default_factory=Precision)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int

    @property
    def total(self) -> int:
        """All of them."""
        state = self.weights + self.gradients + self.optimizer
        return state + self.activations + self.buffers


def kept(
    shape: TransformerConfig, precision: Precision, checkpointing: Checkpointing
) -> int:
    """Bytes that a block keeps of one id for the backward pass.

        off        2 (r d + 8) + p (d + 3 d + d + d + 4 d) + 4 heads
        selective  r d + p (3 d + d + 4 d) + 4 heads
        full       r d

    Off: the stream before each norm, with its mean and deviation in fp32; what `qkv`,
    attention, `out`, `fc1` and `fc2` read, where `out` reads what attention keeps
    anyway, and `fc2` what ReLU does; a logarithm per head in fp32. Fused attention
    keeps no scores. Selective, as torchtitan has it: attention and every second product
    (`qkv`, `fc1`) are kept, the rest is made again. Full: only the block's input.
    """
    width, product = shape.width, precision.product
    stream = precision.stream * width
    match checkpointing:
        case "off":
            return 2 * (stream + 8) + 10 * product * width + 4 * shape.heads
        case "selective":
            return stream + 8 * product * width + 4 * shape.heads
        case "full":
            return stream


def made_again(
    shape: TransformerConfig, precision: Precision, checkpointing: Checkpointing
) -> int:
    """Bytes of one id that a block makes again in its backward pass.

    What `kept` lists under "off" and not under the mode; where `fc1` is kept, what ReLU
    made of it comes on top.
    """
    whole = kept(shape, precision, "off")
    if checkpointing == "selective":
        whole += 4 * precision.product * shape.width
    return whole - kept(shape, precision, checkpointing)


def memory(job: Job, shards: int, checkpointing: Checkpointing) -> Memory:
    """The formulas above.

    Args:
        job: what is trained.
        shards: parts in which the model is held.
        checkpointing: which activations are made again.
    """
    shape, precision = job.shape, job.precision
    width, product = shape.width, precision.product
    stream = precision.stream * width
    ids = job.rows * shape.context
    moments = 2 * shape.parameters
    if job.optimizer == "muon":
        moments -= 12 * shape.layers * width**2
    table = shape.vocabulary_size * width
    tables = table + (shape.context + POSITION_OFFSET) * width
    head = 4 * table + LOGIT_BYTES * shape.vocabulary_size * min(ids, CHUNK)
    head += ids * (stream + 2 * product * width + 8)
    again = made_again(shape, precision, checkpointing)
    backward = product * table + (4 * product + 48) * width**2
    backward += ids * (again + stream + 8 * product * width)
    return Memory(
        weights=4 * math.ceil(shape.parameters / shards),
        gradients=4 * math.ceil(shape.parameters / shards),
        optimizer=4 * math.ceil(moments / shards),
        activations=ids * shape.layers * kept(shape, precision, checkpointing),
        buffers=product * (24 * width**2 + tables) + max(head, backward),
    )
