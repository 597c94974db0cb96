import json

import pytest

from cm3leon.cli import main as cli


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, vocabulary, text_tokenizer):
    """A tiny untrained model on disk: pictures of 16 pixels, 16 codes of 64."""
    import torch

    from cm3leon.decoding.folder import save
    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.images.vqgan import VQGAN
    from cm3leon.images.vqgan import preset as vqgan_preset
    from cm3leon.model.presets import preset
    from cm3leon.model.transformer import Transformer

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = Transformer(preset("tiny", vocabulary_size=vocabulary.size))
        for weight in model.parameters():
            weight.normal_(std=0.1)
        image_tokenizer = ImageTokenizer(VQGAN(vqgan_preset("tiny")))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = "---\nlicense: apache-2.0\n---\n# A tiny model\n"
    parts = (model, vocabulary, text_tokenizer, image_tokenizer)
    save(folder, *parts, position_slot=32, card=card)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory, text_tokenizer):
    """A folder with a tiny untrained CLIPModel."""
    import torch

    from cm3leon.training.bi_encoder import PRESETS, untrained

    folder = tmp_path_factory.mktemp("encoder")
    text_tokenizer.save(folder / "text_tokenizer.json")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        untrained(PRESETS["tiny"], folder / "text_tokenizer.json").save(folder)
    return folder


@pytest.fixture(scope="session")
def bank_for(tmp_path_factory, model_folder, encoder):
    """Makes a bank in which a prompt finds documents with given relevances."""
    import numpy as np

    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.retrieval.encoder import BiEncoder
    from cm3leon.retrieval.manifest import BankConfig
    from cm3leon.retrieval.memory import BankDocument, BankWriter

    towers = BiEncoder.load(encoder)
    image_tokenizer = ImageTokenizer.load(model_folder / "image_tokenizer")

    def make(prompt, found):
        (query,) = towers.texts([prompt]).numpy()
        config = BankConfig(
            width=len(query),
            encoder=towers.fingerprint,
            image_tokenizer=image_tokenizer.fingerprint,
            codes_per_image=16,
            codebook_size=64,
        )
        # each lies towards a direction of its own, so that none repeats another
        random = np.random.default_rng(0).standard_normal((len(query), len(found)))
        apart, _ = np.linalg.qr(np.column_stack([query, random]))
        documents, vectors = [], []
        for number, (relevance, about) in enumerate(found):
            codes = tuple(range(number, number + 16))
            documents.append(BankDocument(key=f"{number}.png", codes=codes, **about))
            aside = np.sqrt(1 - relevance**2)
            vectors.append(relevance * query + aside * apart[:, number + 1])
        folder = tmp_path_factory.mktemp("banks") / "bank"
        writer = BankWriter(folder, config)
        writer.add(documents, np.array(vectors, dtype=np.float32))
        writer.finish()
        return folder

    return make


@pytest.fixture
def call(capsys, monkeypatch, tmp_path, model_folder):
    """Run a verb on the tiny model in an empty folder: exit code, stdout, stderr."""

    def run(verb, *words):
        code = cli.main([verb, *map(str, words), "--model", str(model_folder)])
        said = capsys.readouterr()
        return code, said.out, said.err

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return run


@pytest.fixture
def retrieving(model_folder):
    """The tiny model draws with two neighbours unless told otherwise."""
    path = model_folder / "generation.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"neighbours": 2}))
    yield
    path.write_text(before)


@pytest.fixture
def no_model(monkeypatch):
    """Make loading a model a failure of the test, however it is called."""
    from cm3leon.decoding import folder

    def fail(*_, **__):
        pytest.fail("a model was loaded")

    monkeypatch.setattr(folder, "load", fail)
