import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def drawn(call):
    """Two pictures in the current folder."""
    Image.linear_gradient("L").save("grey.png")
    Image.new("RGBA", (40, 30), (255, 0, 0, 128)).save("red.png")
    return ["grey.png", "red.png"]


def test_each_picture_gets_a_line(call, drawn):
    code, out, err = call("caption", *drawn, "--max-text", 8)
    assert (code, err) == (0, "")
    assert [line.partition(": ")[0] for line in out.splitlines()] == drawn


def test_one_caption_is_the_likeliest_and_so_always_the_same(call, drawn):
    words = ("caption", *drawn, "--max-text", 8)
    assert call(*words) == call(*words, "--seed", 5)


def test_several_captions_differ_and_are_repeated_by_their_seed(call, drawn):
    words = ("--max-text", 8, "--temperature", 1.5, "--json")
    _, out, _ = call("caption", *drawn, "--count", 3, "--seed", 5, *words)
    told = json.loads(out)
    assert [one["seed"] for one in told] == [5, 6, 7] * 2
    assert len({one["caption"] for one in told}) > 1
    _, out, _ = call("caption", "red.png", "--seed", 6, *words)
    assert json.loads(out) == [told[4]]


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
def test_a_picture_that_cannot_be_read_is_one_line_with_its_name(
    call, drawn, no_model, content
):
    if content == "half":
        whole = Path("grey.png").read_bytes()
        content = whole[: len(whole) // 2]
    Path("broken.png").write_bytes(content)
    code, out, err = call("caption", "grey.png", "broken.png")
    assert (code, out) == (1, "")
    assert "broken.png: unreadable picture" in err
    assert err.count("\n") == 1


def test_a_picture_that_is_not_there_is_named(call, no_model):
    code, _, err = call("caption", "missing.png")
    assert code == 1
    assert "missing.png" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Name a picture"),
        (["grey.png", "--count", "0"], 1, "count is 0, below 1"),
        (
            ["grey.png", "--count", "2", "--seed", str(2**63 - 1)],
            1,
            "outside 0 <= seed < 2**63",
        ),
        (["grey.png", "--temperature", "-1"], 1, "temperature is -1.0, below 0"),
        (["grey.png", "--max-text", "0"], 1, "max_text is 0, below 1"),
    ],
)
def test_what_is_wrong_is_one_line_before_a_model_is_loaded(
    call, drawn, no_model, words, code, said
):
    got, out, err = call("caption", *words)
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
