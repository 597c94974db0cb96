from dataclasses import replace
from itertools import cycle, islice

import pytest

from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.pool import CONTRAST_K, pool, strategies
from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document, Text


class Judge:
    """Likes pictures the more, the darker they are."""

    def by_text(self, texts, count):
        return [[] for _ in texts]

    def agreement(self, texts, images):
        assert len(texts) == len(images)
        return [
            -float(sum(image.convert("L").get_flattened_data())) for image in images
        ]


@pytest.fixture
def judged(engine, monkeypatch):
    monkeypatch.setattr(engine, "_open_retriever", Judge)
    return engine


WORDS = [Document(Text("a red apple")), Document(Text("a blue car"))]
OPTIONS = GenerationOptions(seed=5, guidance_scale=2.0, top_p=0.9)


def test_the_best_comes_first_and_all_are_told(judged):
    rows = pool(judged, WORDS, 4, OPTIONS)
    for document, row in zip(WORDS, rows, strict=True):
        assert [one.document.text for one in row] == [document.text] * 4
        scores = [one.score for one in row]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_half_are_drawn_as_the_options_say_and_half_by_contrast(judged, count):
    """In turns, each with the next seed; all that are asked for and no more."""
    plain, contrast = strategies(OPTIONS)
    assert plain == OPTIONS  # top-p with guidance
    assert (contrast.guidance_scale, contrast.contrast_k) == (1.0, CONTRAST_K)
    for row in pool(judged, WORDS, count, OPTIONS):
        drawn = sorted((one.options for one in row), key=lambda options: options.seed)
        ways = islice(cycle([plain, contrast]), count)
        assert drawn == [replace(way, seed=5 + n) for n, way in enumerate(ways)]


def test_a_candidate_is_what_its_options_draw_alone(judged):
    for row, document in zip(pool(judged, WORDS, 3, OPTIONS), WORDS, strict=True):
        for one in row:
            (again,) = judged.extend([document], one.options, seeds=[one.options.seed])
            assert again.images[-1].codes == one.document.images[-1].codes


def test_one_candidate_is_drawn_as_the_options_say(judged):
    ((only,),) = pool(judged, WORDS[:1], 1, OPTIONS)
    assert only.options == OPTIONS


def test_contrast_that_was_asked_for_is_the_first_half():
    contrast, plain = strategies(GenerationOptions(contrast_k=3))
    assert (contrast.contrast_k, plain.contrast_k) == (3, None)


def test_progress_goes_up_to_the_end(judged):
    seen = []
    pool(judged, WORDS, 2, OPTIONS, on_progress=lambda *step: seen.append(step))
    shares = [done / steps for done, steps in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("documents", "count", "said"),
    [
        (WORDS, 0, "candidates is 0, below 1"),
        ([Document(Text(" "))], 2, "judged by the words"),
    ],
)
def test_what_cannot_be_judged_is_refused(judged, documents, count, said):
    with pytest.raises(RequestError, match=said):
        pool(judged, documents, count, OPTIONS)
