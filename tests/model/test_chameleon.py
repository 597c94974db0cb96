"""The Chameleon model: its laws, and that it is the function transformers has."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from cm3leon.errors import ConfigError
from cm3leon.model import chameleon_checkpoint, language_model
from cm3leon.model.chameleon import Chameleon, ChameleonConfig, HeadNorm, rotate

SHAPE = ChameleonConfig(
    vocabulary_size=96,
    context=64,
    width=48,
    layers=3,
    heads=4,
    key_heads=2,
    inner=80,
)
SHAPES = {
    "before": SHAPE,
    "after": replace(SHAPE, norm_after=True),
    "own keys": replace(SHAPE, key_heads=4, theta=500.0, epsilon=1e-3),
}


def scrambled(config):
    """A model in which every weight matters."""
    model = Chameleon(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        weight.normal_(std=0.15, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weight += 1
    return model


def peer(model, **changes):
    """transformers' Chameleon with the same weights; no id is masked as an image's."""
    transformers = pytest.importorskip("transformers")
    settings = chameleon_checkpoint.settings_to_transformers(model.config) | changes
    pictures = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1}
    pictures |= {"embed_dim": 4, "latent_channels": 4, "num_embeddings": 8}
    config = transformers.ChameleonConfig(
        **settings, vq_config=pictures, vocabulary_map={"<image>": 5}
    )
    theirs = transformers.ChameleonForConditionalGeneration(config).eval()
    tensors = chameleon_checkpoint.to_transformers(model.state_dict())
    left = theirs.load_state_dict(tensors, strict=False)
    assert all("vqmodel" in name for name in left.missing_keys)
    assert left.unexpected_keys == []
    return theirs


@pytest.fixture(params=SHAPES, scope="module")
def model(request):
    return scrambled(SHAPES[request.param])


def ids_of(seed, *shape):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, SHAPE.vocabulary_size, shape, generator=random)


@pytest.mark.parametrize("short", [0, 10_000], ids=["fused", "by hand"])
@torch.no_grad()
def test_chameleon_of_transformers_is_the_same_function(model, monkeypatch, short):
    monkeypatch.setattr(language_model, "SHORT", short)
    ids, theirs = ids_of(0, 2, 64), peer(model)
    assert model(ids).std() > 0.1  # the weights do something
    hidden = theirs.model(ids).last_hidden_state
    assert_close(model.hidden(ids), hidden, atol=1e-4, rtol=0)
    assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_given_positions_are_read_as_theirs(model):
    ids, positions = ids_of(0, 2, 20), torch.randint(0, 4000, (2, 20))
    theirs = peer(model)(ids, position_ids=positions).logits
    assert_close(model(ids, positions), theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_other_norm_placement_is_another_function(model):
    ids = ids_of(0, 1, 20)
    other = peer(model, swin_norm=not model.config.norm_after)(ids).logits
    assert not torch.allclose(model(ids), other, atol=1e-2)


def test_gradients_are_theirs():
    model = scrambled(SHAPE).requires_grad_(True)
    theirs, ids = peer(model), ids_of(0, 2, 20)
    for logits in (model(ids), theirs(ids).logits):
        logits[:, :-1].gather(2, ids[:, 1:, None]).mean().backward()
    for ours, rule in chameleon_checkpoint.names(SHAPE.layers):
        gradient = theirs.get_parameter(rule.transformers).grad
        assert_close(model.get_parameter(ours).grad, gradient, atol=1e-6, rtol=1e-4)


def test_lanes_of_a_batch_do_not_see_each_other(model):
    ids = ids_of(0, 3, 20)
    assert_close(model(ids), torch.cat([model(lane[None]) for lane in ids]))


@pytest.mark.parametrize("steps", [[20], [1] * 20, [19, 1], [3, 10, 1, 6]], ids=str)
def test_cache_is_no_cache(model, steps):
    ids, cache = ids_of(0, 2, 20), model.cache(2, 20)
    parts = [model(part, cache=cache) for part in ids.split(steps, 1)]
    assert_close(torch.cat(parts, 1), model(ids))


def test_lanes_of_any_lengths_are_read_as_each_alone(model):
    ids, lengths, cache = ids_of(0, 3, 20), [20, 13, 1], model.cache(3, 24)
    model.memorise(ids, None, cache)
    cache.trim(torch.tensor(lengths))
    more = ids_of(1, 3, 4)
    logits = torch.cat([model(part, cache=cache) for part in more.split(1, 1)], 1)
    for lane, length in enumerate(lengths):
        alone = torch.cat([ids[lane, :length], more[lane]])[None]
        assert_close(logits[lane], model(alone)[0, length:])


def test_a_shared_prefix_is_as_if_each_lane_had_read_it(model):
    ids, more = ids_of(0, 1, 16), ids_of(1, 3, 4)
    cache = model.cache(3, 4)
    cache.prefix = model.cache(1, 16)
    model.memorise(ids, None, cache.prefix)
    alone = model(torch.cat([ids.expand(3, -1), more], 1))[:, 16:]
    assert_close(model(more, cache=cache), alone)


@pytest.mark.parametrize("short", [0, 10_000])
def test_packed_is_unpacked(model, monkeypatch, short):
    monkeypatch.setattr(language_model, "SHORT", short)
    lengths = [7, 1, 12]
    rows = ids_of(0, 2, sum(lengths))
    documents = torch.arange(3).repeat_interleave(torch.tensor(lengths)).expand(2, -1)
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    packed = model(rows, positions, documents=documents)
    alone = torch.cat([model(part) for part in rows.split(lengths, 1)], 1)
    assert_close(packed, alone)


def test_changing_an_id_leaves_the_logits_before_it(model):
    ids = ids_of(0, 1, 12)
    before = model(ids)
    for changed in range(12):
        others = ids.clone()
        others[0, changed] = (ids[0, changed] + 1) % SHAPE.vocabulary_size
        after = model(others)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.allclose(after[:, changed:], before[:, changed:])


def test_only_distances_between_positions_matter(model):
    ids, positions = ids_of(0, 1, 12), torch.arange(12)[None]
    assert_close(model(ids, positions), model(ids))
    assert_close(model(ids, positions + 40), model(ids), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(ids, 2 * positions), model(ids), atol=1e-2)


def test_a_rotation_turns_and_keeps_lengths():
    x = torch.randn(1, 2, 3, 8)
    angles = torch.randn(1, 1, 3, 4)
    turned = rotate(x, (angles.cos(), angles.sin()))
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert_close(rotate(turned, (angles.cos(), -angles.sin())), x)


def test_a_head_norm_is_layer_norm_with_each_heads_own_scale():
    norm = HeadNorm(2, 8)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    x = torch.randn(3, 2, 5, 8)
    for head in range(2):
        alone = torch.nn.functional.layer_norm(
            x[:, head], (8,), norm.weight[head], norm.bias[head]
        )
        assert_close(norm(x)[:, head], alone)


def test_some_head_rows_are_the_same_columns(model):
    ids, rows = ids_of(0, 2, 10), torch.tensor([3, 90, 3, 0])
    assert_close(model(ids, head=rows), model(ids)[..., rows])


@pytest.mark.parametrize(("packing", "error"), [("bf16", 0.05), ("int8", 0.08)])
def test_packed_weights_are_nearly_the_same_function(packing, error):
    model, ids = scrambled(SHAPE), ids_of(0, 2, 20)
    logits = model(ids)
    model.pack(packing)
    assert model.packing == packing
    assert (model(ids).float() - logits).abs().mean() < error * logits.std()


def test_config_counts_the_parameters_it_makes(model):
    config = model.config
    assert config.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 50}, "width is 50, not a multiple of 2 x 4 heads"),
        ({"key_heads": 3}, "heads is 4, not a multiple of key_heads = 3"),
        ({"layers": 0}, "layers is 0, below 1"),
        ({"theta": 0.0}, "theta is 0.0, epsilon 1e-05; both must be above 0"),
    ],
)
def test_an_impossible_shape_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(SHAPE, **changes)
