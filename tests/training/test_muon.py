import pytest
import torch
from torch.testing import assert_close

from cm3leon.training import muon
from cm3leon.training.muon import Muon, orthogonalised

SHAPES = [(6, 9), (9, 6), (4, 4)]


def weights_and_gradients(shapes, steps=3):
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=random) for shape in shapes]
    gradients = [
        [torch.randn(shape, generator=random) for shape in shapes] for _ in range(steps)
    ]
    return weights, gradients


def moved(make, weights, gradients):
    weights = [weight.clone().requires_grad_() for weight in weights]
    optimizer = make(weights)
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_close_to_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix, torch.float32))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_left_and_right_directions_stay(monkeypatch):
    matrix = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    among = left.T @ orthogonalised(matrix, torch.float32) @ right.T
    assert_close(among - torch.diag(among.diag()), torch.zeros(5, 5), atol=1e-4, rtol=0)


def test_it_moves_matrices_as_the_muon_of_torch(monkeypatch):
    monkeypatch.setattr(muon, "has_bfloat16", lambda: True)
    weights, gradients = weights_and_gradients(SHAPES)
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    ours = moved(lambda w: Muon(w, **settings), weights, gradients)
    theirs = moved(lambda w: torch.optim.Muon(w, **settings), weights, gradients)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, atol=4e-4, rtol=0)  # 3 steps of 0.02 in bf16


def test_fp32_moves_as_bf16_does_up_to_rounding(monkeypatch):
    weights, gradients = weights_and_gradients(SHAPES)
    found = []
    for fast in (True, False):
        monkeypatch.setattr(muon, "has_bfloat16", lambda fast=fast: fast)
        found.append(moved(lambda w: Muon(w, lr=0.02), weights, gradients))
    for one, other in zip(*found, strict=True):
        assert_close(one, other, atol=2e-3, rtol=0)


def test_a_convolution_moves_as_the_matrix_of_its_output_channels():
    weights, gradients = weights_and_gradients([(6, 4, 3, 3)])
    flat = [[gradient.flatten(1) for gradient in step] for step in gradients]
    (one,) = moved(Muon, weights, gradients)
    (other,) = moved(Muon, [weights[0].flatten(1)], flat)
    assert_close(one.flatten(1), other)
    lasting = weights[0].to(memory_format=torch.channels_last)
    (third,) = moved(Muon, [lasting], gradients)
    assert_close(third.contiguous(), one)
