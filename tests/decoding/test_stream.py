import numpy as np
import pytest

from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document, Text

WORDS = Document(Text("a red apple"))
OPTIONS = GenerationOptions(seed=3, guidance_scale=2.0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_last_picture_is_the_one_that_is_drawn_at_once(engine, rows):
    whole = engine.extend(WORDS, OPTIONS).images[-1]
    *before, last = engine.stream(WORDS, OPTIONS, rows=rows)
    assert last.codes == whole.codes
    assert np.array_equal(last.pixels, whole.pixels)
    side = round(engine.codec.codes_per_image**0.5)
    assert len(before) == -(-side // rows) - 1
    assert all(picture.codes is None for picture in before)


def test_it_may_be_left_at_any_time_and_begun_again(engine):
    stream = engine.stream(WORDS, OPTIONS)
    first = next(stream)
    stream.close()
    again = next(engine.stream(WORDS, OPTIONS))
    assert np.array_equal(first.pixels, again.pixels)


def test_rows_below_one_are_refused(engine):
    with pytest.raises(RequestError, match="rows is 0, below 1"):
        next(engine.stream(WORDS, OPTIONS, rows=0))
