"""Laws of spans, rotating and restoring."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm3leon.errors import ConfigError, DataError
from cm3leon.objective.cm3 import (
    GROWTH,
    CM3Config,
    clip,
    hidden_segments,
    place_spans,
    restore,
    rotate,
    sample_spans,
    segments,
)
from cm3leon.tokens.vocabulary import Vocabulary

LAYOUTS = {
    "own": Vocabulary.own(256, 64),
    "authors": Vocabulary.authors(text_size=260, codebook_size=64, reserved=4, holes=8),
}
layouts = st.sampled_from(sorted(LAYOUTS))
law = settings(deadline=None, max_examples=60)


def boundaries(v):
    return frozenset((v.break_, v.eos, v.pad))


@st.composite
def rows(draw):
    """A layout, a row cut from its documents, and what spans are drawn from."""
    layout = draw(layouts)
    v = LAYOUTS[layout]
    kinds = st.one_of(
        st.integers(v.text.start, v.text.stop - 1),
        st.integers(v.image.start, v.image.stop - 1),
        st.sampled_from((v.break_, v.eos)),
    )
    ids = draw(st.lists(kinds, min_size=1, max_size=60))
    return layout, ids, draw(st.floats(0, 1)), draw(st.integers(0, 2**32))


def spanned(case):
    """The row with its vocabulary and disjoint spans without boundaries."""
    layout, ids, share, seed = case
    v, random = LAYOUTS[layout], np.random.default_rng(seed)
    config = CM3Config(mean_spans=3.0, whole_segment_share=share)
    return v, ids, sample_spans(ids, boundaries(v), config, random, len(v.masks))


def turned(v, ids, spans, limit=None):
    return rotate(ids, spans, v.masks, v.infills, v.end, limit)


def back(v, ids):
    return restore(ids, v.masks, v.infills, v.end)


@law
@given(rows())
def test_no_span_holds_a_boundary_or_the_first_id_and_none_meet(case):
    v, ids, spans = spanned(case)
    seen = set()
    for span in spans:
        assert span
        assert span.start >= 1
        assert not seen & set(span)
        assert not {ids[i] for i in span} & boundaries(v)
        seen |= set(span)
    assert spans == sorted(spans, key=lambda span: span.start)


@law
@given(rows())
def test_restoring_a_rotated_row_gives_it_back(case):
    v, ids, spans = spanned(case)
    assert back(v, turned(v, ids, spans).ids) == ids


@law
@given(rows(), st.integers(1, 80))
def test_a_limit_cuts_only_the_last_ids_that_do_not_move(case, limit):
    v, ids, spans = spanned(case)
    rotated = turned(v, ids, spans, limit)
    assert len(rotated.ids) <= limit
    moved = {rotated.origins[i] for i, x in enumerate(rotated.ids) if x in v.masks}
    kept_spans = [span for span in spans if span.start in moved]
    assert kept_spans == spans[: len(kept_spans)]
    inside = {i for span in kept_spans for i in span}
    outside = [i for i in range(len(ids)) if i not in inside]
    room = limit - len(inside) - GROWTH * len(kept_spans)
    kept = sorted(inside | set(outside[:room]))
    assert back(v, rotated.ids) == [ids[i] for i in kept]


def test_without_a_span_in_the_tail_the_row_is_cut_by_three_ids_a_span():
    v = LAYOUTS["own"]
    ids = [v.eos, *v.text[:20], v.break_, *v.image[:20], v.eos]
    rotated = turned(v, ids, [range(3, 6), range(9, 12)], len(ids))
    assert len(rotated.ids) == len(ids)
    assert back(v, rotated.ids) == ids[:-6]


def test_masks_and_whole_spans_survive_the_cut_where_a_span_ends_the_row():
    v = LAYOUTS["own"]
    ids = [v.eos, *v.text[:5], v.break_, *v.image[:8]]
    rotated = turned(v, ids, [range(7, 15)], len(ids))
    hidden = [v.masks[0], v.infills[0], *v.image[:8], v.end]
    assert rotated.ids == [v.eos, *v.text[:3], *hidden]


def test_spans_that_leave_too_little_to_cut_stay_where_they_are():
    v = LAYOUTS["own"]
    ids = [v.eos, v.text[0], v.break_, v.image[0]]
    assert turned(v, ids, [range(1, 2), range(3, 4)], len(ids)).ids == ids


@law
@given(rows())
def test_origins_name_where_each_id_comes_from(case):
    v, ids, spans = spanned(case)
    rotated = turned(v, ids, spans)
    assert len(rotated.ids) == len(rotated.origins)
    starts, last = {s.start for s in spans}, {s.stop - 1 for s in spans}
    for id, origin in zip(rotated.ids, rotated.origins, strict=True):
        if id in v.masks or id in v.infills:
            assert origin in starts
        elif id == v.end:
            assert origin in last
        else:
            assert id == ids[origin]


@law
@given(rows())
def test_each_hole_is_marked_twice_and_each_moved_span_closed(case):
    v, ids, spans = spanned(case)
    rotated = turned(v, ids, spans).ids
    count = len(spans)
    if v.masks == v.infills:
        assert [rotated.count(mask) for mask in v.masks[:count]] == [2] * count
    else:
        assert [rotated.count(mask) for mask in v.masks[:count]] == [1] * count
        assert [rotated.count(infill) for infill in v.infills[:count]] == [1] * count
    assert not set(rotated) & {*v.masks[count:], *v.infills[count:]}
    assert rotated.count(v.end) == count
    assert rotated[-1] == v.end or not spans
    assert len(rotated) == len(ids) + GROWTH * count


@law
@given(rows())
def test_without_spans_the_row_is_untouched(case):
    v, ids, _ = spanned(case)
    rotated = turned(v, ids, [], len(ids))
    assert rotated.ids == ids == back(v, ids)
    assert rotated.origins == list(range(len(ids)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_document_keeps_its_last_eos_before_the_infill(layout):
    v = LAYOUTS[layout]
    text, codes = list(v.text[:3]), list(v.image[:4])
    ids = [v.eos, *text, v.break_, *codes, v.eos]
    assert turned(v, ids, [range(1, 4)]).ids == [
        *(v.eos, v.masks[0], v.break_, *codes, v.eos),
        *(v.infills[0], *text, v.end),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_span_not_yet_closed_is_restored_as_far_as_it_goes(layout):
    v = LAYOUTS[layout]
    ids = [v.eos, v.masks[0], v.break_, v.image[0], v.eos, v.infills[0], v.text[1]]
    assert back(v, ids) == [v.eos, v.text[1], v.break_, v.image[0], v.eos]


def test_a_mask_without_a_span_stays():
    v = LAYOUTS["own"]
    assert back(v, [v.eos, v.masks[0], v.eos]) == [v.eos, v.masks[0], v.eos]


def test_what_no_rotation_makes_is_refused():
    v = LAYOUTS["own"]
    start = [v.eos, v.masks[0], v.eos, v.infills[0], v.text[0], v.end]
    for wrong in (
        [v.eos, v.infills[0], v.text[0], v.end],
        [*start, v.text[1]],
        [*start, *start[3:]],
    ):
        with pytest.raises(DataError):
            back(v, wrong)


def pairs(captions, codes=1024, count=4):
    """Ids of `count` pairs laid out as a document with neighbours: 0 bounds."""
    return [0, *([1] * captions + [0] + [2] * codes + [0]) * count]


def hides_a_caption(ids, spans):
    return any(ids[s.start] == 1 for s in hidden_segments(ids, spans, {0}))


def test_a_uniform_span_hides_a_caption_about_once_in_ten_thousand():
    # Counted, not drawn: only short spans can lie mostly in a caption of 9 ids.
    ids = pairs(9)
    places, length = segments(ids, {0}), len(ids)
    captions = {p for p in places if ids[p.start] == 1}
    near = (range(a, b) for a in range(1, length) for b in range(a + 9, a + 31))
    near = (
        s for s in near if any(c.start - 11 <= s.start <= c.start for c in captions)
    )
    hiding = sum(clip(span, places) in captions for span in near)
    assert 2e-5 < hiding / (length**2 / 2) < 2e-4


@pytest.mark.parametrize(("share", "rate"), [(0.0, 0.0), (0.5, 0.20), (1.0, 0.40)])
def test_the_rate_of_hidden_captions_follows_the_share_of_whole_segments(share, rate):
    ids = pairs(9)
    places = segments(ids, {0})
    captions = {p for p in places if ids[p.start] == 1}
    random = np.random.default_rng(0)
    config = CM3Config(whole_segment_share=share)
    draws = 4000
    hidden = sum(
        bool(captions & set(place_spans(places, len(ids), config, random, 8)))
        for _ in range(draws)
    )
    assert abs(hidden / draws - rate) < (0.03 if rate else 2e-3)


def test_hidden_segments_are_those_a_span_covers_exactly():
    ids = pairs(3, codes=4, count=2)
    first, image, *_ = segments(ids, {0})
    assert hidden_segments(ids, [first], {0}) == [first]
    assert hides_a_caption(ids, [first])
    assert not hides_a_caption(ids, [image])
    assert hidden_segments(ids, [range(image.start, image.stop - 1)], {0}) == []
    assert hidden_segments(ids, [], {0}) == []


@pytest.mark.parametrize("mean", [0.5, 1.0, 2.0])
def test_the_mean_number_of_whole_segments_is_as_set(mean):
    ids = pairs(9, codes=64)
    random = np.random.default_rng(1)
    config = CM3Config(mean_spans=mean, whole_segment_share=1.0)
    places = segments(ids, {0})
    drawn = [len(place_spans(places, len(ids), config, random, 8)) for _ in range(4000)]
    assert abs(np.mean(drawn) - mean) < 0.1
    assert abs(np.mean([n == 0 for n in drawn]) - np.exp(-mean)) < 0.03


def test_drawn_spans_are_nearly_as_many_as_wanted():
    ids = pairs(9)
    random = np.random.default_rng(2)
    config = CM3Config(whole_segment_share=0.0)
    places = segments(ids, {0})
    drawn = [len(place_spans(places, len(ids), config, random, 8)) for _ in range(4000)]
    assert 0.85 < np.mean(drawn) <= 1.05


def test_fixed_takes_that_many_and_none_takes_none():
    ids = pairs(9, codes=64)
    random = np.random.default_rng(3)
    fixed = CM3Config(mode="fixed", mean_spans=3.0, whole_segment_share=1.0)
    assert {len(sample_spans(ids, {0}, fixed, random, 8)) for _ in range(50)} == {3}
    assert {len(sample_spans(ids, {0}, fixed, random, 2)) for _ in range(50)} == {2}
    none = CM3Config(mode="none", whole_segment_share=1.0)
    assert sample_spans(ids, {0}, none, random, 8) == []


def test_the_same_seed_draws_the_same_spans():
    ids, config = pairs(9, codes=64), CM3Config(mean_spans=2.0)
    first, second = (
        [sample_spans(ids, {0}, config, random, 8) for _ in range(50)]
        for random in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert first == second


@pytest.mark.parametrize("ids", [[], [0], [0, 0], [5], [0, 5], [0, 5, 0]])
def test_the_shortest_rows_are_no_exception(ids):
    config = CM3Config(mode="fixed", mean_spans=2.0, whole_segment_share=0.5)
    random = np.random.default_rng(5)
    for _ in range(20):
        spans = sample_spans(ids, {0}, config, random, 8)
        assert all(span == range(1, 2) for span in spans)


@law
@given(st.integers(0, 30), st.integers(1, 30))
def test_clipping_keeps_the_larger_overlap(start, size):
    left, right = range(1, 10), range(11, 25)
    span = range(start, start + size)
    overlaps = [len(set(span) & set(place)) for place in (left, right)]
    clipped = clip(span, [left, right])
    assert (len(clipped) if clipped else 0) == max(overlaps)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "fim"}, "fim"),
        ({"mean_spans": -1.0}, "-1.0"),
        ({"mean_spans": float("nan")}, "nan"),
        ({"mean_spans": 1e30}, "1e\\+30"),
        ({"mode": "fixed", "mean_spans": 1.5}, "whole number"),
        ({"whole_segment_share": 1.5}, "1.5"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(wrong, said):
    # Past the type checker of the tests, as a settings file would be.
    config = object.__new__(CM3Config)
    for name, value in {**CM3Config().__dict__, **wrong}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(ConfigError, match=said):
        CM3Config.__post_init__(config)
