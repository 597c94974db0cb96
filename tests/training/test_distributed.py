"""One training on several processes; torchrun starts them and they talk by gloo."""

import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from cm3leon.config import dump_settings
from cm3leon.errors import CheckpointError, ConfigError, TrainingError
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer
from cm3leon.planning.memory import MODES
from cm3leon.randomness import torch_generator
from cm3leon.training import checkpoint, pretrain
from cm3leon.training.distributed import Checkpointing, DistributedConfig

WORKER = """
import sys
from cm3leon.cli.main import main
{before}
if sys.argv[2:]:  # several share a process group: torch cannot begin a second one
    from torch import distributed
    distributed.init_process_group("gloo")
for file in sys.argv[1:]:
    if code := main(["train", "pretrain", file]):
        sys.exit(code)
"""

# Process 1 falls asleep; started again, process 0 dies while it saves; started once
# more, process 1 is asked to stop.
TROUBLE = """
import os, signal, time
from cm3leon.training import loop, sharded_checkpoint
start, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
step, finish = loop.Run.step, sharded_checkpoint._RenamedWhenWritten.finish

def interrupted(self, number):
    if (start, rank, number) == ("0", "1", 5):
        time.sleep(1000)
    if (start, rank, number) == ("2", "1", 8):
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, number)

def killed(self, metadata, results):
    if start == "1" and self.folder.name == "0000000006":
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, metadata, results)

loop.Run.step = interrupted
sharded_checkpoint._RenamedWhenWritten.finish = killed
"""


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = {record["step"]: record for record in map(json.loads, lines)}
    return torch.tensor(
        [
            [records[step][name] for name in ("loss/image", "loss/text")]
            for step in sorted(records)
        ]
    )


def same(left, right, limit=1e-5):
    """Whether two runs have the same losses at the same steps."""
    torch.testing.assert_close(losses(left), losses(right), rtol=0, atol=limit)


@pytest.fixture
def launch(tmp_path):
    """Start trainings under torchrun, one after another; what it wrote to stderr."""

    def start(processes, *runs, before="", restarts=0, code=0):
        worker = tmp_path / "worker.py"
        worker.write_text(WORKER.format(before=before))
        files = []
        for number, run in enumerate(runs):
            files.append(tmp_path / f"settings-{number}.toml")
            files[-1].write_text(dump_settings(run))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
        command += ["--shutdown-timeout=1", str(worker), *map(str, files)]
        here = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        here["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see docs/training.md
        done = subprocess.run(
            command, env=os.environ | here, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    return start


@pytest.mark.slow
def test_any_number_of_processes_learns_the_same_and_goes_on_with_the_others_run(
    settings, tmp_path, launch
):
    def make(run, steps=20):
        rate = "optimizer.learning_rate=1e-3"
        every = ("loop.checkpoint_every=10", "loop.validate_every=10")
        return settings(run, rate, *every, f"loop.steps={steps}")

    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    pretrain.train(make("one"))
    launch(2, make("two"))
    same(one, two)
    for run in (one, two):
        for resumed in (1, 4):
            copy = shutil.copytree(run, tmp_path / f"{run.name}-on-{resumed}")
            shutil.rmtree(copy / "checkpoints/0000000020")
            shutil.rmtree(copy / "model")
    launch(4, make("four"), make("two-on-4"), make("one-on-4"))
    same(one, four)
    pretrain.train(make("two-on-1"))
    for name in ("two-on-1", "two-on-4", "one-on-4"):
        same(one, tmp_path / name)
        assert checkpoint.steps(tmp_path / name) == [10, 20]
        model = load_file(tmp_path / name / "model/model.safetensors")
        for key, tensor in load_file(one / "model/model.safetensors").items():
            torch.testing.assert_close(model[key], tensor, rtol=0, atol=1e-4)
    held_out = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two, four)
    ]
    last = [records[-1]["validation/image"] for records in held_out]
    assert last == pytest.approx([last[0]] * 3, abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one_does_whatever_the_settings(
    settings, tmp_path, launch, vocabulary
):
    short = ("loop.steps=4", "optimizer.learning_rate=1e-3")
    muon = ("optimizer.kind=muon", "loop.accumulate=2", *short)
    skip = ("loop.guard=skip", "loop.norm_limit=1e-6", *short, "seed=3")
    full = ("distributed.checkpointing=full", *short)
    selective = ("distributed.checkpointing=selective", *short)
    compiled = ("distributed.compile=true", *selective)
    with_compiler = ["compiled"] if shutil.which("g++") else []
    half = ("loop.bfloat16=true", *short)
    prompts = ('prompts=["a cat"]', "loop.sample_every=4", *short)
    pretrain.train(settings("one", *short))
    pretrain.train(settings("one-muon", *muon))
    launch(
        2,
        settings("full", *full),
        settings("selective", *selective),
        settings("replicated", "distributed.replicate=2", *prompts),
        settings("muon", *muon),
        settings("skip", *skip),
        settings("half", *half),
        *(settings(name, *compiled) for name in with_compiler),
    )
    for name in ("full", "selective", "replicated", *with_compiler):
        same(tmp_path / "one", tmp_path / name)
    same(tmp_path / "one-muon", tmp_path / "muon", 1e-3)  # multiplies in bf16
    same(tmp_path / "one", tmp_path / "half", 1e-2)
    assert (tmp_path / "replicated/samples-0000004.png").exists()
    # all left out every update, so what they saved are the weights they began with
    shape = preset("tiny", vocabulary_size=vocabulary.size)
    fresh = Transformer(shape, torch_generator(3, "parameters")).state_dict()
    saved = load_file(tmp_path / "skip/model/model.safetensors")
    assert saved.keys() == fresh.keys()
    for name, tensor in fresh.items():
        assert torch.equal(saved[name], tensor.to(saved[name].dtype))


@pytest.mark.slow
def test_a_process_that_hangs_dies_or_is_asked_to_stop_loses_nothing(
    settings, tmp_path, launch
):
    def make(run):
        every = ("loop.steps=12", "loop.checkpoint_every=3")
        return settings(
            run, *every, "optimizer.learning_rate=1e-3", "distributed.timeout=15"
        )

    told = launch(2, make("run"), before=TROUBLE, restarts=2)
    assert "process 0 of 2 lost another, or waited 15 s for it" in told
    assert "process 1 of 2 lost another" in told
    assert "stopped after step 9; the same command resumes" in told
    assert checkpoint.steps(tmp_path / "run") == [6, 9]
    assert not (tmp_path / "run/model").exists()
    pretrain.train(make("run"))
    pretrain.train(make("straight"))
    same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_making_activations_again_changes_no_loss(settings, tmp_path, mode):
    pretrain.train(settings("off", "loop.steps=3"))
    pretrain.train(settings(mode, "loop.steps=3", f"distributed.checkpointing={mode}"))
    same(tmp_path / "off", tmp_path / mode, 0.0)


def test_modes_are_those_that_are_planned():
    assert get_args(Checkpointing) == MODES


@pytest.mark.parametrize(
    ("config", "ranks", "mesh"),
    [
        ({}, 1, (1, 1)),
        ({}, 8, (1, 8)),
        ({"replicate": 4}, 8, (4, 2)),
        ({"shard": 2}, 8, (4, 2)),
        ({"replicate": 2, "shard": 4}, 8, (2, 4)),
    ],
)
def test_a_mesh_holds_all_processes(config, ranks, mesh):
    assert DistributedConfig(**config).mesh(ranks) == mesh


@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        ({"shard": 8}, 1),
        ({"shard": 3}, 4),
        ({"replicate": 3}, 4),
        ({"replicate": 2, "shard": 2}, 8),
    ],
)
def test_processes_that_do_not_fill_the_mesh_are_refused(config, ranks):
    with pytest.raises(ConfigError, match=f"mesh of the {ranks} process.* torchrun"):
        DistributedConfig(**config).mesh(ranks)


