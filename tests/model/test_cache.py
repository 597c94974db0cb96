import pytest
import torch
from torch.testing import assert_close

from cm3leon.model.cache import KVCache

TIME = 24


@pytest.fixture
def ids():
    return torch.randint(0, 512, (3, TIME), generator=torch.Generator().manual_seed(0))


def read_in_steps(model, ids, cache, steps, positions=None):
    """Logits of `ids` read in groups of `steps`."""
    assert sum(steps) == ids.shape[1]
    parts, done = [], 0
    for step in steps:
        here = slice(done, done + step)
        given = None if positions is None else positions[:, here]
        parts.append(model(ids[:, here], given, cache))
        done += step
    return torch.cat(parts, 1)


@pytest.mark.parametrize(
    "steps",
    [
        [TIME],
        [1] * TIME,
        [TIME - 1, 1],
        [10, *[1] * 14],
        [1, 5, 2, 9, 7],
    ],
    ids=str,
)
def test_cache_is_no_cache(model, ids, steps):
    cache = model.cache(3, TIME)
    assert_close(read_in_steps(model, ids, cache, steps), model(ids))
    assert cache.length == TIME


@pytest.mark.parametrize("steps", [[TIME], [8, *[1] * 16], [3, 6, 15]], ids=str)
def test_a_lane_padded_on_the_left_is_that_lane_alone(model, ids, steps):
    padding = [0, 5, 11]
    padded = ids.clone()
    positions = torch.zeros(3, TIME, dtype=torch.long)
    for lane, pads in enumerate(padding):
        padded[lane, :pads] = 1
        positions[lane, pads:] = torch.arange(TIME - pads)
    cache = model.cache(3, TIME)
    cache.starts[:] = torch.tensor(padding)
    logits = read_in_steps(model, padded, cache, steps, positions)
    assert logits.isfinite().all()
    for lane, pads in enumerate(padding):
        alone = model(ids[lane : lane + 1, pads:])
        assert_close(logits[lane : lane + 1, pads:], alone)


def test_a_cache_may_be_larger_than_what_is_read(model, ids):
    cache = model.cache(3, TIME + 50)
    assert_close(read_in_steps(model, ids, cache, [20, 4]), model(ids))
    assert cache.capacity == TIME + 50


def test_positions_given_pass_through_the_cache(model, ids):
    positions = torch.arange(TIME).flip(0).expand(3, TIME) * 2
    cache = model.cache(3, TIME)
    logits = read_in_steps(model, ids, cache, [7, *[1] * 17], positions)
    assert_close(logits, model(ids, positions))


def test_head_rows_and_cache_go_together(model, ids):
    rows = torch.arange(100, 164)
    cache = model.cache(3, TIME)
    model(ids[:, :-1], cache=cache, head=rows)
    last = model(ids[:, -1:], cache=cache, head=rows)
    assert_close(last, model(ids)[:, -1:, rows])


def test_visible_is_the_triangle_without_padding():
    cache = KVCache.allocate(layers=1, batch=2, heads=1, capacity=8, head_dim=2)
    cache.starts[:] = torch.tensor([0, 2])
    assert cache.visible(4).int().tolist() == [
        [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]],
        [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]],
    ]
    cache.advance(3)
    assert cache.visible(2).int().tolist() == [
        [[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]],
        [[[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]],
    ]


def test_one_id_too_many_is_our_bug(model, ids):
    cache = model.cache(3, TIME - 1)
    with pytest.raises(AssertionError, match="24 ids in a cache for 23"):
        model(ids, cache=cache)
