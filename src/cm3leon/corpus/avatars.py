"""Avatars: people put together by DiceBear from hand-drawn parts that have names."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.avatar_labels import Traits, label_of
from cm3leon.corpus.drawing import draw_svg
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.errors import DataError

CORE = "@dicebear/core"
# How many of each; more can be had by raising a number, the first ones stay the same.
_COUNTS = {
    "personas": 700,
    "open-peeps": 700,
    "micah": 700,
    "big-smile": 500,
    "miniavs": 300,
}
_PROGRAM = """
import {createAvatar} from '@dicebear/core';
const [name, count] = process.argv.slice(2);
const style = await import('@dicebear/' + name);
for (let i = 0; i < Number(count); i++) {
  const avatar = createAvatar(style, {seed: name + '-' + i, size: 128});
  const traits = avatar.toJson().extra;
  process.stdout.write(JSON.stringify({svg: avatar.toString(), traits}) + '\\n');
}
"""


def draw_avatars(source: Source, archives: Archives) -> Iterator[Drawing]:
    """People of one style, every part of them drawn by lot from a fixed seed."""
    style = source.package.removeprefix("@dicebear/")
    for number, line in enumerate(_run(style, archives)):
        avatar = json.loads(line)
        facts = Facts(
            key=str(number),
            label=label_of(style, _traits(avatar["traits"])),
            style=source.style,
            licence=source.licence,
            author=source.author,
            keywords=("avatar", "portrait", "face", "character"),
            group="avatar",
            subgroup=style,
        )
        yield Drawing(draw_svg(avatar["svg"]), facts)


def _run(style: str, archives: Archives) -> list[str]:
    with archives.folder() as folder:
        for package in (CORE, f"@dicebear/{style}"):
            archives.extract(package, folder / "node_modules" / package)
        program = folder / "avatars.mjs"
        program.write_text(_PROGRAM, encoding="utf-8")
        return _node(program, style, str(_COUNTS[style]))


def _node(program: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["node", program.name, *arguments],
        cwd=program.parent,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split())[:300]
        raise DataError(
            f"node could not draw the avatars: {complaint}; "
            "it must be version 18 or later"
        )
    return done.stdout.splitlines()


def _traits(extra: dict[str, object]) -> Traits:
    """The traits that are a word or a colour; of a list of them the first."""
    traits = {}
    for name, value in extra.items():
        first = (value[0] if value else None) if isinstance(value, list) else value
        if isinstance(first, str):
            traits[name] = first
    return traits
