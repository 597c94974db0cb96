import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm3leon import Document, GenerationOptions, Text, load
from cm3leon.decoding.pictures import notes_of
from cm3leon.tokens.document import Image as Picture


@pytest.fixture
def square(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "square.png")
    return tmp_path / "square.png"


def test_the_picture_stands_before_the_prompt_as_a_neighbour(
    call, square, model_folder
):
    words = ("--seed", 4, "--count", 2, "--size", 16)
    assert call("vary", square, "a red square", *words)[0] == 0
    engine, wanted = load(model_folder), Document(Text("a red square"))
    like = Document(Text("a red square"), Picture.open(square))
    for seed in (4, 5):
        options = GenerationOptions(seed=seed)
        drawn = engine.extend([wanted], options, neighbours=[[like]], seeds=[seed])
        path = Path(f"a-red-square-{seed}.png")
        assert np.array_equal(Image.open(path), drawn[0].images[-1].pixels)
        assert notes_of(path)["prompt"] == "a red square"


def test_without_words_the_model_says_what_it_sees(call, square, monkeypatch):
    monkeypatch.setattr("cm3leon.cli.vary.LONGEST", 4)  # in the tiny model's context
    code, out, err = call("vary", square, "--seed", 4, "--json")
    assert (code, err) == (0, "")
    said = json.loads(call("caption", square, "--max-text", 4, "--json")[1])
    assert json.loads(out)[0]["prompt"].split() == said[0]["caption"].split()


def test_a_picture_that_is_not_there_is_one_line(call, no_model):
    code, _, err = call("vary", "nowhere.png")
    assert (code, "nowhere.png" in err) == (1, True)
