"""Public VQGANs: read as the networks they are, or refused by what differs."""

import re

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from torch.testing import assert_close

from cm3leon.errors import CheckpointError, RequestError
from cm3leon.images import checkpoint
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.images.vqgan import VQGAN, preset

TAMING = {
    "embed_dim": 8,
    "n_embed": 64,
    "ddconfig": {
        "double_z": False,
        "z_channels": 16,
        "resolution": 16,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "dropout": 0.0,
    },
    "lossconfig": {"target": "taming.modules.losses.DummyLoss"},
}
DEEPER = {"ch_mult": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [16]}


def taming(**changes):
    return {**TAMING, "ddconfig": {**TAMING["ddconfig"], **changes}}


def scrambled(config):
    """A VQGAN in which every weight matters and codes differ."""
    torch.manual_seed(0)
    vqgan = VQGAN(config).eval().requires_grad_(False)
    for name, weight in vqgan.named_parameters():
        if name.endswith("bias") or "norm" in name:
            weight += torch.randn_like(weight) * 0.1
    vqgan.quantizer.codebook.normal_(std=0.3)
    return vqgan


@pytest.fixture(scope="module", params=[{}, DEEPER], ids=["flat", "deep"])
def vqgan(request):
    settings = taming(**request.param)
    return scrambled(checkpoint.settings_from_taming(settings, "x"))


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


class Written:
    """Taming's network as its tensors' names tell it: an independent few lines."""

    def __init__(self, tensors, side):
        self.tensors, self.side = tensors, side

    def has(self, name):
        return f"{self.side}.{name}.weight" in self.tensors

    def conv(self, name, x, **how):
        at = f"{self.side}.{name}" if self.side else name
        kernel = self.tensors[f"{at}.weight"]
        how.setdefault("padding", kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, self.tensors[f"{at}.bias"], **how)

    def norm(self, name, x):
        at = f"{self.side}.{name}"
        pair = self.tensors[f"{at}.weight"], self.tensors[f"{at}.bias"]
        return F.group_norm(x, 32, *pair, eps=1e-6)

    def block(self, name, x):
        y = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        y = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", y)))
        short = f"{name}.nin_shortcut"
        return y + (self.conv(short, x) if self.has(short) else x)

    def attn(self, name, x):
        y = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", y).flatten(2) for part in "qkv")
        shares = (q.mT @ k / q.shape[1] ** 0.5).softmax(-1)
        return x + self.conv(f"{name}.proj_out", (v @ shares.mT).view_as(x))

    def middle(self, x):
        x = self.attn("mid.attn_1", self.block("mid.block_1", x))
        return self.block("mid.block_2", x)

    def stage(self, name, x):
        number = 0
        while self.has(f"{name}.block.{number}.conv1"):
            x = self.block(f"{name}.block.{number}", x)
            if self.has(f"{name}.attn.{number}.q"):
                x = self.attn(f"{name}.attn.{number}", x)
            number += 1
        assert number
        return x

    def levels(self, way):
        return sum(self.has(f"{way}.{level}.block.0.conv1") for level in range(9))

    def out(self, x):
        return self.conv("conv_out", F.silu(self.norm("norm_out", x)))

    def encode(self, x):
        x = self.conv("conv_in", x)
        for level in range(self.levels("down")):
            x = self.stage(f"down.{level}", x)
            if self.has(f"down.{level}.downsample.conv"):
                x = F.pad(x, (0, 1, 0, 1))
                x = self.conv(f"down.{level}.downsample.conv", x, stride=2, padding=0)
        return self.out(self.middle(x))

    def decode(self, x):
        x = self.middle(self.conv("conv_in", x))
        for level in reversed(range(self.levels("up"))):
            x = self.stage(f"up.{level}", x)
            if self.has(f"up.{level}.upsample.conv"):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(f"up.{level}.upsample.conv", x)
        return self.out(x)


