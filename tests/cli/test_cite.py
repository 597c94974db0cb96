import json
from pathlib import Path

import pytest
from PIL import Image

from cm3leon.cli import main as cli
from cm3leon.decoding.pictures import notes_of, save_new

OWNED = {"source": "album", "licence": "CC0", "author": "A. Painter"}
NOTES = {"prompt": "a cat", "seed": "7", "model": "tiny", "Software": "cm3leon 0"}
NEIGHBOUR = {"key": "0.png", "text": "cat", "relevance": 0.5, **OWNED}


@pytest.fixture
def cite(capsys):
    """Run `cm3leon cite`: exit code, stdout, stderr."""

    def run(*words):
        code = cli.main(["cite", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def near(bank_for, encoder):
    bank = bank_for("a cat", [(0.8, {"text": "one", **OWNED}), (0.6, {"text": "two"})])
    return ("--memory", bank, "--encoder", encoder)


def test_all_that_is_known_of_neighbours_is_told(call, cite, near):
    assert call("generate", "a cat", "--seed", 7, *near)[0] == 0
    told = cite("a-cat-7.png")[1].splitlines()
    assert told[0] == "a-cat-7.png: a cat"
    assert told[1].endswith("model tiny, seed 7")
    assert told[2:] == [
        "1. one",
        "   0.png, album, A. Painter, CC0; 0.800",
        "2. two",
        "   1.png, owner unknown; 0.600",
    ]
    first, second = json.loads(cite("a-cat-7.png", "--json")[1])["attribution"]
    assert first.items() >= {"key": "0.png", "text": "one", **OWNED}.items()
    scores = [first["relevance"], second["relevance"]]
    assert scores == pytest.approx([0.8, 0.6], abs=1e-3)


def test_a_sheet_tells_of_its_pictures_what_they_tell(call, cite, near):
    words = ("generate", "a cat", "a \u732b", "--seed", 7, "--grid", "sheet.png")
    assert call(*words, *near)[0] == 0
    files = ("a-cat-7.png", "a-\u732b-7.png")
    code, out, _ = cite("sheet.png")
    assert code == 0
    parts = [
        cite(file)[1].replace(file, f"sheet.png, picture {number}", 1)
        for number, file in enumerate(files, 1)
    ]
    assert out == "".join(parts)
    notes = json.loads(cite("sheet.png", "--json")[1])
    assert notes["pictures"] == [notes_of(Path(file)) for file in files]


def test_a_picture_far_too_large_is_one_line(cite, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(path)
    code, out, err = cite(path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "bomb.png is no PNG that can be read: Image size (900000000" in err


def without(table, name):
    return {key: value for key, value in table.items() if key != name}


@pytest.mark.parametrize("json_too", [(), ("--json",)])
@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (NOTES | {"attribution": "[{"}, "attribution is no JSON"),
        (NOTES | {"attribution": "[" * 100_000}, "attribution is no JSON"),
        (NOTES | {"attribution": 5}, "attribution is no list"),
        (NOTES | {"attribution": [5]}, "5 is no table"),
        (without(NOTES, "prompt"), "prompt is missing"),
        *(
            (NOTES | {"attribution": [without(NEIGHBOUR, name)]}, f"{name} is missing")
            for name in NEIGHBOUR
        ),
        ({"Software": "cm3leon 0", "pictures": "5"}, "pictures is no list"),
        ({"Software": "cm3leon 0", "pictures": [{}]}, "prompt is missing"),
    ],
)
def test_damaged_notes_are_one_line(cite, tmp_path, notes, said, json_too):
    path = save_new(Image.new("L", (8, 8)), tmp_path / "a.png", notes, number=False)
    code, out, err = cite(path, *json_too)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"the notes in {path} are damaged: {said}" in err


def test_a_picture_without_neighbours_says_so(cite, tmp_path):
    path = save_new(Image.new("L", (8, 8)), tmp_path / "a.png", NOTES, number=False)
    code, out, _ = cite(path)
    assert (code, out.splitlines()[-1]) == (0, "no neighbours were retrieved for it")
