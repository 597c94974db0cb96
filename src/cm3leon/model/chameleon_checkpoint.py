"""Chameleon's public weights <-> our parameters, by one table of names.

Chameleon, Anole and Lumina-mGPT 1 stand in files of two layouts:

* transformers' (`ChameleonForConditionalGeneration`): every number is ours. Lumina's
  files have one row of a head norm for each rank the model was trained on, not for each
  head; it is repeated.
* Meta's (`consolidated.pth`, or one `consolidated.NN.pth` for each rank): a rank holds
  some rows or columns of each matrix, and one head norm for all of its heads. The pairs
  that a rotary position turns are neighbours, 0 with 1, 2 with 3; ours, as those of
  transformers, are half a head apart, so rows of queries and keys change their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_type_hints

import torch
from torch import Tensor

from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.model.chameleon import Chameleon, ChameleonConfig
from cm3leon.weight_files import shaped, take

Joint = Literal["rows", "columns", "same", "pairs", "head norm"]


class Rule(NamedTuple):
    """Where one of our tensors is found."""

    transformers: str
    meta: str
    joint: Joint  # how it is made of Meta's ranks; "pairs" are rows in another order


TABLES = {
    "embedding.weight": Rule(
        "model.embed_tokens.weight", "tok_embeddings.weight", "columns"
    ),
    "norm.weight": Rule("model.norm.weight", "norm.weight", "same"),
    "head.weight": Rule("lm_head.weight", "output.weight", "rows"),
}
BLOCK = {
    "attention_norm.weight": Rule(
        "input_layernorm.weight", "attention_norm.weight", "same"
    ),
    "q.weight": Rule("self_attn.q_proj.weight", "attention.wq.weight", "pairs"),
    "k.weight": Rule("self_attn.k_proj.weight", "attention.wk.weight", "pairs"),
    "v.weight": Rule("self_attn.v_proj.weight", "attention.wv.weight", "rows"),
    **{
        f"{x}_norm.{part}": Rule(
            f"self_attn.{x}_norm.{part}",
            f"attention.{x}_normalization.{part}",
            "head norm",
        )
        for x in ("q", "k")
        for part in ("weight", "bias")
    },
    "out.weight": Rule("self_attn.o_proj.weight", "attention.wo.weight", "columns"),
    "feed_norm.weight": Rule(
        "post_attention_layernorm.weight", "ffn_norm.weight", "same"
    ),
    "gate.weight": Rule("mlp.gate_proj.weight", "feed_forward.w1.weight", "rows"),
    "up.weight": Rule("mlp.up_proj.weight", "feed_forward.w3.weight", "rows"),
    "down.weight": Rule("mlp.down_proj.weight", "feed_forward.w2.weight", "columns"),
}
COMPUTED = ("rope.freqs", "rotary_emb.inv_freq")  # ends of names nobody has to read
PICTURES = "model.vqmodel."  # where transformers keeps the image tokenizer's encoder

# our field -> transformers' setting and its default, which files may leave out
SHAPE: dict[str, tuple[str, Any]] = {
    "vocabulary_size": ("vocab_size", 65536),
    "context": ("max_position_embeddings", 4096),
    "width": ("hidden_size", 4096),
    "layers": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 32),
    "key_heads": ("num_key_value_heads", 32),
    "inner": ("intermediate_size", 11008),
    "epsilon": ("rms_norm_eps", 1e-5),
}
# what makes theirs our function: setting -> its value here, which is its default
SAME: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
META_CONTEXT = 4096  # ids; Meta's files do not say it


def names(layers: int) -> Iterator[tuple[str, Rule]]:
    """Each of our names with those of both layouts.

    >>> dict(names(1))["blocks.0.up.weight"].meta
    'layers.0.feed_forward.w3.weight'
    """
    yield from TABLES.items()
    for i in range(layers):
        for ours, rule in BLOCK.items():
            theirs = f"model.layers.{i}.{rule.transformers}"
            yield f"blocks.{i}.{ours}", Rule(theirs, f"layers.{i}.{rule.meta}", rule[2])


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under transformers' names.

    Args:
        tensors: the state of a `Chameleon`.
    """
    layers = sum(name.endswith(".q.weight") for name in tensors)
    return {rule.transformers: tensors[ours] for ours, rule in names(layers)}


