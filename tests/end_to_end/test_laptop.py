"""From pictures on disk to a drawn picture, every step by its command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.cli.main import main

ROOT = Path(__file__).parents[2]
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220)}
SIZES = {
    "SOURCES": "",
    "PRESET": "tiny",
    "PROMPT": "a red square",
    "TEXT_IDS": "300",
    "IMAGE_STEPS": "150",
    "ENCODER_STEPS": "30",
    "ENCODER_BATCH": "16",
    "STEPS": "160",
    "ROWS": "16",
    "MATCHED": "16",
}

pytestmark = pytest.mark.slow


def draw(folder, count):
    """Discs and squares of three colours, with captions."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    lines = []
    for number in range(count):
        colour = list(COLOURS)[number % 3]
        shape = ("disc", "square")[number % 2]
        image = Image.new("RGB", (32, 32), "white")
        left, top = random.integers(2, 8, 2).tolist()
        box = (left, top, left + 20, top + 20)
        pen = ImageDraw.Draw(image)
        (pen.ellipse if shape == "disc" else pen.rectangle)(box, COLOURS[colour])
        name = f"{number:02d}.png"
        image.save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": f"a {colour} {shape}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """A folder in which runs/laptop.sh has run, in its smallest size, and its words."""
    work = tmp_path_factory.mktemp("laptop")
    draw(work / "corpus/train", 60)
    for split in ("val_concept", "test_style", "test_concept"):
        draw(work / "corpus" / split, 17)
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "runs/laptop.sh"],
        cwd=ROOT,
        env={**os.environ, **SIZES, "WORK": str(work), "PATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return work, done.stdout


def test_every_stage_left_what_the_next_one_needs(laptop):
    work, said = laptop
    assert f"{work}/shards/train: 60 records" in said
    assert "60 documents" in said
    with Image.open(work / "drawn.png") as drawn:
        assert drawn.size[0] >= 16
    rows = (work / "run/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == sorted(steps)
    assert steps[-1] == int(SIZES["STEPS"])


def test_the_training_was_stopped_and_went_on(laptop):
    work, said = laptop
    first = int(SIZES["STEPS"]) // 4
    kept = sorted(int(path.name) for path in (work / "run/checkpoints").iterdir())
    assert kept[-1] == int(SIZES["STEPS"])
    assert first not in kept  # swept by those that followed
    assert said.count(f"{work}/run/model") == 1  # the first call did not get there


def test_the_model_has_learnt_more_than_how_frequent_a_code_is(laptop):
    _, said = laptop
    _, entropy = said.rpartition("unigram entropy of the train codes: ")[::2]
    entropy = float(entropy.split()[0])
    rows = [line.split(" | ") for line in said.splitlines() if "| test_" in line]
    assert len(rows) == 4  # two splits, without and with neighbours
    assert all(float(row[3]) < entropy for row in rows)


def test_what_is_drawn_has_the_colour_of_its_words(laptop, tmp_path, capsys):
    model = laptop[0] / "run/model"
    for index, colour in enumerate(COLOURS):
        path = tmp_path / f"{colour}.png"
        words = ["--seed", "0", "--size", "16", "--guidance-scale", "2"]
        words += ["--neighbours", "0", "--model", str(model), "--out", str(path)]
        assert main(["generate", f"a {colour} square", *words]) == 0
        pixels = np.asarray(Image.open(path)).astype(int)
        assert pixels[pixels.min(-1) < 200].mean(0).argmax() == index
    capsys.readouterr()
    picture = str(laptop[0] / "corpus/train/00.png")
    assert main(["caption", picture, "--model", str(model)]) == 0
    assert capsys.readouterr().out.strip()


def test_other_programs_get_it(laptop, tmp_path):
    out = str(tmp_path / "opt")
    words = ["--to", "transformers", out, "--model", str(laptop[0] / "run/model")]
    assert main(["export", *words]) == 0
    assert (tmp_path / "opt/config.json").exists()
