"""The model that comes with the package, as a user meets it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cm3leon import Document, GenerationOptions, Hole, Text, load
from cm3leon.decoding.drawing import Drawing, Request, steps
from cm3leon.decoding.engine import random_streams
from cm3leon.decoding.folder import shipped
from cm3leon.decoding.lanes import Room
from cm3leon.tokens.document import Image as Picture


@pytest.fixture(scope="module")
def engine():
    return load()


def draw(engine, words, **options):
    options = GenerationOptions(**{"seed": 0, **options})
    return engine.extend([Document(Text(text)) for text in words], options)


def test_what_ships_is_small_and_says_what_it_is():
    size = sum(path.stat().st_size for path in shipped().rglob("*") if path.is_file())
    assert size < 60_000_000
    card = (shipped() / "README.md").read_text()
    assert "@@" not in card
    for word in ("licence", "NOTICE", "test_concept", "Compute"):
        assert word in card


CHANNELS = {"red": 0, "green": 1, "blue": 2}


def heart(colour):
    return Text(f"a flat emoji of a {colour} heart, {colour}")


def assert_coloured(picture, channel):
    """Of the coloured pixels, those of the named colour lead its own channel."""
    pixels = np.asarray(picture.pixels).astype(int)
    coloured = pixels[pixels.max(-1) - pixels.min(-1) > 60]
    assert len(coloured) > 100
    assert coloured.mean(0).argmax() == channel


def test_colours_follow_the_words(engine):
    words = [heart(colour).text for colour in CHANNELS]
    for channel, document in zip(CHANNELS.values(), draw(engine, words), strict=True):
        assert_coloured(document.images[0], channel)


def test_colours_follow_the_last_words_of_an_interleaved_document(engine):
    """Words, a picture, words: the picture that follows is of the latter."""
    before = [document.segments for document in draw(engine, [heart("red").text] * 3)]
    told = [
        Document(*segments, heart(colour))
        for segments, colour in zip(before, CHANNELS, strict=True)
    ]
    drawn = engine.extend(told, GenerationOptions(seed=0))
    for document, asked, channel in zip(drawn, told, CHANNELS.values(), strict=True):
        assert document.segments[:-1] == asked.segments
        assert_coloured(document.images[-1], channel)


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", [0, 2])
def test_with_kernels_a_request_is_the_same_alone_and_in_a_batch(neighbours):
    engine = load(compiled=True)
    if engine.model.kernels is None:
        pytest.skip("no AVX-512, compiler or ninja here")
    words = ["a red apple", "an evergreen tree with snow on it, flat emoji", "a star"]
    options = GenerationOptions(seed=0, neighbours=neighbours)
    seeds = [5, 6, 7]
    documents = [Document(Text(text)) for text in words]
    together = engine.extend(documents, options, seeds=seeds)
    for document, seed, whole in zip(documents, seeds, together, strict=True):
        alone = engine.extend([document], options, seeds=[seed])
        assert alone[0].images[0].codes == whole.images[0].codes


BEGUN = 16  # codes of a picture that are compared


@pytest.fixture(scope="module")
def exact():
    return load(precision="fp32")


@pytest.fixture(scope="module")
def asked(exact):
    """Documents of many lengths, each with no or two neighbours."""
    words = ["a red apple", "b", "an evergreen tree with snow on it", "a star", "a car"]
    several = [f"{text}{' and more' * n}" for n in range(4) for text in words]
    found = exact.retriever.by_text(several, 2)
    return [
        (
            Document(Text(text)),
            [one.document.document() for one in near if row % 4 == 0],
        )
        for row, (text, near) in enumerate(zip(several, found, strict=True))
    ]


def requests_of(engine, asked, rows, options):
    """Some of those asked, row r with seed r."""
    documents, neighbours = zip(*(asked[row] for row in rows), strict=True)
    prepared = engine.prepare(documents, options, "image", neighbours)
    chances = random_streams(len(rows), options, rows)
    return [one.prompt for one in prepared], chances


def begun(engine, asked, rows, options):
    """The first ids of some requests, drawn as one batch."""
    prompts, chances = requests_of(engine, asked, rows, options)
    drawn = steps(engine.model, prompts, options, chances)
    ids = next(ids for ids, _ in drawn if min(map(len, ids)) >= BEGUN)
    return {row: some[:BEGUN] for row, some in zip(rows, ids, strict=True)}


def begun_one_after_the_other(engine, asked, rows, options):
    """The same of requests that join at every step, seven at once, and then leave."""
    prompts, chances = requests_of(engine, asked, rows, options)
    requests = [
        Request(prompt, options, chance)
        for prompt, chance in zip(prompts, chances, strict=True)
    ]
    room = Room(7, len(prompts[0].lanes), 512, 512)
    drawing = Drawing(engine.model, prompts[0].constraint, room)
    waiting = list(requests)
    while waiting or drawing.requests:
        if waiting and len(drawing.requests) < room.requests:
            drawing.join([waiting.pop()])
        drawing.step()
        drawing.leave([one for one in drawing.requests if len(one.ids) == BEGUN])
    return {row: one.ids for row, one in zip(rows, requests, strict=True)}


@pytest.mark.parametrize("window", [1, 6])
def test_in_fp32_a_request_is_the_same_alone_and_in_any_batch(exact, asked, window):
    options = GenerationOptions(guidance_scale=1.5, window=window)
    every = list(range(len(asked)))
    together = begun(exact, asked, every, options)
    mixed = [7 * row % len(every) for row in every]
    for size in (1, 3, len(every)):
        for start in range(0, len(every), size):
            rows = mixed[start : start + size]
            for row, ids in begun(exact, asked, rows, options).items():
                assert ids == together[row]
    if window == 1:
        assert begun_one_after_the_other(exact, asked, mixed, options) == together


def test_the_model_that_ships_retrieves_and_tells_from_whom(engine):
    assert engine.options.neighbours == 2
    found = engine.extend(Document(Text("a red apple")), engine.options).images[-1]
    assert len(found.attribution) == 2
    for one in found.attribution:
        assert one["author"] and one["licence"] and one["source"]
        assert "apple" in one["text"] or "strawberry" in one["text"]


def test_a_seed_draws_the_same_codes_again(engine):
    first, again = draw(engine, ["a red apple"]), draw(engine, ["a red apple"])
    other = draw(engine, ["a red apple"], seed=1)
    assert first[0].images[0].codes == again[0].images[0].codes
    assert first[0].images[0].codes != other[0].images[0].codes


def test_log_probabilities_while_drawing_are_those_of_reading():
    """Greedy codes are the argmax of one teacher-forced pass over the result."""
    engine = load(precision="fp32")
    drawn = draw(engine, ["a red heart"], temperature=0.0, guidance_scale=1.0)[0]
    codec, vocabulary = engine.codec, engine.codec.vocabulary
    from cm3leon.tokens.codec import positions

    ids = codec.encode(Document(*drawn.segments))
    places = positions(vocabulary, ids, engine.position_slot)
    with torch.inference_mode():
        logits = engine.model(torch.tensor([ids]), torch.tensor([places]))[0]
    image = vocabulary.image
    first = ids.index(next(x for x in ids if x in image))
    best = logits[first - 1 : -2, image.start : image.stop].argmax(-1)
    assert tuple(best.tolist()) == drawn.images[0].codes


def test_a_picture_is_captioned_with_words(engine):
    picture = draw(engine, ["a flat emoji of a red heart"])[0].images[0]
    options = GenerationOptions(temperature=0.0)
    filled = engine.fill(Document(Hole(), Picture(codes=picture.codes)), options)
    assert filled.text.strip()
    assert not filled.holes


def test_the_command_draws_offline_and_its_png_says_how(tmp_path):
    words = [sys.executable, "-m", "cm3leon", "generate", "a red apple", "--seed", "3"]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "apple.png"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (told,) = json.loads(done.stdout)
    assert told["seed"] == 3
    with Image.open(told["path"]) as picture:
        assert picture.size == (256, 256)
        assert "a red apple" in str(picture.info)
