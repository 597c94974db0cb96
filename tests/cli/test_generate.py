import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import cm3leon

LAST = str(2**63 - 1)  # the largest seed


def pictures():
    return sorted(path.name for path in Path().rglob("*.png"))


def test_one_command_draws_a_picture_from_start_to_end(model_folder, tmp_path):
    words = [
        "generate",
        "--seed",
        "7",
        "--model",
        str(model_folder),
        "--",
        "a red apple",
    ]
    said = subprocess.run(
        [sys.executable, "-m", "cm3leon", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert re.fullmatch(r"a-red-apple-7\.png  seed 7  \d+\.\d\d s\n", said.stdout)
    with Image.open(tmp_path / "a-red-apple-7.png") as picture:
        assert picture.size == (256, 256)


def test_a_picture_tells_how_it_was_drawn(call):
    assert call("generate", "a red apple", "--seed", 7, "--top-p", 0.9)[0] == 0
    with Image.open("a-red-apple-7.png") as picture:
        told = picture.text
    assert (told["prompt"], told["seed"], told["model"]) == ("a red apple", "7", "tiny")
    assert told["Software"] == f"cm3leon {cm3leon.__version__}"
    options = json.loads(told["options"])
    assert (options["top_p"], options["seed"], options["guidance_scale"]) == (0.9, 7, 3)


def test_each_picture_can_be_drawn_again_from_its_own_seed(call):
    code, out, _ = call("generate", "a red apple", "b", "--count", 3, "--seed", 5)
    assert code == 0
    lines = [line.split("  ")[:2] for line in out.splitlines()]
    names = ["a-red-apple", "b"]
    assert lines == [[f"{n}-{s}.png", f"seed {s}"] for n in names for s in (5, 6, 7)]
    assert call("generate", "b", "--seed", 6, "--out", "again")[0] == 0
    again, first = Path("again/b-6.png"), Path("b-6.png")
    assert again.read_bytes() == first.read_bytes()
    assert first.read_bytes() != Path("b-5.png").read_bytes()


def test_without_a_seed_one_is_drawn_and_told(call):
    _, out, _ = call("generate", "b", "b")
    seeds = re.findall(r"seed (\d+)", out)
    assert len(seeds) == 2
    assert Path(f"b-{seeds[0]}.png").exists()


def test_nothing_is_overwritten(call):
    for _ in range(2):
        assert call("generate", "b", "--seed", 1)[0] == 0
    assert pictures() == ["b-1-2.png", "b-1.png"]


def test_a_single_picture_goes_where_it_is_told_and_not_on_top_of_another(
    call, monkeypatch
):
    code, out, _ = call("generate", "b", "--out", "new/mine.png")
    assert code == 0
    assert out.startswith(str(Path("new/mine.png")))
    code, out, err = call("generate", "b", "--out", "new/mine.png")
    assert (code, out) == (1, "")
    assert "mine.png is there already; delete it or choose another name" in err


@pytest.mark.parametrize(("size", "side"), [((), 256), (("--size", 48), 48)])
def test_pictures_are_as_large_as_asked(call, size, side):
    assert call("generate", "b", *size, "--seed", 1)[0] == 0
    with Image.open("b-1.png") as picture:
        assert picture.size == (side, side)


def test_a_network_enlarges_and_is_named(call):
    assert call("generate", "b", "--upscale", 4, "--seed", 1, "--out", "by.png")[0] == 0
    assert (
        call("generate", "b", "--size", 16, "--seed", 1, "--out", "small.png")[0] == 0
    )
    with Image.open("by.png") as picture, Image.open("small.png") as small:
        assert picture.width == 64  # a tiny model draws 16
        assert "Real-ESRGAN" in picture.text["enlarged"]
        assert "bicubic" in small.text["enlarged"]


def test_how_it_was_drawn_is_told_in_the_picture(call):
    drawn = ("--precision", "int8", "--window", 4)
    assert call("generate", "b", *drawn, "--seed", 1, "--out", "b.png")[0] == 0
    with Image.open("b.png") as picture:
        assert picture.text["precision"] == "int8"
        assert json.loads(picture.text["options"])["window"] == 4
    code, _, err = call("generate", "b", "--precision", "int4")
    assert (code, "int4" in err) == (2, True)
    code, _, err = call("generate", "b", "--window", 0)
    assert (code, "window is 0" in err) == (1, True)


def test_contrast_and_the_unconditional_lane_are_drawn_as_told(call):
    words = ("b", "--seed", 1, "--contrast-k", 4, "--guidance-scale", 1, "--json")
    told = {"unconditional": "alone", "strong_temperature": 0.5, "weak_temperature": 2}
    more = [w for key, n in told.items() for w in (f"--{key.replace('_', '-')}", n)]
    plain = json.loads(call("generate", *words, "--out", "plain")[1])[0]
    other = json.loads(call("generate", *words, *more, "--out", "other")[1])[0]
    assert other.items() >= told.items()
    assert Image.open(plain["path"]).tobytes() != Image.open(other["path"]).tobytes()
    code, _, err = call("generate", "b", "--unconditional", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    assert all(form in err for form in ("--unconditional", "mask", "absent", "alone"))


def test_without_the_network_interpolation_enlarges_and_says_so(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    code, _, err = call("generate", "b", "--upscale", 4, "--seed", 1)
    assert (code, "needs the extra [upscale]" in err) == (0, True)
    with Image.open("b-1.png") as picture:
        assert "bicubic" in picture.text["enlarged"]


def test_prompts_come_from_a_file_too_and_onto_one_sheet(call):
    Path("prompts.txt").write_text("# colours\na red apple\n\n  ein Äpfel \n")
    words = ("b", "--prompts", "prompts.txt", "--grid", "out/sheet.png", "--seed", 1)
    code, out, _ = call("generate", *words, "--size", 64)
    assert code == 0
    assert pictures() == [
        "a-red-apple-1.png",
        "b-1.png",
        "ein-äpfel-1.png",
        "sheet.png",
    ]
    assert out.splitlines()[-1] == str(Path("out/sheet.png"))
    with Image.open("out/sheet.png") as sheet:
        assert sheet.width > 3 * 64
        assert sheet.height > 64
    code, _, err = call("generate", "b", "--grid", "out/sheet.png")
    assert code == 1
    assert "sheet.png is there already" in err


def test_json_is_one_list_of_all_pictures(call):
    code, out, _ = call(
        *("generate", "b", "a", "--count", 2, "--seed", 1, "--json"),
        *("--grid", "sheet.png", "--temperature", 0.5, "--top-k", 5),
    )
    told = json.loads(out)
    assert code == 0
    assert [one["path"] for one in told] == ["b-1.png", "b-2.png", "a-1.png", "a-2.png"]
    assert [one["seed"] for one in told] == [1, 2, 1, 2]
    assert {one["temperature"] for one in told} == {0.5}
    assert {one["top_k"] for one in told} == {5}
    assert all(one["seconds"] >= 0 for one in told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["b", "--temperature", "-1"], "temperature is -1.0, below 0"),
        (["b", "--top-p", "0"], "top_p is 0.0, outside 0 < top_p <= 1"),
        (["b", "--top-k", "0"], "top_k is 0, below 1"),
        (["b", "--guidance-scale", "nan"], "guidance_scale is nan, below 0"),
        (["b", "--weak-temperature", "0"], "weak_temperature is 0.0, not above 0"),
        (["b", "--guidance-from", 0.6, "--guidance-until", 0.5], "0 <= from < until"),
        (["b", "--strong-temperature", "nan"], "strong_temperature is nan, not above"),
        (["b", "--seed", "-1"], "seed is -1, outside"),
        (["b", "--count", "0"], "count is 0, below 1"),
        (["b", "--size", "0"], "size is 0, outside 1 to 8192 pixels"),
        (["b", "--upscale", "3"], "upscale is 3; the network does 4 times"),
        (["b", "--upscale", "4", "--size", "64"], "two ways to enlarge; give one"),
        (
            ["b", "--count", "2", "--seed", LAST],
            f"of 2 seeds from {LAST} the last seed is {2**63}, outside 0 <= seed",
        ),
        (["b", "--candidates", "2", "--seed", LAST], "outside 0 <= seed < 2**63"),
        (["b", "--out", "g.png", "--grid", "./g.png"], "out and grid are both g.png"),
        (["b", "--out", "words"], "words is a file where a folder is wanted"),
        (["b", "--out", "words/b.png"], "words is a file where a folder is wanted"),
        (["b", "--grid", "words/in/g.png"], "words is a file where a folder is wanted"),
        (["b", "--candidates", "0"], "candidates is 0, below 1"),
        (
            ["b", "a", "--out", "a.png"],
            "2 pictures do not fit into a.png; name a folder",
        ),
        (["b", "--memory", "/nobank"], "/nobank holds no memory bank"),
        (["b", "--encoder", "/nobody"], "/nobody is no folder; a bi-encoder is"),
        ([" "], "a prompt is empty; say what to draw"),
        (["\udcff"], "is no text in UTF-8"),
        (["--prompts", "missing.txt"], "missing.txt: No such file"),
    ],
)
def test_what_is_wrong_is_one_line_before_a_model_is_loaded(
    call, no_model, words, said
):
    Path("words").write_text("a file")
    code, out, err = call("generate", *words)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    assert pictures() == []


def test_the_largest_seed_draws_one_picture(call):
    assert call("generate", "b", "--seed", LAST, "--json")[0] == 0
    assert pictures() == [f"b-{LAST}.png"]


@pytest.mark.parametrize(
    "words", [(), ("b", "--temperature", "hot"), ("b", "--sed", 1)]
)
def test_wrong_usage_is_one_line_and_code_2(call, no_model, words):
    code, out, err = call("generate", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_a_size_that_does_not_fit_the_model_is_one_line_with_the_nearest(
    call, no_model
):
    code, _, err = call("generate", "b", "--size", 250)
    assert code == 1
    assert "size is 250, not a multiple of the 16 pixels" in err
    assert "the nearest is 256" in err


def test_a_load_that_should_not_be_is_called_so(call, no_model):
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        call("generate", "b")


def test_a_prompts_file_that_is_no_text_is_named(call, no_model):
    Path("prompts.txt").write_bytes(b"\xff\xfe\x00")
    code, _, err = call("generate", "--prompts", "prompts.txt")
    assert code == 1
    assert "prompts.txt is no text in UTF-8" in err


@pytest.mark.parametrize(("relevances", "found"), [((1.0,), 0), ((1.0, 0.7), 1)])
@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_fewer_neighbours_than_asked_are_said(
    call, bank_for, encoder, relevances, found, json_too
):
    bank = bank_for("a cat", [(one, {"text": f"cat {one}"}) for one in relevances])
    near = ("--memory", bank, "--encoder", encoder, "--neighbours", 2)
    code, out, err = call("generate", "a cat", "--seed", 1, *near, *json_too)
    said = f"a-cat-1.png  {found} of 2 neighbours: no more pass the rules\n"
    assert (code, err) == (0, said)
    assert "neighbours:" not in out
    code, _, err = call("generate", "a cat", "--seed", 2, *near[:4], "--neighbours", 1)
    said = "a-cat-2.png  0 of 1 neighbour: no more pass the rules\n"
    assert (code, err) == (0, "" if found else said)


def test_a_bank_that_is_named_is_used(call, bank_for, encoder):
    bank = bank_for("a cat", [(n / 10, {"text": f"cat {n}"}) for n in (8, 7, 6)])
    near = ("--memory", bank, "--encoder", encoder, "--json")
    for count, words in ((2, ()), (1, ("--neighbours", 1))):
        told = json.loads(call("generate", "a cat", *near, *words)[1])[0]
        assert (told["neighbours"], len(told["attribution"])) == (count, count)
    told = json.loads(call("generate", "a cat", "--json")[1])[0]
    assert (told["neighbours"], told["attribution"]) == (0, [])


def test_a_bank_and_no_neighbours_contradict_each_other(call, no_model, bank_for):
    bank = bank_for("a cat", [(0.8, {"text": "a cat"})])
    code, out, err = call("generate", "a cat", "--memory", bank, "--neighbours", 0)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"neighbours is 0, so nothing would be taken from {bank}; leave out" in err
