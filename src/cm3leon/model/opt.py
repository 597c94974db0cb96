"""Our parameters <-> those of transformers' `OPTForCausalLM`, by a table of names.

OPT without biases and without learned norms is the same function as ours (Yu et al.
2023, §2.3), so nothing is computed: the one tensor of queries, keys and values is cut
in three, every other tensor keeps its numbers and changes its name. Both position
tables begin with two rows that no position reads.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cm3leon.errors import CheckpointError
from cm3leon.model.transformer import TransformerConfig

# ours -> theirs; several of theirs stand in ours one below the other, in this order
TABLES = {
    "embedding.weight": ("model.decoder.embed_tokens.weight",),
    "positions.weight": ("model.decoder.embed_positions.weight",),
}
BLOCK = {
    "qkv.weight": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "out.weight": ("self_attn.out_proj.weight",),
    "fc1.weight": ("fc1.weight",),
    "fc2.weight": ("fc2.weight",),
}
TIED = "lm_head.weight"  # theirs may hold the embedding a second time

# our field -> their setting and its default, which their files leave out
SHAPE: dict[str, tuple[str, int]] = {
    "vocabulary_size": ("vocab_size", 50272),
    "context": ("max_position_embeddings", 2048),
    "width": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
}

# what makes OPT our function: setting -> its value here and its default
SAME: dict[str, tuple[object, object]] = {
    "enable_bias": (False, True),
    "layer_norm_elementwise_affine": (False, True),
    "activation_function": ("relu", "relu"),
    "do_layer_norm_before": (True, True),
    "_remove_final_layer_norm": (False, False),
    "tie_word_embeddings": (True, True),
}


def names(layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our names with those of OPT.

    >>> dict(names(1))["blocks.0.fc1.weight"]
    ('model.decoder.layers.0.fc1.weight',)
    """
    yield from TABLES.items()
    for layer in range(layers):
        for ours, theirs in BLOCK.items():
            within = tuple(f"model.decoder.layers.{layer}.{name}" for name in theirs)
            yield f"blocks.{layer}.{ours}", within


def to_opt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under OPT's names; the values and their precision stay.

    Args:
        tensors: the state of a `Transformer`.
    """
    layers = sum(name.endswith(".qkv.weight") for name in tensors)
    renamed: dict[str, Tensor] = {}
    for ours, theirs in names(layers):
        cut = tensors[ours].chunk(len(theirs))
        renamed.update(zip(theirs, cut, strict=True))
    return renamed


def from_opt(
    tensors: Mapping[str, Tensor], layers: int, origin: str
) -> dict[str, Tensor]:
    """OPT's tensors under our names: the inverse of `to_opt`.

    Args:
        tensors: the state of an `OPTForCausalLM`, with or without its tied head.
        layers: blocks it has.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a tensor is missing, or has no place in our model; the first
            is named.
    """
    left = dict(tensors)
    renamed: dict[str, Tensor] = {}
    for ours, theirs in names(layers):
        if lacking := [name for name in theirs if name not in left]:
            raise CheckpointError(f"{origin} lacks {lacking[0]}; is it an OPT model's?")
        renamed[ours] = torch.cat([left.pop(name) for name in theirs])
    head = left.pop(TIED, None)
    if head is not None and not torch.equal(head, renamed["embedding.weight"]):
        raise CheckpointError(
            f"{origin}: {TIED} differs from the embedding, and this model has one "
            "tensor for both; train it with tie_word_embeddings"
        )
    if left:
        raise CheckpointError(
            f"{origin} holds {min(left)}, which this model has no place for: it knows "
            "no biases, learned norms or projections"
        )
    return renamed


def settings_to_opt(config: TransformerConfig, *, pad: int, eos: int) -> dict[str, Any]:
    """The `config.json` that makes OPT compute what our model does.

    Args:
        config: our shape.
        pad: id of `<pad>`.
        eos: id of `<eos>`, which begins a document and ends it.
    """
    shape = {theirs: getattr(config, ours) for ours, (theirs, _) in SHAPE.items()}
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        **shape,
        "ffn_dim": 4 * config.width,
        "word_embed_proj_dim": config.width,
        **{name: value for name, (value, _) in SAME.items()},
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "init_std": 0.006,
        "pad_token_id": pad,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "dtype": "float32",  # stored halves are widened when read, as ours are
        "use_cache": True,
    }


def settings_from_opt(settings: Mapping[str, Any], origin: str) -> TransformerConfig:
    """Our shape for OPT's `config.json`; what it leaves out has OPT's default.

    Raises:
        CheckpointError: it is no OPT, or one that computes another function.
    """
    if (kind := settings.get("model_type")) != "opt":
        raise CheckpointError(f"{origin}: model_type is {kind!r}; only 'opt' is read")
    width = settings.get("hidden_size", SHAPE["width"][1])
    needed = {name: (value, default) for name, (value, default) in SAME.items()}
    needed["ffn_dim"] = (4 * width, 3072)
    needed["word_embed_proj_dim"] = (width, None)
    for name, (value, default) in needed.items():
        found = settings.get(name, default)
        if found is None and name == "word_embed_proj_dim":
            continue  # their way to say: as wide as the rest
        if found != value:
            raise CheckpointError(
                f"{origin}: {name} is {found!r}, and this model is an OPT with "
                f"{value!r}; another cannot be imported"
            )
    shape = {ours: settings.get(*theirs) for ours, theirs in SHAPE.items()}
    for ours, number in shape.items():
        if not isinstance(number, int):
            raise CheckpointError(
                f"{origin}: {SHAPE[ours][0]} is {number!r}, not a whole number"
            )
    return TransformerConfig(**shape)