def test_a_mesh_is_refused_before_anything_is_read(settings):
    with pytest.raises(ConfigError, match="do not make a mesh of the 1 process"):
        pretrain.train(settings("run", "distributed.shard=2", "tokenizers=nowhere"))


def test_a_step_above_the_limit_ends_the_run_and_changes_nothing(settings, tmp_path):
    with pytest.raises(TrainingError, match=r"step 1 was not made: the gradient norm"):
        pretrain.train(settings("run", "loop.norm_limit=1e-6"))
    assert checkpoint.steps(tmp_path / "run") == []


def test_skipping_ends_when_it_does_not_help(settings):
    skip = ("loop.guard=skip", "loop.most_skips=3", "loop.norm_limit=1e-6")
    with pytest.raises(TrainingError, match=r"step 4 .* nor were the 3 before it"):
        pretrain.train(settings("run", *skip))


def test_a_loss_that_is_no_number_names_its_rows(settings, tmp_path):
    from safetensors.torch import save_file

    out = pretrain.train(settings("run", "loop.steps=1"))
    tensors = load_file(out / "model.safetensors")
    tensors["blocks.0.out.weight"][:] = torch.nan
    save_file(tensors, out / "model.safetensors")
    with pytest.raises(TrainingError, match=r"row 0 of batch 0, .* \(of 4 such rows\)"):
        pretrain.train(settings("bad", f"model.start={out}"))


def test_a_damaged_checkpoint_is_named_with_the_way_out(settings, tmp_path):
    pretrain.train(settings("run", "loop.steps=1"))
    part = tmp_path / "run/checkpoints/0000000001/__0_0.distcp"
    os.truncate(part, 40)
    with pytest.raises(CheckpointError, match=r"0000000001 is damaged .* delete it"):
        pretrain.train(settings("run", "loop.steps=2"))


def test_a_checkpoint_that_cannot_be_written_is_named(settings, tmp_path):
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    (folder / ".partial-0000000002").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"step 2 not written .* last good one"):
        pretrain.train(settings("run"))
    assert checkpoint.steps(tmp_path / "run") == [1]


def test_a_checkpoint_of_the_older_format_goes_on(settings, tmp_path, monkeypatch):
    from cm3leon.training.loop import Run

    def as_before(self, checkpoints, step):
        stream = json.dumps(self.stream.state())
        parts = {"optimizer": self.optimizer.state_dict(), "stream": stream}
        checkpoint.save(checkpoints.run, step, self.model.state_dict(), parts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", as_before)
        pretrain.train(settings("run", "loop.steps=4", "optimizer.decay=constant"))
    assert (tmp_path / "run/checkpoints/0000000004/model.safetensors").exists()
    pretrain.train(settings("run", "loop.steps=6", "optimizer.decay=constant"))
    pretrain.train(settings("straight", "loop.steps=6", "optimizer.decay=constant"))
    same(tmp_path / "run", tmp_path / "straight", 0.0)
