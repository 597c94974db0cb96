import pytest
import torch
from torch.testing import assert_close

from cm3leon.errors import CheckpointError
from cm3leon.model import language_model, opt
from cm3leon.model.presets import PRESETS
from cm3leon.model.transformer import TransformerConfig

WIDE = TransformerConfig(
    vocabulary_size=1000, context=256, width=320, layers=3, heads=5
)
SHAPES = [PRESETS["tiny"], WIDE]


def peer(model):
    """transformers' OPT with the same weights."""
    transformers = pytest.importorskip("transformers")
    config = model.config
    settings = opt.settings_to_opt(config, pad=1, eos=2)
    with torch.device("meta"):
        opt_config = transformers.OPTConfig(**settings)
        theirs = transformers.OPTForCausalLM(opt_config)
    tensors = opt.to_opt(model.state_dict())
    left = theirs.load_state_dict(tensors, strict=False, assign=True)
    theirs.tie_weights()
    assert left.missing_keys == ["lm_head.weight"]  # tied to the embedding
    assert left.unexpected_keys == []
    return theirs.eval()


def ids_for(config, batch=2):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, config.context)
    return torch.randint(0, config.vocabulary_size, shape, generator=generator)


@pytest.mark.parametrize("config", SHAPES, ids=["tiny", "wide"])
@pytest.mark.parametrize("short", [0, 10_000], ids=["fused", "by hand"])
@torch.no_grad()
def test_opt_of_transformers_is_the_same_function(
    config, scrambled, monkeypatch, short
):
    monkeypatch.setattr(language_model, "SHORT", short)
    model = scrambled(config)
    ids = ids_for(config)
    ours, theirs = model(ids), peer(model)(ids).logits
    assert ours.std() > 0.1  # the weights do something
    assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", SHAPES, ids=["tiny", "wide"])
@torch.no_grad()
def test_opt_of_transformers_reads_given_positions_as_we_do(config, scrambled):
    model = scrambled(config)
    ids = ids_for(config)
    positions = torch.randint(0, config.context, ids.shape)
    theirs = peer(model)(ids, position_ids=positions).logits
    assert not torch.allclose(model(ids), theirs, atol=1e-2)
    assert_close(model(ids, positions), theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_fresh_model_and_its_gradients_agree_with_opt(fresh):
    theirs = peer(fresh)
    ids = ids_for(fresh.config)
    fresh.requires_grad_(True)
    with torch.enable_grad():
        for logits in (fresh(ids), theirs(ids).logits):
            logits[:, :-1].gather(2, ids[:, 1:, None]).mean().backward()
    for name, others in opt.names(fresh.config.layers):
        joined = torch.cat([theirs.get_parameter(other).grad for other in others])
        joined[1] *= "embedding" not in name  # OPT does not train the row of <pad>
        ours = fresh.get_parameter(name).grad.clone()
        ours[1] *= "embedding" not in name
        assert_close(ours, joined, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("config", SHAPES, ids=["tiny", "wide"])
def test_there_and_back_is_identity_bit_for_bit(config, scrambled):
    ours = scrambled(config).state_dict()
    theirs = opt.to_opt(ours)
    back = opt.from_opt(theirs, config.layers, "theirs")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    again = opt.to_opt(back)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


@torch.no_grad()
def test_what_transformers_holds_comes_back_bit_for_bit(model, config):
    back = opt.from_opt(peer(model).state_dict(), config.layers, "theirs")
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor)


def test_half_precision_stays_half(model, config):
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    theirs = opt.to_opt(halves)
    assert {tensor.dtype for tensor in theirs.values()} == {torch.float16}


@pytest.mark.parametrize("config", SHAPES, ids=["tiny", "wide"])
def test_settings_there_and_back_are_the_same_shape(config):
    transformers = pytest.importorskip("transformers")
    settings = opt.settings_to_opt(config, pad=1, eos=2)
    assert opt.settings_from_opt(settings, "theirs") == config
    theirs = transformers.OPTConfig(**settings)
    assert opt.settings_from_opt(theirs.to_dict(), "theirs") == config
    assert opt.settings_from_opt(theirs.to_diff_dict(), "theirs") == config


def test_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    defaults = transformers.OPTConfig()
    for name, default in opt.SHAPE.values():
        assert getattr(defaults, name) == default
    for name, (_, default) in opt.SAME.items():
        assert getattr(defaults, name) == default


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model_type", "gpt2", "model_type is 'gpt2'; only 'opt' is read"),
        ("enable_bias", True, "enable_bias is True, and this model is an OPT with F"),
        ("layer_norm_elementwise_affine", True, "elementwise_affine is True"),
        ("activation_function", "gelu", "activation_function is 'gelu'"),
        ("do_layer_norm_before", False, "do_layer_norm_before is False"),
        ("ffn_dim", 64, "ffn_dim is 64, and this model is an OPT with 256"),
        ("word_embed_proj_dim", 32, "word_embed_proj_dim is 32"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("hidden_size", "64", "hidden_size is '64', not a whole number"),
    ],
)
def test_another_function_is_refused_by_the_setting(config, name, value, message):
    settings = opt.settings_to_opt(config, pad=1, eos=2) | {name: value}
    if name == "hidden_size":
        settings |= {"ffn_dim": 4 * value, "word_embed_proj_dim": value}
    with pytest.raises(CheckpointError, match=f"x/config.json: .*{message}"):
        opt.settings_from_opt(settings, "x/config.json")


def test_the_original_opt_is_refused_for_its_biases():
    with pytest.raises(CheckpointError, match="enable_bias is True"):
        opt.settings_from_opt({"model_type": "opt"}, "x")


def spoil(tensors, change):
    name = "model.decoder.layers.1.fc1.weight"
    if change == "missing":
        del tensors[name]
    elif change == "bias":
        tensors["model.decoder.layers.1.fc1.bias"] = torch.zeros(256)
    elif change == "head":
        tensors["lm_head.weight"] = torch.zeros(512, 64)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "x lacks model.decoder.layers.1.fc1.weight; is it an OPT"),
        ("bias", "x holds model.decoder.layers.1.fc1.bias, which .* no place for"),
        ("head", "lm_head.weight differs from the embedding"),
    ],
)
def test_tensors_that_do_not_fit_are_named(model, config, change, message):
    tensors = spoil(opt.to_opt(model.state_dict()), change)
    with pytest.raises(CheckpointError, match=message):
        opt.from_opt(tensors, config.layers, "x")
