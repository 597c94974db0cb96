import pytest
import torch

from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer


@pytest.fixture
def config():
    return preset("tiny")


@pytest.fixture
def fresh(config):
    """A tiny model as it starts."""
    model = Transformer(config, torch.Generator().manual_seed(0))
    return model.eval().requires_grad_(False)


@pytest.fixture
def scrambled():
    """Models in which every weight matters, by shape."""

    def make(config):
        model = Transformer(config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        for weight in model.parameters():
            weight.normal_(std=0.08, generator=generator)
        return model

    return make


@pytest.fixture
def model(config, scrambled):
    """A tiny one."""
    return scrambled(config)
