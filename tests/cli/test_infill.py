import json
from pathlib import Path

import pytest
from PIL import Image

from cm3leon.decoding.pictures import notes_of


@pytest.fixture
def face(tmp_path):
    path = tmp_path / "face.png"
    Image.new("RGB", (40, 30), "yellow").save(path)
    return path


def test_a_part_is_drawn_again_and_its_seed_repeats_it(call, face):
    asked = ("infill", face, "a face", "--box", "0,0.5,1,1", "--json")
    code, out, _ = call(*asked, "--seed", 3, "--count", 2, "--grid", "sheet.png")
    assert code == 0
    first, second = json.loads(out)
    assert (first["seed"], second["seed"]) == (3, 4)
    again = json.loads(call(*asked, "--seed", 4, "--out", "again.png")[1])
    pictures = [Image.open(one["path"]).tobytes() for one in (second, *again)]
    assert pictures[0] == pictures[1]


def test_no_neighbours_are_told_of_where_none_are_taken(call, face, retrieving):
    for words in (("infill", "--box", "0,0,1,0.5"), ("vary",), ("edit",)):
        verb, *more = words
        out = call(verb, face, "a face", *more, "--json", "--out", f"{verb}.png")[1]
        assert json.loads(out)[0]["neighbours"] == 0
        assert notes_of(Path(f"{verb}.png"))["options"]["neighbours"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--box or --mask, one of the two"),
        (("--box", "0,0,1,1", "--mask", "m.png"), "--box or --mask, one of the two"),
        (("--box", "0,0,2,1"), "not inside the picture"),
        (("--box", "0,0,1,1", "--count", 0), "count is 0, below 1"),
        (("--box", "0,0,1,1", "--temperature", -1), "temperature is -1.0, below 0"),
    ],
)
def test_bad_words_are_refused_before_a_model_is_loaded(
    call, face, no_model, words, said
):
    code, _, err = call("infill", face, *words)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


def test_a_mask_of_everything_is_refused(call, face):
    code, _, err = call("infill", face, "--box", "0,0,1,1")
    assert code == 1
    assert "the mask hides everything" in err
