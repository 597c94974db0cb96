"""Image infilling: exactly the hidden codes are drawn again."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Pillow

from cm3leon.decoding.regions import box_of, cells_of_box, cells_of_mask
from cm3leon.errors import RequestError
from cm3leon.objective.cm3 import rotate
from cm3leon.tokens.codec import positions
from cm3leon.tokens.document import Document, Hole, Image, Text

PICTURE = Image(codes=tuple(range(10, 26)))
WORDED = Document(Text("a red apple"), PICTURE)
HIDDEN = [[5], [5, 6, 9, 10], [0, 15], list(range(1, 16))]


@pytest.mark.parametrize("cells", HIDDEN)
@pytest.mark.parametrize("document", [WORDED, Document(PICTURE)])
def test_all_but_the_hidden_codes_stay(engine, options, document, cells):
    [drawn] = engine.redraw([document], [cells], options)
    before, after = PICTURE.codes, drawn.images[-1].codes
    assert [i for i in range(16) if before[i] != after[i]] == [
        i for i in cells if before[i] != after[i]
    ]
    assert before != after
    assert drawn.text == document.text
    assert drawn.images[-1].pixels.size == (16, 16)


def test_a_batch_of_different_masks_is_one_by_one(engine, options):
    seeds = list(range(len(HIDDEN)))
    together = engine.redraw([WORDED] * len(HIDDEN), HIDDEN, options, seeds=seeds)
    for document, cells, seed in zip(together, HIDDEN, seeds, strict=True):
        [alone] = engine.redraw([WORDED], [cells], options, seeds=[seed])
        assert alone.images[-1].codes == document.images[-1].codes


@pytest.mark.parametrize("contrast_k", [None, 3])
def test_pictures_with_and_without_words_are_redrawn_as_one_by_one(
    engine, options, contrast_k
):
    asked = replace(options, contrast_k=contrast_k)
    mixed = [Document(PICTURE), WORDED]
    together = engine.redraw(mixed, [[5, 6]] * 2, asked, seeds=[0, 1])
    for seed, document in enumerate(mixed):
        [alone] = engine.redraw([document], [[5, 6]], asked, seeds=[seed])
        assert alone.images[-1].codes == together[seed].images[-1].codes


def test_without_words_there_is_nothing_to_guide_towards(engine, options):
    unguided = replace(options, guidance_scale=1.0)
    for asked in (options, replace(unguided, contrast_k=3)):
        drawn = engine.redraw([Document(PICTURE)], [[5, 6]], asked)
        assert drawn == engine.redraw([Document(PICTURE)], [[5, 6]], unguided)


def test_the_prompt_is_the_rotated_row_of_training(engine, options):
    """Up to where the hidden span begins, ids and places are those of the objective."""
    codec, slot = engine.codec, engine.position_slot
    v = codec.vocabulary
    lane = engine._writer.redraw(WORDED, [5, 6, 10], options).conditional
    ids = codec.encode(WORDED)
    first = len(ids) - 1 - 16
    span = range(first + 5, first + 11)
    rotated = rotate(ids, [span], v.masks, v.infills, v.end, len(ids) + 3)
    count = len(lane.ids)
    assert list(lane.ids) == rotated.ids[:count]
    if slot:
        places = positions(v, ids, slot)
        assert list(lane.positions) == [places[i] for i in rotated.origins[:count]]
        assert lane.next_position == places[rotated.origins[count]]
    else:
        assert list(lane.positions) == list(range(count))


@pytest.mark.parametrize(
    ("document", "cells", "said"),
    [
        (WORDED, [], "the mask hides nothing; hide 1 to 15 of the 16 cells"),
        (WORDED, range(16), "the mask hides everything"),
        (WORDED, [16], "cells run from 0 to 15"),
        (Document(Text("a red apple")), [1], "that ends in a picture"),
        (Document(Hole(), PICTURE), [1], "without holes"),
    ],
)
def test_what_cannot_be_redrawn_is_said(engine, options, document, cells, said):
    with pytest.raises(RequestError, match=said):
        engine.redraw([document], [list(cells)], options)


def test_masks_must_be_as_many_as_documents(engine, options):
    with pytest.raises(RequestError, match="masks for 1 of 2 documents"):
        engine.redraw([WORDED, WORDED], [[1]], options)


def test_a_box_is_the_cells_it_touches():
    assert cells_of_box((0.0, 0.0, 1.0, 1.0), 2) == [0, 1, 2, 3]
    assert cells_of_box((0.3, 0.3, 0.4, 0.4), 4) == [5]
    assert cells_of_box((0.2, 0.5, 0.6, 0.75), 4) == [8, 9, 10]


@pytest.mark.parametrize(
    "words", ["", "0,0,1", "a,b,c,d", "0,0,0,1", "0,0,1,2", "nan,0,1,1"]
)
def test_a_box_that_is_none_is_refused(words):
    with pytest.raises(RequestError, match="box"):
        box_of(words)


def test_a_painted_mask_is_the_cells_it_touches(tmp_path):
    painted = np.zeros((80, 80), dtype=np.uint8)
    painted[45:50, 5:30] = 255
    Pillow.fromarray(painted).save(tmp_path / "mask.png")
    assert cells_of_mask(tmp_path / "mask.png", 4) == [8, 9]
    (tmp_path / "none.png").write_bytes(b"nothing")
    with pytest.raises(RequestError, match=r"none\.png"):
        cells_of_mask(tmp_path / "none.png", 4)
