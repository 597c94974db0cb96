"""Documents in which words and pictures take turns, several of each."""

from dataclasses import replace

import pytest
import torch

from cm3leon.decoding.options import GenerationOptions
from cm3leon.tokens.codec import positions
from cm3leon.tokens.document import Document, Hole, Image, Text

FIRST, SECOND = (Image(codes=tuple(range(start, start + 16))) for start in (0, 40))
WORDS = Text("and now a green one")
DOCUMENTS = [
    Document(Text("a red apple"), FIRST, WORDS),
    Document(FIRST, Text("b"), SECOND, WORDS),
    Document(Text("two of them"), FIRST, SECOND, Text("b")),
]


def parts(document):
    return [
        segment.codes if isinstance(segment, Image) else segment.text
        for segment in document.segments
    ]


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_batch_draws_what_one_by_one_draws_behind_what_was_there(
    engine, scale, window
):
    options = GenerationOptions(guidance_scale=scale, window=window)
    seeds = [5, 6, 7]
    together = engine.extend(DOCUMENTS, options, seeds=seeds)
    for before, after, seed in zip(DOCUMENTS, together, seeds, strict=True):
        *kept, picture = after.segments
        assert tuple(kept) == before.segments
        assert picture.pixels is not None
        # it has a picture's codes, and is one that may be learnt from
        ids = engine.codec.encode(after)
        assert parts(engine.codec.decode(ids)) == parts(after)
        assert engine.extend(before, options, seeds=[seed]) == after


def test_the_likeliest_codes_are_those_of_a_pass_over_the_whole_document(engine):
    options = GenerationOptions(temperature=0.0, guidance_scale=1.0, seed=0)
    image = engine.codec.vocabulary.image
    for after in engine.extend(DOCUMENTS, options):
        ids = engine.codec.encode(after)
        places = positions(engine.codec.vocabulary, ids, engine.position_slot)
        logits = engine.model(torch.tensor([ids]), torch.tensor([places]))[0, -18:-2]
        likeliest = logits[:, image.start : image.stop].argmax(-1)
        assert tuple(likeliest.tolist()) == after.images[-1].codes


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_every_earlier_part_counts(engine, options, scale):
    options = replace(options, guidance_scale=scale)
    first, words, second, last = DOCUMENTS[1].segments
    others = [
        Document(second, words, second, last),
        Document(first, Text("a blue car"), second, last),
        Document(first, words, first, last),
        Document(first, words, second, Text("b")),
    ]
    drawn = engine.extend([DOCUMENTS[1], *others], options, seeds=[3] * 5)
    assert len({document.images[-1].codes for document in drawn}) == 5


def test_a_story_grows_picture_by_picture(engine, options):
    story = Document()
    for number, words in enumerate(["a red apple", "cut in two", "and eaten"]):
        told = Document(*story.segments, Text(words))
        story = engine.extend(told, options)
        assert story.segments[:-1] == told.segments
        assert len(story.images) == number + 1
    assert [len(picture.codes) for picture in story.images] == [16] * 3


def test_words_follow_and_fill_what_has_several_pictures(engine, options):
    options = replace(options, max_text=5)
    before = Document(*DOCUMENTS[0].segments, SECOND)
    after = engine.extend(before, options, want="text")
    assert after.segments[:-1] == before.segments
    assert after.segments[-1].text
    holed = [
        Document(Text("a red apple"), FIRST, Hole(), SECOND),
        Document(FIRST, Hole(), SECOND, WORDS),
        Document(Text("b"), FIRST, Text("then"), Hole("image")),
    ]
    seeds = [5, 6, 7]
    filled = engine.fill(holed, options, seeds=seeds)
    for before, after, seed in zip(holed, filled, seeds, strict=True):
        assert not after.holes
        for old, new in zip(before.segments, after.segments, strict=True):
            assert isinstance(old, Hole) or new == old
        assert engine.fill(before, options, seeds=[seed]) == after
