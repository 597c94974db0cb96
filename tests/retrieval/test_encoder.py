import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize

from cm3leon.errors import CheckpointError, RequestError
from cm3leon.retrieval.encoder import BiEncoder, document_vectors

TEXTS = ["a red apple", "", "TWO cats under a tree", "x" * 50]
FILES = [
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.fixture
def copy(encoder_folder, tmp_path):
    return Path(shutil.copytree(encoder_folder, tmp_path / "copy"))


def same(left, right):
    return torch.allclose(left, right, rtol=0, atol=1e-5)


def test_vectors_of_texts_are_the_features_of_transformers(
    encoder, encoder_folder, without_bfloat16
):
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(encoder_folder).eval()
    read = AutoTokenizer.from_pretrained(encoder_folder)(
        TEXTS, padding=True, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.inference_mode():
        features = model.get_text_features(**read).pooler_output
    vectors = encoder.texts(TEXTS)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (4, encoder.width)
    assert same(vectors, normalize(features, dim=-1))


def test_vectors_of_pictures_are_the_features_of_transformers(
    encoder, encoder_folder, pictures, without_bfloat16
):
    from transformers import CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(encoder_folder).eval()
    processor = CLIPImageProcessorPil.from_pretrained(encoder_folder)
    with torch.inference_mode():
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        features = model.get_image_features(pixels).pooler_output
    vectors = encoder.images(pictures)
    assert vectors.dtype == torch.float32
    assert same(vectors, normalize(features, dim=-1))


def test_vectors_have_unit_length(encoder, pictures):
    for vectors in (encoder.texts(TEXTS), encoder.images(pictures)):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(4))


def test_a_batch_is_its_members_one_by_one(encoder, pictures):
    assert same(encoder.texts(TEXTS), encoder.texts(TEXTS, batch=1))
    assert same(encoder.texts(TEXTS), encoder.texts(TEXTS, batch=3))
    assert same(encoder.images(pictures), encoder.images(pictures, batch=1))
    assert same(encoder.images(pictures), encoder.images(pictures, batch=3))


def test_nothing_has_no_vectors(encoder):
    assert encoder.texts([]).shape == encoder.images([]).shape == (0, encoder.width)


def test_a_text_is_cut_where_the_context_ends(encoder):
    first, second, other = encoder.texts(["x" * 11, "x" * 10 + "abc", "x" * 9 + "abc"])
    assert torch.equal(first, second)
    assert not same(first, other)


def test_half_a_surrogate_pair_is_refused(encoder):
    with pytest.raises(RequestError, match="half a surrogate pair"):
        encoder.texts(["an apple", "\ud83c"])


def test_white_shows_through_pictures(encoder):
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    white = Image.new("RGB", (20, 20), "white")
    grey = Image.new("L", (20, 20), 255)
    vectors = encoder.images([clear, white, grey])
    assert same(vectors[0], vectors[1])
    assert same(vectors[2], vectors[1])


def test_what_is_loaded_is_what_was_saved(encoder, pictures, tmp_path):
    encoder.save(tmp_path / "saved")
    again = BiEncoder.load(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    assert torch.equal(again.texts(TEXTS), encoder.texts(TEXTS))
    assert torch.equal(again.images(pictures), encoder.images(pictures))
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == FILES


def test_half_precision_is_half_the_size_and_nearly_the_same(
    encoder, encoder_folder, pictures, tmp_path
):
    from transformers import CLIPModel

    saved = tmp_path / "saved"
    encoder.save(saved, half=True)
    name = "model.safetensors"
    size, whole = (
        path.joinpath(name).stat().st_size for path in (saved, encoder_folder)
    )
    assert size < 0.75 * whole  # names take much of so small a file
    again = BiEncoder.load(saved)
    assert again.model.dtype == CLIPModel.from_pretrained(saved).dtype == torch.float32
    assert torch.allclose(again.images(pictures), encoder.images(pictures), atol=1e-2)
    again.save(tmp_path / "twice", half=True)
    assert BiEncoder.load(tmp_path / "twice").fingerprint == again.fingerprint


def test_saving_replaces_a_bi_encoder_and_leaves_other_files(encoder, copy):
    (copy / "README.md").write_text("a card")
    (copy / "model.safetensors").write_bytes(b"old")
    encoder.save(copy)
    assert BiEncoder.load(copy).fingerprint == encoder.fingerprint
    assert (copy / "README.md").read_text() == "a card"
    assert not (copy / ".partial").exists()


def test_a_full_disk_leaves_the_old_one(encoder, copy, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder.tokenizer, "save_pretrained", fail)
    with pytest.raises(CheckpointError, match=r"not written to .*No space left") as e:
        encoder.save(copy)
    assert "\n" not in str(e.value)
    assert BiEncoder.load(copy).fingerprint == encoder.fingerprint
    assert not (copy / ".partial").exists()


def test_the_fingerprint_is_that_of_the_weights(encoder, encoder_folder):
    other = BiEncoder.load(encoder_folder)
    assert other.fingerprint == encoder.fingerprint
    assert len(other.fingerprint) == 64
    del other.fingerprint  # it is cached
    with torch.no_grad():
        other.model.text_projection.weight[0, 0] += 1e-6
    assert other.fingerprint != encoder.fingerprint


def spoil(folder, how, configuration):
    match how:
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "cut weights":
            content = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(content[:1000])
        case "no config":
            (folder / "config.json").unlink()
        case "cut config":
            (folder / "config.json").write_text('{"model_type": "clip",')
        case "another kind":
            (folder / "config.json").write_text('{"model_type": "siglip"}')
        case "another shape":
            configuration(text={"max_position_embeddings": 9}).save_pretrained(folder)
        case "another depth":
            configuration(vision={"num_hidden_layers": 2}).save_pretrained(folder)
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer_config.json").unlink()
        case "cut tokenizer":
            (folder / "tokenizer.json").write_text("{")
        case "no preprocessor":
            (folder / "preprocessor_config.json").unlink()
        case "another side":
            file = folder / "preprocessor_config.json"
            file.write_text(file.read_text().replace("16", "24"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "CLIPModel: .*model.safetensors"),
        ("cut weights", "CLIPModel: .*header"),
        ("no config", "CLIPModel: .*config.json"),
        ("cut config", "CLIPModel: .*config.json"),
        ("another kind", "CLIPModel: its config.json says 'siglip', not 'clip'"),
        ("another shape", r"CLIPModel: \S+ is \[12, 16\], its config.*needs \[9, 16\]"),
        ("another depth", r"CLIPModel: its weights lack vision_model\S+layers.1"),
        ("no tokenizer", r"CLIPModel: its tokenizer has \d ids, the text tower 54"),
        ("cut tokenizer", "tokenizer of a CLIPModel: "),
        ("no preprocessor", "preprocessor_config.json of a CLIPModel: "),
        ("another side", "CLIPModel: pictures are scaled to 24 pixels, .* reads 16"),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(copy, how, message, configuration):
    spoil(copy, how, configuration)
    with pytest.raises(CheckpointError, match=f"copy holds no {message}") as caught:
        BiEncoder.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/nowhere", "./a/b", Path("a/b"), "apples", "~/x/y"])
def test_a_folder_that_is_not_there_is_named_without_asking_the_hub(path):
    with pytest.raises(CheckpointError, match=f"{path} is no folder; a bi-encoder is"):
        BiEncoder.load(path)


def test_loading_says_nothing_and_leaves_the_bars_of_others(encoder_folder, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    level = logging.get_verbosity()
    BiEncoder.load(encoder_folder)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == level


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    texts, images = torch.randn(2, 5, 8, generator=generator)
    return normalize(texts, dim=-1), normalize(images, dim=-1)


def test_a_document_lies_halfway_between_its_text_and_its_picture(parts):
    texts, images = parts
    vectors = document_vectors(texts, images)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(5))
    assert torch.allclose(
        cosine_similarity(vectors, texts), cosine_similarity(vectors, images)
    )
    mean = document_vectors(texts, images, renormalise=False)
    assert torch.equal(mean, (texts + images) / 2)
    assert torch.allclose(normalize(mean, dim=-1), vectors)


def test_a_document_of_one_part_is_that_part(parts):
    texts, images = parts
    for renormalise in (True, False):
        given = {"renormalise": renormalise}
        assert torch.equal(document_vectors(texts, None, **given), texts)
        assert torch.equal(document_vectors(None, images, **given), images)


def test_a_document_of_no_part_is_refused():
    with pytest.raises(RequestError, match="neither text nor picture"):
        document_vectors(None, None)
