"""A user's own pictures in a memory bank, without training: `cm3leon memory add`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.cli.main import main

PROMPT = "a flat emoji of a zorbit"
PURPLE = (128, 32, 192)
DRAWN = 6


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures of something in no corpus: a purple block with a yellow eye."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(20):
        image = Image.new("RGB", (128, 128), "white")
        left, top = random.integers(12, 24, 2).tolist()
        pen = ImageDraw.Draw(image)
        shade = tuple(np.clip(np.add(PURPLE, random.integers(-20, 20, 3)), 0, 255))
        pen.rectangle((left, top, left + 88, top + 88), fill=tuple(map(int, shade)))
        pen.ellipse((left + 28, top + 28, left + 60, top + 60), fill=(250, 220, 40))
        name = f"zorbit-{number:02d}.png"
        image.save(tmp_path / name)
        text = PROMPT if number % 2 else f"{PROMPT}, purple and yellow"
        lines.append({"file_name": name, "text": text, "author": "A. Zorbiter"})
    rows = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(rows)
    return tmp_path


def purple(path):
    """Which share of a picture is about as purple as ours."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.abs(pixels - PURPLE).max(-1) < 60).mean())


def test_own_pictures_change_what_is_drawn(folder, tmp_path_factory, capsys):
    place = tmp_path_factory.mktemp("own")
    bank = place / "bank"
    main(["memory", "add", str(bank), str(folder)])
    assert "added 20 documents" in capsys.readouterr().out
    shares = {}
    for name, more in (("own", ["--memory", str(bank)]), ("shipped", [])):
        words = ["--seed", "0", "--count", str(DRAWN), "--out", str(place / name)]
        main(["generate", PROMPT, *words, *more, "--json"])
        drawn = json.loads(capsys.readouterr().out)
        assert len(drawn) == DRAWN
        authors = [{x["author"] for x in one["attribution"]} for one in drawn]
        assert all(("A. Zorbiter" in one) == (name == "own") for one in authors)
        shares[name] = np.mean([purple(Path(one["path"])) for one in drawn])
    assert shares["own"] > shares["shipped"] + 0.1
