import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from cm3leon.errors import ConfigError
from cm3leon.model import language_model
from cm3leon.model.presets import AUTHORS_VOCABULARY
from cm3leon.model.transformer import (
    EPSILON,
    POSITION_OFFSET,
    Transformer,
    TransformerConfig,
    norm,
)

SHAPE = {"vocabulary_size": 512, "context": 128, "width": 64, "layers": 2, "heads": 4}


def ids_of(seed, *shape):
    return torch.randint(0, 512, shape, generator=torch.Generator().manual_seed(seed))


def test_no_parameter_is_a_bias_or_belongs_to_a_norm(model, config):
    names = {name for name, _ in model.named_parameters()}
    blocks = {
        f"blocks.{layer}.{part}.weight"
        for layer in range(config.layers)
        for part in ("qkv", "out", "fc1", "fc2")
    }
    assert names == {"embedding.weight", "positions.weight", *blocks}
    assert names == set(model.state_dict())


def test_what_writes_into_the_stream_starts_at_exactly_zero(fresh):
    for block in fresh.blocks:
        assert not block.out.weight.any()
        assert not block.fc2.weight.any()
        assert block.qkv.weight.any()
        assert block.fc1.weight.any()


def test_at_the_start_every_block_is_the_identity(fresh):
    x = torch.randn(2, 7, fresh.config.width)
    for layer, block in enumerate(fresh.blocks):
        assert torch.equal(block(x, None, None, layer), x)


def test_at_the_start_logits_depend_on_id_and_position_alone(fresh):
    ids = ids_of(0, 2, 9)
    x = fresh.embedding(ids) + fresh.positions.weight[POSITION_OFFSET:][:9]
    assert_close(fresh(ids), norm(x) @ fresh.embedding.weight.T)
    others = ids.clone()
    others[:, :8] = ids_of(1, 2, 8)
    assert torch.equal(fresh(ids)[:, 8], fresh(others)[:, 8])


def test_fresh_weights_are_cut_normals(fresh):
    for name, weight in fresh.named_parameters():
        deviation, rows = 0.006, weight
        if name == "positions.weight":
            deviation, rows = 0.0002, weight[POSITION_OFFSET:]
            assert not weight[:POSITION_OFFSET].any()
        elif name.endswith(("out.weight", "fc2.weight")):
            continue
        assert rows.abs().max() <= 3 * deviation
        # cutting at three deviations leaves 98.66 % of the deviation
        assert_close(rows.std().item(), 0.9866 * deviation, rtol=0.03, atol=0.0)
        assert abs(rows.mean()) < 0.05 * deviation


def test_the_same_generator_gives_the_same_weights(config, fresh):
    again = Transformer(config, torch.Generator().manual_seed(0))
    for name, weight in fresh.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


@pytest.mark.parametrize(("width", "loss"), [(1024, 11.1), (1536, 11.2), (4096, 21.4)])
def test_the_first_loss_is_that_of_copying_the_id_before(width, loss):
    # At the start blocks are identities, so the table is the model; it is also the
    # head, so each id predicts itself, the stronger the wider. 2,048 rows stand for
    # the authors' vocabulary.
    generator = torch.Generator().manual_seed(0)
    table = torch.empty(2048, width)
    torch.nn.init.trunc_normal_(
        table, std=0.006, a=-0.018, b=0.018, generator=generator
    )
    logits = F.linear(norm(table[None])[0], table)
    itself = logits.diagonal().clone()
    others = logits.fill_diagonal_(-torch.inf).logsumexp(-1)
    others += math.log(AUTHORS_VOCABULARY / 2047)
    # a target is another id, whose logit is 0 on average
    found = torch.logaddexp(itself, others).mean().item()
    assert found == pytest.approx(loss, abs=0.1)


def test_norm_is_layer_norm_with_nothing_to_learn():
    x = torch.randn(2, 3, 64)
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    assert_close(norm(x), centred / (variance + EPSILON).sqrt())
    assert EPSILON == 1e-5


