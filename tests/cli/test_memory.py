"""Banks by command, and what is drawn with them."""

import json

import numpy as np
import pytest
from PIL import Image

from cm3leon.cli import main as cli

CAPTIONS = ["a red square", "a blue square", "a green dot", "two red dots", "a cat"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, noise_pictures):
    """Twelve pictures with captions, and whose they are; one is cut short."""
    rows = [
        {
            "text": f"{CAPTIONS[number % 5]} {number}",
            "author": f"painter {number % 3}",
            "licence": "CC0",
        }
        for number in range(12)
    ]
    folder = tmp_path_factory.mktemp("collections") / "pictures"
    return noise_pictures(folder, rows, cut=11)


@pytest.fixture
def memory(call, capsys, encoder):
    """Run `cm3leon memory ...`: exit code, stdout, stderr."""

    def run(verb, *words, model=True):
        words = ("memory", verb, *words)
        if verb in ("build", "add", "search"):
            words = (*words, "--encoder", encoder)
        if verb in ("build", "add"):
            return call(*words)
        code = cli.main(list(map(str, words)))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def bank(memory, pictures, tmp_path):
    code, out, err = memory("build", pictures, tmp_path / "bank")
    assert code == 0
    assert "added 11 documents" in out
    assert "11 documents, index SQfp16, recall 100.0%" in out
    assert "11.png" in err
    return tmp_path / "bank"


def test_a_bank_is_built_once_and_whole(memory, bank, pictures):
    code, out, _ = memory("build", pictures, bank)
    assert (code, "added 0 documents, 11 were there already" in out) == (0, True)
    assert memory("check", bank)[:2] == (0, f"{bank} is whole\n")
    about = json.loads(memory("info", bank, "--json")[1])
    assert about["documents"] == 11
    assert about["licences"] == {"CC0": 11}


def test_parts_built_apart_answer_as_one(memory, bank, pictures, tmp_path):
    for part in (0, 1):
        words = ("--part", part, "--parts", 2)
        code, out, _ = memory("build", pictures, tmp_path / f"part-{part}", *words)
        assert (code, "none: a part to be merged" in out) == (0, True)
        code, _, err = memory("search", tmp_path / f"part-{part}", "a cat")
        assert (code, f"is part {part} of 2 (from 0)" in err) == (1, True)
        assert "join all parts with cm3leon memory merge" in err
    parts = [tmp_path / "part-0", tmp_path / "part-1"]
    assert memory("merge", tmp_path / "joined", *parts)[0] == 0
    for text in CAPTIONS:
        answers = [
            json.loads(memory("search", folder, text, "--json")[1])
            for folder in (bank, tmp_path / "joined")
        ]
        assert answers[0] == answers[1]


def test_another_picture_of_a_name_that_is_there_is_refused(
    memory, noise_pictures, tmp_path
):
    """Names count from the folder that is given, so two folders may share them."""
    rows = [{"text": text} for text in CAPTIONS]
    one = noise_pictures(tmp_path / "one", rows, cut=4)
    two = noise_pictures(tmp_path / "two", rows[::-1], cut=4)
    mine = tmp_path / "mine"
    assert memory("add", mine, one)[0] == 0
    code, _, err = memory("add", mine, two)
    assert (code, f"{mine} holds '0.png' with another caption" in err) == (1, True)
    assert "cm3leon memory remove; nothing was added" in err
    assert "added 0 documents, 4 were there" in memory("add", mine, one)[1]
    for number in range(5):
        (two / f"{number}.png").rename(two / f"new-{number}.png")
    table = two / "metadata.jsonl"
    table.write_text(table.read_text().replace('name": "', 'name": "new-'))
    code, out, _ = memory("add", mine, two)
    assert (code, "added 4 documents\n" in out) == (0, True)


