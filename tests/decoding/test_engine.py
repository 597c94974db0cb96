from dataclasses import replace

import pytest
import torch
from PIL import Image as Pillow
from torch.testing import assert_close

from cm3leon.decoding import drawing
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import CheckpointError, RequestError
from cm3leon.retrieval.memory import BankDocument
from cm3leon.retrieval.retriever import Neighbour
from cm3leon.tokens.codec import Codec
from cm3leon.tokens.document import Document, Hole, Image, Text
from cm3leon.tokens.text import CAPTION_IDS

PROMPTS = [
    Document(Text("a red apple")),
    Document(Text("a blue car, seen from the side, and then some more words")),
    Document(Text("b")),
]
PICTURES = [Image(codes=tuple(range(start, start + 16))) for start in (0, 7, 40)]
HOLED = [Document(Hole(), picture) for picture in PICTURES]


def codes(documents):
    return [document.images[-1].codes for document in documents]


@pytest.fixture
def scored(monkeypatch):
    """The logits every step was drawn from."""
    seen = []

    def record(logits, options, chances):
        seen.append(logits.clone())
        return sample(logits, options, chances)

    sample = drawing.sample
    monkeypatch.setattr(drawing, "sample", record)
    return seen


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_picture_has_exactly_its_codes_and_its_pixels(engine, scale, options):
    asked = replace(options, guidance_scale=scale, temperature=5.0)
    (one, *_) = engine.extend(PROMPTS, asked)
    assert one.segments[0] == PROMPTS[0].segments[0]
    (picture,) = one.images
    assert len(picture.codes) == engine.codec.codes_per_image
    assert all(0 <= code < 64 for code in picture.codes)
    assert picture.pixels.size == (16, 16)
    (again,) = engine.image_tokenizer.decode(torch.tensor([picture.codes]))
    assert again.tobytes() == picture.pixels.tobytes()


def test_drawn_log_probabilities_are_those_of_a_pass_over_the_result(
    engine, options, scored
):
    drawn = engine.extend(PROMPTS, replace(options, guidance_scale=1.0))
    steps = torch.stack(scored, dim=1).log_softmax(-1)
    for row, document in enumerate(drawn):
        ids = torch.tensor([engine.codec.encode(document)])
        lane = engine._writer.extend(PROMPTS[row], "image", options).conditional
        counted = range(lane.next_position, lane.next_position + 17)
        places = torch.tensor([[*lane.positions, *counted]])
        passed = engine.model(ids, places)[0, len(lane.ids) - 1 : -2]
        image = engine.codec.vocabulary.image
        wanted = passed[:, image.start : image.stop].log_softmax(-1)
        assert_close(steps[row], wanted, rtol=1e-4, atol=1e-4)


