from dataclasses import replace
from inspect import unwrap

import pytest

from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import PromptWriter
from cm3leon.errors import RequestError
from cm3leon.objective.cm3 import rotate
from cm3leon.tokens.codec import positions
from cm3leon.tokens.document import Document, Hole, Image, Text

PICTURE = Image(codes=tuple(range(16)))
WORDS = Text("a red apple")


def writer(codec, slot=0, context=128):
    return PromptWriter(codec=codec, context=context, position_slot=slot)


@pytest.fixture(params=[0, 32], ids=lambda slot: f"slot {slot}")
def slot(request):
    return request.param


def trained(codec, document, span, slot):
    """Ids and positions of a training row whose `span` was moved to the end."""
    v = codec.vocabulary
    ids = codec.encode(document)
    rotated = rotate(ids, [span] if span else [], v.masks, v.infills, v.end, None)
    if slot:
        places = positions(v, ids, slot)
        return rotated.ids, [places[i] for i in rotated.origins]
    return rotated.ids, list(range(len(rotated.ids)))


def assert_begins(lane, ids, places, drawn=3):
    """The lane and the ids drawn after it are the beginning of a training row."""
    length = len(lane.ids)
    assert list(lane.ids) == ids[:length]
    assert list(lane.positions) == places[:length]
    assert lane.next_position == places[length]
    following = range(lane.next_position, lane.next_position + drawn)
    assert list(following) == places[length : length + drawn]


def test_a_text_is_extended_as_it_was_trained(codec, slot, options):
    prompt = writer(codec, slot).extend(Document(WORDS), "image", options)
    ids, places = trained(codec, Document(WORDS, PICTURE), None, slot)
    assert_begins(prompt.conditional, ids, places)
    assert prompt.most == 16
    assert prompt.constraint.kind == "image"


def test_the_unconditional_lane_is_a_hidden_caption_as_it_was_trained(
    codec, slot, options
):
    prompt = writer(codec, slot).extend(Document(WORDS), "image", options)
    v = codec.vocabulary
    lane = prompt.unconditional
    assert list(lane.ids) == [v.eos, v.masks[0], v.break_]
    hidden = range(1, 1 + len(codec.encode(Document(WORDS))) - 2)
    ids, places = trained(codec, Document(WORDS, PICTURE), hidden, slot)
    assert_begins(lane, ids, places)


def test_a_scale_of_one_needs_no_unconditional_lane(codec):
    options = GenerationOptions(guidance_scale=1.0)
    prompt = writer(codec).extend(Document(WORDS), "image", options)
    assert prompt.unconditional is None


def test_a_picture_is_extended_by_text_as_it_was_trained(codec, slot, options):
    prompt = writer(codec, slot).extend(Document(WORDS, PICTURE), "text", options)
    whole = Document(WORDS, PICTURE, Text("two cats asleep"))
    assert_begins(prompt.conditional, *trained(codec, whole, None, slot))
    assert prompt.constraint.stops == (codec.vocabulary.break_, codec.vocabulary.eos)


def test_text_after_text_goes_on_without_a_break(codec, slot, options):
    prompt = writer(codec, slot).extend(Document(WORDS), "text", options)
    ids, places = trained(codec, Document(WORDS), None, slot)
    assert list(prompt.conditional.ids) == ids[:-1]
    assert list(prompt.conditional.positions) == places[:-1]
    assert prompt.conditional.next_position == places[-1]


def test_editing_hides_the_words_and_shows_the_picture_in_the_unconditional_lane(
    codec, options
):
    document = Document(PICTURE, Text("make it blue"))
    prompt = writer(codec).extend(document, "image", options)
    v = codec.vocabulary
    codes = [v.image_id(code) for code in PICTURE.codes]
    wanted = [v.eos, *codes, v.break_, v.masks[0], v.break_]
    assert list(prompt.unconditional.ids) == wanted


def test_editing_by_two_scales_has_a_third_lane_that_knows_neither(
    codec, slot, options
):
    """All three are the beginnings of rows of training, of which two hide captions."""
    words = Text("make it blue")
    editing = replace(options, image_guidance_scale=1.5)
    prompt = writer(codec, slot).extend(Document(PICTURE, words), "image", editing)
    v = codec.vocabulary
    said = codec.encode(Document(words))[1:-1]
    codes = [v.image_id(code) for code in PICTURE.codes]
    full, pictured, nothing = prompt.lanes
    assert list(full.ids) == [v.eos, *codes, v.break_, *said, v.break_]
    assert list(pictured.ids) == [v.eos, *codes, v.break_, v.masks[0], v.break_]
    assert list(nothing.ids) == [v.eos, v.masks[0], v.break_]
    assert (full, pictured) == (prompt.conditional, prompt.unconditional)
    edit, alone = Document(PICTURE, words, PICTURE), Document(words, PICTURE)
    assert_begins(full, *trained(codec, edit, None, slot))
    start = 1 + len(codes) + 1
    hidden = range(start, start + len(said))
    assert_begins(pictured, *trained(codec, edit, hidden, slot))
    assert_begins(nothing, *trained(codec, alone, range(1, 1 + len(said)), slot))
    assert (
        writer(codec, slot).extend(Document(PICTURE, words), "image", options).nothing
        is None
    )


