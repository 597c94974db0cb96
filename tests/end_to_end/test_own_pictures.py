"""A user's own pictures in a memory bank, without training: `cm3leon memory add`."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.cli.main import main

PROMPT = "a flat emoji of a zorbit"
PURPLE = (128, 32, 192)


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


def test_own_pictures_come_back_with_what_is_drawn(folder, tmp_path_factory, capsys):
    place = tmp_path_factory.mktemp("own")
    bank = place / "bank"
    main(["memory", "add", str(bank), str(folder)])
    assert "added 20 documents" in capsys.readouterr().out
    pictures = {}
    for name, more in (("own", ["--memory", str(bank)]), ("shipped", [])):
        words = ["--seed", "0", "--out", str(place / f"{name}.png"), "--json"]
        main(["generate", PROMPT, *words, *more])
        (drawn,) = json.loads(capsys.readouterr().out)
        authors = {one["author"] for one in drawn["attribution"]}
        assert ("A. Zorbiter" in authors) == (name == "own")
        pictures[name] = np.asarray(Image.open(drawn["path"]))
    assert not np.array_equal(pictures["own"], pictures["shipped"])
