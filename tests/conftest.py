"""Fixtures every folder may use, and what holds for the whole run of tests."""

import os

# Read by torch when it is first imported: small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from hypothesis import HealthCheck, settings

# The same cases on every run, however busy the machine.
settings.register_profile(
    "cm3leon",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cm3leon")

SENTENCES = [
    "a red apple on a white plate",
    "a blue car, seen from the side",
    "two cats asleep under a green tree",
    "ein roter Apfel, ça va, 赤いりんご",
    "<break> and <eos> are words like others",
]


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none, without importing torch for it."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def without_bfloat16(monkeypatch):
    """As on a processor without it: what is compared closely is computed in fp32."""
    monkeypatch.setattr("cm3leon.precision.has_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def text_tokenizer():
    """A `TextTokenizer` of 300 ids."""
    from cm3leon.tokens.text import TextTokenizer

    return TextTokenizer.train(SENTENCES, 300)


@pytest.fixture(scope="session")
def vocabulary(text_tokenizer):
    """Our own layout, with 64 image codes."""
    from cm3leon.tokens.vocabulary import Vocabulary

    return Vocabulary.own(text_tokenizer.size, 64)


@pytest.fixture(scope="session")
def codec(vocabulary, text_tokenizer):
    """A `Codec` for pictures of 16 codes."""
    from cm3leon.tokens.codec import Codec

    return Codec(vocabulary, text_tokenizer, 16)


@pytest.fixture
def tokenizers(tmp_path, text_tokenizer):
    """A folder with a text tokenizer and an untrained tiny image tokenizer."""
    import torch

    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.images.vqgan import VQGAN, preset

    folder = tmp_path / "tokenizers"
    folder.mkdir()
    text_tokenizer.save(folder / "text_tokenizer.json")
    torch.manual_seed(0)
    ImageTokenizer(VQGAN(preset("tiny"))).save(folder / "image_tokenizer")
    return folder


@pytest.fixture(scope="session")
def noise_pictures():
    """Makes a folder of pictures of noise, one of them cut short, with their rows."""
    import json

    import numpy as np
    from PIL import Image

    def make(folder, rows, *, cut, side=16):
        folder.mkdir()
        random = np.random.default_rng(0)
        lines = []
        for number, row in enumerate(rows):
            path = folder / f"{number}.png"
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            lines.append(json.dumps({"file_name": path.name} | row) + "\n")
        short = folder / f"{cut}.png"
        short.write_bytes(short.read_bytes()[:100])
        (folder / "metadata.jsonl").write_text("".join(lines))
        return folder

    return make


PUBLIC_CODES = 64  # image codes of the public models below


@pytest.fixture(scope="session")
def public_words(text_tokenizer):
    """A `tokenizer.json` as Chameleon's: specials and codes before the words."""
    import json

    specials = ("<s>", "<pad>", "</s>", "<unk>")
    letters = [str(code) for code in range(PUBLIC_CODES)]
    codes = [f"IMGIMG{''.join(chr(65 + int(x)) for x in n)}Z" for n in letters]
    names = [*specials, *codes, "<eoss>", "<racm3:break>", "<reserved08706>", "<image>"]
    table = json.loads(text_tokenizer._tokenizer.to_str())
    words = sorted(table["model"]["vocab"], key=table["model"]["vocab"].get)
    table["model"]["vocab"] = {name: id for id, name in enumerate([*names, *words])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    table["added_tokens"] = [
        {"id": names.index(name), "content": name, "special": True, **flags}
        for name in (*specials, "<racm3:break>", "<eoss>", "<image>")
    ]
    isolated = {"behavior": "Isolated", "invert": False}
    patterns = ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z")
    patterns += ("([\t\n]|    |  )",)
    table["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            *({"type": "Split", "pattern": {"Regex": x}, **isolated} for x in patterns),
            {"type": "Digits", "individual_digits": True},
            {"type": "Punctuation", "behavior": "Isolated"},
            table["pre_tokenizer"],
        ],
    }
    return table


@pytest.fixture(scope="session")
def public_tokenizer(tmp_path_factory, public_words):
    """Meta's folder `tokenizer`: words, and a VQGAN with its decoder."""
    import json

    import torch
    import yaml

    from cm3leon.images import checkpoint
    from cm3leon.images.vqgan import VQGAN

    folder = tmp_path_factory.mktemp("public") / "tokenizer"
    folder.mkdir()
    (folder / "text_tokenizer.json").write_text(json.dumps(public_words))
    shape = {"ch": 128, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "z_channels": 16}
    shape |= {"resolution": 16, "attn_resolutions": [], "double_z": False}
    params = {"embed_dim": 8, "n_embed": PUBLIC_CODES, "ddconfig": shape}
    settings = {"model": {"params": params}}
    (folder / "vqgan.yaml").write_text(yaml.safe_dump(settings))
    config = checkpoint.settings_from_taming(settings, "x")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vqgan = VQGAN(config)
    vqgan.quantizer.codebook.data.normal_(
        std=0.3, generator=torch.Generator().manual_seed(4)
    )
    tensors = checkpoint.to_taming(vqgan.state_dict(), config)
    torch.save({"state_dict": tensors}, folder / "vqgan.ckpt")
    return folder


@pytest.fixture(scope="session")
def public_model():
    """A tiny `Chameleon` in which every weight matters, in bf16's numbers."""
    import torch

    from cm3leon.model.chameleon import Chameleon, ChameleonConfig

    config = ChameleonConfig(
        vocabulary_size=352,  # some rows more than there are tokens
        context=4096,
        width=64,
        layers=2,
        heads=4,
        key_heads=2,
        inner=48,
        norm_after=True,
    )
    model = Chameleon(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.normal_(std=0.2, generator=generator)
    for block in model.blocks:
        for norm in (block.q_norm, block.k_norm):
            for weight in (norm.weight, norm.bias):
                weight.copy_(weight[:1].expand_as(weight))  # as if of one rank
    return model.bfloat16().float()


@pytest.fixture(scope="session")
def public_meta(tmp_path_factory, public_model, public_tokenizer):
    """Makes a model folder of Meta's layout in that many files."""
    import json
    import shutil

    import torch

    from cm3leon.model.chameleon_checkpoint import to_meta

    def make(ranks=2):
        root = tmp_path_factory.mktemp("meta")
        folder = root / "models/tiny"
        folder.mkdir(parents=True)
        shutil.copytree(public_tokenizer, root / "tokenizer")
        config = public_model.config
        shape = {"dim": config.width, "n_layers": config.layers, "norm_eps": 1e-5}
        shape |= {"n_heads": config.heads, "n_kv_heads": config.key_heads}
        shape |= {"swin_norm": True, "qk_normalization": True, "rope_theta": 10000.0}
        params = {"model": shape, "model_parallel_size": 7}
        (folder / "params.json").write_text(json.dumps(params))
        above = {"model_parallel_size": ranks}
        (folder / "consolidate_params.json").write_text(json.dumps(above))
        shards = to_meta(public_model.state_dict(), config, ranks)
        for rank, shard in enumerate(shards):
            halves = {name: tensor.bfloat16() for name, tensor in shard.items()}
            halves["rope.freqs"] = torch.zeros(8)
            name = "" if ranks == 1 else f".{rank:02}"
            torch.save(halves, folder / f"consolidated{name}.pth")
        return folder

    return make


@pytest.fixture(scope="session")
def public_transformers(tmp_path_factory, public_model, public_tokenizer, public_words):
    """Makes a model folder as transformers saves one, in several files."""
    import json

    import torch
    import transformers

    from cm3leon import weight_files
    from cm3leon.model import chameleon_checkpoint

    def make():
        folder = tmp_path_factory.mktemp("transformers") / "tiny"
        pictures = {"base_channels": 128, "channel_multiplier": [1, 1, 2]}
        pictures |= {"num_res_blocks": 1, "latent_channels": 16, "resolution": 16}
        pictures |= {"embed_dim": 8, "num_embeddings": PUBLIC_CODES}
        config = transformers.ChameleonConfig(
            **chameleon_checkpoint.settings_to_transformers(public_model.config),
            vq_config=pictures,
            vocabulary_map=public_words["model"]["vocab"],
        )
        theirs = transformers.ChameleonForConditionalGeneration(config)
        tensors = chameleon_checkpoint.to_transformers(public_model.state_dict())
        half = weight_files.load(public_tokenizer / "vqgan.ckpt")
        for name, tensor in half.items():
            if not name.startswith("decoder."):
                tensors[f"model.vqmodel.{name}"] = tensor
        theirs.load_state_dict(tensors)
        theirs.to(torch.bfloat16).save_pretrained(folder, max_shard_size="3MB")
        (folder / "tokenizer.json").write_text(json.dumps(public_words))
        return folder

    return make
