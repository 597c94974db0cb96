import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from cm3leon.decoding import interchange, transformers_files
from cm3leon.decoding.folder import load, save
from cm3leon.decoding.interchange import export_transformers, import_transformers
from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import CheckpointError, DataError, RequestError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.images.vqgan import VQGAN, preset
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.tokens.document import Document, Text
from cm3leon.tokens.vocabulary import Vocabulary

SLOT = 24


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, vocabulary, text_tokenizer):
    """A tiny model in which every weight matters, saved."""
    torch.manual_seed(0)
    config = TransformerConfig(
        vocabulary_size=vocabulary.size, context=96, width=48, layers=2, heads=3
    )
    model = Transformer(config).requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.15)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(
        folder,
        model,
        vocabulary,
        text_tokenizer,
        ImageTokenizer(VQGAN(preset("tiny"))),
        position_slot=SLOT,
        options=GenerationOptions(temperature=0.9, top_p=0.95),
        card="---\nlicense: apache-2.0\n---\nThe card of tiny.\n",
    )
    return folder


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    return export_transformers(model_folder, tmp_path_factory.mktemp("opt") / "tiny")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def in_parts(transformers, exported, tmp_path_factory):
    """What transformers saves after training: several files and their index."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    theirs = transformers.OPTForCausalLM.from_pretrained(exported)
    theirs.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def same_model(left, right):
    assert json.loads(left["config.json"]) == json.loads(right["config.json"])
    assert left.keys() == right.keys()
    for name in left.keys() - {"config.json", "model.safetensors"}:
        assert left[name] == right[name], name


def same_tensors(left, right):
    left, right = (load_file(x / "model.safetensors") for x in (left, right))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert torch.equal(tensor, right[name]), name


def test_there_and_back_and_there_is_identity(model_folder, exported, tmp_path):
    back = import_transformers(exported, tmp_path / "back")
    same_model(contents(back), contents(model_folder))
    same_tensors(back, model_folder)
    again = export_transformers(back, tmp_path / "again")
    assert contents(again) == contents(exported)


def test_transformers_computes_the_same(transformers, model_folder, exported):
    theirs, info = transformers.OPTForCausalLM.from_pretrained(
        exported, output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.dtype == torch.float32
    ours = load(model_folder, precision="fp32").model
    ids = torch.randint(0, ours.config.vocabulary_size, (2, 96))
    positions = torch.randint(0, 96, (2, 96))
    with torch.no_grad():
        found = theirs(ids).logits, theirs(ids, position_ids=positions).logits
    assert_close(ours(ids), found[0], atol=1e-4, rtol=0)
    assert_close(ours(ids, positions), found[1], atol=1e-4, rtol=0)


def test_what_transformers_saves_is_read(model_folder, in_parts, tmp_path):
    back = import_transformers(in_parts, tmp_path / "back", like=model_folder)
    read, kept = load(back), load(model_folder)
    assert read.position_slot == SLOT
    for name, tensor in kept.model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], tensor)


def test_a_missing_file_of_weights_is_named(model_folder, in_parts, tmp_path):
    part = changed(in_parts, tmp_path / "part", "config.json", {})
    gone = max(part.glob("model-*.safetensors"))
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {gone.name}, one of the") as said:
        import_transformers(part, tmp_path / "back", like=model_folder)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "back").exists()


def test_weights_as_transformers_once_saved_them_are_read(exported, tmp_path):
    old = changed(exported, tmp_path / "old", "config.json", {})
    tensors = load_file(old / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"]
    torch.save(tensors, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    back = import_transformers(old, tmp_path / "back")
    same_tensors(back, import_transformers(exported, tmp_path / "new"))


@pytest.mark.parametrize(
    "text", ["a red apple", "ein roter Apfel, ça va, 赤いりんご", "<eos> a <break>"]
)
def test_its_tokenizer_gives_the_ids_the_model_reads(
    transformers, model_folder, exported, text
):
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    codec = load(model_folder).codec
    expected = [
        codec.vocabulary.text.start + i for i in codec.text_tokenizer.encode(text)
    ]
    assert theirs(text).input_ids == expected
    assert theirs.decode(expected) == text
    specials = theirs.convert_tokens_to_ids(list(codec.vocabulary.names))
    assert specials == list(codec.vocabulary.names.values())
    assert theirs.eos_token_id == theirs.bos_token_id == codec.vocabulary.eos
    assert theirs.pad_token_id == codec.vocabulary.pad


def test_transformers_draws_the_picture_we_draw(transformers, model_folder, exported):
    options = GenerationOptions(temperature=0.0, guidance_scale=1.0)
    engine = load(model_folder, precision="fp32")
    expected = engine.extend(Document(Text("a red apple")), options).images[0].codes

    model = transformers.OPTForCausalLM.from_pretrained(exported)
    words = transformers.AutoTokenizer.from_pretrained(exported)
    image = engine.codec.vocabulary.image
    opens, turns = words.convert_tokens_to_ids(["<eos>", "<break>"])
    ids = [opens, *words("a red apple").input_ids, turns]
    drawn = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        position_ids=torch.tensor([[*range(len(ids) - 1), SLOT - 1]]),
        max_new_tokens=16,
        prefix_allowed_tokens_fn=lambda *_: list(image),
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
    )
    assert tuple((drawn[0, len(ids) :] - image.start).tolist()) == expected


def test_the_example_of_the_card_runs(transformers, exported, monkeypatch):
    card = (exported / "README.md").read_text()
    example = card.partition("```python\n")[2].partition("```")[0]
    assert str(SLOT) in example
    monkeypatch.chdir(exported)
    try:
        exec(compile(example, "README.md", "exec"), {})
        assert (exported / "apple.png").is_file()
    finally:
        (exported / "apple.png").unlink(missing_ok=True)


def test_drawing_options_go_along(transformers, exported):
    options = transformers.GenerationConfig.from_pretrained(exported)
    assert options.do_sample
    assert (options.temperature, options.top_p, options.top_k) == (0.9, 0.95, 0)
    assert (options.bos_token_id, options.eos_token_id, options.pad_token_id) == (
        2,
        2,
        1,
    )


def test_greedy_options_are_greedy_there():
    vocabulary = Vocabulary.own(300, 64)
    found = transformers_files.generation_settings(
        {"temperature": 0, "top_k": None}, vocabulary
    )
    assert found["do_sample"] is False
    assert "temperature" not in found


def test_the_card_of_the_model_goes_along(exported):
    assert "The card of tiny." in (exported / "MODEL_CARD.md").read_text()


def test_neither_way_needs_transformers(model_folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    out = export_transformers(model_folder, tmp_path / "opt")
    import_transformers(out, tmp_path / "back")


def test_the_authors_layout_has_each_id_once(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path / "text_tokenizer.json")
    text = json.loads((tmp_path / "text_tokenizer.json").read_text("utf-8"))
    vocabulary = Vocabulary.authors(4 + text_tokenizer.size, 64, reserved=4, holes=3)
    made = transformers_files.model_tokenizer(text, vocabulary)
    table = made["model"]["vocab"]
    assert len(set(table.values())) == len(table)
    assert table["<racm3:break>"] == vocabulary.break_
    assert table["<sentinel:2>"] == vocabulary.masks[2]


def test_a_text_token_spelled_like_a_special_keeps_its_id(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path / "text_tokenizer.json")
    text = json.loads((tmp_path / "text_tokenizer.json").read_text("utf-8"))
    text["model"]["vocab"]["<eos>"] = 299
    made = transformers_files.model_tokenizer(text, Vocabulary.own(300, 64))
    assert made["model"]["vocab"]["<eos>"] == 4 + 299
    assert made["model"]["vocab"]["<special:2>"] == 2


def test_what_is_there_is_not_overwritten(model_folder, exported, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for act, source in (
        (export_transformers, model_folder),
        (import_transformers, exported),
    ):
        with pytest.raises(RequestError, match="is not an empty folder; name a new"):
            act(source, tmp_path)
        with pytest.raises(RequestError, match="is not an empty folder; name a new"):
            act(source, tmp_path / "mine")
    assert contents(tmp_path) == {"mine": b"mine"}


def test_an_empty_folder_is_filled(model_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    export_transformers(model_folder, tmp_path / "empty")
    assert (tmp_path / "empty/config.json").is_file()


def test_a_full_disk_leaves_nothing_behind(model_folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(interchange, "save_file", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        export_transformers(model_folder, tmp_path / "opt")
    assert list(tmp_path.iterdir()) == []


def changed(folder, out, name, change):
    """A copy of a folder with one JSON file changed."""
    for path, content in contents(folder).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    settings = json.loads((out / name).read_text())
    (out / name).write_text(json.dumps(settings | change))
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enable_bias": True}, "config.json: enable_bias is True"),
        ({"model_type": "llama"}, "model_type is 'llama'; only 'opt' is read"),
        (
            {"max_position_embeddings": 50},
            r"positions.weight is \[98, 48\].*\[52, 48\]",
        ),
        ({"position_slot": "wide"}, "position_slot is 'wide', not a whole number"),
        ({"num_hidden_layers": 3}, "lacks model.decoder.layers.2.self_attn.q_proj"),
        ({"num_hidden_layers": 1}, "holds model.decoder.layers.1.fc1.weight, which"),
    ],
)
def test_what_does_not_fit_is_named(exported, tmp_path, change, message):
    other = changed(exported, tmp_path / "other", "config.json", change)
    with pytest.raises(CheckpointError, match=message):
        import_transformers(other, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_ids_nobody_knows_need_a_model_to_be_like(exported, model_folder, tmp_path):
    bare = changed(exported, tmp_path / "bare", "config.json", {"position_slot": None})
    (bare / "vocabulary.json").unlink()
    with pytest.raises(
        RequestError, match=r"holds no vocabulary.json; name with --mod"
    ):
        import_transformers(bare, tmp_path / "back")
    back = import_transformers(bare, tmp_path / "back", like=model_folder)
    assert load(back).position_slot == SLOT


def test_a_vocabulary_of_another_model_is_refused(exported, tmp_path):
    other = changed(exported, tmp_path / "other", "config.json", {})
    Vocabulary.own(1000, 64).save(other / "vocabulary.json")
    with pytest.raises(CheckpointError, match="has 1088 rows, the model"):
        import_transformers(other, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("file", "error", "message"),
    [
        ("config.json", CheckpointError, "has no config.json"),
        ("model.safetensors", CheckpointError, "model.safetensors is missing"),
        ("vocabulary.json", DataError, "vocabulary.json is no vocabulary"),
        ("text_tokenizer.json", DataError, "text_tokenizer.json is no text tokenizer"),
        ("image_tokenizer", CheckpointError, "holds no image tokenizer"),
    ],
)
def test_an_incomplete_model_is_not_exported(
    model_folder, tmp_path, file, error, message
):
    part = changed(model_folder, tmp_path / "part", "config.json", {})
    path = part / file
    path.rename(part / "away")
    with pytest.raises(error, match=message):
        export_transformers(part, tmp_path / "opt")
    assert not (tmp_path / "opt").exists()


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match=r"nothing.* holds no model"):
        import_transformers(tmp_path / "nothing", tmp_path / "back")
    (tmp_path / "nothing/config.json").write_text('{"model_type": "opt"')
    with pytest.raises(CheckpointError, match=r"nothing.* holds no model"):
        import_transformers(tmp_path / "nothing", tmp_path / "back")


def test_biases_in_the_file_are_refused(exported, tmp_path):
    other = changed(exported, tmp_path / "other", "config.json", {})
    tensors = load_file(other / "model.safetensors")
    tensors["model.decoder.layers.0.fc1.bias"] = torch.zeros(192)
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"fc1.bias, which this model has no place"
    ):
        import_transformers(other, tmp_path / "back")
