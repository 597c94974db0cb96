"""Laws of the codec: documents <-> ids, prompts, positions."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm3leon.errors import DataError, RequestError
from cm3leon.objective.cm3 import restore, rotate
from cm3leon.tokens.codec import Codec, assemble, positions
from cm3leon.tokens.document import Document, Hole, Image, Text
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import Vocabulary

CODES = 4
TOKENIZER = TextTokenizer.train(["a red apple on a plate", "two blue boats"] * 9, 280)
CODECS = {
    "own": Codec(Vocabulary.own(TOKENIZER.size, 64), TOKENIZER, CODES),
    "authors": Codec(
        Vocabulary.authors(
            text_size=4 + TOKENIZER.size, codebook_size=64, reserved=16, holes=8
        ),
        TOKENIZER,
        CODES,
    ),
}
WORDS = range(71, 71 + TOKENIZER.size)  # as in a tokenizer of Chameleon's
CHAMELEON = Codec(
    Vocabulary.chameleon(
        {
            **{"<s>": 0, "<pad>": 1, "</s>": 2, "<racm3:break>": 68, "<eoss>": 69},
            **{
                f"IMGIMG{chr(65 + i // 10)}{chr(65 + i % 10)}Z": 4 + i
                for i in range(64)
            },
            **{f"word {id}": id for id in WORDS},
        },
        400,
    ),
    TOKENIZER,
    CODES,
)
SPECIALS = [
    *("<break>", "<eos>", "<mask:0>", "<infill:0>", "<end>", "<pad>"),
    *("<racm3:break>", "<eoss>", "<sentinel:0>", "</s>"),
]
law = settings(deadline=None, max_examples=60)
layouts = st.sampled_from(sorted(CODECS))
texts = st.text(min_size=1).filter(lambda text: text.rstrip() == text)
pictures = st.lists(st.integers(0, 63), min_size=CODES, max_size=CODES)


@st.composite
def contents(draw):
    """Words and codes, never two texts in a row: they would be one."""
    found = []
    for wordy in draw(st.lists(st.booleans(), min_size=1, max_size=5)):
        if wordy and not (found and isinstance(found[-1], str)):
            found.append(draw(texts))
        else:
            found.append(tuple(draw(pictures)))
    return found


def document_of(contents):
    """Built in the test: the type checker of the tests draws on `random`."""
    return Document(*(Text(x) if isinstance(x, str) else Image(x) for x in contents))


def pair(caption, code=0):
    return Document(Text(caption), Image(codes=(code,) * CODES))


@pytest.fixture(params=sorted(CODECS))
def any_codec(request):
    return CODECS[request.param]


@law
@given(layouts, contents())
def test_decoding_what_was_encoded_gives_the_document(layout, found):
    codec, document = CODECS[layout], document_of(found)
    assert codec.decode(codec.encode(document)) == document


@law
@given(contents())
def test_chameleons_pictures_open_and_close_and_its_documents_come_back(found):
    v, document = CHAMELEON.vocabulary, document_of(found)
    ids = CHAMELEON.encode(document)
    assert CHAMELEON.decode(ids) == document
    assert (ids[0], ids[-1]) == (v.begin, v.eos) == (0, 2)
    assert ids.count(v.begin) == ids.count(v.eos) == 1
    ends = [place for place, id in enumerate(ids) if id == v.end]
    assert [ids[place - CODES - 1] for place in ends] == [v.break_] * len(ends)
    assert len(ends) == ids.count(v.break_) == len(document.images)
    assert CHAMELEON.extend_prompt(document) == [*ids[:-1], v.break_]


@law
@given(layouts, contents())
def test_only_the_first_and_last_id_are_eos_and_a_break_divides_segments(layout, found):
    codec = CODECS[layout]
    v, ids = codec.vocabulary, codec.encode(document_of(found))
    assert (ids[0], ids[-1], ids.count(v.eos)) == (v.eos, v.eos, 2)
    assert ids.count(v.break_) == len(found) - 1


def test_three_neighbours_give_seven_breaks_and_two_eos(any_codec):
    v = any_codec.vocabulary
    neighbours = [pair("a red apple", 1), pair("a plate", 2), pair("boats", 3)]
    ids = any_codec.encode(pair("two blue boats", 4), neighbours)
    assert ids.count(v.break_) == 7
    assert ids.count(v.eos) == 2
    assert ids[0] == ids[-1] == v.eos
    assert [v.code(id) for id in ids if id in v.image] == [
        code for code in (1, 2, 3, 4) for _ in range(CODES)
    ]
    segments = [s for document in neighbours for s in document.segments]
    assert any_codec.decode(ids) == Document(
        *segments, *pair("two blue boats", 4).segments
    )


@pytest.mark.parametrize("special", SPECIALS)
def test_text_that_spells_a_special_never_becomes_it(any_codec, special):
    v = any_codec.vocabulary
    document = Document(Text(f"{special} a {special}{special}"))
    ids = any_codec.encode(document)
    assert all(v.kind(id) == "text" for id in ids[1:-1])
    assert any_codec.decode(ids) == document


def test_spaces_at_the_end_of_a_text_are_left_out(any_codec):
    spaced, plain = Document(Text(" a plate \n")), Document(Text(" a plate"))
    assert any_codec.encode(spaced) == any_codec.encode(plain)


def test_parts_are_assembled_as_documents_are_encoded(any_codec):
    document = pair("a red apple", 7)
    parts = [("text", TOKENIZER.encode("a red apple")), ("image", (7,) * CODES)]
    assert assemble(any_codec.vocabulary, parts) == any_codec.encode(document)


@law
@given(layouts, contents(), st.data())
def test_a_document_with_a_segment_moved_decodes_once_restored(layout, found, data):
    codec = CODECS[layout]
    v, ids = codec.vocabulary, codec.encode(document_of(found))
    start = data.draw(st.integers(1, len(ids) - 2))
    stop = start + 1
    if {ids[start]} & {v.break_, v.eos}:
        return
    while ids[stop] not in (v.break_, v.eos):
        stop += 1
    rotated = rotate(ids, [range(start, stop)], v.masks, v.infills, v.end).ids
    restored = restore(rotated, v.masks, v.infills, v.end)
    assert codec.decode(restored) == document_of(found)


def test_a_prompt_to_extend_ends_where_the_picture_begins(any_codec):
    v = any_codec.vocabulary
    whole = any_codec.encode(pair("a red apple"), [pair("a plate", 1)])
    prompt = any_codec.extend_prompt(
        Document(Text("a red apple ")), [pair("a plate", 1)]
    )
    assert prompt == whole[: len(prompt)]
    assert prompt[-1] == v.break_
    assert whole[len(prompt) :] == [v.image_id(0)] * CODES + [v.eos]


def test_the_unconditional_lane_has_a_mask_for_the_words(any_codec):
    v = any_codec.vocabulary
    words = Document(Text("a red apple"))
    assert any_codec.mask_prompt(words) == [v.eos, v.masks[0], v.break_]
    neighbour = pair("a plate", 1)
    assert any_codec.mask_prompt(words, [neighbour]) == [
        *any_codec.extend_prompt(neighbour),
        v.masks[0],
        v.break_,
    ]


def test_each_text_of_the_unconditional_lane_has_a_mask_of_its_own(any_codec):
    v = any_codec.vocabulary
    image = Image(codes=(5,) * CODES)
    ids = any_codec.mask_prompt(Document(Text("a"), image, Text("b")))
    codes = [v.image_id(5)] * CODES
    assert ids == [
        *(v.eos, v.masks[0], v.break_, *codes),
        *(v.break_, v.masks[1], v.break_),
    ]


def test_a_prompt_to_fill_is_the_rotated_document_up_to_the_infill(any_codec):
    v = any_codec.vocabulary
    picture = Image(codes=(3,) * CODES)
    prompt = any_codec.fill_prompt(Document(Text("Question: what? "), Hole(), picture))
    question = [v.text.start + x for x in TOKENIZER.encode("Question: what?")]
    assert prompt == [
        *(v.eos, *question, v.masks[0], v.break_),
        *([v.image_id(3)] * CODES),
        *(v.eos, v.infills[0]),
    ]
    answer = [v.text.start + x for x in TOKENIZER.encode(" an apple")]
    restored = restore([*prompt, *answer, v.end], v.masks, v.infills, v.end)
    assert any_codec.decode(restored) == Document(
        Text("Question: what? an apple"), picture
    )


def test_holes_are_numbered_from_left_to_right(any_codec):
    v = any_codec.vocabulary
    picture = Image(codes=(3,) * CODES)
    document = Document(Hole(), picture, Text("a"), Hole("image"))
    ids = any_codec.fill_prompt(document)
    assert [id for id in ids if id in v.masks][:2] == list(v.masks[:2])
    assert ids[-2:] == [v.eos, v.infills[0]]
    assert ids[-4:-2] == [v.break_, v.masks[1]]


def test_what_cannot_be_asked_is_refused(any_codec):
    picture = Image(codes=(3,) * CODES)
    hole, holes = Document(Hole(), picture), [s for _ in range(9) for s in (Hole(),)]
    for method, *arguments in (
        (any_codec.encode, hole),
        (any_codec.extend_prompt, hole),
        (any_codec.fill_prompt, Document(picture)),
        (any_codec.fill_prompt, Document(*holes)),
        (any_codec.encode, Document(picture), [hole]),
        (any_codec.mask_prompt, Document(Text("a")), [hole]),
        (any_codec.encode, Document(Image())),
        (any_codec.encode, Document(Image(codes=(1,)))),
    ):
        with pytest.raises(RequestError):
            method(*arguments)
    with pytest.raises(DataError, match="64"):
        any_codec.encode(Document(Image(codes=(0, 1, 2, 64))))


def test_ids_that_are_no_document_are_refused(any_codec):
    v = any_codec.vocabulary
    text, code = v.text[0], v.image[0]
    for ids in ([code], [text, code], [*[code] * CODES, text], [v.end], [v.size], [-1]):
        with pytest.raises(DataError):
            any_codec.decode([v.eos, *ids, v.eos])


def test_padding_is_no_part_of_the_document(any_codec):
    ids = any_codec.encode(pair("a plate"))
    padded = [*ids, *[any_codec.vocabulary.pad] * 3]
    assert any_codec.decode(padded) == pair("a plate")


def test_a_tokenizer_of_more_ids_than_there_is_room_for_is_refused():
    with pytest.raises(DataError, match=str(TOKENIZER.size)):
        Codec(Vocabulary.own(TOKENIZER.size - 1, 64), TOKENIZER, CODES)


@law
@given(layouts, contents(), st.sampled_from([0, 1, 4, 7, 32]))
def test_every_picture_starts_at_a_multiple_of_the_slot(layout, found, slot):
    codec = CODECS[layout]
    v, ids = codec.vocabulary, codec.encode(document_of(found))
    places = positions(v, ids, slot)
    assert len(places) == len(ids)
    assert places[0] == 0
    assert all(a < b for a, b in pairwise(places))
    if slot == 0:
        assert places == list(range(len(ids)))
        return
    for before, (id, place) in enumerate(zip(ids[1:], places[1:], strict=True)):
        if ids[before] == v.break_ and id in v.image:
            assert place % slot == 0
            assert places[before] % slot == slot - 1
        elif id != v.break_:
            assert place == places[before] + 1


@law
@given(layouts, texts, st.sampled_from([1, 4, 7, 32]))
def test_in_every_lane_the_picture_starts_at_the_same_residue(layout, text, slot):
    codec = CODECS[layout]
    document = Document(Text(text))
    for prompt in (codec.extend_prompt(document), codec.mask_prompt(document)):
        assert (positions(codec.vocabulary, prompt, slot)[-1] + 1) % slot == 0
