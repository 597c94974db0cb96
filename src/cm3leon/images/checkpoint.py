"""Public VQGANs <-> our parameters, by the order of their layers.

taming-transformers (Esser et al. 2021) and what descends from it, such as Chameleon's
`vqgan.ckpt` (Gafni et al. 2022), are the network of `images.vqgan` under other names:

    encoder.{n}, decoder.{n}    {side}.conv_in, .down.{level}.block.{i}, .mid.attn_1, …
    to_code, from_code          quant_conv, post_quant_conv
    quantizer.codebook          quantize.embedding.weight

transformers' `ChameleonVQVAE` has the same names, and no decoder.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from cm3leon import weight_files
from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.images.quantizer import QuantizerConfig
from cm3leon.images.vqgan import VQGAN, VQGANConfig

BETA = 0.25  # weight of one of the quantizer's terms, everywhere
GROUPED = 128  # channels from which our norms have 32 groups, as theirs always have
PARTS = {
    "to_code.weight": "quant_conv.weight",
    "to_code.bias": "quant_conv.bias",
    "from_code.weight": "post_quant_conv.weight",
    "from_code.bias": "post_quant_conv.bias",
    "quantizer.codebook": "quantize.embedding.weight",
}
WITHIN = {"shortcut": "nin_shortcut", "query": "q", "key": "k", "value": "v"}
WITHIN |= {"out": "proj_out"}
DROPPED = ("loss.", "colorize")  # what only training or a colour map needs

# our field -> taming's setting, and transformers'
SHAPE = {
    "pixels": ("resolution", "resolution"),
    "channels": ("ch", "base_channels"),
    "multipliers": ("ch_mult", "channel_multiplier"),
    "blocks": ("num_res_blocks", "num_res_blocks"),
    "attention": ("attn_resolutions", "attn_resolutions"),
    "latent": ("z_channels", "latent_channels"),
    "codebook_size": ("n_embed", "num_embeddings"),
    "code_width": ("embed_dim", "embed_dim"),
}
# transformers' defaults, which its files may leave out
DEFAULTS: dict[str, Any] = {
    "resolution": 512,
    "base_channels": 128,
    "channel_multiplier": (1, 1, 2, 2, 4),
    "num_res_blocks": 2,
    "attn_resolutions": None,
    "latent_channels": 256,
    "num_embeddings": 8192,
    "embed_dim": 256,
}
# what makes theirs our network: setting -> its value here, which is its default
SAME: dict[str, object] = {
    "in_channels": 3,
    "out_ch": 3,
    "double_z": False,
    "double_latent": False,
    "attn_type": "vanilla",
    "resamp_with_conv": True,
    "use_linear_attn": False,
    "tanh_out": False,
    "give_pre_end": False,
    "remap": None,
}


def read(weights: Path, settings: Path) -> VQGAN:
    """A VQGAN of taming-transformers or Chameleon.

    Args:
        weights: its `.ckpt` or safetensors.
        settings: the `.yaml` beside it.

    Raises:
        CheckpointError: a file is missing or damaged, holds code, or is of another
            network.
    """
    config = settings_from_yaml(settings)
    tensors = weight_files.load(weights)
    return built(from_taming(tensors, config, str(weights)), config)


def built(tensors: Mapping[str, Tensor], config: VQGANConfig) -> VQGAN:
    """A VQGAN of this shape with these parameters, in fp32."""
    with torch.device("meta"):
        vqgan = VQGAN(config)
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    vqgan.load_state_dict(wide, assign=True)
    return vqgan.eval()


def settings_from_yaml(path: Path) -> VQGANConfig:
    """Our shape for a `.yaml` of taming-transformers.

    Raises:
        CheckpointError: it is missing or damaged, or of another network.
    """
    return settings_from_taming(_yaml(path), str(path))


def settings_from_taming(table: Mapping[str, Any], origin: str) -> VQGANConfig:
    """Our shape for a configuration of taming-transformers.

    Args:
        table: the whole, or what is under `model.params` in it.
        origin: where it comes from, for the message.

    Raises:
        CheckpointError: a setting is missing, or makes another network.
    """
    try:
        params = table["model"]["params"] if "model" in table else table
        found = {**params, **params["ddconfig"]}
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{origin} has no ddconfig; is it the settings of a VQGAN?"
        ) from error
    return _config(found, 0, origin)


def settings_from_transformers(table: Mapping[str, Any], origin: str) -> VQGANConfig:
    """Our shape for the `vq_config` of transformers' Chameleon, without a decoder.

    What it leaves out has transformers' default.

    Raises:
        CheckpointError: a setting is missing, or makes another network.
    """
    return _config({**DEFAULTS, **table, "decodes": False}, 1, origin)


def names(config: VQGANConfig) -> Iterator[tuple[str, str]]:
    """Each of our names with taming's."""
    with torch.device("meta"):
        vqgan = VQGAN(config)
    yield from PARTS.items()
    layers = [("encoder", vqgan.encoder, list(_encoder_layers(config)))]
    if config.decodes:
        layers.append(("decoder", vqgan.decoder, list(_decoder_layers(config))))
    for side, part, theirs in layers:
        ours = [pair for pair in part.named_children() if [*pair[1].parameters()]]
        for (place, layer), layer_name in zip(ours, theirs, strict=True):
            for name in dict(layer.named_parameters()):
                first, dot, rest = name.partition(".")
                within = f"{WITHIN.get(first, first)}{dot}{rest}"
                yield f"{side}.{place}.{name}", f"{side}.{layer_name}.{within}"


