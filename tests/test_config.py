import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm3leon.config import dump_settings, load_settings
from cm3leon.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    decay: Literal["cosine", "linear", "none"] = "cosine"

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}, not above 0")


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str = "first"
    steps: int = 10
    seed: int | None = 0
    note: str | None = None
    bf16: bool = False
    sizes: tuple[int, ...] = ()
    shards: Path = Path("shards")
    mixture: dict[str, float] = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)
    warm_start: Optimizer | None = None


@dataclass(frozen=True, kw_only=True)
class Needy:
    steps: int


def write(folder, text):
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def message(*overrides, cls=Run, path=None):
    with pytest.raises(ConfigError) as error:
        load_settings(cls, path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


numbers = st.floats(allow_nan=False)
optimizers = st.builds(
    Optimizer,
    learning_rate=st.floats(min_value=0, exclude_min=True),
    warmup_steps=st.integers(-(2**63), 2**63 - 1),
    betas=st.tuples(numbers, numbers),
    decay=st.sampled_from(["cosine", "linear", "none"]),
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
runs = st.builds(
    Run,
    name=texts,
    steps=st.integers(-(2**63), 2**63 - 1),
    seed=st.none() | st.integers(0, 2**63 - 1),
    note=st.none() | texts.filter(lambda text: text != "none"),
    bf16=st.booleans(),
    sizes=st.lists(st.integers(-9, 9)).map(tuple),
    shards=st.sampled_from([Path("a"), Path("/b/c d")]),
    mixture=st.dictionaries(texts, numbers, max_size=3),
    optimizer=optimizers,
    warm_start=st.none() | optimizers,
)


@given(settings=runs)
def test_what_is_dumped_loads_as_the_same_settings(settings, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("dumped"), dump_settings(settings))
    assert load_settings(Run, path) == settings


def test_dumping_names_every_setting():
    table = tomllib.loads(dump_settings(Run()))
    assert table["seed"] == 0
    assert table["note"] == "none"
    assert table["optimizer"]["betas"] == [0.9, 0.95]


def test_what_toml_cannot_carry_is_not_dumped():
    with pytest.raises(ConfigError, match="TOML cannot carry"):
        dump_settings(Run(note="none"))


def test_nothing_given_means_the_defaults():
    assert load_settings(Run, None) == Run()


def test_the_file_replaces_defaults_and_overrides_replace_the_file(tmp_path):
    path = write(tmp_path, "steps = 20\nbf16 = true\n[optimizer]\nwarmup_steps = 5\n")
    overrides = ["steps=30", "optimizer.learning_rate=1e-4"]
    assert load_settings(Run, path, overrides) == Run(
        steps=30, bf16=True, optimizer=Optimizer(learning_rate=1e-4, warmup_steps=5)
    )


def test_the_last_override_wins():
    assert load_settings(Run, None, ["steps=1", "steps=2"]).steps == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=second", Run(name="second")),
        ('name="second"', Run(name="second")),
        ("name=7", Run(name="7")),
        ("name=a=b", Run(name="a=b")),
        ("name=", Run(name="")),
        ("name=none", Run(name="none")),
        ("seed=none", Run(seed=None)),
        ("note=true", Run(note="true")),
        ("note=none", Run(note=None)),
        ("bf16=true", Run(bf16=True)),
        ("sizes=[1, 2]", Run(sizes=(1, 2))),
        ("sizes=[]", Run(sizes=())),
        ("shards=a/b", Run(shards=Path("a/b"))),
        ("mixture.web=1", Run(mixture={"web": 1.0})),
        ("optimizer.learning_rate=1", Run(optimizer=Optimizer(learning_rate=1.0))),
        ("optimizer.betas=[0.5, 1]", Run(optimizer=Optimizer(betas=(0.5, 1.0)))),
        ("optimizer.decay=none", Run(optimizer=Optimizer(decay="none"))),
        ("optimizer={warmup_steps=1}", Run(optimizer=Optimizer(warmup_steps=1))),
        ("warm_start.warmup_steps=1", Run(warm_start=Optimizer(warmup_steps=1))),
        ("warm_start=none", Run()),
    ],
)
def test_an_override_is_read_as_its_field_wants_it(override, expected):
    assert load_settings(Run, None, [override]) == expected


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("step=3", "steps"),
        ("optimizer.learning_rat=1", "optimizer.learning_rate"),
        ("learning_rate=1", "optimizer.learning_rate"),
        ("warm_start.beta=1", "warm_start.betas"),
    ],
)
def test_an_unknown_key_names_the_nearest(override, nearest, tmp_path):
    key, _, value = override.partition("=")
    expected = f"unknown setting {key}; did you mean {nearest}?"
    assert message(override) == expected
    assert message(path=write(tmp_path, f"{key} = {value}")) == expected


def test_an_unknown_table_names_the_nearest(tmp_path):
    said = message("optimiser.warmup_steps=1")
    assert said.endswith("did you mean optimizer.warmup_steps?")
    said = message(path=write(tmp_path, "[optimiser]\nwarmup_steps = 1"))
    assert said.endswith("did you mean optimizer?")


def test_an_unknown_key_like_no_other_lists_them_all():
    said = message("zzz=3", cls=Optimizer)
    assert said.endswith("known are learning_rate, warmup_steps, betas, decay")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=many", 'setting steps is "many", expected a valid integer'),
        ("steps=1.0", "setting steps is 1.0, expected a valid integer"),
        ("steps=true", "setting steps is true, expected a valid integer"),
        ("steps=none", 'setting steps is "none", expected a valid integer'),
        ("bf16=1", "setting bf16 is 1, expected a valid boolean"),
        ("sizes=[1, 'a']", 'setting sizes[1] is "a", expected a valid integer'),
        ("optimizer.betas=[1]", "setting optimizer.betas[1] is missing"),
        ("optimizer.betas=[1, 2, 3]", "setting optimizer.betas is [1, 2, 3], tuple"),
        ("optimizer.decay=up", "expected 'cosine', 'linear' or 'none'"),
        ("optimizer=3", "setting optimizer is 3, expected"),
        ("steps.more=3", 'setting steps is {"more": 3}, expected a valid integer'),
        ("optimizer.learning_rate=0", "learning_rate is 0.0, not above 0"),
        ("steps", 'override "steps" is not key=value, like steps=50'),
        ("=3", "unknown setting ; known are name"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(override, expected):
    assert expected in message(override)


def test_a_setting_without_default_must_be_given():
    assert "setting steps is missing" in message(cls=Needy)


def test_a_mistyped_key_is_named_before_the_one_it_leaves_out(tmp_path):
    said = message(cls=Needy, path=write(tmp_path, "stepz = 3"))
    assert said == "unknown setting stepz; did you mean steps?"


@pytest.mark.parametrize("content", [b"steps = ", b"steps = 1\nsteps = 2", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content, tmp_path):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    assert f"{path} is not TOML" in message(path=path)