def test_what_only_begins_a_bank_is_refused_for_one_that_is_there(
    memory, bank, pictures
):
    before = (bank / "manifest.json").read_bytes()
    code, _, err = memory("add", bank, pictures, "--with-own")
    assert (code, f"{bank} is there already and --with-own" in err) == (1, True)
    assert (bank / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("verb", ["add", "build"])
def test_a_mistyped_folder_of_pictures_makes_no_bank(memory, tmp_path, verb):
    new, nowhere = tmp_path / "new", tmp_path / "nowhere"
    words = (new, nowhere) if verb == "add" else (nowhere, new)
    code, _, err = memory(verb, *words)
    assert (code, str(nowhere) in err) == (1, True)
    assert not new.exists()


@pytest.mark.parametrize("gib", ["nan", "inf", "-1", "0"])
def test_memory_for_an_index_is_a_number_of_gib(memory, pictures, tmp_path, gib):
    code, _, err = memory(
        "build", pictures, tmp_path / "new", f"--memory-gib={float(gib)}"
    )
    assert code == 1
    assert f"memory_gib is {float(gib)}, outside (0, 1048576]" in err
    assert not (tmp_path / "new").exists()


def test_whoever_looks_sees_how_far_an_index_is(
    memory, bank, pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    for words in (
        ("build", pictures, tmp_path / "new"),
        ("merge", tmp_path / "joined", bank),
        ("remove", bank, "3.png"),
    ):
        code, _, err = memory(*words)
        assert (code, "indexing" in err) == (0, True)


def test_what_is_removed_is_not_found(memory, bank):
    first = json.loads(memory("search", bank, "a cat", "--json")[1])[0]
    code, out, _ = memory("remove", bank, first["key"])
    assert (code, "10 documents" in out) == (0, True)
    again = json.loads(memory("search", bank, "a cat", "--count", 9, "--json")[1])
    assert first["key"] not in {one["key"] for one in again}


def test_a_picture_finds_what_is_nearest_to_its_vector(memory, bank, pictures, encoder):
    from cm3leon.retrieval.encoder import BiEncoder
    from cm3leon.retrieval.memory import MemoryBank

    opened, image = MemoryBank.open(bank), pictures / "4.png"
    vector = BiEncoder.load(encoder).images([Image.open(image)]).numpy()
    relevances, numbers = opened.search(vector, len(opened))
    passing = relevances[0] <= 0.9
    code, out, _ = memory("search", bank, "--image", image, "--count", 11, "--json")
    found = json.loads(out)
    assert (code, bool(found)) == (0, True)
    assert found[0]["key"] == opened[int(numbers[0][passing][0])].key
    assert found[0]["relevance"] == round(float(relevances[0][passing][0]), 4)
    code, out, _ = memory("search", bank, "--image", image, "--count", 11)
    assert [line.split()[1] for line in out.splitlines()[:-1]] == [
        one["key"] for one in found
    ]
    assert out.endswith(f"{len(found)} of 11: no more documents pass the rules\n")


def test_a_picture_tells_what_it_was_drawn_with(memory, bank, call, encoder, capsys):
    asked = ("generate", "a cat", "--out", "cat.png", "--seed", 3, "--json")
    near = ("--neighbours", 2, "--memory", bank, "--encoder", encoder)
    code, out, _ = call(*asked, *near)
    assert code == 0
    [told] = json.loads(out)
    found = json.loads(memory("search", bank, "a cat", "--count", 2, "--json")[1])
    assert told["attribution"] == found
    assert cli.main(["cite", "cat.png"]) == 0
    said = capsys.readouterr().out
    for one in found:
        assert one["text"] in said
        assert f"{one['author']}, CC0" in said
    assert cli.main(["cite", "cat.png", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)
    assert notes["attribution"] == found
    assert notes["options"]["neighbours"] == 2


def test_neighbours_change_the_picture_and_none_change_nothing(call, bank, encoder):
    drawn = {}
    near = ("--memory", bank, "--encoder", encoder)
    for name, words in {
        "plain": (),
        "none": ("--neighbours", 0),
        "one": ("--neighbours", 1, *near),
    }.items():
        asked = ("generate", "a cat", "--out", f"{name}.png", "--seed", 3)
        assert call(*asked, *words)[0] == 0
        drawn[name] = np.asarray(Image.open(f"{name}.png"))
    assert np.array_equal(drawn["plain"], drawn["none"])
    assert not np.array_equal(drawn["plain"], drawn["one"])


def test_the_best_of_several_candidates_is_kept(call, bank, encoder):
    near = ("--memory", bank, "--encoder", encoder, "--candidates", 3, "--count", 2)
    code, out, _ = call("generate", "a cat", "--seed", 3, "--json", *near)
    assert code == 0
    drawn = json.loads(out)
    assert [{x["seed"] for x in one["candidates"]} for one in drawn] == [
        {3, 4, 5},
        {6, 7, 8},
    ]
    for one in drawn:
        best = max(one["candidates"], key=lambda x: x["score"])
        assert (one["seed"], one["contrast_k"]) == (best["seed"], best["contrast_k"])
    code, _, err = call("generate", "a cat", "--candidates", 0)
    assert (code, "candidates is 0, below 1" in err) == (1, True)


def test_fewer_neighbours_than_asked_are_used_and_said(memory, call, bank, encoder):
    first = json.loads(memory("search", bank, "a cat", "--json")[1])[0]
    others = {f"{number}.png" for number in range(11)} - {first["key"]}
    assert memory("remove", bank, *others)[0] == 0
    near = ("--memory", bank, "--encoder", encoder)
    drawn = {}
    for count, more in ((0, ()), (1, near), (2, near)):
        code, out, err = call(
            *("generate", "a cat", "--seed", 3, "--json", "--out", f"{count}.png"),
            *("--neighbours", count, *more),
        )
        assert code == 0
        [told] = json.loads(out)
        assert [one["key"] for one in told["attribution"]] == [first["key"]][:count]
        assert ("of 2 neighbours: no more pass the rules" in err) == (count == 2)
        drawn[count] = np.asarray(Image.open(f"{count}.png"))
    assert np.array_equal(drawn[1], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])


def test_shards_carry_the_neighbours_of_each_picture(
    bank, pictures, encoder, tokenizers, model_folder, tmp_path, capsys
):
    from cm3leon.data.shards import Shards

    (tokenizers / "image_tokenizer/model.safetensors").write_bytes(
        (model_folder / "image_tokenizer/model.safetensors").read_bytes()
    )
    words = ["--tokenizers", tokenizers, "--memory", bank, "--encoder", encoder]
    asked = ["data", "shards", pictures, tmp_path / "near", *words]
    assert cli.main(list(map(str, asked))) == 0
    shards = Shards(tmp_path / "near")
    for number in range(len(shards)):
        record = shards[number]
        assert 2 <= len(record.neighbours) <= 4
        own = record.segments[1].alternatives[0]
        others = [one[1].alternatives[0] for one in record.neighbours]
        assert own not in others
        assert len(set(others)) == len(others)
    capsys.readouterr()
    assert cli.main([*map(str, asked), "--seed", "1"]) == 1
    assert "other tokenizers, neighbours, versions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("build", "nowhere", "new"), "nowhere"),
        (("add", "new", "nowhere"), "nowhere"),
        (("add", "new", "nowhere", "--with-own"), "memory holds no memory bank"),
        (("check", "nowhere"), "nowhere holds no memory bank"),
        (("search", "nowhere", "a cat"), "nowhere holds no memory bank"),
        (("search", "nowhere"), "give a text or --image"),
        (("remove", "nowhere"), "no document is named"),
        (("merge", "nowhere"), "no parts to merge"),
    ],
)
def test_bad_input_is_one_line(memory, words, reason):
    code, _, err = memory(*words)
    assert code == 1
    assert reason in err
    assert err.count("\n") == 1


def test_a_picture_of_others_has_nothing_to_cite(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    for name in ("plain.png", "nowhere.png"):
        assert cli.main(["cite", str(tmp_path / name)]) == 1
    assert "was not drawn by cm3leon" in capsys.readouterr().err


def test_a_model_without_a_bank_says_so(call):
    code, _, err = call("generate", "a cat", "--neighbours", 1)
    assert code == 1
    assert "has no memory bank" in err
