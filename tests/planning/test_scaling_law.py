import json

import numpy as np
import pytest

from cm3leon.config import dump_settings
from cm3leon.data.stream import StreamConfig
from cm3leon.errors import DataError
from cm3leon.planning.scaling_law import (
    Point,
    ScalingLaw,
    fit,
    frontier,
    plot,
    read_point,
)
from cm3leon.training.loop import LoopConfig
from cm3leon.training.metrics import metrics
from cm3leon.training.pretrain import ModelConfig, Pretrain

LOSS = "validation/image"


def points(law, spread=0.0):
    flops = np.geomspace(1e14, 1e18, 7)
    random = np.random.default_rng(0)
    noise = spread * random.normal(size=len(flops))
    return [
        Point(run=f"run-{number}", flops=spent, loss=law.loss(spent) + noise[number])
        for number, spent in enumerate(map(float, flops))
    ]


def law_of(floor, exponent):
    scale = 1.5 * 1e15**exponent
    return ScalingLaw(floor=floor, scale=scale, exponent=exponent, error=0.0)


@pytest.mark.parametrize("floor", [0.0, 2.5])
@pytest.mark.parametrize("exponent", [0.05, 0.3, 1.0])
def test_a_law_is_found_again_from_its_points(floor, exponent):
    law = law_of(floor, exponent)
    found = fit(points(law))
    assert found.exponent == pytest.approx(exponent, rel=0.01)
    assert found.floor == pytest.approx(floor, abs=0.05)
    assert found.loss(1e20) == pytest.approx(law.loss(1e20), abs=0.02)
    assert found.error < 1e-3


def test_noise_moves_it_little():
    law = law_of(2.5, 0.3)
    found = fit(points(law, spread=0.01))
    assert found.loss(1e19) == pytest.approx(law.loss(1e19), abs=0.05)
    assert found.error < 0.02


def test_runs_that_a_cheaper_one_beats_do_not_count():
    good = points(law_of(2.5, 0.3))
    bad = [Point(run="bad", flops=p.flops * 1.1, loss=p.loss + 0.2) for p in good]
    assert frontier([*bad, *good]) == good


def test_too_few_runs_are_refused():
    with pytest.raises(DataError, match=r"needs 4 runs .* here are 3"):
        fit(points(law_of(2.5, 0.3))[:3])


def test_what_is_no_power_law_is_refused():
    cliff = [3.0, 1.0, 0.999999, 0.999998]
    made = [Point(run="", flops=10.0**n, loss=loss) for n, loss in enumerate(cliff)]
    with pytest.raises(DataError, match="no power law"):
        fit(made)


def write(run, *records, **changes):
    """A run of 40 steps by its settings."""
    run.mkdir()
    settings = Pretrain(
        run=str(run),
        tokenizers="tokenizers",
        stream=StreamConfig(shards="shards"),
        model=ModelConfig(**changes),
        loop=LoopConfig(steps=40),
    )
    (run / "settings.toml").write_text(dump_settings(settings))
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run / "metrics.jsonl").write_text(text)
    return run


def test_a_point_is_the_sum_of_flops_and_the_last_finite_loss(tmp_path):
    run = write(
        tmp_path / "a",
        {"step": 10, "flops": 1e9, LOSS: 5.0},
        {"step": 20, "flops": 1e9, LOSS: 4.0},
        {"step": 40, "flops": 1e9, LOSS: float("nan")},
    )
    assert read_point(run, LOSS) == Point(run="a", flops=3e9, loss=4.0)


def test_what_a_training_writes_is_read(tmp_path):
    write(tmp_path / "a")
    with metrics(tmp_path / "a", steps=40, done=0) as numbers:
        for step in (20, 40):
            numbers.report(step, {"flops": 1e9, LOSS: 80.0 - step}, "")
    assert read_point(tmp_path / "a", LOSS) == Point(run="a", flops=2e9, loss=40.0)


def test_steps_made_twice_after_a_kill_count_once(tmp_path):
    steps = [10, 20, 30, 20, 30, 40]
    records = [{"step": step, "flops": 1e9, LOSS: 90.0 - step} for step in steps]
    found = read_point(write(tmp_path / "a", *records), LOSS)
    assert found == Point(run="a", flops=4e9, loss=50.0)


def test_folders_without_such_a_loss_do_not_count(tmp_path):
    assert read_point(tmp_path, LOSS) == f"no {LOSS}"
    run = write(tmp_path / "a", {"step": 40, "flops": 1.0})
    assert read_point(run, LOSS) == f"no {LOSS}"


def test_runs_that_are_not_at_their_last_step_do_not_count(tmp_path):
    run = write(tmp_path / "a", {"step": 39, "flops": 1e9, LOSS: 4.0})
    assert read_point(run, LOSS) == "at step 39 of 40"


def test_runs_on_the_weights_of_another_do_not_count(tmp_path):
    record = {"step": 40, "flops": 1e9, LOSS: 4.0}
    run = write(tmp_path / "a", record, start="runs/b/model")
    assert read_point(run, LOSS) == "began from runs/b/model"


@pytest.mark.parametrize("content", [None, "steps = 40\n", "loop = 40\n", "loop ="])
def test_runs_of_which_no_settings_are_known_do_not_count(tmp_path, content):
    run = write(tmp_path / "a", {"step": 40, "flops": 1e9, LOSS: 4.0})
    (run / "settings.toml").unlink()
    if content:
        (run / "settings.toml").write_text(content)
    assert read_point(run, LOSS) == "no settings.toml of a pretraining"


def test_a_broken_line_is_named(tmp_path):
    run = write(tmp_path / "a", {"step": 1})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    with pytest.raises(DataError, match="line 2 is no report"):
        read_point(run, LOSS)


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="of the extra [evaluation]")
    law = law_of(2.5, 0.3)
    plot(points(law), law, LOSS, tmp_path / "law.png")
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")
