"""Laws of the text tokenizer: any string comes back, and none is a special id."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cm3leon.errors import ConfigError, DataError
from cm3leon.tokens.text import TextTokenizer

TEXTS = [
    f"{n} {colour} {thing}s, it's the {thing}'s {colour} {place}"
    for n in range(8)
    for colour in ("red", "blue", "green", "violet", "orange")
    for thing in ("apple", "boat", "candle", "horse", "mountain")
    for place in ("picture", "window", "garden", "kitchen", "evening")
]
SPECIALS = [
    *("<break>", "<eos>", "<pad>", "<s>", "</s>", "<unk>", "<end>", "<mask:0>"),
    *("<infill:0>", "<racm3:break>", "<eoss>", "<sentinel:0>", "I512 "),
]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(TEXTS, 320)


@settings(deadline=None)
@given(text=st.text())
@example(
    text="👩🏽‍🚀 e\u0301 \u202e \U0010ffff"
)  # joined emoji, marks, the last character
@example(text="\x00\x01\x1f\x7f\x85\ufeff\ufffe")
@example(text=" \t\r\n  \n trailing \u00a0 ")
@example(text="it's IT'S 'll 123 4,5")
@example(text="".join(SPECIALS))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= id < tokenizer.size for id in ids)


@settings(deadline=None)
@given(text=st.text(), most=st.integers(0, 12))
@example(text="赤いりんご", most=4)
@example(text="\ufffd" * 9, most=5)
@example(text="it's the apple's", most=3)
def test_a_text_that_is_cut_is_its_beginning_and_as_short_as_asked(
    tokenizer, text, most
):
    cut = tokenizer.cut(text, most)
    assert text.startswith(cut)
    ids, whole = tokenizer.encode(cut), tokenizer.encode(text)
    assert len(ids) <= most
    assert len(whole) > most or cut == text
    if tokenizer.decode(whole[:most]) == cut:  # no character was divided
        assert ids == whole[:most]


@pytest.mark.parametrize("size", [256, 257, 300, 330])
def test_there_are_as_many_ids_as_asked_for(size):
    assert TextTokenizer.train(TEXTS, size).size == size


def test_no_text_leaves_the_bytes():
    tokenizer = TextTokenizer.train([], 1000)
    assert tokenizer.size == 256
    assert len(tokenizer.encode("apple")) == 5


@pytest.mark.parametrize("size", [-1, 0, 255])
def test_fewer_ids_than_bytes_are_refused(size):
    with pytest.raises(ConfigError, match=f"{size} ids"):
        TextTokenizer.train(TEXTS, size)


def test_merges_shorten_what_was_read(tokenizer):
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2


def test_the_same_texts_train_the_same_tokenizer(tmp_path):
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        TextTokenizer.train(iter(TEXTS), 320).save(file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_saved_is_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.size == tokenizer.size
    assert all(loaded.encode(text) == tokenizer.encode(text) for text in TEXTS)


@pytest.mark.parametrize("special", SPECIALS)
def test_learning_a_specials_spelling_makes_it_no_special(special):
    tokenizer = TextTokenizer.train([f"{special} {special}"] * 20, 300)
    assert tokenizer.decode(tokenizer.encode(special)) == special
    assert max(tokenizer.encode(special)) < tokenizer.size


def test_bytes_that_form_no_character_are_shown_as_such(tokenizer):
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


def test_half_a_surrogate_pair_is_refused_by_its_place(tokenizer):
    with pytest.raises(DataError, match="character 2 "):
        tokenizer.encode("ab\ud83d")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": 1}'])
def test_a_file_that_is_no_tokenizer_is_refused_by_its_name(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        TextTokenizer.load(path)


def test_a_missing_or_cut_file_is_refused_by_its_name(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        TextTokenizer.load(path)
    tokenizer.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        TextTokenizer.load(path)


def test_a_tokenizer_that_loses_text_or_knows_specials_is_refused(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    added = {"id": 9, "content": "<break>", "special": True, "normalized": False}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    for key, value in (
        ("added_tokens", [added]),
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "Whitespace"}),
    ):
        table = json.loads(path.read_text()) | {key: value}
        other = tmp_path / "other.json"
        other.write_text(json.dumps(table))
        with pytest.raises(DataError, match=key):
            TextTokenizer.load(other)


BYTES_LAST = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
ISOLATED = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}
STEPS = [
    {**ISOLATED, "invert": False},
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    {**BYTES_LAST, "trim_offsets": True},
]


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": [*steps]}


@settings(deadline=None)
@given(text=st.text())
@example(text=" it's 12,  345\n")
def test_any_text_comes_back_from_a_tokenizer_that_splits_more(tokenizer, text):
    table = json.loads(tokenizer._tokenizer.to_str())
    table["pre_tokenizer"] = sequence(*STEPS)
    split = TextTokenizer.part(table, range(tokenizer.size), "x")
    assert split.decode(split.encode(text)) == text


@pytest.mark.parametrize(
    "splitter",
    [
        None,
        sequence(),
        sequence(*STEPS[:-1]),
        sequence({**STEPS[0], "behavior": "Removed"}, STEPS[-1]),
        sequence({"type": "Whitespace"}, STEPS[-1]),
        sequence({**STEPS[-1], "add_prefix_space": True}),
    ],
)
def test_a_splitter_that_loses_or_adds_text_is_refused(tokenizer, splitter):
    table = json.loads(tokenizer._tokenizer.to_str())
    table["pre_tokenizer"] = splitter
    with pytest.raises(DataError, match="pre_tokenizer is set otherwise"):
        TextTokenizer.part(table, range(tokenizer.size), "x")


@pytest.mark.parametrize("joined", [False, True])
def test_a_part_is_the_tokenizer_within_a_larger_one(tokenizer, joined):
    table = json.loads(tokenizer._tokenizer.to_str())
    words = {token: id + 7 for token, id in table["model"]["vocab"].items()}
    table["model"]["vocab"] = {"<s>": 0, "re": 5, **words}
    table["model"]["merges"] += [["<", "s>"], ["s", ">"], ["s>", "<s>"]]
    if joined:
        table["model"]["merges"] = [" ".join(pair) for pair in table["model"]["merges"]]
    table["model"] |= {"unk_token": "<s>", "continuing_subword_prefix": ""}
    part = TextTokenizer.part(table, range(7, 7 + tokenizer.size), "x")
    assert part.size == tokenizer.size
    assert all(part.encode(x) == tokenizer.encode(x) for x in [*TEXTS, *SPECIALS])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": {"type": "Metaspace"}}, "x is no byte-level BPE: it decodes by"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer is set otherwise"),
        ({"model": {"type": "WordPiece"}}, "x is no text tokenizer: KeyError"),
        ({"decoder": None}, "x is no text tokenizer: TypeError"),
    ],
)
def test_a_part_that_is_no_byte_level_bpe_is_refused(tokenizer, change, message):
    table = json.loads(tokenizer._tokenizer.to_str()) | change
    with pytest.raises(DataError, match=message):
        TextTokenizer.part(table, range(tokenizer.size), "x")
