import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch.testing import assert_close

from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.images.losses import (
    Perceptual,
    ReconstructionConfig,
    adversarial_weight,
    edge_loss,
    reconstruction_loss,
)

NOTHING = {"absolute": 0.0, "squared": 0.0}


@pytest.fixture
def pair(pixels):
    return pixels, (pixels + 0.3 * torch.randn(pixels.shape)).clamp(-1, 1)


def by_hand(term, original, decoded):
    d = decoded - original
    if term == "absolute":
        return d.abs().sum() / d.numel()
    if term == "squared":
        return (d**2).sum() / d.numel()
    if term == "log":
        return sum(torch.log((x**2).mean() + 1e-3) for x in d) / len(d)
    total = torch.zeros(())
    for scale in (1, 2, 4):
        side = d.shape[-1] // scale
        x = d.reshape(-1, side, scale, side, scale).mean((2, 4))
        total += (x[:, :, 1:] - x[:, :, :-1]).abs().mean()
        total += (x[:, 1:] - x[:, :-1]).abs().mean()
    return total / 3


@pytest.mark.parametrize("term", ["absolute", "squared", "log", "edges"])
def test_each_term_is_the_formula_by_hand(term, pair):
    config = ReconstructionConfig(**NOTHING | {term: 0.7})
    assert_close(reconstruction_loss(*pair, config), 0.7 * by_hand(term, *pair))


def test_terms_add_up(pair):
    weights = {"absolute": 1.0, "squared": 0.5, "edges": 0.25, "log": 0.02}
    expected = sum(w * by_hand(term, *pair) for term, w in weights.items())
    found = reconstruction_loss(*pair, ReconstructionConfig(**weights))
    assert_close(found, expected)


def test_the_structure_term_is_one_minus_ssim_of_the_whole_range(pair):
    original, decoded = (F.interpolate(x, size=(24, 24)) for x in pair)
    config = ReconstructionConfig(**NOTHING, structure=2.0)
    alike = [
        structural_similarity(
            *((x + 1).permute(1, 2, 0).numpy() for x in two),
            channel_axis=2,
            data_range=2.0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for two in zip(original, decoded, strict=True)
    ]
    found = reconstruction_loss(original, decoded, config)
    similar = sum(alike) / len(alike)
    assert_close(found, torch.tensor(2 - 2 * similar).float())
    assert reconstruction_loss(original, original, config).abs() < 1e-5


def test_an_equal_picture_costs_nothing_but_the_floor_of_the_logarithm(pixels):
    config = ReconstructionConfig(edges=1.0)
    assert reconstruction_loss(pixels, pixels, config) == 0
    logarithm = ReconstructionConfig(**NOTHING, log=1.0)
    lowest = reconstruction_loss(pixels, pixels, logarithm)
    assert_close(lowest, torch.tensor(1e-3).log())


def test_the_perceptual_term_is_added_with_its_weight(pair):
    def three(original, decoded):
        return torch.tensor(3.0)

    config = ReconstructionConfig(**NOTHING, perceptual=0.5, perceptual_weights="vgg16")
    assert reconstruction_loss(*pair, config, three) == 1.5
    assert reconstruction_loss(*pair, config, None) == 0
    assert reconstruction_loss(*pair, ReconstructionConfig(**NOTHING), three) == 0


def test_edge_loss_forgives_an_even_shift_and_counts_a_step():
    flat = torch.full((1, 3, 8, 8), 0.4)
    assert edge_loss(flat, (1, 2, 4)) == 0
    step = flat.clone()
    step[..., 4:] += 1  # one of seven neighbours, one of three, the only one
    assert_close(edge_loss(step, (1,)), torch.tensor(1 / 7))
    assert_close(edge_loss(step, (1, 2, 4)), torch.tensor((1 / 7 + 1 / 3 + 1) / 3))


def test_adversarial_weight_balances_the_two_gradients():
    last = torch.nn.Parameter(torch.randn(5))
    direction, other = torch.randn(5), torch.randn(5)
    reconstruction, adversarial = 3 * (last @ direction), (last @ other)
    weight = adversarial_weight(reconstruction, adversarial, last)
    expected = 0.8 * 3 * direction.norm() / (other.norm() + 1e-4)
    assert_close(weight, expected)
    assert not weight.requires_grad
    (reconstruction + weight * adversarial).backward()  # both graphs are still there
    assert_close(last.grad, 3 * direction + weight * other)


def test_adversarial_weight_has_a_ceiling():
    last = torch.nn.Parameter(torch.ones(5))
    weight = adversarial_weight(1e9 * last.sum(), 1e-9 * last.sum(), last)
    assert_close(weight, torch.tensor(0.8e4))


def trunk():
    """A VGG16 trunk of random numbers, under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    tensors, position, inputs = {}, 0, 3
    for widths in Perceptual.STAGES:
        for width in widths:
            weight = torch.randn(width, inputs, 3, 3, generator=generator)
            tensors[f"features.{position}.weight"] = weight / (9 * inputs) ** 0.5
            tensors[f"features.{position}.bias"] = torch.zeros(width)
            inputs, position = width, position + 2
        position += 1
    return tensors


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(trunk(), path)
    return path


def test_names_are_those_of_torchvision():
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert sorted({int(name.split(".")[1]) for name in trunk()}) == convolutions


def test_perceptual_distance_is_zero_for_equal_pictures_alone(weights):
    perceptual = Perceptual(weights)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    other = (pixels + 0.2 * torch.randn_like(pixels)).requires_grad_()
    assert perceptual(pixels, pixels) == 0
    near = perceptual(pixels, pixels.lerp(other.detach(), 0.2))
    far = perceptual(pixels, other)
    assert 0 < near < far
    far.backward()
    assert other.grad.any()
    assert not any(weight.requires_grad for weight in perceptual.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.14.bias": None}, "has no features.14.bias; a VGG16 trunk"),
        (
            {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            r"features.0.weight is \[64, 1, 3, 3\], a VGG16 trunk's is \[64, 3, 3, 3\]",
        ),
        ({"features.28.bias": torch.zeros(7)}, r"features.28.bias is \[7\]"),
    ],
)
def test_weights_that_are_no_trunk_are_named(change, message, tmp_path):
    tensors = {k: v for k, v in (trunk() | change).items() if v is not None}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=message):
        Perceptual(tmp_path / "other.safetensors")


def test_a_missing_or_damaged_file_of_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg\.safetensors holds no weights"):
        Perceptual(tmp_path / "vgg.safetensors")
    (tmp_path / "vgg.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"vgg\.safetensors holds no weights"):
        Perceptual(tmp_path / "vgg.safetensors")


@pytest.mark.parametrize(
    "given", [{"perceptual": 1.0}, {"perceptual_weights": "trunk.safetensors"}]
)
def test_a_perceptual_term_needs_its_weight_and_its_network(given):
    with pytest.raises(ConfigError, match="give both, or neither"):
        ReconstructionConfig(**given)
