import math

import pytest
import torch
from torch.testing import assert_close

from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.sampling import (
    keep_top_k,
    keep_top_p,
    penalise,
    pick,
    sample,
    temper,
)


@pytest.fixture
def logits():
    return torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 3


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def kept(logits):
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in logits]


@pytest.mark.parametrize("wide", [0.1, 3.0], ids=["flat", "sharp"])
@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_ids_while_the_mass_before_them_is_below_p(p, wide):
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0)) * wide
    for row, ids in zip(logits, kept(keep_top_p(logits, p)), strict=True):
        mass = [math.exp(x) for x in row.tolist()]
        wanted, before = set(), 0.0
        for id in sorted(range(len(mass)), key=lambda i: -mass[i]):
            if before >= p * sum(mass):
                break
            wanted.add(id)
            before += mass[id]
        assert ids == wanted


@pytest.mark.parametrize("k", [1, 2, 39, 40, 1000])
def test_top_k_keeps_the_k_largest(logits, k):
    for row, ids in zip(logits, kept(keep_top_k(logits, k)), strict=True):
        wanted = sorted(range(len(row)), key=lambda i: -row[i].item())[:k]
        assert ids == set(wanted)


def test_what_a_row_keeps_does_not_depend_on_how_flat_others_are():
    wide = torch.randn(1, 2000, generator=torch.Generator().manual_seed(1))
    both = torch.cat([wide * 9, wide * 0.01])
    assert torch.equal(keep_top_p(both, 0.9)[:1], keep_top_p(both[:1], 0.9))


def test_of_equally_likely_ids_top_p_keeps_all_or_none():
    logits = torch.tensor([[0.5, 0.125, 0.125, 0.125, 0.125]]).log()
    assert kept(keep_top_p(logits, 0.5)) == [{0}]
    assert kept(keep_top_p(logits, 0.6)) == [{0, 1, 2, 3, 4}]


def test_what_is_kept_keeps_its_logits(logits):
    for out in (keep_top_p(logits, 0.8), keep_top_k(logits, 5)):
        inside = out.isfinite()
        assert torch.equal(out[inside], logits[inside])


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("k", [None, 3, 20])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_probabilities_are_those_of_transformers(logits, temperature, k, p):
    process = pytest.importorskip("transformers.generation.logits_process")
    theirs = process.TemperatureLogitsWarper(temperature)(None, logits)
    ours = temper(logits, temperature)
    if k is not None:
        theirs = process.TopKLogitsWarper(k)(None, theirs)
        ours = keep_top_k(ours, k)
    theirs = process.TopPLogitsWarper(p)(None, theirs)
    ours = keep_top_p(ours, p)
    assert_close(ours.softmax(-1).float(), theirs.softmax(-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
def test_the_penalty_is_that_of_transformers(logits, penalty):
    process = pytest.importorskip("transformers.generation.logits_process")
    answered = torch.randint(logits.shape[1], (len(logits), 7))
    theirs = process.RepetitionPenaltyLogitsProcessor(penalty)(answered, logits.clone())
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, answered, value=True)
    assert_close(penalise(logits, seen, penalty), theirs)


def test_greedy_is_argmax_and_takes_no_chance(logits):
    options = GenerationOptions(temperature=0.0, top_p=0.5, top_k=3)
    chances = generators(range(5))
    assert torch.equal(sample(logits, options, chances), logits.argmax(-1))
    fresh = generators(range(5))
    for one, other in zip(chances, fresh, strict=True):
        assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("temperature", [1e-300, 1e-9])
def test_a_tiny_temperature_is_greedy(logits, temperature):
    options = GenerationOptions(temperature=temperature)
    drawn = sample(logits, options, generators(range(5)))
    assert torch.equal(drawn, logits.argmax(-1))


def test_a_row_is_drawn_by_its_own_stream_whatever_else_is_in_the_batch(logits):
    options = GenerationOptions(temperature=1.5, top_p=0.95)
    together = sample(logits, options, generators(range(5)))
    alone = [
        sample(logits[i : i + 1], options, generators([i])).item() for i in range(5)
    ]
    assert together.tolist() == alone


def test_draws_are_as_frequent_as_their_probabilities_say():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    logits = probabilities.log().expand(20_000, 4)
    chance = torch.rand(
        20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    shares = pick(logits, chance).bincount(minlength=4) / 20_000
    assert_close(shares, probabilities, rtol=0, atol=0.015)
    assert shares[1] == 0


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
def test_the_ends_of_chance_never_pick_what_is_not_legal(extreme):
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    at = torch.tensor([extreme], dtype=torch.float64)
    assert pick(logits, at).item() == (1 if extreme == 0 else 2)


def test_illegal_ids_are_never_drawn(logits):
    logits = logits.clone()
    logits[:, 5:] = -torch.inf
    for options in (
        GenerationOptions(temperature=100.0),
        GenerationOptions(temperature=100.0, top_p=0.999, top_k=30),
    ):
        for _ in range(20):
            assert sample(logits, options, generators(range(5))).max() < 5