def from_transformers(
    tensors: Mapping[str, Tensor], config: ChameleonConfig, origin: str
) -> dict[str, Tensor]:
    """Transformers' tensors under our names: the inverse of `to_transformers`.

    Args:
        tensors: the state of a `ChameleonForConditionalGeneration`, which may lie on
            the meta device; its image tokenizer is left out.
        config: the shape.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or has no place in our
            model; the first is named.
    """
    read = {name: x for name, x in tensors.items() if not name.startswith(PICTURES)}
    wanted = _shapes(config)
    renamed = {}
    for ours, rule in names(config.layers):
        shape = wanted[ours]
        tensor = take(read, rule.transformers, origin)
        if rule.joint == "head norm" and 0 < len(tensor) < shape[0]:
            tensor = tensor.repeat_interleave(shape[0] // len(tensor), 0)
        renamed[ours] = shaped(tensor, shape, rule.transformers, origin)
    _nothing_left(read, origin)
    return renamed


def to_meta(
    tensors: Mapping[str, Tensor], config: ChameleonConfig, ranks: int = 1
) -> list[dict[str, Tensor]]:
    """Our tensors as each of Meta's ranks holds them.

    Args:
        tensors: the state of a `Chameleon` in which all heads of a rank have the same
            head norm, as all public ones have.
        config: its shape.
        ranks: files to make.
    """
    shards: list[dict[str, Tensor]] = [{} for _ in range(ranks)]
    for ours, rule in names(config.layers):
        tensor = tensors[ours]
        if rule.joint == "head norm":
            each = len(tensor) // ranks
            first = tensor[::each]
            assert torch.equal(first.repeat_interleave(each, 0), tensor)
            cut = [_neighbours(row, config.head_dim) for row in first]
        elif rule.joint == "same":
            cut = [tensor] * ranks
        elif rule.joint == "pairs":
            cut = list(_neighbours(tensor, config.head_dim).chunk(ranks))
        else:
            cut = list(tensor.chunk(ranks, int(rule.joint == "columns")))
        for shard, part in zip(shards, cut, strict=True):
            shard[rule.meta] = part.contiguous()
    return shards


def from_meta(
    shards: Sequence[Mapping[str, Tensor]], config: ChameleonConfig, origin: str
) -> dict[str, Tensor]:
    """The tensors of Meta's ranks under our names: the inverse of `to_meta`.

    Args:
        shards: one for each rank, in order; they may lie on the meta device.
        config: the shape of the whole.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or has no place in our
            model; the first is named.
    """
    ranks = len(shards)
    if config.key_heads % ranks:
        raise CheckpointError(
            f"{origin}: {config.key_heads} heads do not divide among {ranks} files; "
            "is one missing?"
        )
    wanted = _shapes(config)
    left = [dict(shard) for shard in shards]
    joined = {}
    for ours, rule in names(config.layers):
        shape = list(wanted[ours])
        if rule.joint == "head norm":
            shape = [config.head_dim]
        elif rule.joint != "same":
            shape[int(rule.joint == "columns")] //= ranks
        parts = [
            shaped(take(shard, rule.meta, origin), shape, rule.meta, origin)
            for shard in left
        ]
        joined[ours] = _joined(parts, rule.joint, config.head_dim, wanted[ours][0])
    for shard in left:
        _nothing_left(shard, origin)
    return joined


def settings_to_transformers(config: ChameleonConfig) -> dict[str, Any]:
    """The settings that make theirs compute what our model does."""
    return {
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in SHAPE.items()},
        **SAME,
        "swin_norm": config.norm_after,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
    }


def settings_from_transformers(
    settings: Mapping[str, Any], origin: str
) -> ChameleonConfig:
    """Our shape for their `config.json`; what it leaves out has their default.

    Raises:
        CheckpointError: it is no Chameleon, or one that computes another function.
    """
    if (kind := settings.get("model_type")) != "chameleon":
        raise CheckpointError(
            f"{origin}: model_type is {kind!r}; only 'chameleon' is read"
        )
    rotary = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    found = {name: settings.get(name, value) for name, value in SAME.items()}
    found["rope_type"] = rotary.get("rope_type", rotary.get("type", "default"))
    for name, value in {**SAME, "rope_type": "default"}.items():
        if found[name] != value:
            raise CheckpointError(
                f"{origin}: {name} is {found[name]!r}, and this model is a Chameleon "
                f"with {value!r}; another cannot be imported"
            )
    shape = {ours: settings.get(*theirs) for ours, theirs in SHAPE.items()}
    if shape["key_heads"] is None:
        shape["key_heads"] = shape["heads"]
    theta = rotary.get("rope_theta", settings.get("rope_theta", 10_000.0))
    shape |= {"theta": theta, "norm_after": settings.get("swin_norm") or False}
    return config_from(shape, origin)


