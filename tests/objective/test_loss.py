"""Laws of the loss."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from cm3leon.objective import loss
from cm3leon.objective.loss import (
    Tally,
    head_loss,
    next_id_loss,
    per_id_loss,
)


@pytest.fixture
def case():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 11, generator=random)
    return logits, torch.randint(11, (2, 5), generator=random)


def test_weights_of_one_are_plain_cross_entropy(case):
    logits, targets = case
    plain = cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert_close(next_id_loss(logits, targets, torch.ones(2, 5)), plain)


def test_ids_of_weight_zero_do_not_matter(case):
    logits, targets = case
    weights = torch.ones(2, 5)
    weights[1, 2:] = 0
    other_logits, other_targets = logits.clone(), targets.clone()
    other_logits[1, 2:] = 100 * torch.randn(3, 11)
    other_targets[1, 2:] = 0
    assert_close(
        next_id_loss(logits, targets, weights),
        next_id_loss(other_logits, other_targets, weights),
    )
    logits = logits.requires_grad_()
    next_id_loss(logits, targets, weights).backward()
    assert logits.grad[1, 2:].abs().max() == 0


def test_weights_count_as_repeats(case):
    logits, targets = case
    weights = torch.ones(2, 5)
    weights[0] = 3
    repeated = next_id_loss(
        logits[[0, 0, 0, 1]], targets[[0, 0, 0, 1]], torch.ones(4, 5)
    )
    assert_close(next_id_loss(logits, targets, weights), repeated)


def test_the_loss_of_bfloat16_logits_is_taken_in_float32(case):
    logits, targets = case
    losses = per_id_loss(logits.bfloat16(), targets)
    assert losses.dtype == torch.float32
    assert_close(losses, per_id_loss(logits.bfloat16().float(), targets))


def test_even_logits_cost_the_log_of_the_vocabulary(case):
    _, targets = case
    losses = per_id_loss(torch.zeros(2, 5, 11), targets)
    assert_close(losses, torch.full((2, 5), math.log(11)))


def test_means_of_text_and_image_are_those_counted_by_hand():
    losses = torch.tensor([[1.0, 2.0, 4.0, 50.0], [8.0, 16.0, 70.0, 90.0]])
    targets = torch.tensor([[3, 6, 7, 6], [2, 5, 3, 1]])  # image codes: 5, 6, 7
    weights = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.5, 0.0, 0.0]])
    tally = Tally(range(5, 8))
    for row in range(2):  # in parts as at once
        part = slice(row, row + 1)
        tally.add(losses[part], targets[part], weights[part])
    assert (tally.text, tally.texts) == (4.5, 2)  # 1, 8
    assert tally.image == pytest.approx((2 + 4 + 16) / 3)
    assert tally.images == 3


def test_the_mean_of_no_ids_is_zero_of_zero():
    tally = Tally(range(5, 8))
    assert (tally.text, tally.image) == (0, 0)
    tally.add(torch.ones(1, 2), torch.tensor([[1, 2]]), torch.ones(1, 2))
    assert (tally.texts, tally.image, tally.images) == (2, 0, 0)


@pytest.mark.parametrize("chunk", [1, 3, 10, 1024])
def test_the_loss_at_the_head_and_its_gradients_are_those_of_the_logits(
    chunk, case, monkeypatch
):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    _, targets = case
    random = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 5, generator=random)
    weights[1, 3:] = 0
    start = torch.randn(2, 5, 6, generator=random), torch.randn(11, 6, generator=random)
    plain, fused = ([x.clone().requires_grad_() for x in start] for _ in range(2))

    expected = next_id_loss(plain[0] @ plain[1].T, targets, weights)
    total, losses = head_loss(fused[0], fused[1], targets, weights)
    assert_close(total, expected)
    assert_close(losses, per_id_loss(start[0] @ start[1].T, targets))
    assert not losses.requires_grad

    (3 * expected).backward()
    (3 * total).backward()
    for one, other in zip(fused, plain, strict=True):
        assert_close(one.grad, other.grad)
    assert fused[0].grad[1, 3:].abs().max() == 0


def test_shares_of_a_batch_add_up_to_its_loss_and_gradient(case):
    _, targets = case
    random = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 5, generator=random)
    hidden = torch.randn(2, 5, 6, generator=random)
    whole, shared = (torch.ones(11, 6, requires_grad=True) for _ in range(2))
    expected, _ = head_loss(hidden, whole, targets, weights)
    expected.backward()
    found = 0.0
    for row in (slice(0, 1), slice(1, 2)):
        part = (hidden[row], shared, targets[row], weights[row])
        mean, _ = head_loss(*part, weights.sum())
        mean.backward()
        found += mean.detach()
    assert_close(found, expected.detach())
    assert_close(shared.grad, whole.grad)


def test_a_merged_tally_has_counted_what_its_parts_have(case):
    _, targets = case
    random = torch.Generator().manual_seed(1)
    losses, weights = torch.rand(2, 2, 5, generator=random).unbind()
    whole, merged = Tally(range(5, 8)), Tally(range(5, 8))
    whole.add(losses, targets, weights)
    parts = [Tally(range(5, 8)) for _ in range(2)]
    for number, part in enumerate(parts):
        row = slice(number, number + 1)
        part.add(losses[row], targets[row], weights[row])
    merged.merge(parts)
    assert (merged.texts, merged.images) == (whole.texts, whole.images)
    assert (merged.text, merged.image) == pytest.approx((whole.text, whole.image))
