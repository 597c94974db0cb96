import json
import re
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
        (("--box", "0,0,1,1"), "box 0,0,1,1 hides everything; hide 1 to 15 of the"),
        (("--mask", "white.png"), "mask white.png hides everything; hide 1 to 15"),
        (("--mask", "black.png"), "mask black.png hides nothing; hide 1 to 15"),
        (("--mask", "missing.png"), "mask missing.png: unreadable picture"),
        (("--mask", "words.png"), "mask words.png: unreadable picture"),
        (("--box", "0,0,1,0.5", "--size", 100), "size is 100, not a multiple of the"),
        (("--box", "0,0,1,1", "--count", 0), "count is 0, below 1"),
        (("--box", "0,0,1,1", "--temperature", -1), "temperature is -1.0, below 0"),
    ],
)
def test_bad_words_are_refused_before_a_model_is_loaded(
    call, face, no_model, words, said
):
    for colour in ("white", "black"):
        Image.new("RGB", (30, 30), colour).save(f"{colour}.png")
    Path("words.png").write_text("no picture")
    code, _, err = call("infill", face, *words)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["infill", "edit", "vary", "generate", "ask"])
def test_a_prompt_that_is_too_long_is_one_line_before_a_model_is_loaded(
    call, face, no_model, verb
):
    first = () if verb == "generate" else (face,)
    more = ("--box", "0,0,1,0.5") if verb == "infill" else ()
    code, out, err = call(verb, *first, "apple " * 200, *more)
    assert (code, out, err.count("\n")) == (1, "", 1)
    answer = "an answer at least 1" if verb == "ask" else r"a picture \d+"
    said = rf"the prompt takes \d+ ids and {answer} more, the model reads 128"
    assert re.search(said, err)
