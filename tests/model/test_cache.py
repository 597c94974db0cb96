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
    assert cache.lengths.tolist() == [TIME] * 3


LENGTHS = [TIME, TIME - 5, TIME - 11]


def test_a_lane_padded_on_the_right_is_that_lane_alone(model, ids):
    cache = model.cache(3, TIME + 4)
    model(ids, cache=cache)
    cache.trim(torch.tensor(LENGTHS))
    more = torch.randint(0, 512, (3, 4), generator=torch.Generator().manual_seed(1))
    logits = read_in_steps(model, more, cache, [1, 2, 1])
    for lane, length in enumerate(LENGTHS):
        alone = torch.cat([ids[lane, :length], more[lane]])[None]
        assert_close(logits[lane], model(alone)[0, length:])
    assert cache.read.tolist() == [length + 4 for length in LENGTHS]


def test_what_is_trimmed_is_as_if_never_read(model, ids):
    cache = model.cache(3, TIME)
    model(ids, cache=cache)
    cache.trim(torch.tensor([9, 9, 9]))
    assert_close(model(ids[:, 9:], cache=cache), model(ids)[:, 9:])
    with pytest.raises(AssertionError, match="has not read that much"):
        cache.trim(torch.tensor([TIME, TIME, TIME + 1]))


@pytest.mark.parametrize("steps", [[5], [1, 1, 3]], ids=str)
@pytest.mark.parametrize("counts", [[12, 12], [12, 7], [12, 0]], ids=str)
def test_a_prefix_of_two_groups_stands_before_each_of_their_lanes(
    model, ids, steps, counts
):
    random = torch.Generator().manual_seed(1)
    more = torch.randint(0, 512, (4, sum(steps)), generator=random)
    prefix = model.cache(2, 12)
    model.memorise(ids[:2, :12], None, prefix)
    prefix.trim(torch.tensor(counts))
    cache = model.cache(4, 5)
    cache.prefix = prefix
    logits = read_in_steps(model, more, cache, steps)
    for lane in range(4):
        count = counts[lane // 2]
        whole = torch.cat([ids[lane // 2, :count], more[lane]])[None]
        assert_close(logits[lane], model(whole)[0, count:])


def test_parts_and_copies_of_lanes_go_on_as_they_would_have(model, ids):
    cache = model.cache(3, TIME)
    model.memorise(ids[:, :-1], None, cache)
    cache.trim(torch.tensor(LENGTHS) - 1)
    last = ids[:, -1:]
    part = cache.part(slice(1, 3))
    logits = model(last[1:], cache=part)
    for row, lane in enumerate((1, 2)):
        alone = torch.cat([ids[lane, : LENGTHS[lane] - 1], last[lane]])[None]
        assert_close(logits[row], model(alone)[0, -1:])
    assert cache.lengths.tolist() == [LENGTHS[0] - 1, *LENGTHS[1:]]
    cache.copy(2, 0)
    cache.measure()
    logits = model(last, cache=cache)
    copied = torch.cat([ids[2, : LENGTHS[2] - 1], last[2], last[0]])[None]
    assert_close(logits[0], model(copied)[0, -1:])


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


def test_visible_are_prefix_and_triangle():
    cache = KVCache.allocate(layers=1, batch=2, heads=1, capacity=8, head_dim=2)
    assert cache.visible(3)[1].int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    cache.advance(3)
    cache.trim(torch.tensor([1, 2]))
    assert cache.visible(2).int().tolist() == [
        [[[1, 1, 0, 0], [1, 1, 1, 0]]],
        [[[1, 1, 1, 0], [1, 1, 1, 1]]],
    ]
    cache.prefix = KVCache.allocate(layers=1, batch=2, heads=1, capacity=2, head_dim=2)
    cache.prefix.advance(2)
    cache.prefix.trim(torch.tensor([2, 1]))
    assert cache.visible(1).int().tolist() == [[[[1, 1, 1, 1, 0]]], [[[1, 0, 1, 1, 1]]]]


def test_one_id_too_many_is_our_bug(model, ids):
    cache = model.cache(3, TIME - 1)
    with pytest.raises(AssertionError, match="24 ids in a cache for 23"):
        model(ids, cache=cache)
