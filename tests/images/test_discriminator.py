import pytest
import torch
from torch.testing import assert_close

from cm3leon.images.discriminator import Discriminator, hinge_loss


def test_hinge_loss_is_the_formula_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 0.5])
    expected = ((0 + 0.5 + 2) / 3 + (0 + 1 + 1.5) / 3) / 2
    assert_close(hinge_loss(real, fake), torch.tensor(expected))


def test_scores_beyond_the_margin_teach_nothing():
    real = torch.tensor([1.5, 3.0], requires_grad=True)
    fake = torch.tensor([-1.5, -3.0], requires_grad=True)
    loss = hinge_loss(real, fake)
    loss.backward()
    assert loss == 0
    assert not real.grad.any()
    assert not fake.grad.any()


@pytest.mark.parametrize(("side", "scores"), [(64, 15), (16, 3)])
def test_each_patch_has_a_score(side, scores):
    found = Discriminator(channels=16)(torch.randn(2, 3, side, side))
    assert found.shape == (2, 1, scores, scores)


def test_a_score_sees_its_patch_alone():
    torch.manual_seed(0)
    critic = Discriminator(channels=16, layers=1).eval()
    pixels = torch.randn(1, 3, 64, 64)
    changed = pixels.clone()
    changed[..., -16:, -16:] += 1
    difference = (critic(pixels) - critic(changed)).abs()
    assert difference[..., :20, :20].max() == 0
    assert difference[..., -4:, -4:].min() > 0
