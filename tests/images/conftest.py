import numpy as np
import pytest
import torch
from PIL import Image

from cm3leon.images.vqgan import VQGAN, preset


@pytest.fixture
def config():
    return preset("tiny")


@pytest.fixture
def vqgan(config):
    torch.manual_seed(0)
    return VQGAN(config)


@pytest.fixture
def pixels(config):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, config.pixels, config.pixels)
    return torch.rand(shape, generator=generator) * 2 - 1


@pytest.fixture
def pictures():
    """Six pictures of noise, 16 px wide."""
    random = np.random.default_rng(0)
    arrays = random.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    return [Image.fromarray(array) for array in arrays]