def test_greedy_takes_the_likeliest_code_every_time(engine, options, scored):
    drawn = engine.extend(PROMPTS, replace(options, temperature=0.0))
    likeliest = torch.stack([logits.argmax(-1) for logits in scored], dim=1)
    assert torch.equal(torch.tensor(codes(drawn)), likeliest)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_batch_draws_what_one_by_one_draws(engine, scale):
    options = GenerationOptions(guidance_scale=scale, top_p=0.95)
    seeds = [5, 6, 7]
    together = engine.extend(PROMPTS, options, seeds=seeds)
    alone = [
        engine.extend(prompt, replace(options, seed=seed))
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_captions_of_a_batch_are_those_of_one_by_one(engine):
    options = GenerationOptions(temperature=2.0, max_text=9)
    seeds = [5, 6, 7]
    together = engine.fill(HOLED, options, seeds=seeds)
    alone = [
        engine.fill(document, replace(options, seed=seed))
        for document, seed in zip(HOLED, seeds, strict=True)
    ]
    assert together == alone


def test_the_beginning_of_a_list_does_not_depend_on_its_end(plain, options):
    assert plain.extend(PROMPTS, options)[:2] == plain.extend(PROMPTS[:2], options)
    assert plain.extend(PROMPTS[:1], options)[0] == plain.extend(PROMPTS[0], options)


def test_equal_prompts_in_a_list_draw_different_pictures(plain, options):
    one, other = plain.extend([PROMPTS[0]] * 2, options)
    assert one != other


def test_a_seed_draws_the_same_again_and_another_something_else(engine, options):
    first = engine.extend(PROMPTS[0], options)
    assert engine.extend(PROMPTS[0], options) == first
    assert engine.extend(PROMPTS[0], replace(options, seed=1)) != first
    unseeded = replace(options, seed=None)
    drawn = {codes([engine.extend(PROMPTS[0], unseeded)])[0] for _ in range(2)}
    assert len(drawn) == 2


def test_a_scale_of_zero_ignores_the_words(engine, options):
    asked = replace(options, guidance_scale=0.0)
    drawn = engine.extend(PROMPTS, asked, seeds=[3, 3, 3])
    assert len(set(codes(drawn))) == 1


def test_guidance_of_one_draws_as_without_a_second_lane(engine, options, monkeypatch):
    alone = engine.extend(PROMPTS, replace(options, guidance_scale=1.0))
    guide = drawing.guide
    monkeypatch.setattr(drawing, "guide", lambda c, u, _scale: guide(c, u, 1.0))
    assert codes(engine.extend(PROMPTS, replace(options))) == codes(alone)


@pytest.mark.parametrize("window", [1, 3])
def test_guidance_in_part_is_guidance_there_and_none_elsewhere(plain, options, window):
    asked = replace(options, window=window, guidance_scale=5.0)
    without = codes(plain.extend(PROMPTS, replace(asked, guidance_scale=1.0)))
    guided = codes(plain.extend(PROMPTS, asked))
    first = codes(plain.extend(PROMPTS, replace(asked, guidance_until=0.5)))
    second = codes(plain.extend(PROMPTS, replace(asked, guidance_from=0.5)))
    for row in range(len(PROMPTS)):
        assert first[row][:8] == guided[row][:8]
        assert second[row][:8] == without[row][:8]
    assert len({*map(tuple, (without, guided, first, second))}) == 4


def test_a_picture_is_extended_by_text_only(engine, options):
    document = Document(Text("a red apple"), PICTURES[0])
    extended = engine.extend(document, replace(options, max_text=5), want="text")
    assert extended.segments[:2] == document.segments
    assert isinstance(extended.segments[2], Text)
    assert len(extended.segments) == 3


def test_text_is_extended_within_itself(engine, options):
    extended = engine.extend(PROMPTS, replace(options, max_text=5), want="text")
    for before, after in zip(PROMPTS, extended, strict=True):
        assert len(after.segments) == 1
        assert after.text.startswith(before.text)
        assert len(after.text) > len(before.text)


def test_filling_gives_text_and_leaves_everything_else(engine, options):
    before, after = Text("Question: what? Answer:"), Text("and that is all")
    document = Document(before, Hole(), PICTURES[1], after)
    filled = engine.fill(document, replace(options, max_text=5))
    assert (filled.segments[0], *filled.segments[2:]) == (before, PICTURES[1], after)
    assert isinstance(filled.segments[1], Text)
    assert not filled.holes


def test_a_picture_fills_a_hole_for_a_picture(engine, options):
    document = Document(Text("a red apple"), Hole("image"), Text("and a car"))
    filled = engine.fill(document, options)
    assert len(filled.images[0].codes) == 16
    assert filled.images[0].pixels is not None
    assert filled.segments[2] == Text("and a car")


def test_guidance_leads_a_hole_for_a_picture_towards_the_words(plain, options):
    holed = [Document(*one.segments, Hole("image")) for one in PROMPTS]
    ignored = plain.fill(holed, replace(options, guidance_scale=0.0), seeds=[3, 3, 3])
    assert len(set(codes(ignored))) == 1
    one, other = (
        codes(plain.fill(holed, replace(options, guidance_scale=scale)))
        for scale in (1.0, 7.0)
    )
    assert one != other


def test_guided_holes_with_and_without_words_are_filled_as_one_by_one(engine, options):
    asked = replace(options, guidance_scale=3.0)
    mixed = [
        Document(Text("a red apple"), Hole("image")),
        Document(Hole("image"), Hole()),
        Document(Hole(), PICTURES[0]),
    ]
    alone = [engine.fill(one, asked, seeds=[seed]) for seed, one in enumerate(mixed)]
    assert engine.fill(mixed, asked, seeds=[0, 1, 2]) == alone


def test_several_holes_are_filled_in_order_and_lists_may_be_mixed(engine, options):
    two = Document(Hole(), PICTURES[0], Hole())
    mixed = Document(Hole("image"), Text("a red apple"))
    filled = engine.fill([two, mixed, HOLED[0]], replace(options, max_text=4))
    assert [len(document.holes) for document in filled] == [0, 0, 0]
    assert isinstance(filled[0].segments[2], Text)
    assert isinstance(filled[1].segments[0], Image)
    assert filled[2].images == [PICTURES[0]]


def test_an_answer_ends_at_its_stop(plain, options, monkeypatch):
    """A model that wants to end after three ids."""

    def fixed(self, ids):
        self.steps = getattr(self, "steps", 0) + 1
        logits = torch.zeros(len(ids), len(self._head.weight))
        logits[:, 10 if self.steps <= 3 else -1] = 50.0
        return logits

    monkeypatch.setattr(drawing.Lanes, "read", fixed)
    steps = []
    filled = plain.fill(HOLED, options, on_progress=lambda *done: steps.append(done))
    token = plain.codec.text_tokenizer.decode([10])
    assert [document.text for document in filled] == [token * 3] * 3
    assert steps == [(1, 64), (2, 64), (3, 64), (64, 64)]


def test_a_penalty_keeps_an_answer_from_repeating_itself(plain, options, monkeypatch):
    """A model that has three ids in mind, the first above all."""

    def fixed(self, ids):
        logits = torch.full((len(ids), len(self._head.weight)), -50.0)
        logits[:, 10:13] = torch.tensor([3.0, 2.5, 2.0])
        return logits

    monkeypatch.setattr(drawing.Lanes, "read", fixed)
    decode = plain.codec.text_tokenizer.decode
    greedy = replace(options, temperature=0.0, max_text=3)
    for penalty, answer in ((1.0, [10, 10, 10]), (2.0, [10, 11, 12])):
        filled = plain.fill(HOLED, replace(greedy, repetition_penalty=penalty))
        assert {document.text for document in filled} == {decode(answer)}


def test_an_answer_has_at_most_max_text_ids(plain, options, scored):
    plain.fill(HOLED, replace(options, max_text=3))
    assert len(scored) <= 3


def test_pixels_of_a_prompt_are_encoded(plain, options):
    pixels = Pillow.new("RGB", (40, 30), "red")
    (wanted,) = plain.image_tokenizer.encode([pixels]).tolist()
    filled = plain.fill(Document(Hole(), Image(pixels=pixels)), options)
    assert filled.images[0].codes == tuple(wanted)
    assert filled.images[0].pixels is pixels
    by_codes = plain.fill(Document(Hole(), Image(codes=tuple(wanted))), options)
    assert filled == by_codes


def test_progress_counts_every_step(plain, options):
    steps = []
    plain.extend(PROMPTS, options, on_progress=lambda *done: steps.append(done))
    assert steps == [(i + 1, 16) for i in range(16)]


def test_nothing_asked_is_nothing_drawn(plain, options):
    assert plain.extend([], options) == []
    assert plain.fill([], options) == []
    assert plain.redraw([], [], options) == []


def test_what_is_impossible_is_refused(plain, options):
    with pytest.raises(RequestError, match="the model reads 128; shorten the prompt"):
        plain.extend(Document(Text("apple " * 200)), options)
    with pytest.raises(RequestError, match="2 seeds for 3 documents; give as many"):
        plain.extend(PROMPTS, options, seeds=[1, 2])
    with pytest.raises(RequestError, match="neither codes nor pixels; give one"):
        plain.fill(Document(Hole(), Image()), options)
    with pytest.raises(RequestError, match="15 codes"):
        plain.fill(Document(Hole(), Image(codes=tuple(range(15)))), options)


def test_parts_of_different_models_are_refused(
    model, vocabulary, text_tokenizer, image_tokenizer
):
    other = Codec(vocabulary, text_tokenizer, 25)
    with pytest.raises(CheckpointError, match="16 codes a picture against 25"):
        Engine(model, other, image_tokenizer)


def test_an_engine_leaves_the_model_as_it_found_it(
    model, codec, image_tokenizer, options
):
    model.train().requires_grad_(True)
    try:
        Engine(model, codec, image_tokenizer).extend(PROMPTS[0], options)
        assert model.training
        assert all(weight.requires_grad for weight in model.parameters())
    finally:
        model.eval().requires_grad_(False)


def test_neighbours_are_seen_and_belong_to_their_document(plain, options):
    one = [Document(Text("a green apple"), PICTURES[0])]
    other = [Document(Text("a red car"), PICTURES[1])]
    asked = [PROMPTS[0], PROMPTS[0]]
    seeds = [3, 3]
    alone, near = plain.extend(asked, options, neighbours=[[], one], seeds=seeds)
    assert codes([alone]) == codes([plain.extend(PROMPTS[0], options, seeds=[3])])
    assert codes([near]) != codes([alone])
    assert len(near.images) == 1
    again, far = plain.extend(asked, options, neighbours=[one, other], seeds=seeds)
    assert codes([again]) == codes([near])
    assert codes([far]) != codes([near])
    with pytest.raises(RequestError, match="neighbours for 1 documents, 2 are asked"):
        plain.extend(asked, options, neighbours=[one])


class Finds:
    """A retriever that finds one document, whatever is asked."""

    def __init__(self, text):
        document = BankDocument(key="1.png", text=text, codes=PICTURES[0].codes)
        self.neighbour = Neighbour(0, 0.5, document)

    def by_text(self, texts, count):
        return [[self.neighbour][:count] for _ in texts]

    def agreement(self, texts, images):
        raise NotImplementedError


@pytest.mark.parametrize("words", [1, 300])
def test_captions_of_neighbours_are_cut_as_in_shards_and_told_whole(
    engine, options, words
):
    caption = "apple " * words
    parts = (engine.model, engine.codec, engine.image_tokenizer, engine.position_slot)
    finding = Engine(*parts, retriever=lambda: Finds(caption))
    (one,) = finding.prepare([PROMPTS[2]], replace(options, neighbours=1))
    whole = engine.codec.text_tokenizer.encode(caption.rstrip())
    begun = engine.codec.text_tokenizer.decode(whole[:CAPTION_IDS])
    given = [[Document(Text(begun), PICTURES[0])]]
    (wanted,) = engine.prepare([PROMPTS[2]], options, neighbours=given)
    assert one.prompt == wanted.prompt
    assert [about["text"] for about in one.attribution] == [caption]


def test_contrast_draws_what_is_likelier_with_the_words_than_without(plain, options):
    asked = replace(options, guidance_scale=1.0, contrast_k=4)
    drawn = plain.extend(PROMPTS, asked)
    assert all(len(document.images) == 1 for document in drawn)
    assert codes(drawn) != codes(plain.extend(PROMPTS, replace(asked, contrast_k=None)))
    # with the plausible set of one id there is nothing to choose
    only = replace(asked, contrast_k=1, contrast_alpha=1.0)
    greedy = replace(options, guidance_scale=1.0, temperature=0.0)
    assert codes(plain.extend(PROMPTS, only)) == codes(plain.extend(PROMPTS, greedy))


def test_contrast_in_a_batch_is_contrast_one_by_one(engine, options):
    asked = replace(options, guidance_scale=1.0, contrast_k=8)
    seeds = list(range(len(PROMPTS)))
    together = engine.extend(PROMPTS, asked, seeds=seeds)
    alone = [
        engine.extend(prompt, asked, seeds=[seed])
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert codes(together) == codes(alone)


EDITED = Document(PICTURES[0], Text("make it red"))


def test_editing_with_scales_of_one_is_drawing_without_guidance(engine, options):
    plain = engine.extend(EDITED, replace(options, guidance_scale=1.0))
    ones = replace(options, guidance_scale=1.0, image_guidance_scale=1.0)
    assert engine.extend(EDITED, ones) == plain
    assert engine.extend(EDITED, replace(ones, image_guidance_scale=3.0)) != plain


def test_edits_in_a_batch_are_edits_one_by_one(engine, options):
    edits = [EDITED, Document(PICTURES[1], Text("a longer wish, with more words"))]
    options = replace(options, image_guidance_scale=1.5)
    alone = [engine.extend(one, options, seeds=[7]) for one in edits]
    assert engine.extend(edits, options, seeds=[7, 7]) == alone
