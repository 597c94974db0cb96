import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cm3leon.model.packed import FEW, Int8Linear, PackedLinear, linear, quantize
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.precision import has_bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(), reason="this processor emulates bf16"
)


@pytest.fixture
def weight():
    made = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    return (made * 0.1).bfloat16()


@pytest.fixture
def rows():
    made = torch.randn(2 * FEW, 64, generator=torch.Generator().manual_seed(1))
    return made.bfloat16()


@needs_bfloat16
def test_packed_bf16_is_bf16_to_the_bit(weight, rows):
    packed = linear(weight, "bf16")
    assert isinstance(packed, PackedLinear)
    assert torch.equal(packed(rows), nn.functional.linear(rows, weight))


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("few", [1, 2, 5, FEW])
def test_rows_do_not_know_of_each_other(weight, rows, kind, few):
    packed = linear(weight, kind)
    some = rows[:FEW]
    parts = [packed(some[start : start + few]) for start in range(0, FEW, few)]
    assert torch.equal(torch.cat(parts), packed(some))


def test_int8_is_off_by_half_a_step_at_most(weight):
    quantized, scales = quantize(weight)
    assert quantized.dtype == torch.int8
    back = quantized.float() * scales.float()[:, None]
    assert ((back - weight.float()).abs() <= scales.float()[:, None] * 0.5001).all()
    assert quantized.abs().amax(1).min() >= 126


def test_a_row_of_zeros_stays_zero():
    quantized, scales = quantize(torch.zeros(3, 8))
    assert not quantized.any()
    assert scales.isfinite().all()


def test_few_rows_and_many_are_multiplied_alike(weight, rows):
    layer = Int8Linear(weight)
    few = torch.cat([layer(rows[:FEW]), layer(rows[FEW:])])
    assert_close(few, layer(rows), rtol=0.02, atol=0.02)
    folded = layer(rows.view(4, -1, 64))
    assert torch.equal(folded.view(len(rows), -1), layer(rows))


@pytest.mark.parametrize("packing", ["bf16", "int8"])
def test_a_packed_model_computes_nearly_the_same(packing):
    shape = TransformerConfig(
        vocabulary_size=256, context=64, width=64, layers=2, heads=4
    )
    model = Transformer(shape, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.08, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(2))
    wanted = model(ids).log_softmax(-1)
    model.pack(packing)
    assert not any(isinstance(one, nn.Linear) for one in model.modules())
    assert model.packing == packing
    ours = model(ids).float().log_softmax(-1)
    close = (ours - wanted).abs().mean() / wanted.std()
    assert close < (0.02 if packing == "bf16" else 0.05)
    assert not any(one.requires_grad for one in model.parameters())
