"""Public layouts of Chameleon's weights: read, written, refused where they differ."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cm3leon.errors import CheckpointError
from cm3leon.model import chameleon_checkpoint as checkpoint
from cm3leon.model.chameleon import Chameleon, ChameleonConfig

SHAPE = ChameleonConfig(
    vocabulary_size=96,
    context=4096,
    width=64,
    layers=2,
    heads=8,
    key_heads=4,
    inner=80,
)
SHAPES = [SHAPE, replace(SHAPE, norm_after=True, key_heads=8, epsilon=1e-3)]


def scrambled(config, ranks):
    """A model in which every weight matters and each rank has its own head norms."""
    model = Chameleon(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.normal_(std=0.2, generator=generator)
    for block in model.blocks:
        for norm in (block.q_norm, block.k_norm):
            for weight in (norm.weight, norm.bias):
                each = len(weight) // ranks
                weight.copy_(weight[::each].repeat_interleave(each, 0))
    return model


def metas(shards, config, ids):
    """Logits as Meta's ranks compute them: an independent few lines of the paper.

    Rotary positions multiply neighbouring channels, as complex numbers, by
    exp(i position theta^(-2j / head_dim)).
    """
    size, head_dim = len(shards), config.width // config.heads
    speeds = config.theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    turns = torch.polar(torch.tensor(1.0), torch.outer(torch.arange(len(ids)), speeds))

    def rms(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + config.epsilon).sqrt()

    def heads(shard, name, norm, x):
        y = F.linear(x, shard[f"{name}.weight"]).unflatten(-1, (-1, head_dim))
        if norm is None:
            return y
        weight, bias = (shard[f"{norm}.{part}"] for part in ("weight", "bias"))
        y = F.layer_norm(y, (head_dim,), weight, bias)
        pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2))) * turns[:, None]
        return torch.view_as_real(pairs).flatten(-2)

    def attention(layer, x):
        parts, at = [], f"layers.{layer}.attention"
        for shard in shards:
            q = heads(shard, f"{at}.wq", f"{at}.q_normalization", x)
            k = heads(shard, f"{at}.wk", f"{at}.k_normalization", x)
            v = heads(shard, f"{at}.wv", None, x)
            each = q.shape[1] // k.shape[1]
            found = []
            for head in range(q.shape[1]):
                scores = q[:, head] @ k[:, head // each].T / head_dim**0.5
                hidden = torch.ones_like(scores).triu(1).bool()
                shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
                found.append(shares @ v[:, head // each])
            parts.append(F.linear(torch.cat(found, -1), shard[f"{at}.wo.weight"]))
        return sum(parts)

    def feed(layer, x):
        at = f"layers.{layer}.feed_forward"
        parts = []
        for shard in shards:
            w1, w2, w3 = (shard[f"{at}.w{i}.weight"] for i in (1, 2, 3))
            parts.append((F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T)
        return sum(parts)

    x = torch.cat(
        [F.embedding(ids, shard["tok_embeddings.weight"]) for shard in shards], -1
    )
    for layer in range(config.layers):
        first = shards[size - 1]  # all have the same norms
        norms = [
            first[f"layers.{layer}.{n}.weight"] for n in ("attention_norm", "ffn_norm")
        ]
        for part, weight in zip((attention, feed), norms, strict=True):
            if config.norm_after:
                x = x + rms(part(layer, x), weight)
            else:
                x = x + part(layer, rms(x, weight))
    x = rms(x, shards[0]["norm.weight"])
    return torch.cat([x @ shard["output.weight"].T for shard in shards], -1)


@pytest.mark.parametrize("config", SHAPES, ids=["before", "after"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_weights_of_metas_ranks_are_the_same_function(config, ranks):
    model = scrambled(config, ranks)
    shards = checkpoint.to_meta(model.state_dict(), config, ranks)
    ids = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(0))
    assert_close(model(ids[None])[0], metas(shards, config, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", SHAPES, ids=["before", "after"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_to_meta_and_back_is_identity(config, ranks):
    ours = scrambled(config, ranks).state_dict()
    shards = checkpoint.to_meta(ours, config, ranks)
    back = checkpoint.from_meta(shards, config, "x")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    again = checkpoint.to_meta(back, config, ranks)
    for one, other in zip(again, shards, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("config", SHAPES, ids=["before", "after"])
def test_to_transformers_and_back_is_identity(config):
    ours = scrambled(config, 1).state_dict()
    theirs = checkpoint.to_transformers(ours)
    back = checkpoint.from_transformers(theirs, config, "x")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_a_head_norm_for_each_rank_is_repeated_for_its_heads():
    ours = scrambled(SHAPE, 2).state_dict()
    theirs = checkpoint.to_transformers(ours)
    for name, tensor in theirs.items():
        if "q_norm" in name or "k_norm" in name:
            theirs[name] = tensor[:: len(tensor) // 2]
    back = checkpoint.from_transformers(theirs, SHAPE, "x")
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_norms_that_drifted_apart_among_ranks_are_averaged():
    shards = checkpoint.to_meta(scrambled(SHAPE, 2).state_dict(), SHAPE, 2)
    shards[1]["norm.weight"] = shards[0]["norm.weight"] + 1
    back = checkpoint.from_meta(shards, SHAPE, "x")
    assert_close(back["norm.weight"], shards[0]["norm.weight"] + 0.5)


def test_half_precision_stays_half():
    halves = {
        name: tensor.bfloat16()
        for name, tensor in scrambled(SHAPE, 2).state_dict().items()
    }
    shards = checkpoint.to_meta(halves, SHAPE, 2)
    for back in (
        checkpoint.to_transformers(halves),
        checkpoint.from_meta(shards, SHAPE, "x"),
    ):
        assert {tensor.dtype for tensor in back.values()} == {torch.bfloat16}


@pytest.mark.parametrize("config", SHAPES, ids=["before", "after"])
def test_settings_there_and_back_are_the_same_shape(config):
    transformers = pytest.importorskip("transformers")
    settings = checkpoint.settings_to_transformers(config)
    assert checkpoint.settings_from_transformers(settings, "x") == config
    theirs = transformers.ChameleonConfig(**settings)
    assert checkpoint.settings_from_transformers(theirs.to_dict(), "x") == config
    assert checkpoint.settings_from_transformers(theirs.to_diff_dict(), "x") == config
    older = {**settings, "rope_theta": 9e3, "rope_scaling": None}
    del older["rope_parameters"]
    assert checkpoint.settings_from_transformers(older, "x").theta == 9e3


def test_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    defaults = transformers.ChameleonConfig()
    for name, default in checkpoint.SHAPE.values():
        assert getattr(defaults, name) == default
    for name, default in checkpoint.SAME.items():
        assert getattr(defaults, name) == default
    public = checkpoint.settings_from_transformers({"model_type": "chameleon"}, "x")
    with torch.device("meta"):
        theirs = transformers.ChameleonForConditionalGeneration._from_config(
            transformers.ChameleonConfig(vocabulary_map={"<image>": 5})
        )
    sizes = {name: weight.numel() for name, weight in theirs.named_parameters()}
    pictures = [size for name, size in sizes.items() if "vqmodel" in name]
    assert public.parameters == sum(sizes.values()) - sum(pictures)


def test_metas_settings_give_the_shape():
    config = SHAPES[1]
    shards = checkpoint.to_meta(scrambled(config, 2).state_dict(), config, 2)
    settings = {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 8,
        "norm_eps": 1e-3,
        "swin_norm": True,
        "qk_normalization": True,
        "model_parallel_size": 2,
    }
    assert checkpoint.settings_from_meta(settings, shards, "x") == config
    grouped = settings | {"n_kv_heads": 4, "rope_theta": 500}
    expected = replace(config, key_heads=4, theta=500.0)
    assert checkpoint.settings_from_meta(grouped, shards, "x") == expected
    for change, message in (
        ({"qk_normalization": False}, "x: the model has no query-key norm"),
        ({"model_parallel_size": 4}, "x: the model is in 4 files, 2 are here; copy"),
        ({"n_layers": None}, "x: layers is None, no int"),
        ({"n_heads": 3}, "x: width is 64, not a multiple of 2 x 3 heads"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoint.settings_from_meta(settings | change, shards, "x")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model_type", "llama", "model_type is 'llama'; only 'chameleon' is read"),
        ("attention_bias", True, "attention_bias is True, and this model is a Cham"),
        ("mlp_bias", True, "mlp_bias is True"),
        ("hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("tie_word_embeddings", True, "tie_word_embeddings is True"),
        ("rope_parameters", {"rope_type": "yarn"}, "rope_type is 'yarn'"),
        ("rope_scaling", {"type": "linear", "factor": 2}, "rope_type is 'linear'"),
        ("hidden_size", "64", "width is '64', no int"),
        ("hidden_size", 65, "width is 65, not a multiple"),
    ],
)
def test_another_function_is_refused_by_the_setting(name, value, message):
    settings = {"model_type": "chameleon", name: value}
    with pytest.raises(CheckpointError, match=f"x/config.json: {message}"):
        checkpoint.settings_from_transformers(settings, "x/config.json")


UP = {"theirs": "model.layers.1.mlp.up_proj.weight"}
UP["meta"] = "layers.1.feed_forward.w3.weight"


def read(layout, tensors):
    if layout == "meta":
        return checkpoint.from_meta([tensors], SHAPE, "x")
    return checkpoint.from_transformers(tensors, SHAPE, "x")


@pytest.mark.parametrize("layout", ["theirs", "meta"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "x lacks {up}; is it another model's"),
        ((81, 64), "x: {up} is [81, 64], the model needs [80, 64]; use"),
        ("bias", "x holds {up}.bias, which a Chameleon has no place for"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_that_do_not_fit_are_named(layout, change, message, device):
    ours = scrambled(SHAPE, 1).to(device).state_dict()
    tensors, name = checkpoint.to_transformers(ours), UP[layout]
    if layout == "meta":
        (tensors,) = checkpoint.to_meta(scrambled(SHAPE, 1).state_dict(), SHAPE)
        tensors = {key: tensor.to(device) for key, tensor in tensors.items()}
    assert read(layout, dict(tensors)).keys() == ours.keys()
    if change is None:
        del tensors[name]
    elif change == "bias":
        tensors[f"{name}.bias"] = torch.zeros(80)
    else:
        tensors[name] = torch.zeros(change, device=device)
    with pytest.raises(CheckpointError, match=re.escape(message.format(up=name))):
        read(layout, tensors)


def test_what_anyone_can_compute_and_pictures_are_no_strangers():
    ours = scrambled(SHAPE, 1).state_dict()
    theirs = checkpoint.to_transformers(ours)
    theirs["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    theirs["model.vqmodel.encoder.conv_in.weight"] = torch.zeros(4)
    assert checkpoint.from_transformers(theirs, SHAPE, "x").keys() == ours.keys()
    (meta,) = checkpoint.to_meta(ours, SHAPE)
    meta["rope.freqs"] = torch.zeros(4)
    assert checkpoint.from_meta([meta], SHAPE, "x").keys() == ours.keys()


def test_a_rank_too_many_is_refused():
    shards = checkpoint.to_meta(scrambled(SHAPE, 1).state_dict(), SHAPE)
    with pytest.raises(CheckpointError, match="4 heads do not divide among 3 files"):
        checkpoint.from_meta(shards * 3, SHAPE, "x")
