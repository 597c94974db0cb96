"""Settings: frozen dataclasses <- TOML <- `key=value`.

The owner of a part defines its own dataclass, a run's settings nest them, and here
they are filled: defaults, replaced by a TOML file, replaced by overrides such as
`optimizer.learning_rate=1e-3`. Types are taken at their word (`true` is no number,
`1.0` no whole number); pydantic does that part of the work.

TOML has no null: the word "none" stands for `None` wherever a field allows `None`.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tomli_w
from pydantic import TypeAdapter, ValidationError

from cm3leon.errors import ConfigError

Settings = TypeVar("Settings")
Table = dict[str, Any]

NONE = "none"


def load_settings(
    cls: type[Settings], path: str | Path | None, overrides: Iterable[str] = ()
) -> Settings:
    """The settings in `path` with `overrides` on top.

    Args:
        cls: a dataclass; its fields may be dataclasses, tuples, `Literal`, `None`.
        path: a TOML file; None starts from the defaults.
        overrides: `key=value` words. A value is read as TOML if that fits the field
            (`steps=50`, `sizes=[1, 2]`) and as plain text otherwise (`name=first`).

    Raises:
        ConfigError: a key is unknown (the nearest is named), a value has the wrong
            type, a setting without a default is missing, or `path` is not TOML.
    """
    table = _read(Path(path)) if path is not None else {}
    for override in overrides:
        key, equals, word = override.partition("=")
        if not equals:
            raise ConfigError(f'override "{override}" is not key=value, like steps=50')
        _put(table, key.split("."), _value(_hint(cls, key), word))
    settings: Settings = _fill(cls, _restore_none(cls, table))
    return settings


def dump_settings(settings: object) -> str:
    """`settings` as TOML text that `load_settings` reads back as the same object.

    Raises:
        ConfigError: TOML cannot carry them, as with the text "none" in a field that
            may be `None`.
    """
    cls = type(settings)
    table = TypeAdapter(cls).dump_python(settings, mode="json", warnings=False)
    text = tomli_w.dumps(_spell_none(table))
    again = _fill(cls, _restore_none(cls, tomllib.loads(text)))
    if again != settings and repr(again) != repr(settings):  # nan is not nan
        raise ConfigError(f"TOML cannot carry {settings!r}; it would read as {again!r}")
    return text


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _put(table: Table, names: Sequence[str], value: object) -> None:
    """Set `names` in `table`, making the tables on the way."""
    for name in names[:-1]:
        inner = table.get(name)
        table[name] = table = inner if isinstance(inner, dict) else {}
    table[names[-1]] = value


def _value(hint: object, word: str) -> object:
    """`word` as TOML if that fits `hint`, else as text if that does, else as TOML."""
    try:
        value = tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return word
    return word if not _fits(hint, value) and _fits(hint, word) else value


def _fits(hint: object, value: object) -> bool:
    try:
        _fill(hint, value)
    except ConfigError:
        return False
    return True


def _fill(hint: Any, value: object) -> Any:
    """`value`, as TOML gives it, as an object of type `hint`."""
    spelled = json.dumps(value, default=str)  # JSON has no tuples, so lists may be one
    try:
        return TypeAdapter(hint).validate_json(spelled, strict=True, extra="forbid")
    except ValidationError as error:
        raise ConfigError(_explain(hint, error)) from error


def _explain(hint: object, error: ValidationError) -> str:
    """The first thing wrong, in one line; a mistyped key before what it leaves out."""
    faults = error.errors(include_url=False)
    fault = min(
        faults, key=lambda fault: fault["type"] != "unexpected_keyword_argument"
    )
    key = ""
    for part in fault["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    key = key.removeprefix(".")
    match fault["type"]:
        case "unexpected_keyword_argument":
            return _unknown(hint, key)
        case "missing":
            return f"setting {key} is missing and has no default; give {key}=..."
    shown = json.dumps(fault["input"], default=str)
    said = fault["msg"].replace("Input should be ", "expected ")
    return f"setting {key} is {shown[:80]}, {said[:1].lower()}{said[1:]}"


def _unknown(cls: object, key: str) -> str:
    known = _keys(cls)
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    near = difflib.get_close_matches(key, same, n=1, cutoff=0)
    near = near or difflib.get_close_matches(key, known, n=1)
    way = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown setting {key}; {way}"


def _keys(cls: object) -> list[str]:
    """All dotted keys of `cls`, each table before what it holds."""
    keys: list[str] = []
    if cls is None:
        return keys
    for name, hint in get_type_hints(cls).items():
        inner = _dataclass(hint)
        keys += [name, *(f"{name}.{key}" for key in _keys(inner))]
    return keys


def _hint(cls: type, key: str) -> Any:
    """The type of the field `key` names; `Any` below what is no dataclass."""
    hint: Any = cls
    for name in key.split("."):
        inner = _dataclass(hint)
        if inner is None:
            return Any
        hints = get_type_hints(inner)
        if name not in hints:
            raise ConfigError(_unknown(cls, key))
        hint = hints[name]
    return hint


def _dataclass(hint: object) -> type | None:
    """The dataclass in `hint`, be it alone or in a union with `None`."""
    for choice in (hint, *get_args(hint)):
        if isinstance(choice, type) and is_dataclass(choice):
            return choice
    return None


def _spell_none(value: object) -> Any:
    if isinstance(value, dict):
        return {name: _spell_none(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_spell_none(inner) for inner in value]
    return NONE if value is None else value


def _restore_none(cls: type, table: Table) -> Table:
    """`table` with `None` for the word "none" in fields that may be `None`."""
    hints = get_type_hints(cls)
    restored = dict(table)
    for name, value in table.items():
        inner = _dataclass(hints.get(name))
        if value == NONE and name in hints and _fits(hints[name], None):
            restored[name] = None
        elif isinstance(value, dict) and inner:
            restored[name] = _restore_none(inner, value)
    return restored
