import math
from dataclasses import asdict

import pytest

from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", -0.5, "temperature is -0.5, below 0"),
        ("temperature", math.inf, "temperature is inf, below 0 or not finite"),
        ("temperature", math.nan, "temperature is nan"),
        ("temperature", "hot", "temperature is 'hot', not a number"),
        ("top_p", 0.0, "top_p is 0.0, outside 0 < top_p <= 1; 1 keeps every id"),
        ("top_p", 1.1, "top_p is 1.1, outside"),
        ("top_p", math.nan, "top_p is nan, outside"),
        ("top_k", 0, "top_k is 0, below 1; leave it out"),
        ("top_k", 2.0, "top_k is 2.0, not a whole number"),
        ("repetition_penalty", 0.0, "repetition_penalty is 0.0, not above 0"),
        ("guidance_scale", -1.0, "guidance_scale is -1.0, below 0"),
        ("guidance_scale", math.inf, "guidance_scale is inf, below 0 or not finite"),
        ("guidance_scale", True, "guidance_scale is True, not a number"),
        (
            "guidance_from",
            1.0,
            "guidance_from is 1.0 and guidance_until 1.0; 0 <= from",
        ),
        ("guidance_until", 1.5, "guidance_until 1.5; 0 <= from < until <= 1"),
        ("guidance_from", "0", "guidance_from is '0', not a number"),
        ("contrast_k", 0, "contrast_k is 0, below 1; leave it out for no contrast"),
        ("contrast_k", 2.5, "contrast_k is 2.5, not a whole number"),
        ("contrast_alpha", 0.0, "contrast_alpha is 0.0, outside (0, 1]"),
        ("contrast_alpha", 1.5, "contrast_alpha is 1.5, outside (0, 1]"),
        ("strong_temperature", 0.0, "strong_temperature is 0.0, not above 0"),
        ("weak_temperature", math.inf, "weak_temperature is inf, not above 0 and f"),
        ("window", 0, "window is 0, outside 1 to 256; 1 draws one code at a time"),
        ("window", 257, "window is 257, outside 1 to 256"),
        ("window", 1.5, "window is 1.5, not a whole number"),
        ("neighbours", -1, "neighbours is -1, below 0; 0 is none"),
        ("image_guidance_scale", -1.0, "image_guidance_scale is -1.0, below 0"),
        ("image_guidance_scale", "2", "image_guidance_scale is '2', not a number"),
        ("unconditional", "none", "unconditional is 'none'; it can be 'mask'"),
        ("max_text", 0, "max_text is 0, below 1; 64 is usual"),
        ("max_text", None, "max_text is None, not a whole number"),
        ("seed", -1, "seed is -1, outside 0 <= seed < 2**63"),
        ("seed", 2**63, "outside 0 <= seed < 2**63; leave it out"),
        ("seed", 0.5, "seed is 0.5, not a whole number"),
    ],
)
def test_a_bad_option_is_named_with_its_limit(name, value, said):
    options = GenerationOptions()
    # Under test a wrong type would not come as far as our own check.
    object.__setattr__(options, name, value)
    with pytest.raises(ConfigError) as caught:
        options.__post_init__()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        {"temperature": 0.0},
        {"temperature": 1e-300},
        {"top_p": 1.0},
        {"top_k": 1},
        {"guidance_scale": 0.0},
        {"seed": 2**63 - 1},
    ],
)
def test_the_limits_themselves_are_allowed(good):
    GenerationOptions(**good)


def test_seeded_keeps_a_seed_and_draws_one_where_there_is_none():
    assert GenerationOptions(seed=7).seeded().seed == 7
    drawn = {GenerationOptions().seeded().seed for _ in range(4)}
    assert len(drawn) > 1
    assert None not in drawn


def test_named_lists_what_can_be_given():
    named = GenerationOptions.named()
    assert asdict(GenerationOptions(seed=1)).keys() == set(named)


def test_two_ways_to_draw_at_once_are_refused():
    with pytest.raises(
        ConfigError, match="image_guidance_scale and contrast_k are two"
    ):
        GenerationOptions(image_guidance_scale=1.5, contrast_k=3)


def test_nothing_is_contrasted_with_itself():
    with pytest.raises(ConfigError, match="guidance_scale is 0, so contrast_k has"):
        GenerationOptions(guidance_scale=0.0, contrast_k=3)