def test_a_caption_is_filled_in_as_it_was_trained(codec, slot, options):
    prompt = writer(codec, slot).fill(Document(Hole(), PICTURE), options)
    v = codec.vocabulary
    codes = [v.image_id(code) for code in PICTURE.codes]
    assert list(prompt.conditional.ids) == [
        *(v.eos, v.masks[0], v.break_, *codes, v.eos, v.infills[0])
    ]
    hidden = range(1, 1 + len(codec.encode(Document(WORDS))) - 2)
    ids, places = trained(codec, Document(WORDS, PICTURE), hidden, slot)
    assert_begins(prompt.conditional, ids, places)
    assert prompt.unconditional is None
    assert prompt.constraint.stops == (v.end,)


def test_an_answer_after_a_picture_is_filled_in_as_it_was_trained(codec, slot, options):
    document = Document(WORDS, PICTURE, Hole())
    prompt = writer(codec, slot).fill(document, options)
    # Where the ids behind a hole stood depends on its length; one id is assumed.
    whole = Document(WORDS, PICTURE, Text("b"))
    ids = codec.encode(whole)
    start = len(codec.encode(Document(WORDS, PICTURE)))
    hidden = range(start, len(ids) - 1)
    assert_begins(prompt.conditional, *trained(codec, whole, hidden, slot), drawn=1)


def test_a_hidden_picture_is_filled_in_as_it_was_trained(codec, slot, options):
    document = Document(WORDS, Hole("image"), Text("two cats"))
    prompt = writer(codec, slot).fill(document, options)
    start = len(codec.encode(Document(WORDS)))
    whole = Document(WORDS, PICTURE, Text("two cats"))
    row = trained(codec, whole, range(start, start + 16), slot)
    assert_begins(prompt.conditional, *row)
    assert prompt.most == 16
    assert prompt.constraint.kind == "image"


def test_the_unconditional_lane_of_a_hidden_picture_hides_the_words(
    codec, slot, options
):
    document = Document(WORDS, Hole("image"), Text("two cats"))
    prompt = writer(codec, slot).fill(document, options)
    v, lane = codec.vocabulary, prompt.unconditional
    assert list(lane.ids) == [
        *(v.eos, v.masks[0], v.break_, v.masks[1], v.break_, v.masks[2]),
        *(v.eos, v.infills[1]),
    ]
    start = lane.positions[3] if slot else len(lane.ids)
    assert lane.next_position == start
    wordless = writer(codec, slot).fill(Document(Hole("image"), Hole()), options)
    assert wordless.unconditional is None


def test_an_answer_within_a_text_stands_behind_its_question(codec, slot, options):
    document = Document(Text("Question: what? Answer: "), Hole(), PICTURE)
    prompt = writer(codec, slot).fill(document, options)
    ids, v = prompt.conditional.ids, codec.vocabulary
    hole = ids.index(v.masks[0])
    assert v.break_ not in ids[:hole]
    assert ids[hole + 1] == v.break_
    start = prompt.conditional.positions[hole] if slot else len(ids)
    assert prompt.conditional.next_position == start


def test_in_the_authors_layout_masks_and_infills_may_be_one_id(
    text_tokenizer, slot, options
):
    from cm3leon.tokens.codec import Codec
    from cm3leon.tokens.vocabulary import Vocabulary

    layout = Vocabulary.authors(400, 64, 8, 4)
    codec = Codec(layout, text_tokenizer, 16)
    prompt = writer(codec, slot).fill(Document(Hole(), PICTURE), options)
    assert prompt.conditional.ids[1] == prompt.conditional.ids[-1]
    hidden = range(1, 1 + len(codec.encode(Document(WORDS))) - 2)
    row = trained(codec, Document(WORDS, PICTURE), hidden, slot)
    assert_begins(prompt.conditional, *row)


def test_empty_text_is_as_if_it_were_not_there(codec, options):
    ours = writer(codec)
    empty = Document(WORDS, PICTURE, Text("  "))
    assert ours.extend(empty, "text", options) == ours.extend(
        Document(WORDS, PICTURE), "text", options
    )


@pytest.mark.parametrize(
    ("document", "want", "said"),
    [
        (Document(), "image", "the document is empty; give it words or a picture"),
        (Document(Text(" \n")), "image", "the document is empty"),
        (Document(WORDS, PICTURE), "image", "ends in a picture; put text behind it"),
        (Document(Hole(), PICTURE), "text", "the document has a hole; fill it"),
    ],
)
def test_what_cannot_be_extended_is_refused(codec, options, document, want, said):
    with pytest.raises(RequestError, match=said):
        writer(codec).extend(document, want, options)


