import re
from pathlib import Path

import pytest

from cm3leon.config import dump_settings, load_settings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "configs").is_dir(), reason="there are no configs yet"
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT))
def test_every_config_opens_with_its_command_and_loads(path, tmp_path):
    from cm3leon.cli.train import SETTINGS

    first = path.read_text(encoding="utf-8").partition("\n")[0]
    command = re.fullmatch(r"# (?:torchrun .*-m )?cm3leon train (\S+) (\S+).*", first)
    assert command, f"{first!r} is not '# [torchrun … -m] cm3leon train WHAT FILE'"
    what, file = command.groups()
    assert file == path.relative_to(ROOT).as_posix()
    settings = load_settings(SETTINGS[what], path)

    again = tmp_path / "settings.toml"
    again.write_text(dump_settings(settings), encoding="utf-8")
    assert load_settings(SETTINGS[what], again) == settings


def test_there_are_configs():
    assert CONFIGS
