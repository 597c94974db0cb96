from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from cm3leon.errors import ConfigError
from cm3leon.images.quantizer import QuantizerConfig
from cm3leon.images.vqgan import PRESETS, VQGAN, VQGANConfig, preset


def test_codes_and_pixels_have_the_shapes_of_the_config(vqgan, pixels, config):
    out = vqgan(pixels)
    assert out.pixels.shape == pixels.shape
    assert out.codes.shape == (3, config.codes_per_image)
    assert out.vectors.shape == (
        3 * config.codes_per_image,
        config.quantizer.code_width,
    )
    assert out.loss.shape == ()
    codes = vqgan.encode(pixels)
    assert codes.shape == (3, config.codes_per_image)
    assert 0 <= codes.min() <= codes.max() < config.quantizer.codebook_size
    assert vqgan.decode(codes).shape == pixels.shape


def test_forward_is_decode_of_encode(vqgan, pixels):
    vqgan.eval()
    out = vqgan(pixels)
    codes = vqgan.encode(pixels)
    assert torch.equal(out.codes, codes)
    assert_close(out.pixels, vqgan.decode(codes), atol=1e-5, rtol=1e-4)


def test_codes_stand_in_raster_order(vqgan, pixels):
    vqgan.eval()
    codes = vqgan.encode(pixels)
    vectors = vqgan.quantizer.project(vqgan.vectors(pixels).permute(0, 2, 3, 1))
    for row in range(4):
        for column in range(4):
            expected = vqgan.quantizer.nearest(vectors[:, row, column])
            assert torch.equal(codes[:, 4 * row + column], expected)
    grid = torch.stack(
        [vqgan.quantizer.lookup(codes[:, 4 * row : 4 * row + 4]) for row in range(4)], 1
    )
    drawn = vqgan.decoder(vqgan.from_code(grid.permute(0, 3, 1, 2)))
    assert_close(vqgan.decode(codes), drawn)


def test_without_the_quantizer_vectors_pass_as_they_are(vqgan, pixels):
    vqgan.eval()
    grid = vqgan.quantizer.project(vqgan.vectors(pixels).permute(0, 2, 3, 1))
    expected = vqgan.decoder(vqgan.from_code(grid.permute(0, 3, 1, 2)))
    assert_close(vqgan(pixels, quantise=False).pixels, expected)


@pytest.mark.parametrize("learning", ["gradient", "average"])
def test_the_gradient_reaches_the_encoder_through_the_codes(config, pixels, learning):
    quantizer = replace(config.quantizer, learning=learning)
    vqgan = VQGAN(replace(config, quantizer=quantizer))
    vqgan(pixels).pixels.square().mean().backward()
    for part in (vqgan.encoder, vqgan.to_code, vqgan.from_code, vqgan.decoder):
        for name, weight in part.named_parameters():
            assert weight.grad is not None, name
    assert vqgan.encoder[1].weight.grad.any()


def test_tiny_learns_a_picture(vqgan, pixels):
    optimizer = torch.optim.Adam(vqgan.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        out = vqgan(pixels)
        loss = (out.pixels - pixels).square().mean()
        optimizer.zero_grad()
        (loss + out.loss).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_papers_tokenizer_has_a_grid_of_1024_codes_of_8192():
    config = preset("vqgan-8192")
    assert (config.pixels, config.grid, config.factor) == (256, 32, 8)
    assert config.codes_per_image == 1024
    assert config.quantizer.codebook_size == 8192
    with torch.device("meta"):
        vqgan = VQGAN(config)
        grid = vqgan.vectors(torch.zeros(1, 3, 256, 256))
        codes = vqgan.encode(torch.zeros(1, 3, 256, 256))
        pixels = vqgan.decode(codes)
    assert grid.shape == (1, 256, 32, 32)
    assert codes.shape == (1, 1024)
    assert pixels.shape == (1, 3, 256, 256)
    assert vqgan.quantizer.codebook.shape == (8192, 256)


def test_the_shipped_tokenizer_has_64_codes_of_2048():
    config = preset("shipped")
    assert (config.pixels, config.codes_per_image) == (64, 64)
    assert config.quantizer.codebook_size == 2048


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_attends_somewhere_and_fits_its_pixels(name):
    config = preset(name)
    assert config.factor * config.grid == config.pixels
    assert config.grid in config.attention


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(
        ConfigError, match="no image tokenizer preset 'large'; there are: vqgan-8192, "
    ):
        preset("large")


def test_pixels_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"pixels is 60, not a multiple of .* 8;"):
        VQGANConfig(pixels=60, quantizer=QuantizerConfig())
