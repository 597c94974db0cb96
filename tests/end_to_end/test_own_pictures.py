"""A user's own pictures in a memory bank, without training: `cm3leon memory add`."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.cli.main import main

PROMPT = "a zorbit"
PURPLE = (128, 32, 192)


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures of something in no corpus: a purple thing with a yellow eye."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(20):
        image = Image.new("RGB", (128, 128), "white")
        right, bottom = random.integers(90, 120, 2).tolist()
        pen = ImageDraw.Draw(image)
        shade = tuple(map(int, random.integers(-20, 20, 3) + PURPLE))
        draw = (pen.rectangle, pen.ellipse)[number % 2]
        draw((12, 12, right, bottom), fill=shade)
        pen.ellipse((38, 38, 70, 70), fill=(250, 220, 40))
        name = f"zorbit-{number:02d}.png"
        image.save(tmp_path / name)
        text = f"a {('square', 'round')[number % 2]} zorbit, number {number}"
        lines.append({"file_name": name, "text": text, "author": "A. Zorbiter"})
    rows = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(rows)
    return tmp_path


def purple(path):
    red, green, blue = np.moveaxis(np.asarray(Image.open(path)).astype(int), -1, 0)
    return ((blue > 120) & (blue - green > 50) & (red - green > 20)).mean()


def test_own_pictures_change_what_is_drawn_and_are_cited(
    folder, tmp_path_factory, capsys
):
    place = tmp_path_factory.mktemp("own")
    bank = place / "bank"
    main(["memory", "add", str(bank), str(folder)])
    assert "added 20 documents" in capsys.readouterr().out
    shares = {}
    for name, more in (("own", ["--memory", str(bank)]), ("shipped", [])):
        words = ["--seed", "0", "--count", "4", "--out", str(place / name), "--json"]
        main(["generate", PROMPT, *words, *more])
        drawn = json.loads(capsys.readouterr().out)
        authors = {one["author"] for each in drawn for one in each["attribution"]}
        assert ("A. Zorbiter" in authors) == (name == "own")
        shares[name] = [purple(one["path"]) for one in drawn]
    assert max(shares["shipped"]) < 0.02
    assert sum(share > 0.1 for share in shares["own"]) >= 3


def test_a_bank_may_begin_with_what_the_model_has(folder, tmp_path, capsys):
    bank = tmp_path / "bank"
    main(["memory", "add", str(bank), str(folder), "--with-own"])
    assert "added 20 documents" in capsys.readouterr().out
    main(["memory", "info", str(bank), "--json"])
    assert json.loads(capsys.readouterr().out)["documents"] > 30_000
