import pytest
import torch
from torch.testing import assert_close

from cm3leon.decoding.guidance import guide


@pytest.fixture
def conditional():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(0)) * 20


@pytest.fixture
def unconditional():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(1)) * 20


def test_a_scale_of_one_is_no_guidance(conditional, unconditional):
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)


def test_a_scale_of_zero_ignores_the_prompt(conditional, unconditional):
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)


@pytest.mark.parametrize("scale", [0.3, 1.5, 3.0, 7.5])
def test_any_scale_is_the_formula_of_the_paper(conditional, unconditional, scale):
    wanted = unconditional + scale * (conditional - unconditional)
    assert_close(guide(conditional, unconditional, scale), wanted, rtol=1e-5, atol=1e-4)
