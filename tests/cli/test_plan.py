import json
from pathlib import Path

import pytest

from cm3leon.cli import main as cli
from cm3leon.planning import scaling_law

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/pretrain/7b.toml"


@pytest.fixture
def call(capsys):
    """Run `plan`: exit code, stdout, stderr."""

    def run(*words):
        code = cli.main(["plan", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_papers_largest_model_fits_its_gpus(call):
    code, out, err = call(CONFIG, "--gpus", 512, "--gpu", "a100-80gb")
    assert (code, err) == (0, "")
    for shown in (
        "6,729,801,728",
        "8,388,608 = 512 GPUs x accumulate 4 x rows 1 x context 4096",
        "2.399e+12 in 286,000 steps",
        "at 40% of the peak",
        "512 GPUs, 8e+06 ids a step, 2.4e+12",
        "activations",
        "340,000,000 captioned pictures",
        "It fits with checkpointing off.",
    ):
        assert shown in out
    assert "comes nearest" not in out


def test_json_has_the_same_as_numbers(call):
    code, out, _ = call(CONFIG, "--gpus", 512, "--gpu", "h100", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["flops"] == pytest.approx(1.04e23, rel=0.05)
    assert found["job"]["accumulate"] == 4
    full = found["memory"]["full"]
    parts = ("weights", "gradients", "optimizer", "activations", "buffers")
    assert full["total"] == sum(full[part] for part in parts)
    assert full["fits"] is True


def test_versions_count_in_the_shards_and_not_in_the_bank(call):
    words = (CONFIG, "--gpus=512", "--documents", 1000, "--json")
    one, seven = (json.loads(call(*words, "--versions", count)[1]) for count in (1, 7))
    assert seven["shards"] - one["shards"] == 1000 * 6 * 4 * (1024 + 1)
    assert seven["memory_bank"] == one["memory_bank"]


def test_words_change_the_config_and_other_gpus_are_told_their_batches(call):
    _, out, _ = call(CONFIG, "stream.rows=128", "--gpus", 64)
    assert "2,097,152 = 64 GPUs x accumulate 4 x rows 2 x context 4096" in out
    assert "loop.accumulate=15 comes nearest" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((CONFIG, "--gpus=512", "--gpu", "b200"), "no GPU 'b200' is known; a100-40gb"),
        ((CONFIG, "--gpus", "0"), "gpus is 0, below 1"),
        ((CONFIG, "--gpus=512", "--mfu", "1.5"), "mfu is 1.5, outside (0, 1]"),
        ((CONFIG,), "shard = 8 do not make a mesh of the 1 process"),
        (
            (CONFIG, "distributed.shard=1", "stream.rows=1"),
            "checkpointing full takes 113.5 GB a GPU",
        ),
        ((CONFIG, "--gpus=48"), "a batch has 512 rows, which 48 processes cannot"),
        (
            (CONFIG, "--gpus=64", "--checkpointing", "off"),
            "can be filled; --checkpointing full takes",
        ),
        ((), "give a config, such as configs/pretrain/7b.toml, or --fit runs/*"),
        (("loop.steps=9",), "setting run is missing"),
        (("--fit", "nowhere"), "needs 4 runs"),
    ],
)
def test_an_error_is_one_line_and_code_1(call, words, line):
    code, _, err = call(*words)
    assert code == 1
    assert line in err
    assert err.count("\n") == 1


@pytest.fixture
def runs(tmp_path):
    """Five runs of a law, one that wasted its compute, and three that do not count."""
    law = scaling_law.ScalingLaw(floor=2.5, scale=3e4, exponent=0.3, error=0.0)
    for number in range(5):
        flops = 10.0 ** (14 + number)
        record = {"step": 1, "flops": flops, "validation/image": law.loss(flops)}
        write(tmp_path / f"run-{number}", record)
    write(tmp_path / "waste", {"step": 1, "flops": 1e19, "validation/image": 4.0})
    better = {"flops": 1e15, "validation/image": 2.6}
    write(tmp_path / "onward", {"step": 1} | better, start="runs/run-4/model")
    write(tmp_path / "stopped", {"step": 1} | better, steps=2000)
    (tmp_path / "tokenizers").mkdir()
    return sorted(tmp_path.iterdir())


def write(run, record, steps=1, start="none"):
    run.mkdir()
    settings = f'[loop]\nsteps = {steps}\n[model]\nstart = "{start}"\n'
    (run / "settings.toml").write_text(settings)
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")


def test_the_law_of_finished_runs_is_printed_and_drawn(call, runs, monkeypatch):
    drawn = []
    monkeypatch.setattr(scaling_law, "plot", lambda *words: drawn.append(words))
    code, out, err = call("--fit", *runs, "--plot", "law.png")
    assert (code, err) == (0, "")
    assert "run-4: 1.000e+18 FLOPs" in out
    assert "L(C) = 2.5 + " in out
    assert "C^-0.3," in out
    root = runs[0].parent
    assert out.partition("\n")[0] == (
        f"left out: {root / 'onward'} (began from runs/run-4/model), "
        f"{root / 'stopped'} (at step 1 of 2,000), "
        f"{root / 'tokenizers'} (no validation/image)"
    )
    assert "1 of 6 runs are beaten by a cheaper one" in out
    assert out.endswith("law.png\n")
    [(points, _, label, path)] = drawn
    assert (len(points), label, path) == (5, "validation/image", Path("law.png"))

    _, out, _ = call("--fit", *runs, "--json")
    found = json.loads(out)
    assert found["exponent"] == pytest.approx(0.3, rel=0.01)
    assert [point["run"] for point in found["points"]] == [f"run-{n}" for n in range(5)]
    assert found["left_out"][str(root / "stopped")] == "at step 1 of 2,000"
