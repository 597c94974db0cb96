"""Fixtures every folder may use, and what holds for the whole run of tests."""

import os

# Read by torch when it is first imported: small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from hypothesis import HealthCheck, settings

# The same cases on every run, however busy the machine.
settings.register_profile(
    "cm3leon",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cm3leon")

SENTENCES = [
    "a red apple on a white plate",
    "a blue car, seen from the side",
    "two cats asleep under a green tree",
    "ein roter Apfel, ça va, 赤いりんご",
    "<break> and <eos> are words like others",
]


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none, without importing torch for it."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def without_bfloat16(monkeypatch):
    """As on a processor without it: what is compared closely is computed in fp32."""
    monkeypatch.setattr("cm3leon.precision.has_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def text_tokenizer():
    """A `TextTokenizer` of 300 ids."""
    from cm3leon.tokens.text import TextTokenizer

    return TextTokenizer.train(SENTENCES, 300)


@pytest.fixture(scope="session")
def vocabulary(text_tokenizer):
    """Our own layout, with 64 image codes."""
    from cm3leon.tokens.vocabulary import Vocabulary

    return Vocabulary.own(text_tokenizer.size, 64)


@pytest.fixture(scope="session")
def codec(vocabulary, text_tokenizer):
    """A `Codec` for pictures of 16 codes."""
    from cm3leon.tokens.codec import Codec

    return Codec(vocabulary, text_tokenizer, 16)


@pytest.fixture
def tokenizers(tmp_path, text_tokenizer):
    """A folder with a text tokenizer and an untrained tiny image tokenizer."""
    import torch

    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.images.vqgan import VQGAN, preset

    folder = tmp_path / "tokenizers"
    folder.mkdir()
    text_tokenizer.save(folder / "text_tokenizer.json")
    torch.manual_seed(0)
    ImageTokenizer(VQGAN(preset("tiny"))).save(folder / "image_tokenizer")
    return folder
