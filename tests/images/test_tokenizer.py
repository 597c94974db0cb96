import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cm3leon.errors import CheckpointError, RequestError
from cm3leon.images.tokenizer import ImageTokenizer, config_from
from cm3leon.images.vqgan import VQGAN


@pytest.fixture
def tokenizer(vqgan):
    return ImageTokenizer(vqgan)


@pytest.fixture
def folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "image_tokenizer")
    return tmp_path / "image_tokenizer"


def bytes_of(images):
    return [np.asarray(image).tobytes() for image in images]


def test_it_says_the_sizes_of_its_pictures(tokenizer):
    assert tokenizer.pixels == 16
    assert tokenizer.codes_per_image == 16
    assert tokenizer.codebook_size == 64


def test_pictures_of_any_size_become_codes_and_pictures_again(tokenizer, pictures):
    others = [
        Image.new("RGBA", (40, 30), (0, 0, 255, 128)),
        Image.new("L", (3, 90)),
        *pictures,
    ]
    codes = tokenizer.encode(others)
    assert codes.shape == (8, 16)
    decoded = tokenizer.decode(codes)
    assert [(image.size, image.mode) for image in decoded] == [((16, 16), "RGB")] * 8


def test_a_batch_is_one_by_one(tokenizer, pictures):
    codes = tokenizer.encode(pictures)
    assert torch.equal(tokenizer.encode(pictures, batch=4), codes)
    assert torch.equal(torch.cat([tokenizer.encode([x]) for x in pictures]), codes)
    alone = [tokenizer.decode(lane[None])[0] for lane in codes]
    for image, other in zip(tokenizer.decode(codes), alone, strict=True):
        difference = np.asarray(image).astype(int) - np.asarray(other)
        assert abs(difference).max() <= 1  # sums in another order round otherwise


def test_a_fingerprint_is_that_of_the_weights_in_either_precision(tokenizer, tmp_path):
    tokenizer.save(tmp_path, half=True)
    again = ImageTokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    with torch.no_grad():
        again.vqgan.quantizer.codebook[0] += 1
    assert ImageTokenizer(again.vqgan).fingerprint != tokenizer.fingerprint


def test_no_pictures_are_no_codes_and_no_codes_no_pictures(tokenizer):
    assert tokenizer.encode([]).shape == (0, 16)
    assert tokenizer.decode(torch.empty(0, 16, dtype=torch.long)) == []


def test_what_is_loaded_is_what_was_saved(tokenizer, folder, pictures):
    loaded = ImageTokenizer.load(folder)
    assert loaded.vqgan.config == tokenizer.vqgan.config
    codes = tokenizer.encode(pictures)
    assert torch.equal(loaded.encode(pictures), codes)
    assert bytes_of(loaded.decode(codes)) == bytes_of(tokenizer.decode(codes))


@pytest.mark.parametrize("learning", ["gradient", "average"])
def test_statistics_of_training_are_not_written(learning, config, pictures, tmp_path):
    quantizer = replace(config.quantizer, learning=learning)
    tokenizer = ImageTokenizer(VQGAN(replace(config, quantizer=quantizer)))
    tokenizer.save(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "quantizer.codebook" in names
    assert not {"quantizer.counts", "quantizer.sums"} & names
    loaded = ImageTokenizer.load(tmp_path)
    assert torch.equal(loaded.encode(pictures), tokenizer.encode(pictures))


def test_the_codebook_averages_on_from_what_was_loaded(folder):
    vqgan = ImageTokenizer.load(folder).vqgan
    before = vqgan.quantizer.codebook.clone()
    vqgan.quantizer.train()(before.T[None, :, :, None].contiguous())
    torch.testing.assert_close(vqgan.quantizer.codebook, before)


def test_half_precision_is_widened(folder):
    file = folder / "model.safetensors"
    save_file({name: x.half() for name, x in load_file(file).items()}, file)
    loaded = ImageTokenizer.load(folder)
    assert {x.dtype for x in loaded.vqgan.parameters()} == {torch.float32}


def test_it_does_not_train(tokenizer):
    assert not tokenizer.vqgan.training
    assert not any(weight.requires_grad for weight in tokenizer.vqgan.parameters())


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 15, dtype=torch.long), "a picture has 16 codes, not 15"),
        (torch.zeros(1, 0, dtype=torch.long), "a picture has 16 codes, not 0"),
        (torch.full((1, 16), 64), "codes run from 0 to 63; got 64 to 64"),
        (torch.arange(-1, 15)[None], "codes run from 0 to 63; got -1 to 14"),
    ],
)
def test_wrong_codes_are_refused(tokenizer, codes, message):
    with pytest.raises(RequestError, match=message):
        tokenizer.decode(codes)


def spoil(folder, how):
    config, weights = folder / "config.json", folder / "model.safetensors"
    settings = json.loads(config.read_text())
    match how:
        case "no config":
            config.unlink()
        case "no weights":
            weights.unlink()
        case "cut weights":
            os.truncate(weights, weights.stat().st_size // 2)
        case "cut config":
            os.truncate(config, 20)
        case "unknown setting":
            config.write_text(json.dumps(settings | {"colour": 1}))
        case "missing setting":
            del settings["quantizer"]
            config.write_text(json.dumps(settings))
        case "no table":
            config.write_text(json.dumps(settings | {"quantizer": 3}))
        case "other shape":
            config.write_text(json.dumps(settings | {"latent": 24}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "holds no image tokenizer"),
        ("no weights", "holds no image tokenizer"),
        ("cut weights", "holds no image tokenizer"),
        ("cut config", "holds no image tokenizer"),
        ("unknown setting", "holds no image tokenizer .*colour"),
        ("missing setting", "holds no image tokenizer .*quantizer"),
        ("no table", "holds no image tokenizer"),
        (
            "other shape",
            "model.safetensors does not fit its config.json: size mismatch",
        ),
    ],
)
def test_a_damaged_folder_is_named(folder, how, message):
    spoil(folder, how)
    with pytest.raises(CheckpointError, match=f"image_tokenizer.*{message}") as caught:
        ImageTokenizer.load(folder)
    assert "\n" not in str(caught.value)


def test_a_config_is_read_as_it_was_written(config, folder):
    written = json.loads((folder / "config.json").read_text())
    assert config_from(written) == config
