import json
import subprocess
import sys

import pytest

from cm3leon.cli.main import main

HELP = """
import sys
from cm3leon.cli.main import main
main(sys.argv[1:])
heavy = {"torch", "datasets", "numpy", "pyarrow"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4), "red").save(tmp_path / "good.png")
    (tmp_path / "good.txt").write_text("red")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "bad.txt").write_text("nothing")
    return tmp_path


@pytest.mark.parametrize("words", [["data"], ["data", "build"], ["data", "check"]])
def test_help_shows_examples_and_imports_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", HELP, *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if len(words) > 1:
        assert f"cm3leon {' '.join(words)}" in done.stdout


def test_check_counts_and_names(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "bad.png: unreadable picture: not a picture of a format we read" in out


def test_check_gives_json_for_programs(folder, capsys):
    assert main(["data", "check", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["total"], report["good"]) == (2, 1)
    assert report["problems"][0]["name"] == "bad.png"


def test_a_wrong_path_is_one_line(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_sources_lists_where_pictures_come_from(capsys):
    assert main(["data", "sources", "--style", "notice"]) == 0
    assert "@iconify-json/noto 1.2.9" in capsys.readouterr().out


def test_a_wrong_source_is_one_line(tmp_path, capsys):
    assert main(["data", "build", str(tmp_path), "--only", "notto"]) == 1
    assert capsys.readouterr().err == (
        "cm3leon: there is no source notto; did you mean noto?\n"
    )
