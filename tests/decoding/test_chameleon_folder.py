"""Public folders of Chameleon: what is in them is read, what is wrong is one line."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.testing import assert_close

from cm3leon.decoding import chameleon_folder, folder
from cm3leon.decoding.card import describe
from cm3leon.decoding.constraints import Constraint
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import PromptWriter
from cm3leon.errors import CheckpointError, DataError, RequestError
from cm3leon.tokens.document import Document, Hole, Image, Text

WORDS = Document(Text("a red apple"))
TEXTS = ["a red apple", "  it's 1984,\tIMGIMGBZ <s> ", "ça va, 赤いりんご\n\n"]


@pytest.fixture(scope="module")
def meta(public_meta):
    return public_meta()


@pytest.fixture(scope="module")
def theirs(public_transformers):
    return public_transformers()


@pytest.fixture(scope="module")
def imported(meta, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "tiny"
    return chameleon_folder.save(chameleon_folder.find(meta), out)


@pytest.fixture(scope="module")
def model(imported):
    return folder.model_of(imported, folder.settings_of(imported))


@pytest.fixture(scope="module")
def tokenizers(imported):
    return folder.tokenizers_of(imported)


@pytest.fixture
def copy(tmp_path):
    """A copy to spoil of a folder and of what stands beside it."""

    def make(source):
        root = source.parent.parent if source.parent.name == "models" else source
        shutil.copytree(root, tmp_path / "copy")
        return tmp_path / "copy" / source.relative_to(root)

    return make


def test_all_layouts_give_the_same_model(
    meta, theirs, public_meta, public_tokenizer, public_model, imported, tmp_path
):
    assert len(list(theirs.glob("model-*.safetensors"))) > 1
    for number, found in enumerate(
        (
            chameleon_folder.find(public_meta(ranks=1)),
            chameleon_folder.find(theirs, public_tokenizer),
        )
    ):
        assert found.config == public_model.config
        out = chameleon_folder.save(found, tmp_path / str(number))
        for part in ("", "image_tokenizer"):
            one, other = (
                load_file(x / part / "model.safetensors") for x in (out, imported)
            )
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)
        for name in ("vocabulary.json", "text_tokenizer.json", "config.json"):
            assert (out / name).read_bytes() == (imported / name).read_bytes()


def test_what_was_stored_in_halves_stays_so_and_is_the_same_function(
    imported, model, public_model
):
    stored = load_file(imported / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    ids = torch.randint(0, model.config.vocabulary_size, (2, 30))
    assert torch.equal(model(ids), public_model(ids))


def test_transformers_computes_the_same_for_words(theirs, model, public_words):
    transformers = pytest.importorskip("transformers")
    peer = transformers.ChameleonForConditionalGeneration.from_pretrained(
        theirs, dtype=torch.float32
    )
    ids = torch.randint(0, model.config.vocabulary_size, (2, 30))
    with torch.no_grad():
        hidden = peer.model(ids).last_hidden_state
        logits = peer(ids).logits
    ours = model(ids)
    assert_close(model.hidden(ids), hidden, atol=1e-4, rtol=0)
    vocabulary = public_words["model"]["vocab"]
    codes = [id for name, id in vocabulary.items() if name.startswith("IMGIMG")]
    words = sorted(set(range(ours.shape[-1])) - set(codes))
    assert_close(ours[..., words], logits[..., words], atol=1e-4, rtol=0)
    assert (
        logits[..., codes].max() < -1e30 < ours[..., codes].min()
    )  # theirs are masked


def test_codes_and_words_have_the_ids_of_the_public_tokenizer(
    tokenizers, imported, public_tokenizer, public_words
):
    codec, pictures = tokenizers
    vocabulary = codec.vocabulary
    entries = public_words["model"]["vocab"]
    assert vocabulary.image_id(0) == entries["IMGIMGAZ"]
    assert vocabulary.image_id(63) == entries["IMGIMGGDZ"]
    assert vocabulary.begin == entries["<s>"]
    assert vocabulary.eos == entries["</s>"]
    assert vocabulary.break_ == entries["<racm3:break>"]
    assert vocabulary.end == entries["<eoss>"]
    assert entries["<reserved08706>"] in vocabulary.stops
    whole = Tokenizer.from_file(str(public_tokenizer / "text_tokenizer.json"))
    for text in ("a red apple", "it's 1984,  two\n\nblue boats", "ça va, 赤いりんご"):
        expected = whole.encode(text, add_special_tokens=False).ids
        found = codec.text_tokenizer.encode(text)
        assert [vocabulary.text.start + id for id in found] == expected
    assert pictures.codes_per_image == codec.codes_per_image == 16


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_and_none_is_a_special_or_a_code(tokenizers, text):
    codec, _ = tokenizers
    ids = codec.text_tokenizer.encode(text)
    assert codec.text_tokenizer.decode(ids) == text
    assert all(codec.vocabulary.text.start + id in codec.vocabulary.text for id in ids)


def test_documents_are_chameleons(tokenizers):
    codec, _ = tokenizers
    v, codes = codec.vocabulary, tuple(range(16))
    document = Document(Text("a red apple"), Image(codes), Text("two blue boats"))
    words = [v.text.start + id for id in codec.text_tokenizer.encode("a red apple")]
    ids = codec.encode(document)
    picture = [v.break_, *(v.image_id(code) for code in codes), v.end]
    assert ids[: len(words) + 19] == [v.begin, *words, *picture]
    assert ids[-1] == v.eos
    assert codec.decode(ids) == document
    assert codec.mask_prompt(document) == [v.begin, *picture, v.break_]
    with pytest.raises(RequestError, match="this model knows no holes"):
        codec.fill_prompt(Document(Hole(), Image(codes)))


def writer(tokenizers):
    return PromptWriter(codec=tokenizers[0], context=4096)


def test_prompts_are_chameleons(tokenizers):
    codec, _ = tokenizers
    v, picture = codec.vocabulary, Image(tuple(range(16)))
    words = [v.text.start + id for id in codec.text_tokenizer.encode("a red apple")]
    options = GenerationOptions(guidance_scale=3.0)
    prompt = writer(tokenizers).extend(WORDS, "image", options)
    assert prompt.conditional.ids == (v.begin, *words, v.break_)
    assert prompt.unconditional.ids == (v.begin, v.break_)
    assert (prompt.most, prompt.constraint.stops) == (16, ())
    answer = writer(tokenizers).extend(Document(picture), "text", options)
    assert answer.conditional.ids[-1] == v.end
    assert {v.break_, v.eos} < set(answer.constraint.stops)
    edit = GenerationOptions(image_guidance_scale=1.2)
    lanes = writer(tokenizers).extend(Document(picture, *WORDS.segments), "image", edit)
    coded = (v.break_, *(v.image_id(code) for code in range(16)), v.end)
    assert [lane.ids for lane in lanes.lanes] == [
        (v.begin, *coded, *words, v.break_),
        (v.begin, *coded, v.break_),
        (v.begin, v.break_),
    ]
    for document in (Document(Hole(), picture), Document(picture)):
        with pytest.raises(RequestError, match="this model knows no holes"):
            if document.holes:
                writer(tokenizers).fill(document, options)
            else:
                writer(tokenizers).redraw(document, [3], options)


@torch.no_grad()
def test_a_picture_can_be_drawn_step_by_step(tokenizers, model):
    codec, pictures = tokenizers
    prompt = writer(tokenizers).extend(WORDS, "image", GenerationOptions())
    head = Constraint.image(codec).ids
    ids, cache = torch.tensor([prompt.conditional.ids]), model.cache(1, 64)
    codes = []
    for _ in range(prompt.most):
        column = int(model(ids, cache=cache, head=head)[0, -1].argmax())
        codes.append(codec.vocabulary.code(int(head[column])))
        ids = head[column].view(1, 1)
    whole = [*prompt.conditional.ids, *(head[code] for code in codes)]
    scores = model(torch.tensor([whole]))[0, -17:-1, head]
    assert scores.argmax(-1).tolist() == codes
    (drawn,) = pictures.decode(torch.tensor([codes]))
    assert drawn.size == (16, 16)


def test_the_report_says_what_was_found(meta, theirs, public_model, public_tokenizer):
    report = chameleon_folder.find(meta).report()
    assert report["layout"] == "Meta, 2 file(s) of weights"
    assert report["parameters"] == f"{public_model.config.parameters:,} (bfloat16)"
    assert report["tensors read"] == str(2 * (3 + 2 * 13))
    assert report["tensors unused"] == "1 (rope.freqs)"
    assert report["tensors missing"] == "0"
    assert report["image codes"] == "code 0 … 63 is id 4 … 67"
    assert "<racm3:break> 69, <eoss> 68" in report["names"]
    assert report["pictures"].endswith(
        "16 codes each; encoder and decoder, from vqgan.ckpt"
    )
    alone = chameleon_folder.find(theirs).report()
    assert alone["layout"].startswith("transformers, ")
    assert alone["tensors unused"] == "0"
    assert alone["tensors missing"] == "the picture decoder's"
    drawing = chameleon_folder.find(theirs, public_tokenizer).report()
    assert "model.vqmodel." in drawing["tensors unused"]


def test_without_its_decoder_a_model_is_imported_and_reads_pictures(theirs, tmp_path):
    transformers = pytest.importorskip("transformers")
    peer = transformers.ChameleonForConditionalGeneration.from_pretrained(
        theirs, dtype=torch.float32
    )
    out = chameleon_folder.save(chameleon_folder.find(theirs), tmp_path / "out")
    _, pictures = folder.tokenizers_of(out)
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = peer.model.vqmodel.encode(2 * pixels - 1, return_dict=True)
    codes = pictures.vqgan.encode(2 * pixels - 1)
    assert torch.equal(codes.flatten(), found.image_tokens)
    with pytest.raises(RequestError, match="came without its decoder"):
        pictures.decode(torch.zeros(1, 16, dtype=torch.long))


def test_its_folder_is_described_and_says_what_it_is(imported, public_model):
    found = describe(imported)
    assert found["parameters"] == public_model.config.parameters
    assert (found["codes"], found["codes_per_image"]) == (64, 16)
    assert found["licence"] == "other"
    options = folder._options(imported / "generation.json")
    assert (options.guidance_scale, options.temperature) == (3.0, 0.7)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_engine_draws_whole_pictures(imported, precision):
    engine = folder.load(imported, precision=precision)
    options = GenerationOptions(seed=0, temperature=0.9, max_text=5)
    documents = [WORDS, Document(Text("two blue boats on the sea"))]
    for drawn in engine.extend(documents, options):
        (picture,) = drawn.images
        assert len(picture.codes) == 16
        assert set(picture.codes) <= set(range(64))
        assert picture.pixels.size == (16, 16)
    (whole,) = [image for image in engine.stream(WORDS, options) if image.codes]
    assert whole == engine.extend(WORDS, options).images[0]
    answered = engine.extend(Document(picture), options, "text")
    assert isinstance(answered.segments[1], Text)


def test_the_engine_draws_in_a_batch_what_it_draws_alone(imported, without_bfloat16):
    engine = folder.load(imported, precision="fp32")
    options = GenerationOptions(guidance_scale=2.0, image_guidance_scale=1.2)
    picture = Image(tuple(range(16)))
    documents = [
        Document(picture, Text(words)) for words in ("apple", "two boats", "x")
    ]
    seeds = [5, 6, 7]
    together = engine.extend(documents, options, seeds=seeds)
    for one, seed, drawn in zip(documents, seeds, together, strict=True):
        assert engine.extend([one], options, seeds=[seed]) == [drawn]


@torch.no_grad()
def test_the_engine_takes_the_likeliest_code_each_time(imported, model, tokenizers):
    engine = folder.load(imported, precision="fp32")
    options = GenerationOptions(temperature=0.0, guidance_scale=1.0)
    codes = engine.extend(WORDS, options).images[0].codes
    v = tokenizers[0].vocabulary
    prompt = writer(tokenizers).extend(WORDS, "image", options).conditional.ids
    ids = torch.tensor([[*prompt, *map(v.image_id, codes)]])
    scores = model(ids)[0, -17:-1, v.image.start : v.image.stop]
    assert tuple(scores.argmax(-1).tolist()) == codes


def test_without_a_decoder_the_engine_says_so_before_it_draws(theirs, tmp_path):
    out = chameleon_folder.save(chameleon_folder.find(theirs), tmp_path / "out")
    engine = folder.load(out)
    for ask in (engine.extend, lambda one: next(engine.stream(one))):
        with pytest.raises(RequestError, match="came without its decoder"):
            ask(WORDS)
    answered = engine.extend(Document(Image(tuple(range(16)))), None, "text")
    assert answered.segments[1].text is not None


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1000])


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def respell(path, change):
    table = json.loads(path.read_text())
    change(table["model"]["vocab"])
    path.write_text(json.dumps(table))


def hook(path):
    path.write_bytes(pickle.dumps({"norm.weight": Code()}, protocol=2))


def reshape(path):
    tensors = load_file(path)
    save_file({**tensors, min(tensors): torch.zeros(3, 3)}, path)


META = [
    ("consolidated.01.pth", os.remove, "the model is in 2 files, 1 are here"),
    ("consolidated.00.pth", os.remove, "lacks consolidated.00.pth; copy it again"),
    ("consolidated.01.pth", shorten, "consolidated.01.pth is missing or damaged"),
    ("consolidated.01.pth", hook, "01.pth holds more than tensors"),
    ("params.json", lambda p: rewrite(p, model={}), "width is None, no int"),
    ("params.json", shorten, "params.json is missing or damaged"),
    ("params.json", os.remove, "holds neither config.json nor params.json"),
    ("../../tokenizer/vqgan.ckpt", shorten, "vqgan.ckpt is missing or damaged"),
    ("../../tokenizer/vqgan.ckpt", hook, "vqgan.ckpt holds more than tensors"),
    ("../../tokenizer/vqgan.ckpt", os.remove, "holds no image tokenizer; name with"),
    ("../../tokenizer/vqgan.yaml", os.remove, "vqgan.yaml is missing or damaged"),
    ("../../tokenizer/text_tokenizer.json", os.remove, "there is no text_tokenizer"),
    ("../../tokenizer/text_tokenizer.json", shorten, "is missing or damaged"),
]
THEIRS = [
    ("model-00002-of-*.safetensors", os.remove, "lacks model-00002-of-"),
    ("model-00002-of-*.safetensors", shorten, "is missing or damaged"),
    ("model-00002-of-*.safetensors", reshape, "is [3, 3], the model needs"),
    (
        "config.json",
        lambda p: rewrite(p, hidden_size=128),
        "the model needs [352, 128]",
    ),
    ("config.json", lambda p: rewrite(p, model_type="opt"), "model_type is 'opt'"),
    (
        "config.json",
        lambda p: rewrite(p, vq_config={"double_latent": True}),
        "double_l",
    ),
]


def refused(spoiled, name, spoil, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = spoiled.glob(name) if "*" in name else [spoiled / name]
    spoil(path)
    with pytest.raises(CheckpointError) as error:
        chameleon_folder.find(spoiled)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "spoil", "message"), META)
def test_a_spoiled_folder_of_metas_is_one_line(
    meta, copy, name, spoil, message, tmp_path, monkeypatch
):
    refused(copy(meta), name, spoil, message, tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "spoil", "message"), THEIRS)
def test_a_spoiled_folder_of_transformers_is_one_line(
    theirs, copy, name, spoil, message, tmp_path, monkeypatch
):
    refused(copy(theirs), name, spoil, message, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("<eoss>"), "image code"),
        (
            lambda v: v.update({"IMGIMGCZ": 5, "IMGIMGBZ": 6}),
            "image code 1 has the id 6",
        ),
        (lambda v: v.update({"word": 3000}), "text ids are spread over"),
    ],
)
def test_a_tokenizer_of_another_order_is_refused(theirs, copy, change, message):
    spoiled = copy(theirs)
    respell(spoiled / "tokenizer.json", change)
    if message == "image code":
        table = json.loads((spoiled / "tokenizer.json").read_text())
        table["added_tokens"] = []
        (spoiled / "tokenizer.json").write_text(json.dumps(table))
        message = "the tokenizer has no <eoss>; is it Chameleon's?"
    with pytest.raises(DataError, match=message):
        chameleon_folder.find(spoiled)


def test_the_decoder_of_another_image_tokenizer_is_refused(
    theirs, public_tokenizer, tmp_path
):
    other = shutil.copytree(public_tokenizer, tmp_path / "tokenizer")
    table = torch.load(other / "vqgan.ckpt", weights_only=True)
    table["state_dict"]["quantize.embedding.weight"] += 1
    torch.save(table, other / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match="has another codebook than"):
        chameleon_folder.find(theirs, other)


def test_what_is_there_is_not_overwritten(meta, imported):
    with pytest.raises(RequestError, match="is not an empty folder"):
        chameleon_folder.save(chameleon_folder.find(meta), imported)
