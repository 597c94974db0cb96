import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm3leon.decoding import folder
from cm3leon.decoding.card import describe
from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.tokens.document import Document, Text

PROMPT = Document(Text("a red apple"))
CARD = "---\nlicense: cc-by-4.0\n---\n# A tiny model\n"


@pytest.fixture
def saved(tmp_path, model, vocabulary, text_tokenizer, image_tokenizer):
    def save(**more):
        parts = (model, vocabulary, text_tokenizer, image_tokenizer)
        folder.save(tmp_path / "model", *parts, **more)
        return tmp_path / "model"

    return save


def rewrite(path, change):
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def test_a_saved_model_gives_the_same_logits_and_pictures(saved, model, engine):
    options = GenerationOptions(temperature=0.5, seed=3)
    where = saved(position_slot=engine.position_slot, options=options, dtype="fp32")
    loaded = folder.load(where, precision="fp32")
    ids = torch.randint(0, model.config.vocabulary_size, (2, 20))
    assert torch.equal(loaded.model(ids), model(ids))
    assert loaded.options == options
    assert loaded.position_slot == engine.position_slot
    assert loaded.extend(PROMPT) == engine.extend(PROMPT, options)


def test_half_precision_is_half_as_large_and_may_be_widened(saved, model):
    where = saved(dtype="bf16")
    stored = load_file(where / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    read = folder.load(where, precision="fp32").model.state_dict()
    assert set(read) == set(stored)
    for name, tensor in read.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.bfloat16(), model.state_dict()[name].bfloat16())


def test_a_packed_model_is_not_saved_over_a_good_one(saved):
    where = saved(dtype="bf16")
    before = (where / "model.safetensors").read_bytes()
    engine = folder.load(where, precision="int8")
    with pytest.raises(CheckpointError, match="is packed as int8 to draw with"):
        folder.save(
            where,
            engine.model,
            engine.codec.vocabulary,
            engine.codec.text_tokenizer,
            engine.image_tokenizer,
        )
    assert (where / "model.safetensors").read_bytes() == before


def test_an_unknown_precision_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="precision is 'int4'; it can be fp32, bf16"):
        folder.load(tmp_path, precision="int4")


def test_saving_leaves_no_scraps_and_what_else_was_there(saved):
    where = saved(card=CARD)
    (where / "NOTICE").write_text("mine")
    before = {p for p in where.rglob("*") if p.is_file()}
    saved(card=CARD, dtype="fp32")
    assert {p for p in where.rglob("*") if p.is_file()} == before
    assert (where / "NOTICE").read_text() == "mine"
    assert (where / "README.md").read_text() == CARD


def test_a_full_disk_leaves_the_model_that_was_there(saved, model, monkeypatch):
    where = saved(dtype="fp32")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "save_file", full)
    with pytest.raises(CheckpointError, match=r"not written to .*; free some space"):
        saved(dtype="bf16")
    assert not (where / ".partial").exists()
    weight = folder.load(where, precision="fp32").model.embedding.weight
    assert torch.equal(weight, model.embedding.weight)


def test_a_folder_that_is_not_there_is_named_with_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"nowhere is no folder; a model folder"):
        folder.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no config\.json; a model folder"):
        folder.load(tmp_path)
    monkeypatch.setattr(folder, "shipped", lambda: tmp_path / "shipped")
    with pytest.raises(CheckpointError, match=r"no model ships .*--model FOLDER"):
        folder.load()


def test_without_a_path_it_is_the_model_that_ships(saved, model, monkeypatch):
    where = saved()
    monkeypatch.setattr(folder, "shipped", lambda: where)
    assert folder.load().model.config == model.config


def test_a_tensor_of_another_shape_is_named_with_both(saved):
    where = saved()
    rewrite(where / "config.json", lambda table: table.update(context=64))
    with pytest.raises(CheckpointError) as caught:
        folder.load(where)
    said = str(caught.value)
    assert "positions.weight is [130, 64], the model needs [66, 64]" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("blocks.1.qkv.weight"), "lacks blocks.1.qkv.weight"),
        (
            lambda t: t.update({"head.weight": torch.zeros(1)}),
            "has an unknown head.weight",
        ),
    ],
)
def test_a_missing_or_unknown_tensor_is_named(saved, change, said):
    file = saved() / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=said):
        folder.load(file.parent)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "image_tokenizer/model.safetensors"]
)
@pytest.mark.parametrize("length", [0, 5, 1000])
def test_truncated_weights_are_a_checkpoint_error(saved, name, length):
    file = saved() / name
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CheckpointError) as caught:
        folder.load(file.parents[len(name.split("/")) - 1])
    assert str(file.parent) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", lambda t: t.update(format=2), "format 2, this version reads 1"),
        ("config.json", lambda t: t.pop("width"), "width is None, not a whole"),
        ("config.json", lambda t: t.update(heads=5), "width is 64, not a multiple"),
        ("config.json", lambda t: t.update(heads=0), "heads is 0, below 1"),
        (
            "generation.json",
            lambda t: t.update(topp=1),
            "unknown option 'topp'; there are: temperature",
        ),
        ("generation.json", lambda t: t.update(top_p=0.0), "top_p is 0.0, outside"),
    ],
)
def test_a_wrong_setting_is_a_checkpoint_error_that_names_it(saved, file, change, said):
    where = saved()
    rewrite(where / file, change)
    with pytest.raises(CheckpointError, match=said):
        folder.load(where)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_damaged_settings_are_a_checkpoint_error(saved, text):
    where = saved()
    (where / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is"):
        folder.load(where)


def test_a_folder_is_described_without_its_weights(saved, model, image_tokenizer):
    where = saved(card=CARD, position_slot=32)
    found = json.loads(json.dumps(describe(where)))
    assert found["name"] == "model"
    assert found["parameters"] == model.config.parameters
    assert found["image_tokenizer_parameters"] == sum(
        tensor.numel()
        for name, tensor in image_tokenizer.vqgan.state_dict().items()
        if name not in ("quantizer.counts", "quantizer.sums")
    )
    assert found["stored_as"] == ["BF16"]
    assert (found["codes"], found["codes_per_image"], found["pixels"]) == (64, 16, 16)
    assert (found["context"], found["position_slot"]) == (128, 32)
    assert found["licence"] == "cc-by-4.0"
    assert found["bytes"] == sum(found["files"].values())
    assert "image_tokenizer/model.safetensors" in found["files"]


def test_a_folder_without_a_card_states_no_licence(saved):
    assert describe(saved())["licence"] is None
