"""Laws of the vocabulary: every id has exactly one meaning, whatever the layout."""

import json
from collections import Counter

import pytest

from cm3leon.errors import ConfigError, DataError
from cm3leon.tokens.vocabulary import Vocabulary


def chameleons(codes=64, words=300, **more):
    """Tokens as in Chameleon's tokenizer, in the order of its ids."""
    spelled = ("".join(chr(65 + int(x)) for x in str(code)) for code in range(codes))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(f"IMGIMG{code}Z" for code in spelled)]
    names += ["<eoss>", "<racm3:break>", "<reserved08706>"]
    names += ["<", *(f"word {i}" for i in range(1, words))]
    return {name: id for id, name in enumerate(names)} | more


LAYOUTS = {
    "own": Vocabulary.own(300, 64),
    "authors": Vocabulary.authors(
        text_size=304, codebook_size=64, reserved=16, holes=8
    ),
    "chameleon": Vocabulary.chameleon(chameleons(), 384),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_id_has_exactly_one_meaning(layout):
    v = LAYOUTS[layout]
    kinds = Counter(v.kind(id) for id in range(v.size))
    assert (kinds["text"], kinds["image"]) == (300, 64)
    assert kinds["special"] == len(v.specials) == len(set(v.names.values()))
    assert not v.specials & {*v.text, *v.image}
    roles = [v.eos, v.pad, v.break_, v.end, *v.masks]
    roles += [] if v.infills == v.masks else v.infills
    assert len(roles) == len(set(roles))


def test_our_layout_is_as_written_in_the_format():
    v = Vocabulary.own(300, 64, holes=8)
    assert [v.names[n] for n in ("<s>", "<pad>", "<eos>", "<unk>")] == [0, 1, 2, 3]
    assert (v.text, v.image) == (range(4, 304), range(304, 368))
    assert (v.break_, v.end) == (368, 369)
    assert (v.masks, v.infills) == (tuple(range(370, 378)), tuple(range(378, 386)))
    assert v.size == 392


def test_the_authors_layout_has_their_ids():
    v = Vocabulary.authors()
    assert (v.eos, v.pad, v.size) == (2, 1, 66_056)
    assert (v.names["<racm3:break>"], v.names["<eoss>"]) == (65_536, 65_537)
    assert v.masks == v.infills == tuple(range(65_538, 66_050))
    assert len(v.image) == 8_192
    assert {v.kind(id) for id in range(v.image.stop, 65_536)} == {"unused"}


def test_the_authors_names_and_ours_mean_the_same_ids():
    names = Vocabulary.authors().names
    for ours, theirs in (
        ("<break>", "<racm3:break>"),
        ("<end>", "<eoss>"),
        ("<eos>", "</s>"),
        ("<mask:7>", "<sentinel:7>"),
        ("<infill:7>", "<sentinel:7>"),
    ):
        assert names[ours] == names[theirs]


def test_chameleons_tokens_have_the_roles_of_ours():
    v, entries = LAYOUTS["chameleon"], chameleons()
    assert (v.image, v.text) == (range(4, 68), range(71, 371))
    assert v.image_id(37) == entries["IMGIMGDHZ"]
    assert v.kind(entries["<"]) == "text"
    for role, name in (
        (v.begin, "<s>"),
        (v.eos, "</s>"),
        (v.break_, "<racm3:break>"),
        (v.end, "<eoss>"),
        (v.pad, "<pad>"),
    ):
        assert role == entries[name] == v.names[name]
    assert v.stops == (v.break_, v.eos, entries["<reserved08706>"])
    assert (v.masks, v.infills) == ((), ())


def test_elsewhere_a_document_begins_as_it_ends_and_no_turn_stops_a_text():
    for layout in ("own", "authors"):
        v = LAYOUTS[layout]
        assert (v.begin, v.stops) == (v.eos, (v.break_, v.eos))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": 0, "IMGIMGAZ": 1}, "the tokenizer has no <racm3:break>; is it"),
        (chameleons(codes=0), "has 0 image codes and 300 text ids; is it Chameleon's"),
        (chameleons(IMGIMGBZ=371), "image code 1 has the id 371; the ids of codes"),
        (chameleons(IMGIMGBAAZ=371), "image code 64 has the id None; the ids of codes"),
        (chameleons(more=375), r"301 text ids are spread over range\(71, 376\)"),
        (chameleons(more=400), "text ids are spread"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(entries, message):
    with pytest.raises(DataError, match=message):
        Vocabulary.chameleon(entries, 384)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_and_their_ids_are_each_others_inverse(layout):
    v = LAYOUTS[layout]
    assert [v.code(v.image_id(code)) for code in range(64)] == list(range(64))
    for code in (-1, 64):
        with pytest.raises(DataError, match=str(code)):
            v.image_id(code)


@pytest.mark.parametrize("id", [-1, 392])
def test_an_id_the_embedding_has_no_row_for_is_refused(id):
    with pytest.raises(DataError, match=str(id)):
        LAYOUTS["own"].kind(id)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_saved_is_loaded(layout, tmp_path):
    LAYOUTS[layout].save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == LAYOUTS[layout]


def table():
    v = LAYOUTS["own"]
    ranges = {"text": [v.text.start, v.text.stop], "image": [304, 368]}
    return {"format": 1, **ranges, "size": v.size, "names": dict(v.names)}


def loaded(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Vocabulary.load(path)


def test_the_table_of_these_tests_is_a_vocabulary(tmp_path):
    assert loaded(tmp_path, table()) == LAYOUTS["own"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"text": [4, 310]},
        {"text": [4, 4]},
        {"text": [304, 4]},
        {"text": [4, 304, 2]},
        {"text": 4},
        {"image": ["304", 368]},
        {"size": 300},
        {"size": 0},
        {"size": True},
        {"order": "other"},
        {"names": []},
        {"names": {}},
    ],
)
def test_a_wrong_table_is_refused(change, tmp_path):
    with pytest.raises(DataError):
        loaded(tmp_path, table() | change)


@pytest.mark.parametrize(
    "names",
    [
        {"<pad>": 2},
        {"<pad>": 1.0},
        {"<pad>": "1"},
        {"<end>": 10},
        {"<mask:1>": 370},
        {"<infill:0>": 371},
        {"<s>": -1},
    ],
)
def test_a_name_of_a_wrong_id_is_refused(names, tmp_path):
    wrong = table()
    wrong["names"] |= names
    with pytest.raises(DataError):
        loaded(tmp_path, wrong)


@pytest.mark.parametrize("name", ["<eos>", "<pad>", "<break>", "<end>", "<infill:3>"])
def test_a_missing_name_is_refused(name, tmp_path):
    wrong = table()
    del wrong["names"][name]
    with pytest.raises(DataError):
        loaded(tmp_path, wrong)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 1}'])
def test_what_is_no_table_is_refused_by_its_name(content, tmp_path):
    with pytest.raises(DataError, match=r"vocabulary\.json"):
        loaded(tmp_path, content)


def test_a_name_given_twice_is_refused(tmp_path):
    text = json.dumps(table()).replace('"<pad>": 1', '"<pad>": 1, "<pad>": 0')
    with pytest.raises(DataError, match="twice"):
        loaded(tmp_path, text)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json"):
        Vocabulary.load(tmp_path / "absent.json")


@pytest.mark.parametrize("name", ["text_size", "codebook_size", "holes"])
def test_a_size_of_nothing_is_refused_by_its_name(name):
    sizes = {"text_size": 300, "codebook_size": 64, "holes": 8} | {name: 0}
    for layout in (Vocabulary.own, Vocabulary.authors):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            layout(**sizes)
