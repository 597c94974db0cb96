import pytest
import torch

from cm3leon.errors import ConfigError
from cm3leon.model.presets import PRESETS, preset
from cm3leon.model.transformer import Transformer

# Yu et al. 2023, Table 3: layers, width; then millions of parameters in blocks and in
# all, as 12·layers·width² and the two tables make them
PAPER = {
    "350m": (24, 1024, 302.0, 373.8),
    "760m": (24, 1536, 679.5, 787.2),
    "7b": (32, 4096, 6442, 6730),
}


@pytest.mark.parametrize("name", PAPER)
def test_a_preset_of_the_paper_has_its_parameters(name):
    layers, width, blocks, total = PAPER[name]
    config = preset(name)
    assert (config.layers, config.width, config.context) == (layers, width, 4096)
    with torch.device("meta"):
        model = Transformer(config)
    sizes = {key: weight.numel() / 1e6 for key, weight in model.named_parameters()}
    inside = sum(size for key, size in sizes.items() if key.startswith("blocks."))
    assert inside == pytest.approx(blocks, rel=2e-4)
    assert sum(sizes.values()) == pytest.approx(total, rel=2e-4)
    assert config.parameters == pytest.approx(1e6 * sum(sizes.values()))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_shape(name):
    config = preset(name)
    assert config == PRESETS[name]
    assert config.vocabulary_size % 8 == 0
    assert config.head_dim * config.heads == config.width


def test_vocabulary_and_context_may_be_others():
    config = preset("tiny", vocabulary_size=1000, context=77)
    assert (config.vocabulary_size, config.context) == (1000, 77)
    assert config.width == PRESETS["tiny"].width


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="no model preset '350M'; there are: tiny, "):
        preset("350M")