@torch.no_grad()
def test_tamings_encoder_and_decoder_are_the_same_functions(vqgan, pixels):
    tensors = checkpoint.to_taming(vqgan.state_dict(), vqgan.config)
    encoded = Written(tensors, "encoder").encode(pixels)
    vectors = Written(tensors, "").conv("quant_conv", encoded)
    assert vectors.std() > 0.05
    assert_close(vqgan.vectors(pixels), vectors, atol=1e-4, rtol=0)
    codes = vqgan.encode(pixels)
    assert len(codes.unique()) > 4
    side = vqgan.config.grid
    grid = tensors["quantize.embedding.weight"][codes].mT.unflatten(2, (side, side))
    grid = Written(tensors, "").conv("post_quant_conv", grid)
    drawn = Written(tensors, "decoder").decode(grid)
    assert drawn.std() > 0.05
    assert_close(vqgan.decode(codes), drawn, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", [[], [8], [16, 8]], ids=str)
@pytest.mark.parametrize("multipliers", [[1, 2], [1, 1, 2]], ids=str)
@torch.no_grad()
def test_codes_and_loss_are_those_of_transformers(pixels, attention, multipliers):
    transformers = pytest.importorskip("transformers")
    settings = transformers.ChameleonVQVAEConfig(
        embed_dim=8,
        num_embeddings=64,
        latent_channels=16,
        resolution=16,
        base_channels=128,
        channel_multiplier=multipliers,
        num_res_blocks=2,
        attn_resolutions=attention,
    )
    torch.manual_seed(0)
    theirs = transformers.models.chameleon.modeling_chameleon.ChameleonVQVAE(settings)
    for name, weight in theirs.named_parameters():
        weight.normal_(std=0.3 if "embedding" in name else 0.05)
        if "norm" in name and name.endswith("weight"):
            weight += 1
    config = checkpoint.settings_from_transformers(settings.to_dict(), "x")
    renamed = checkpoint.from_taming(theirs.state_dict(), config, "x")
    ours = checkpoint.built(renamed, config)
    found = theirs.encode(pixels, return_dict=True)
    codes = ours.encode(pixels)
    assert len(codes.unique()) > 10
    assert torch.equal(codes.flatten(), found.image_tokens)
    hidden = found.last_hidden_state
    assert_close(ours.encoder(pixels), hidden, atol=1e-4, rtol=0)
    loss = ours.quantizer(ours.vectors(pixels)).loss  # with the mistake in it
    assert_close(loss, found.embedding_loss)
    assert ours.config.quantizer.commitment == 1.0


def test_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    defaults = transformers.ChameleonVQVAEConfig()
    for name, default in checkpoint.DEFAULTS.items():
        assert getattr(defaults, name) == default
    public = checkpoint.settings_from_transformers({}, "x")
    assert (public.pixels, public.codes_per_image, public.decodes) == (512, 1024, False)


def test_tamings_mistake_is_kept_unless_it_is_turned_off():
    for given, weights in (
        ({}, (1.0, 0.25)),
        ({"legacy": True}, (1.0, 0.25)),
        ({"legacy": False}, (0.25, 1.0)),
    ):
        found = checkpoint.settings_from_taming(TAMING | given, "x").quantizer
        assert (found.commitment, found.codebook_weight) == weights


def test_there_and_back_is_identity(vqgan):
    ours = vqgan.state_dict()
    theirs = checkpoint.to_taming(ours, vqgan.config)
    back = checkpoint.from_taming(theirs, vqgan.config, "x")
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_the_papers_tokenizer_is_tamings_with_8_pixels_a_code():
    ours = preset("vqgan-8192")
    settings = {
        **{"embed_dim": 256, "n_embed": 8192, "legacy": False},
        "ddconfig": {
            **TAMING["ddconfig"],
            **{"z_channels": 256, "resolution": 256, "ch_mult": [1, 1, 2, 4]},
            **{"num_res_blocks": 2, "attn_resolutions": [32]},
        },
    }
    assert checkpoint.settings_from_taming({"model": {"params": settings}}, "x") == ours


@pytest.fixture
def folder(tmp_path, vqgan):
    """A checkpoint as Lightning leaves it, and its settings."""
    tensors = checkpoint.to_taming(vqgan.state_dict(), vqgan.config)
    tensors["loss.discriminator.main.0.weight"] = torch.zeros(4)
    table = {"state_dict": tensors, "epoch": 3, "global_step": 9}
    torch.save(table, tmp_path / "vqgan.ckpt")
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        tmp_path / "vqgan.safetensors",
    )
    dd = {
        "resolution": vqgan.config.pixels,
        "ch_mult": list(vqgan.config.multipliers),
        "num_res_blocks": vqgan.config.blocks,
        "attn_resolutions": list(vqgan.config.attention),
    }
    settings = {"model": {"target": "taming.models.VQModel", "params": taming(**dd)}}
    (tmp_path / "vqgan.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.mark.parametrize("name", ["vqgan.ckpt", "vqgan.safetensors"])
def test_a_checkpoint_and_its_settings_are_read(folder, vqgan, pixels, name):
    read = checkpoint.read(folder / name, folder / "vqgan.yaml")
    assert read.config == vqgan.config
    assert torch.equal(read.encode(pixels), vqgan.encode(pixels))
    ImageTokenizer(read).save(folder / "saved")
    again = ImageTokenizer.load(folder / "saved")
    assert again.fingerprint == ImageTokenizer(vqgan).fingerprint


@pytest.mark.parametrize("vqgan", [{}], indirect=True)
def test_without_its_decoder_a_tokenizer_reads_and_says_that_it_draws_none(
    folder, vqgan, pixels
):
    tensors = checkpoint.to_taming(vqgan.state_dict(), vqgan.config)
    settings = {
        **{"embed_dim": 8, "num_embeddings": 64, "latent_channels": 16},
        **{"resolution": 16, "base_channels": 128, "channel_multiplier": [1, 2]},
        **{"num_res_blocks": 1, "attn_resolutions": [8]},
    }
    config = checkpoint.settings_from_transformers(settings, "x")
    renamed = checkpoint.from_taming(tensors, config, "x")
    assert not any(name.startswith("decoder") for name in renamed)
    ImageTokenizer(checkpoint.built(renamed, config)).save(folder / "saved")
    read = ImageTokenizer.load(folder / "saved")
    assert read.fingerprint == ImageTokenizer(vqgan).fingerprint
    codes = read.vqgan.encode(pixels)
    assert torch.equal(codes, vqgan.encode(pixels))
    with pytest.raises(RequestError, match="came without its decoder"):
        read.decode(codes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"double_z": True}, "double_z is True, and this VQGAN has False; another"),
        ({"in_channels": 1}, "in_channels is 1"),
        ({"remap": "used.npy"}, "remap is 'used.npy'"),
        ({"attn_type": "none"}, "attn_type is 'none'"),
        ({"ch": None}, "ch is None, not as it must be"),
        ({"ch_mult": [1, "2"]}, "ch_mult is [1, '2'], not as it must be"),
        (
            {"ch": 64},
            "64 channels times [1, 2]; this VQGAN needs a multiple of 32 from",
        ),
        ({"ch_mult": [2, 2]}, "128 channels times [2, 2]; this VQGAN needs"),
        ({"resolution": 15}, "pixels is 15, not a multiple of the reduction 2"),
    ],
)
def test_another_network_is_refused_by_the_setting(changes, message):
    with pytest.raises(CheckpointError, match=re.escape(f"x.yaml: {message}")):
        checkpoint.settings_from_taming(taming(**changes), "x.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "x lacks decoder.conv_out.bias; is it another model's?"),
        ("shape", "x: decoder.conv_out.bias is [4], the model needs [3]; use"),
        ("stranger", "x holds quantize.proj.weight, which this VQGAN has no place for"),
    ],
)
@pytest.mark.parametrize("vqgan", [{}], indirect=True)
def test_tensors_that_do_not_fit_are_named(vqgan, change, message):
    tensors = checkpoint.to_taming(vqgan.state_dict(), vqgan.config)
    if change == "missing":
        del tensors["decoder.conv_out.bias"]
    elif change == "shape":
        tensors["decoder.conv_out.bias"] = torch.zeros(4)
    else:
        tensors["quantize.proj.weight"] = torch.zeros(4)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        checkpoint.from_taming(tensors, vqgan.config, "x")


@pytest.mark.parametrize("content", ["", "- 1", "a: [", "model: {params: {}}", "\x00"])
def test_settings_that_are_none_are_refused_by_their_name(tmp_path, content):
    (tmp_path / "vqgan.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"vqgan\.yaml"):
        checkpoint.read(tmp_path / "vqgan.ckpt", tmp_path / "vqgan.yaml")
