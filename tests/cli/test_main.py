import errno
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from cyclopts import App

import cm3leon
from cm3leon.cli import main as cli
from cm3leon.errors import CheckpointError, Cm3leonError, RequestError

ROOT = Path(__file__).parents[2]
MODULES = {"faiss_cpu": "faiss", "python_debian": "debian", "scikit_image": "skimage"}
SILENT = """
import sys
from cm3leon.cli.main import EXTRAS, main
code = main(sys.argv[1:])
for module in ("torch", *EXTRAS):
    assert module not in sys.modules, f"{module} was imported"
sys.exit(code)
"""


def run(*words, code=SILENT):
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True
    )


@pytest.fixture
def verb(monkeypatch):
    """Make `cm3leon fail` do what the test wants."""

    def install(act):
        module = ModuleType("verb_of_a_test")
        module.act = act
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.VERBS, "fail", (f"{module.__name__}:act", "Fail."))

    return install


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_names_every_verb_and_leaves_torch_alone(words):
    said = run(*words)
    assert said.returncode == 0, said.stderr
    for verb, (_, line) in cli.VERBS.items():
        assert verb in said.stdout
        assert line in said.stdout


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_exists(verb):
    module, _, name = cli.VERBS[verb][0].partition(":")
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_each_verb_shows_examples_and_leaves_torch_alone(verb):
    module, _, name = cli.VERBS[verb][0].partition(":")
    if find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    target = getattr(import_module(module), name)
    verbs = list(target) if isinstance(target, App) else []
    ways = [(verb, inner) for inner in verbs if not inner.startswith("-")] or [(verb,)]
    for words in ways:
        said = run(*words, "--help")
        assert said.returncode == 0, said.stderr
        usage, _, rest = said.stdout.partition("\n")
        assert f"cm3leon {' '.join(words)} " in rest, f"no example after {usage}"
    if ways != [(verb,)]:
        assert run(verb, "--help").returncode == 0


def test_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == cm3leon.__version__


def test_python_dash_m_is_the_same_command():
    said = subprocess.run(
        [sys.executable, "-m", "cm3leon", "--version"], capture_output=True, text=True
    )
    assert said.stdout.strip() == cm3leon.__version__


@pytest.mark.parametrize("words", [["fial"], ["fail", "--prompt", "x"], ["fail", "x"]])
def test_wrong_usage_is_one_line_and_code_2(words, verb, capsys):
    verb(lambda: None)
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cm3leon: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Cm3leonError("steps is 0"), "steps is 0"),
        (RequestError("a prompt\nof two lines"), "a prompt of two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "a.png: No such"),
        (OSError("cannot identify image file"), "cannot identify image file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            "the disk is full at x",
        ),
        (RuntimeError("I/O error: No space left on device"), "the disk is full; free"),
        (ModuleNotFoundError(name="resvg_py"), "pip install 'cm3leon[data]'"),
        (ModuleNotFoundError(name="ray"), "pip install 'cm3leon[ray]'"),
    ],
)
def test_an_error_is_one_line_and_code_1(error, line, verb, capsys):
    verb(raising(error))
    assert cli.main(["fail"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("cm3leon: ")
    assert line in said
    assert said.count("\n") == 1


def test_a_full_disk_is_named_whatever_was_raised_on_top_of_it(verb, capsys):
    def act():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("the archive could not be closed")

    verb(act)
    assert cli.main(["fail"]) == 1
    assert "the disk is full" in capsys.readouterr().err


def test_our_own_words_come_before_the_cause(verb, capsys):
    def act():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise CheckpointError("step 20 was not saved; step 10 is whole") from error

    verb(act)
    assert cli.main(["fail"]) == 1
    assert "step 10 is whole" in capsys.readouterr().err


def test_ctrl_c_is_code_130(verb, capsys):
    verb(raising(KeyboardInterrupt()))
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr().err == "cm3leon: stopped\n"


def test_a_bug_of_ours_keeps_its_traceback(verb):
    verb(raising(AssertionError("must not be")))
    with pytest.raises(AssertionError):
        cli.main(["fail"])


def test_a_reader_that_stops_early_is_no_error():
    code = """
import sys, types
from cm3leon.cli import main as cli
module = types.ModuleType("talk")
module.act = lambda: print("word\\n" * 100_000)
sys.modules["talk"] = module
cli.VERBS["talk"] = ("talk:act", "Talk.")
sys.exit(cli.main(["talk"]))
"""
    command = f"\"{sys.executable}\" -c '{code}' | head -1"
    said = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("word\n", "")


def test_every_module_of_an_extra_is_known():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for extra in ("data", "training", "evaluation", "ray", "upscale"):
        for wanted in extras[extra]:
            name = re.split(r"[>\[]", wanted)[0].replace("-", "_")
            module = MODULES.get(name, name)
            assert wanted in extras[cli.EXTRAS[module]]