def from_taming(
    tensors: Mapping[str, Tensor], config: VQGANConfig, origin: str
) -> dict[str, Tensor]:
    """Taming's tensors under our names; a decoder not asked for is left out.

    Args:
        tensors: its state, which may lie on the meta device.
        config: the shape.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or has no place in our
            network; the first is named.
    """
    unwanted = DROPPED if config.decodes else (*DROPPED, "decoder.")
    left = {name: x for name, x in tensors.items() if not name.startswith(unwanted)}
    with torch.device("meta"):
        wanted = VQGAN(config).state_dict()
    renamed = {}
    for ours, theirs in names(config):
        tensor = weight_files.take(left, theirs, origin)
        renamed[ours] = weight_files.shaped(tensor, wanted[ours].shape, theirs, origin)
    if left:
        raise CheckpointError(
            f"{origin} holds {min(left)}, which this VQGAN has no place for"
        )
    return renamed


def to_taming(tensors: Mapping[str, Tensor], config: VQGANConfig) -> dict[str, Tensor]:
    """Our tensors under taming's names: the inverse of `from_taming`."""
    return {theirs: tensors[ours] for ours, theirs in names(config)}


def _encoder_layers(config: VQGANConfig) -> Iterator[str]:
    """Taming's names of the encoder's layers that have parameters, in our order."""
    yield "conv_in"
    for level in range(len(config.multipliers)):
        side = config.pixels // 2**level
        yield from _stage(f"down.{level}", config.blocks, side in config.attention)
        if level < len(config.multipliers) - 1:
            yield f"down.{level}.downsample"
    yield from ("mid.block_1", "mid.attn_1", "mid.block_2", "norm_out", "conv_out")


def _decoder_layers(config: VQGANConfig) -> Iterator[str]:
    """The same of the decoder, whose levels are counted from the last."""
    yield from ("conv_in", "mid.block_1", "mid.attn_1", "mid.block_2")
    for level in reversed(range(len(config.multipliers))):
        side = config.pixels // 2**level
        attends = side in config.attention
        yield from _stage(f"up.{level}", config.decoder_blocks, attends)
        if level > 0:
            yield f"up.{level}.upsample"
    yield from ("norm_out", "conv_out")


def _stage(name: str, blocks: int, attends: bool) -> Iterator[str]:
    for block in range(blocks):
        yield f"{name}.block.{block}"
        if attends:
            yield f"{name}.attn.{block}"


def _config(found: Mapping[str, Any], column: int, origin: str) -> VQGANConfig:
    """Our shape for settings of one spelling, checked."""
    for name, value in SAME.items():
        if found.get(name, value) != value:
            raise CheckpointError(
                f"{origin}: {name} is {found[name]!r}, and this VQGAN has {value!r}; "
                "another cannot be imported"
            )
    shape: dict[str, Any] = {
        ours: found.get(theirs[column]) for ours, theirs in SHAPE.items()
    }
    shape["attention"] = shape["attention"] or []
    for ours, value in shape.items():
        numbers = value if ours in ("multipliers", "attention") else [value]
        if not isinstance(numbers, list | tuple) or {*map(type, numbers)} - {int}:
            spelled = SHAPE[ours][column]
            raise CheckpointError(
                f"{origin}: {spelled} is {value!r}, not as it must be"
            )
    multipliers, channels = tuple(shape["multipliers"]), shape["channels"]
    if multipliers[:1] != (1,) or channels < GROUPED or channels % 32:
        raise CheckpointError(
            f"{origin}: {channels} channels times {list(multipliers)}; this VQGAN "
            f"needs a multiple of 32 from {GROUPED} on, times 1 first"
        )
    # beta stands before the other term unless taming's mistake is turned off
    legacy = found.get("legacy", True)
    weights = (1.0, BETA) if legacy else (BETA, 1.0)
    quantizer = QuantizerConfig(
        codebook_size=shape.pop("codebook_size"),
        code_width=shape.pop("code_width"),
        commitment=weights[0],
        codebook_weight=weights[1],
    )
    shape |= {"multipliers": multipliers, "attention": tuple(shape["attention"])}
    try:
        return VQGANConfig(
            **shape,
            decoder_blocks=shape["blocks"] + 1,
            decodes=found.get("decodes", True),
            quantizer=quantizer,
        )
    except ConfigError as error:
        raise CheckpointError(f"{origin}: {error}") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        table = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is missing or damaged ({reason}); copy it again"
        ) from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} is no table of settings; copy it again")
    return table