def test_changing_an_id_leaves_the_logits_before_it(model):
    ids = ids_of(0, 1, 12)
    before = model(ids)
    for changed in range(12):
        others = ids.clone()
        others[0, changed] = (ids[0, changed] + 1) % 512
        after = model(others)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.allclose(after[:, changed:], before[:, changed:])


@pytest.mark.parametrize("short", [9, 10])
def test_short_rows_by_two_products_are_long_rows_by_the_fused_kernel(
    model, monkeypatch, short
):
    ids, kernels = ids_of(0, 2, 10), []
    fused = F.scaled_dot_product_attention
    expected = model(ids)

    def counted(*tensors, **options):
        kernels.append(options)
        return fused(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(language_model, "SHORT", short)
    assert_close(model(ids), expected)
    assert len(kernels) == (model.config.layers if short < 10 else 0)


@pytest.mark.parametrize("short", [0, 1000])
def test_under_autocast_logits_are_near_those_of_fp32(model, monkeypatch, short):
    monkeypatch.setattr(language_model, "SHORT", short)
    ids = ids_of(0, 2, 40)
    with torch.autocast("cpu", torch.bfloat16):
        halves = model(ids)
    assert halves.dtype == torch.bfloat16
    assert (halves - model(ids)).abs().mean() < 0.03 * model(ids).std()


def test_positions_count_from_zero_unless_given(model):
    ids = ids_of(0, 2, 10)
    counted = torch.arange(10).expand(2, 10)
    assert torch.equal(model(ids), model(ids, counted))
    assert not torch.allclose(model(ids), model(ids, counted + 3))


def test_every_position_of_the_context_has_a_row_and_the_next_has_none(model):
    ids = ids_of(0, 1, 128)
    assert model(ids).shape == (1, 128, 512)
    with pytest.raises(IndexError):
        model(ids_of(0, 1, 129))


def test_some_head_rows_are_the_same_columns(model):
    ids, rows = ids_of(0, 2, 10), torch.tensor([3, 500, 3, 0])
    assert_close(model(ids, head=rows), model(ids)[..., rows])


def test_hidden_is_what_the_head_multiplies(model):
    ids = ids_of(0, 2, 10)
    assert torch.equal(model.hidden(ids) @ model.embedding.weight.T, model(ids))


def test_lanes_of_a_batch_do_not_see_each_other(model):
    ids = ids_of(0, 3, 10)
    alone = torch.cat([model(lane[None]) for lane in ids])
    assert_close(model(ids), alone)


def test_the_head_is_the_embedding(model):
    ids = ids_of(0, 1, 4)
    before = model(ids)
    assert 7 not in ids
    model.embedding.weight[7] *= 2
    after = model(ids)
    assert_close(after[..., 7], 2 * before[..., 7])
    assert_close(after[..., 8:], before[..., 8:])


@pytest.mark.parametrize("time", [16, 64])
def test_flops_per_id_are_those_torch_counts(time):
    config = TransformerConfig(**SHAPE | {"vocabulary_size": 96, "width": 32})
    model = Transformer(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, time, dtype=torch.long)).sum().backward()
    counted = counter.get_total_flops() / (2 * time)
    # torch counts the whole square of attention, we the half below the diagonal
    half = 6 * config.layers * config.width * time
    assert counted - half == config.flops_per_id(time)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 65}, "width is 65, not a multiple of heads = 4"),
        ({"layers": 0}, "layers is 0, below 1"),
        ({"heads": 0}, "heads is 0, below 1"),
        ({"vocabulary_size": -1}, "vocabulary_size is -1, below 1"),
    ],
)
def test_an_impossible_shape_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        TransformerConfig(**SHAPE | changes)


def test_config_counts_the_parameters_it_makes(model, config):
    assert config.parameters == sum(weight.numel() for weight in model.parameters())
    assert config.head_dim * config.heads == config.width
