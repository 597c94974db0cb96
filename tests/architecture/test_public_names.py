import re
import subprocess
import sys
from pathlib import Path

import pytest

import cm3leon

ROOT = Path(__file__).parents[2]
LISTED = re.findall(r"^- `(\w+)`", (ROOT / "docs/api.md").read_text("utf-8"), re.M)

LOOK = """
import sys
import cm3leon
cm3leon.Cm3leonError
assert "torch" not in sys.modules, "torch was imported"
"""


def test_the_public_names_are_those_of_the_docs():
    assert sorted(LISTED) == sorted(cm3leon.__all__)
    assert set(LISTED) <= set(dir(cm3leon))


@pytest.mark.parametrize("name", cm3leon.__all__)
def test_each_public_name_is_there(name):
    assert getattr(cm3leon, name) is getattr(cm3leon, name)


def test_any_other_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Docment'"):
        cm3leon.Docment  # noqa: B018


def test_importing_writes_nothing_says_nothing_and_leaves_torch_alone(tmp_path):
    said = subprocess.run(
        [sys.executable, "-B", "-c", LOOK],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
