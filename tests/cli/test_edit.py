import json

import pytest
from PIL import Image


@pytest.fixture
def apple(tmp_path):
    path = tmp_path / "apple.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def test_an_edit_is_a_picture_whose_seed_repeats_it(call, apple):
    asked = ("edit", apple, "make it green", "--json")
    code, out, _ = call(*asked, "--seed", 3, "--count", 2)
    assert code == 0
    first, second = json.loads(out)
    again = json.loads(call(*asked, "--seed", 4, "--out", "again.png")[1])
    pictures = [Image.open(one["path"]).tobytes() for one in (first, second, *again)]
    assert pictures[0] != pictures[1] == pictures[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--image-guidance-scale", -1), "image_guidance_scale is -1.0, below 0"),
        (("--contrast-k", 3), "image_guidance_scale and contrast_k are two ways"),
        (("--count", 0), "count is 0, below 1"),
    ],
)
def test_bad_words_are_refused_before_a_model_is_loaded(
    call, apple, no_model, words, said
):
    code, _, err = call("edit", apple, "make it green", *words)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


def test_a_question_gets_an_answer_and_no_more(call, apple):
    code, out, err = call("ask", apple, "what is it?", "--max-text", 8)
    assert (code, err) == (0, "")
    assert "Question" not in out
    assert out.count("\n") == 1
    told = json.loads(call("ask", apple, "what is it?", "--max-text", 8, "--json")[1])
    assert told["answer"] == out.strip()
    assert told["question"] == "what is it?"


def test_several_answers_differ_and_are_repeated_by_their_seed(call, apple):
    words = ("ask", apple, "what is it?", "--max-text", 8, "--temperature", 1.5)
    code, out, _ = call(*words, "--seed", 5, "--count", 3, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert (code, [one["seed"] for one in told]) == (0, [5, 6, 7])
    assert len({one["answer"] for one in told}) > 1
    assert json.loads(call(*words, "--seed", 6, "--json")[1]) == told[1]
    assert call(*words, "--seed", 5, "--count", 3)[1].count("\n") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((" ",), "empty"),
        (("what?", "--max-text", 0), "max_text is 0, below 1"),
        (("what?", "--count", 0), "count is 0, below 1"),
        (("what?", "--count", 2, "--seed", 2**63 - 1), "outside 0 <= seed < 2**63"),
    ],
)
def test_bad_questions_are_refused_before_a_model_is_loaded(
    call, apple, no_model, words, said
):
    code, _, err = call("ask", apple, *words)
    assert code == 1
    assert said in err