def test_only_pictures_and_text_can_be_wanted(codec, options):
    unchecked = unwrap(PromptWriter.extend)  # under test our own check is never reached
    with pytest.raises(RequestError, match="'sound'; it can be 'image' or 'text'"):
        unchecked(writer(codec), Document(WORDS), "sound", options)


def test_what_cannot_be_filled_is_refused(codec, options):
    with pytest.raises(RequestError, match="has no hole to fill; put a Hole in it"):
        writer(codec).fill(Document(WORDS, PICTURE), options)
    many = Document(*[Hole(), PICTURE] * 9)
    with pytest.raises(RequestError, match="has 9 holes, the model knows 8"):
        writer(codec, context=1000).fill(many, options)


def test_a_scale_for_the_picture_is_refused_where_nothing_is_edited(codec, options):
    prompts, editing = writer(codec), replace(options, image_guidance_scale=1.5)
    for ask in (
        lambda: prompts.extend(Document(WORDS), "image", editing),
        lambda: prompts.extend(Document(WORDS), "text", editing),
        lambda: prompts.fill(Document(Hole(), PICTURE), editing),
        lambda: prompts.redraw(Document(PICTURE), {3}, editing),
    ):
        with pytest.raises(RequestError, match=r"scale is 1\.5, and it is for editing"):
            ask()


def test_a_prompt_fits_to_the_last_place_and_not_one_more(codec, slot, options):
    document = Document(WORDS)
    lane = writer(codec, slot).extend(document, "image", options).conditional
    needed = lane.next_position + 16
    writer(codec, slot, needed).extend(document, "image", options)
    said = (
        f"the prompt takes {needed - 16} ids and a picture 16 more, the model reads "
        f"{needed - 1}; shorten the prompt"
    )
    with pytest.raises(RequestError, match=said):
        writer(codec, slot, needed - 1).extend(document, "image", options)


def test_a_picture_beyond_the_context_is_refused_when_it_is_to_be_captioned(
    codec, slot, options
):
    with pytest.raises(RequestError, match="the model reads 20; shorten the prompt"):
        writer(codec, slot, 20).fill(Document(Hole(), PICTURE), options)


def test_an_answer_is_as_long_as_asked_or_as_the_context_lets_it(codec, options):
    document = Document(Hole(), PICTURE)
    lane = writer(codec).fill(document, options).conditional
    assert writer(codec).fill(document, options).most == 64
    assert writer(codec, context=len(lane.ids) + 5).fill(document, options).most == 5


NEIGHBOURS = [
    Document(Text("a green apple"), PICTURE),
    Document(Text("an apple, red"), Image(codes=tuple(range(20, 36)))),
]


def test_neighbours_stand_before_the_text_as_they_were_trained(codec, slot, options):
    prompt = writer(codec, slot, context=256).extend(
        Document(WORDS), "image", options, NEIGHBOURS
    )
    v = codec.vocabulary
    ids = codec.encode(Document(WORDS, PICTURE), NEIGHBOURS)
    places = positions(v, ids, slot)
    assert_begins(prompt.conditional, ids, places)
    lane = prompt.unconditional
    before = len(codec.extend_prompt(Document(), NEIGHBOURS))
    assert list(lane.ids) == [*ids[:before], v.masks[0], v.break_]
    assert lane.positions[:before] == prompt.conditional.positions[:before]


def test_the_caption_may_be_absent_after_neighbours(codec, slot):
    options = GenerationOptions(seed=0, unconditional="absent")
    asked = writer(codec, slot, context=256)
    lane = asked.extend(Document(WORDS), "image", options, NEIGHBOURS).unconditional
    ids = codec.encode(Document(WORDS, PICTURE), NEIGHBOURS)
    assert list(lane.ids) == ids[: len(lane.ids)]
    assert len(lane.ids) == len(codec.extend_prompt(Document(), NEIGHBOURS))
    if slot:
        assert lane.next_position % slot == 0
    alone = asked.extend(Document(WORDS), "image", options).unconditional
    assert list(alone.ids)[1:-1] == [codec.vocabulary.masks[0]]


def test_the_unconditional_lane_may_stand_alone(codec, slot):
    options = GenerationOptions(seed=0, unconditional="alone")
    asked = writer(codec, slot, context=256)
    prompt = asked.extend(Document(WORDS), "image", options, NEIGHBOURS)
    without = asked.extend(Document(WORDS), "image", options)
    assert prompt.unconditional == without.unconditional
    guided = replace(options, unconditional="mask")
    with_both = asked.extend(Document(WORDS), "image", guided, NEIGHBOURS)
    assert prompt.conditional == with_both.conditional
