import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm3leon.corpus.naming import concept_of, slug, with_article, words

TONES = ["light", "medium-light", "medium", "medium-dark", "dark"]


@pytest.mark.parametrize("tone", TONES)
def test_a_concept_has_no_skin_tone(tone):
    assert concept_of(f"waving hand with {tone} skin tone") == "hand-waving"
    assert concept_of(f"waving hand: {tone} skin tone") == "hand-waving"


def test_two_skin_tones_are_left_out_as_well():
    label = "people holding hands with light skin tone and dark skin tone"
    assert concept_of(label) == concept_of("people holding hands") == "hands-holding"


@pytest.mark.parametrize("who", ["man", "woman", "person", "boy", "girl"])
def test_a_concept_has_no_gender(who):
    assert concept_of(f"{who} biking") == "biking"


def test_a_gender_alone_is_a_concept():
    assert concept_of("woman") == "woman"


@given(st.lists(st.sampled_from(["red", "tree", "on", "a", "the", "two", "3"])))
def test_the_order_of_words_makes_no_concept(parts):
    there = concept_of(" ".join(["owl", *parts]))
    assert there == concept_of(" ".join([*reversed(parts), "owl"]))


@given(st.text(min_size=1))
def test_any_text_has_a_slug_of_letters_digits_and_hyphens(text):
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text())
def test_words_stay_words(text):
    assert words(words(text)) == words(text)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("cat", "a cat"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("euro banknote", "a euro banknote"),
        ("house with garden", "a house with garden"),
        ("grapes", "grapes"),
        ("bunch of grapes", "a bunch of grapes"),
        ("cactus", "a cactus"),
        ("fire", "fire"),
        ("two owls", "two owls"),
        ("3 owls", "3 owls"),
        ("the moon", "the moon"),
        ("flag of Peru", "the flag of Peru"),
        ("mountains at dusk", "mountains at dusk"),
        ("", "a "),
    ],
)
def test_articles_are_as_people_say_them(label, expected):
    assert with_article(label) == expected
