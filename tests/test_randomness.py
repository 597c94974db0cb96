import subprocess
import sys

import numpy as np
import pytest
import torch

from cm3leon.randomness import generator, torch_generator

NAMES = [(), ("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",), (1, 2), (12,), ("a", 1)]


def draw(random):
    return random.integers(2**63, size=8).tolist()


def test_equal_names_give_equal_streams():
    assert draw(generator(3, "spans", 7)) == draw(generator(3, "spans", 7))


def test_a_stream_is_the_same_in_every_process():
    code = (
        "from cm3leon.randomness import generator;"
        "print(generator(3, 'spans', 7).integers(2**63, size=8).tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout.strip() == str(draw(generator(3, "spans", 7)))


def test_different_seeds_and_names_give_different_streams():
    streams = [draw(generator(seed, *names)) for seed in (0, 1, 10) for names in NAMES]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_drawing_from_one_stream_does_not_move_another():
    before = draw(generator(0, "b"))
    generator(0, "a").random(1000)
    assert draw(generator(0, "b")) == before


def test_streams_with_neighbouring_names_are_uncorrelated():
    rows = np.stack([generator(0, "step", i).standard_normal(4000) for i in range(8)])
    correlation = np.corrcoef(rows) - np.eye(8)
    assert np.abs(correlation).max() < 0.08


def test_numpy_whole_numbers_name_the_same_stream():
    assert draw(generator(3, int(np.int64(7)))) == draw(generator(3, 7))


@pytest.mark.parametrize("seed", [0, -1, 2**80])
def test_any_whole_number_is_a_seed(seed):
    assert draw(generator(seed)) == draw(generator(seed))
    assert torch_generator(seed).initial_seed() >= 0


def test_torch_streams_follow_the_same_laws():
    streams = {
        tuple(torch.rand(4, generator=torch_generator(seed, *names)).tolist())
        for seed in (0, 1)
        for names in NAMES
        for _ in range(2)
    }
    assert len(streams) == 2 * len(NAMES)
