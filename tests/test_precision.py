import pytest
import torch

from cm3leon import precision


@pytest.fixture
def processor(monkeypatch):
    """Pretend the processor has just these instructions."""

    def pretend(**capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        precision.has_bfloat16.cache_clear()

    yield pretend
    monkeypatch.undo()
    precision.has_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_products_are_in_bf16_only_where_the_processor_has_it(
    processor, capabilities, expected
):
    processor(**capabilities)
    wanted = torch.bfloat16 if expected else torch.float32
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted


@pytest.mark.parametrize("wanted", [False, True])
def test_a_wish_stands_above_the_processor(processor, wanted):
    processor(avx512_bf16=not wanted)
    assert precision.uses_bfloat16(wanted) is wanted
    with precision.autocast(wanted):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if wanted else torch.float32)
