import pytest
import torch

from cm3leon.decoding.engine import Engine
from cm3leon.decoding.options import GenerationOptions
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.images.vqgan import VQGAN
from cm3leon.images.vqgan import preset as vqgan_preset
from cm3leon.model.chameleon import Chameleon, ChameleonConfig
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer

SLOTS = [0, 32]  # plain positions, and pictures at multiples of 32


@pytest.fixture(scope="session")
def model(vocabulary):
    """A tiny transformer in which every weight matters."""
    model = Transformer(preset("tiny", vocabulary_size=vocabulary.size))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def grouped():
    """A tiny Chameleon, two heads of queries to each of keys."""
    config = ChameleonConfig(
        vocabulary_size=364,
        context=128,
        width=64,
        layers=2,
        heads=4,
        key_heads=2,
        inner=96,
    )
    model = Chameleon(config, torch.Generator().manual_seed(1))
    for weight in model.requires_grad_(False).parameters():
        weight.mul_(5)
    return model.eval()


@pytest.fixture(scope="session")
def image_tokenizer():
    """Pictures of 16 pixels a side, 16 codes of 64."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return ImageTokenizer(VQGAN(vqgan_preset("tiny")))


@pytest.fixture(scope="session", params=SLOTS, ids=lambda slot: f"slot {slot}")
def engine(request, model, codec, image_tokenizer):
    """An engine of tiny parts, with and without a position slot."""
    return Engine(model, codec, image_tokenizer, request.param)


@pytest.fixture(scope="session")
def plain(model, codec, image_tokenizer):
    """An engine without a position slot."""
    return Engine(model, codec, image_tokenizer)


@pytest.fixture
def options():
    return GenerationOptions(seed=0)