def settings_from_meta(
    settings: Mapping[str, Any], shards: Sequence[Mapping[str, Tensor]], origin: str
) -> ChameleonConfig:
    """Our shape for Meta's settings, what they leave out taken from the tensors.

    Args:
        settings: what `params.json` holds, its part `model` and, above both,
            `consolidate_params.json`.
        shards: one for each rank, perhaps on the meta device.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a setting is missing, or the model is another.
    """
    if not settings.get("qk_normalization", True):
        raise CheckpointError(f"{origin}: the model has no query-key norm, ours has")
    ranks = settings.get("model_parallel_size", len(shards))
    if ranks != len(shards):
        raise CheckpointError(
            f"{origin}: the model is in {ranks} files, {len(shards)} are here; copy "
            "the missing ones"
        )
    rows, gates = (
        take(dict(shards[0]), name, origin).shape[0]
        for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight")
    )
    shape = {
        "vocabulary_size": rows,
        "context": META_CONTEXT,
        "width": settings.get("dim"),
        "layers": settings.get("n_layers"),
        "heads": settings.get("n_heads"),
        "key_heads": settings.get("n_kv_heads") or settings.get("n_heads"),
        "inner": gates * len(shards),
        "epsilon": settings.get("norm_eps", 1e-5),
        "theta": settings.get("rope_theta", 10_000.0),
        "norm_after": settings.get("swin_norm") or False,
    }
    return config_from(shape, origin)


def config_from(shape: Mapping[str, Any], origin: str) -> ChameleonConfig:
    """The shape written somewhere, once each value has the kind it needs.

    Raises:
        CheckpointError: a value is missing, of another kind, or out of range.
    """
    kinds = get_type_hints(ChameleonConfig)
    for name, kind in kinds.items():
        value = shape.get(name)
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise CheckpointError(f"{origin}: {name} is {value!r}, no {kind.__name__}")
    try:
        return ChameleonConfig(
            **{name: kind(shape[name]) for name, kind in kinds.items()}
        )
    except ConfigError as error:
        raise CheckpointError(f"{origin}: {error}") from error


def _shapes(config: ChameleonConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = Chameleon(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _nothing_left(tensors: Mapping[str, Tensor], origin: str) -> None:
    if left := [name for name in tensors if not name.endswith(COMPUTED)]:
        raise CheckpointError(
            f"{origin} holds {min(left)}, which a Chameleon has no place for"
        )


def _joined(parts: list[Tensor], joint: Joint, head_dim: int, rows: int) -> Tensor:
    """The parts of all ranks as one of our tensors, which has that many rows."""
    if joint == "same":
        if parts[0].is_meta or all(torch.equal(part, parts[0]) for part in parts):
            return parts[0]
        # copies that drifted apart in training
        return torch.stack(parts).float().mean(0).to(parts[0].dtype)
    if joint == "head norm":
        each = torch.stack([_halves(part, head_dim) for part in parts])
        return each.repeat_interleave(rows // len(parts), 0)
    whole = parts[0]
    if len(parts) > 1:
        whole = torch.cat(parts, int(joint == "columns"))
    return _halves(whole, head_dim) if joint == "pairs" else whole


def _halves(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows whose pairs are neighbours, with pairs half a head apart.

    >>> _halves(torch.arange(8), 4)
    tensor([0, 2, 1, 3, 4, 6, 5, 7])
    """
    parted: Tensor = tensor.unflatten(0, (-1, head_dim // 2, 2))
    return parted.transpose(1, 2).flatten(0, 2)


def _neighbours(tensor: Tensor, head_dim: int) -> Tensor:
    """The inverse of `_halves`."""
    parted: Tensor = tensor.unflatten(0, (-1, 2, head_dim // 2))
    return parted.transpose(1, 2).flatten(0, 2)
