from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cm3leon.corpus.splits import SPLITS, split_of

NAMES = st.text(min_size=1, max_size=20)


@given(NAMES, NAMES, NAMES, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_a_held_out_concept_is_held_out_in_every_style(
    one, other, concept, sources, others, toned
):
    splits = {
        split_of(one, concept, sources=sources, toned=toned),
        split_of(other, concept, sources=others, toned=False),
    }
    for held_out in ("test_concept", "val_concept"):
        assert held_out not in splits or splits == {held_out}


def test_a_drawing_is_held_out_only_if_others_show_the_same():
    names = [f"noto/{number}" for number in range(3_000)]
    few = [split_of(name, "owl", sources=2, toned=False) for name in names]
    many = [split_of(name, "owl", sources=3, toned=False) for name in names]
    toned = [split_of(name, "owl", sources=3, toned=True) for name in names]
    assert set(few) == set(toned) == {"train"}
    assert 0.02 < many.count("test_style") / len(many) < 0.04


def test_the_shares_of_concepts_are_as_set():
    found = Counter(
        split_of("x", f"concept {number}", sources=1, toned=False)
        for number in range(20_000)
    )
    assert 0.025 < found["test_concept"] / 20_000 < 0.035
    assert 0.01 < found["val_concept"] / 20_000 < 0.02
    assert set(found) <= set(SPLITS)


def test_splits_stay_as_they_are():
    assert split_of("noto/red-apple", "apple-red", sources=9, toned=False) == "train"
    names = [f"thing {number}" for number in range(200)]
    splits = [split_of(name, name, sources=1, toned=False) for name in names]
    held_out = [number for number in range(200) if splits[number] == "test_concept"]
    assert held_out == [11, 31, 93, 120, 151]
