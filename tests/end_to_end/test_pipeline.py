"""From pictures on disk to a drawn picture, every step by its command."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.cli.main import main

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220)}

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(tmp_path):
    """Sixty discs and squares of three colours, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(60):
        colour = list(COLOURS)[number % 3]
        shape = ("disc", "square")[number % 2]
        image = Image.new("RGB", (32, 32), "white")
        left, top = random.integers(2, 8, 2).tolist()
        box = (left, top, left + 20, top + 20)
        draw = ImageDraw.Draw(image)
        (draw.ellipse if shape == "disc" else draw.rectangle)(box, COLOURS[colour])
        name = f"{number:02d}.png"
        image.save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": f"a {colour} {shape}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_every_command_of_the_pipeline_and_what_it_draws(
    pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    tokenizers, shards, run = tmp_path / "tok", tmp_path / "shards", tmp_path / "run"

    def cm3leon(*words):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert "60" in cm3leon("data", "check", pictures)
    cm3leon(
        *("train", "text-tokenizer", f"data={pictures}", f"run={tokenizers}"),
        "size=300",
    )
    cm3leon(
        *("train", "image-tokenizer", f"data={pictures}", f"run={tmp_path / 'vq'}"),
        *("preset=tiny", "validation_split=none", "steps=150", "batch=16"),
        *("quantise_from=20", "revive_every=20", "learning_rate=3e-3"),
    )
    (tmp_path / "vq" / "image_tokenizer").rename(tokenizers / "image_tokenizer")
    told = cm3leon("data", "shards", pictures, shards, "--tokenizers", tokenizers)
    assert "60 records" in told
    out = cm3leon(
        *("train", "pretrain", f"run={run}", f"tokenizers={tokenizers}"),
        *(f"stream.shards={shards}", "stream.isolate_documents=true"),
        *("stream.position_slot=32", "stream.rows=16", "model.preset=tiny"),
        *("optimizer.kind=muon", "optimizer.learning_rate=5e-3", "loop.steps=150"),
        *("optimizer.warmup_steps=10", "objective.whole_segment_share=0.5"),
    )
    model = run / "model"
    assert out.strip() == str(model)
    cm3leon("export", "--to", "transformers", tmp_path / "opt", "--model", model)

    drawn = {}
    for colour in COLOURS:
        path = tmp_path / f"{colour}.png"
        cm3leon(
            *("generate", f"a {colour} square", "--model", model),
            *("--out", path, "--seed", "0", "--size", "16", "--guidance-scale", "2"),
        )
        pixels = np.asarray(Image.open(path)).astype(int)
        drawn[colour] = pixels[pixels.min(-1) < 200].mean(0)
    for index, colour in enumerate(COLOURS):
        assert drawn[colour].argmax() == index, drawn
    assert cm3leon("caption", pictures / "00.png", "--model", model).strip()
