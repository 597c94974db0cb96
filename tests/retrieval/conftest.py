"""A tiny bi-encoder, and captioned pictures with vectors that lie in clusters."""

import numpy as np
import pytest
from PIL import Image

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _configuration(**changes):
    from transformers import CLIPConfig

    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    special = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    text = {"vocab_size": 54, "max_position_embeddings": 12, **special}
    vision = {"image_size": 16, "patch_size": 8}
    return CLIPConfig(
        text_config=tower | text | changes.pop("text", {}),
        vision_config=tower | vision | changes.pop("vision", {}),
        projection_dim=8,
    )


@pytest.fixture(scope="session")
def configuration():
    """A function that gives the `CLIPConfig` of the tiny bi-encoder, or near it."""
    return _configuration


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A random `CLIPModel` as transformers itself writes one, openai's way."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("encoders") / "clip"
    ends = [letter + "</w>" for letter in LETTERS]
    words = [*LETTERS, *ends, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={x: id for id, x in enumerate(words)}, merges=[])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(_configuration()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(encoder_folder):
    from cm3leon.retrieval.encoder import BiEncoder

    return BiEncoder.load(encoder_folder)


@pytest.fixture(scope="session")
def pictures():
    random = np.random.default_rng(0)
    sizes = [(16, 16), (40, 24), (9, 30), (8, 8)]
    return [
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        for size in sizes
    ]


@pytest.fixture(scope="session")
def clustered():
    """A function that gives unit vectors around a few centres, as fp16 holds them."""

    def clustered(count, seed=0, *, width=16, centres=20, spread=0.15):
        middle = np.random.default_rng(0).standard_normal((centres, width))
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        random = np.random.default_rng([1, seed])
        vectors = middle[random.integers(0, centres, count)]
        vectors = vectors + spread * random.standard_normal((count, width))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float16).astype(np.float32)

    return clustered


@pytest.fixture(scope="session")
def captioned():
    """A function that gives documents of four codes, from a number on."""
    from cm3leon.retrieval.memory import BankDocument

    def captioned(count, start=0):
        return [
            BankDocument(
                key=f"picture {number}",
                text=f"Äpfel, {number} 赤い\n",
                codes=tuple((number * place) % 64 for place in (1, 3, 5, 7)),
                source=("core", "mono")[number % 2],
                licence="CC BY 4.0",
                author=f"author {number % 3}",
            )
            for number in range(start, start + count)
        ]

    return captioned


@pytest.fixture(scope="session")
def config():
    from cm3leon.retrieval.manifest import BankConfig

    return BankConfig(
        width=16,
        encoder="e" * 64,
        image_tokenizer="t" * 64,
        codes_per_image=4,
        codebook_size=64,
    )


@pytest.fixture(scope="session")
def build():
    """A function that writes a bank, some documents a shard."""
    from cm3leon.retrieval.memory import BankWriter

    def build(folder, config, documents, vectors, settings=None, *, step=8, part=None):
        writer = BankWriter(folder, config, settings)
        for start in range(0, len(documents), step):
            rows = slice(start, start + step)
            writer.add(documents[rows], vectors[rows])
        writer.finish(part=part)
        return folder

    return build
