import pytest
import torch
from torch.testing import assert_close

from cm3leon.decoding.guidance import guide, guide_edit


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


@pytest.fixture
def nothing():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(2)) * 20


def test_two_scales_of_one_are_no_guidance(conditional, unconditional, nothing):
    logits = guide_edit(
        conditional, unconditional, nothing, image_scale=1.0, text_scale=1.0
    )
    assert_close(logits, conditional)


@pytest.mark.parametrize("scale", [0.0, 1.5, 7.5])
def test_without_image_guidance_it_is_guidance_by_the_words(
    conditional, unconditional, nothing, scale
):
    logits = guide_edit(
        conditional, unconditional, nothing, image_scale=1.0, text_scale=scale
    )
    wanted = guide(conditional, unconditional, scale)
    assert_close(logits, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("image", "text"), [(0.0, 0.0), (1.5, 7.5), (3.0, 0.5)])
def test_two_scales_are_the_formula(conditional, unconditional, nothing, image, text):
    logits = guide_edit(
        conditional, unconditional, nothing, image_scale=image, text_scale=text
    )
    wanted = nothing + image * (unconditional - nothing)
    wanted = wanted + text * (conditional - unconditional)
    assert_close(logits, wanted, rtol=1e-5, atol=1e-4)
