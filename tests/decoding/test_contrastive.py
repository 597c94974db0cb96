import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from cm3leon.decoding.contrastive import contrast

VOCABULARY = 12


def lanes(seed, batch=3):
    random = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, batch, VOCABULARY, generator=random)


def by_hand(strong, weak, k, alpha, strong_temperature=1.0, weak_temperature=1.0):
    """The paper's formula, an id at a time."""
    scores = torch.full_like(strong, -torch.inf)
    for row in range(len(strong)):
        p = (strong[row] / strong_temperature).softmax(-1)
        q = (weak[row] / weak_temperature).softmax(-1)
        threshold = alpha * p.sort(descending=True).values[k - 1]
        for y in range(len(p)):
            if p[y] >= threshold * (1 - 1e-6):
                scores[row, y] = p[y].log() - q[y].log()
    return scores


@given(
    seed=st.integers(0, 999),
    k=st.integers(1, VOCABULARY),
    alpha=st.floats(0.05, 1.0),
    temperatures=st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0)),
)
def test_scores_are_the_formula_by_hand(seed, k, alpha, temperatures):
    strong, weak = lanes(seed)
    scores = contrast(
        strong,
        weak,
        k=k,
        alpha=alpha,
        strong_temperature=temperatures[0],
        weak_temperature=temperatures[1],
    )
    assert_close(
        scores, by_hand(strong, weak, k, alpha, *temperatures), rtol=1e-4, atol=1e-4
    )


@given(
    seed=st.integers(0, 999),
    k=st.integers(1, VOCABULARY),
    alpha=st.floats(0.0, 1.0, exclude_min=True),
)
def test_at_least_k_ids_stay(seed, k, alpha):
    """The k likeliest among them, and no others where alpha is 1."""
    strong, weak = lanes(seed)
    scores = contrast(strong, weak, k=k, alpha=alpha)
    assert scores.gather(-1, strong.topk(k).indices).isfinite().all()
    assert (contrast(strong, weak, k=k, alpha=1.0).isfinite().sum(-1) == k).all()


@given(seed=st.integers(0, 999))
def test_one_is_the_contrastive_decoding_of_li_et_al(seed):
    strong, weak = lanes(seed)
    p = strong.softmax(-1)
    plausible = p >= 0.1 * p.amax(-1, keepdim=True)
    expected = (strong.log_softmax(-1) - weak.log_softmax(-1)).masked_fill(
        ~plausible, -torch.inf
    )
    assert_close(contrast(strong, weak, k=1, alpha=0.1), expected)


def test_a_weak_lane_that_knows_nothing_leaves_the_strong_order():
    strong, _ = lanes(0)
    scores = contrast(strong, torch.zeros_like(strong), k=VOCABULARY, alpha=1e-9)
    assert torch.equal(scores.argsort(-1), strong.argsort(-1))


def test_ids_that_are_not_legal_stay_away():
    strong, weak = lanes(0)
    strong[:, 4] = -torch.inf
    scores = contrast(strong, weak, k=3, alpha=0.5)
    assert (scores[:, 4] == -torch.inf).all()
    assert scores.isfinite().any(-1).all()


@pytest.mark.parametrize("k", [VOCABULARY, 10 * VOCABULARY])
def test_as_many_as_there_are_keeps_all(k):
    assert contrast(*lanes(1), k=k, alpha=1.0).isfinite().all()
