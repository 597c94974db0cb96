import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cm3leon.corpus.near_duplicates import find_twins


def brute_force(thumbnails, order, limit):
    means = thumbnails.astype(float) / 64
    twins = [None] * len(means)
    kept = []
    for index in order:
        for earlier in kept:
            if np.sqrt(((means[index] - means[earlier]) ** 2).mean()) < limit:
                twins[index] = earlier
                break
        else:
            kept.append(index)
    return twins


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_the_answer_is_that_of_comparing_all_pairs(seed, pictures):
    random = np.random.default_rng(seed)
    few = random.integers(0, 16_320, (8, 12))
    noise = random.integers(-400, 400, (pictures, 12))
    thumbnails = (few[random.integers(0, 8, pictures)] + noise).clip(0, 16_320)
    thumbnails = thumbnails.astype(np.uint16)
    order = random.permutation(pictures).tolist()
    assert find_twins(thumbnails, order) == brute_force(thumbnails, order, 3.0)


def test_exactly_the_limit_apart_is_not_a_twin():
    thumbnails = np.array([[0] * 768, [3 * 64] * 768, [3 * 64 - 1] * 768], np.uint16)
    assert find_twins(thumbnails, [0, 1, 2]) == [None, None, 0]


def test_what_is_to_be_kept_stays_and_later_ones_may_look_like_it():
    thumbnails = np.array([[0] * 768, [2 * 64] * 768, [4 * 64] * 768], np.uint16)
    assert find_twins(thumbnails, [0, 1, 2]) == [None, 0, None]
    assert find_twins(thumbnails, [0, 1, 2], keep={1}) == [None, None, 1]


def test_pictures_after_the_first_block_are_compared_too():
    thumbnails = np.arange(600, dtype=np.uint16)[:, None].repeat(4, axis=1) * 20
    twins = find_twins(thumbnails, range(600), limit=0.4)
    assert twins == brute_force(thumbnails, range(600), 0.4)
    assert any(twins[512:])
