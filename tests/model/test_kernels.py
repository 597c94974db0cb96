import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cm3leon.model.cache import KVCache
from cm3leon.model.kernels import kernels
from cm3leon.model.packed import Int8Linear
from cm3leon.model.transformer import Transformer, TransformerConfig

DIM = 64
CAPACITY = 150


@pytest.fixture(scope="module")
def compiled():
    return kernels(DIM) or pytest.skip("no AVX-512, compiler or ninja here")


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def caches(compiled, random, batch, capacity, lengths):
    """The same keys and values for the kernel and for torch."""
    ours = KVCache.allocate(
        layers=1,
        batch=batch,
        heads=3,
        capacity=capacity,
        head_dim=DIM,
        dtype=torch.bfloat16,
    )
    for tensor in (*ours.keys, *ours.values):
        tensor.normal_(generator=random)
    theirs = KVCache([ours.keys[0].float()], [ours.values[0].float()], ours.lengths)
    ours.kernels = compiled
    ours.lengths += torch.tensor(lengths)
    ours.measure()
    theirs.measure()
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("prefix", [None, [70, 33], [70, 0], [0, 0]], ids=str)
@pytest.mark.parametrize("lengths", [[9, 9, 9, 9], [0, 1, 130, 64]], ids=str)
def test_attention_is_that_of_the_cache_without_kernels(
    compiled, random, time, prefix, lengths
):
    ours, theirs = caches(compiled, random, 4, CAPACITY, lengths)
    if prefix:
        ours.prefix, theirs.prefix = caches(compiled, random, 2, 80, prefix)
    new = torch.randn(3, 4, time, 3, DIM, generator=random).bfloat16().transpose(2, 3)
    for cache in (ours, theirs):
        cache.begin(time)
    found = ours.attend(0, *new)
    assert_close(found.float(), theirs.attend(0, *new.float()), rtol=0.01, atol=0.01)
    for row, length in enumerate(lengths):
        stored = ours.keys[0][row, :, length : length + time]
        assert torch.equal(stored, new[1, row])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 16])
def test_int8_products_are_torchs_and_rows_do_not_know_of_each_other(
    compiled, random, rows
):
    weight = torch.randn(36, 128, generator=random) * 0.1
    x = torch.randn(rows, 128, generator=random).bfloat16()
    layer = Int8Linear(weight, compiled)
    assert_close(layer(x), Int8Linear(weight)(x), rtol=0.02, atol=0.02)
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


@pytest.mark.slow
def test_shapes_the_kernel_cannot_multiply_go_on_without_it(compiled, random):
    layer = Int8Linear(torch.randn(34, 96, generator=random), compiled)
    assert layer.kernels is None
    assert layer(torch.randn(2, 96, generator=random).bfloat16()).shape == (2, 34)


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["bf16", "int8"])
def test_a_model_reads_the_same_with_and_without(compiled, random, packing):
    config = TransformerConfig(
        vocabulary_size=256, context=64, width=128, layers=2, heads=2
    )
    models = [Transformer(config).eval() for _ in range(2)]
    with torch.no_grad():
        for weight in models[0].parameters():
            weight.normal_(std=0.1, generator=random)
    models[1].load_state_dict(models[0].state_dict())
    ids = torch.randint(0, 256, (3, 20), generator=random)
    found = []
    for model, with_kernels in zip(models, (True, False), strict=True):
        model.pack(packing, with_kernels)
        assert (model.kernels is not None) is with_kernels
        cache = model.cache(3, 24)
        assert cache.keys[0].dtype == (
            torch.bfloat16 if with_kernels else torch.float32
        )
        model.memorise(ids[:, :16], None, cache)
        cache.trim(torch.tensor([16, 9, 12]))
        parts = [model.hidden(ids[:, i : i + 1], None, cache) for i in (17, 18, 19)]
        found.append(nn.functional.linear(torch.cat(parts, 1), models[0].head_rows))
    shares = [logits.float().softmax(-1) for logits in found]
    assert_close(*shares, rtol=0.2, atol=0.01)


def test_without_a_compiler_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernels.__wrapped__(DIM) is None
    assert kernels.__wrapped__(24) is None
