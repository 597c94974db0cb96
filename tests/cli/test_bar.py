import re
from contextlib import contextmanager

import pytest
from PIL import Image

from cm3leon.cli.bar import bar


@pytest.fixture
def terminal(monkeypatch):
    """As if somebody looked at stderr."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def speeds(shown):
    """What is shown as codes a second, the first to the last."""
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    return [float(x.replace(",", "")) for x in re.findall(r"([\d,.]+) codes/s", plain)]


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("generate", ()),
        ("infill", ("--box", "0,0,1,0.5")),
        ("edit", ()),
        ("vary", ()),
    ],
)
def test_drawing_tells_codes_per_second(call, terminal, verb, more):
    Image.new("RGB", (16, 16), "red").save("red.png")
    first = () if verb == "generate" else ("red.png",)
    code, _, err = call(verb, *first, "a red square", *more, "--out", "new.png")
    assert (code, "drawing" in err) == (0, True)
    assert speeds(err)[-1] > 0


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (("generate", "b", "c", "--count", 2), 64),
        (("infill", "red.png", "b", "--box", "0,0,1,0.5", "--count", 3), 24),
    ],
)
def test_what_is_counted_are_the_codes_drawn(call, monkeypatch, words, codes):
    Image.new("RGB", (16, 16), "red").save("red.png")
    counted = []

    @contextmanager
    def counting(what, total, unit):
        with bar(what, total, unit):
            yield lambda done: counted.append((done, total))

    monkeypatch.setattr("cm3leon.cli.bar.bar", counting)
    assert call(*words)[0] == 0
    assert counted[-1] == (codes, codes)
    assert [done for done, _ in counted] == sorted(done for done, _ in counted)


def test_only_what_has_a_unit_has_a_speed(terminal, capsys):
    for unit in ("codes", None):
        with bar("working", 1_000_000, unit) as advance:
            advance(1)
            advance(500_000)
        shown = capsys.readouterr().err
        assert "working" in shown
        assert bool(speeds(shown)) == (unit is not None)


def test_nothing_is_shown_where_nobody_looks(capsys):
    with bar("working", 2, "codes") as advance:
        advance(1)
        advance(2)
    assert capsys.readouterr() == ("", "")
