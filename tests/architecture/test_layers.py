import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_folder_imports_only_folders_below_it():
    command = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    )
    said = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT
    )
    assert said.returncode == 0, said.stdout + said.stderr
