"""Image infilling: exactly the hidden codes are drawn again."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from cm3leon.decoding.regions import box_of, cells_of_box, cells_of_mask
from cm3leon.errors import RequestError
from cm3leon.images.pixels import square
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


@pytest.fixture(scope="module")
def cells_of(tmp_path_factory):
    """The cells that a painted array hides, by way of a file."""
    path = tmp_path_factory.mktemp("masks") / "mask.png"

    def cells(painted, grid):
        Pillow.fromarray(painted).save(path)
        return cells_of_mask(path, grid)

    return cells


def touched(pixel, side, edge, grid):
    """By hand: the cells of one side that a pixel has any part in."""
    cell, first = Fraction(edge, grid), Fraction(side - edge, 2)
    borders = [(first + cell * i, first + cell * (i + 1)) for i in range(grid)]
    return [i for i, (a, b) in enumerate(borders) if a < pixel + 1 and pixel < b]


@given(data=st.data(), grid=st.sampled_from([1, 3, 4, 16, 32]))
def test_a_single_painted_pixel_hides_all_cells_it_touches(cells_of, data, grid):
    """Of masks of any shape, smaller than the grid and no multiple of it as well."""
    width, height = data.draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    painted = np.zeros((height, width), dtype=np.uint8)
    painted[y, x] = 255
    edge = min(width, height)
    rows, columns = (touched(*one, edge, grid) for one in ((y, height), (x, width)))
    wanted = [row * grid + column for row, column in product(rows, columns)]
    assert cells_of(painted, grid) == wanted


@pytest.mark.parametrize("thick", [1, 2])
def test_a_thin_line_in_a_large_mask_is_not_lost(cells_of, thick):
    painted = np.zeros((2048, 2048), dtype=np.uint8)
    painted[1000 : 1000 + thick, 100:1900] = 255
    assert cells_of(painted, 16) == [7 * 16 + column for column in range(15)]


@pytest.mark.parametrize(("width", "height"), [(120, 80), (80, 131), (97, 40)])
def test_a_mask_is_cropped_as_the_picture_it_was_painted_on(cells_of, width, height):
    """Every cell the paint can be seen in when the picture is made square is hidden."""
    painted = np.zeros((height, width), dtype=np.uint8)
    painted[height // 3 : height // 2, width // 3 : width // 2] = 255
    squared = square(Pillow.fromarray(painted), 8)
    seen = np.flatnonzero(np.asarray(squared.convert("L")) > 127)
    assert len(seen) > 0
    assert set(seen) <= set(cells_of(painted, 8))
    beside = np.full((height, width), 255, dtype=np.uint8)
    left, top = (width - min(width, height)) // 2, (height - min(width, height)) // 2
    beside[top : height - top, left : width - left] = 0  # but half pixels are within
    assert cells_of(beside, 8) == []
