import errno
import os
import shutil
import signal

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from cm3leon.errors import CheckpointError
from cm3leon.training import checkpoint

FULL = os.strerror(errno.ENOSPC)


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(3, 4, generator=generator),
        "b.weight": torch.randn(4, 3, generator=generator).T,  # not contiguous
        "half": torch.randn(5, generator=generator).bfloat16(),
    }


def same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert torch.equal(tensor, right[name])


def test_what_is_loaded_is_what_was_saved(tmp_path):
    state = torch.optim.AdamW([torch.ones(2)], lr=0.1).state_dict()
    parts = {
        "optimizer": state,
        "stream": '{"next": 7}',
        "codebook": {"used": torch.arange(3), "recent": [torch.ones(2), torch.eye(2)]},
    }
    folder = checkpoint.save(tmp_path, 1500, parameters(), parts)
    assert folder == tmp_path / "checkpoints/0000001500"
    step, model, loaded = checkpoint.load(tmp_path)
    assert step == 1500
    same(model, parameters())
    assert loaded["optimizer"] == state
    assert loaded["stream"] == parts["stream"]
    assert torch.equal(loaded["codebook"]["used"], torch.arange(3))
    assert torch.equal(loaded["codebook"]["recent"][1], torch.eye(2))


def test_a_run_that_has_not_saved_has_nothing_to_load(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "not there") is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize(("keep", "left"), [(1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_the_newest_stay(tmp_path, keep, left):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, parameters(step), {}, keep=keep)
    assert checkpoint.steps(tmp_path) == left
    step, model, _ = checkpoint.load(tmp_path)
    assert step == 4
    same(model, parameters(4))


def test_two_stay_by_default(tmp_path):
    for step in (8, 9, 10, 11):
        checkpoint.save(tmp_path, step, parameters(), {})
    assert checkpoint.steps(tmp_path) == [10, 11]


def test_a_step_saved_again_is_replaced(tmp_path):
    checkpoint.save(tmp_path, 5, parameters(0), {"old": 1})
    checkpoint.save(tmp_path, 5, parameters(1), {"new": 2})
    step, model, parts = checkpoint.load(tmp_path)
    assert (step, parts) == (5, {"new": 2})
    same(model, parameters(1))


def half_written(write, error):
    """`write`, but the disk is full after a few bytes."""

    def fail(value, path, *rest, **named):
        write(value, path, *rest, **named)
        os.truncate(path, 10)
        raise error

    return fail


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (checkpoint, "save_file", OSError(errno.ENOSPC, FULL)),
        (checkpoint, "save_file", SafetensorError(f"I/O error: {FULL}")),
        (torch, "save", OSError(errno.ENOSPC, FULL)),
        (torch, "save", RuntimeError(f"the archive could not be written: {FULL}")),
    ],
    ids=["safetensors", "safetensors' own", "torch", "torch's own"],
)
def test_a_full_disk_leaves_the_last_good_one(
    tmp_path, monkeypatch, place, name, error
):
    checkpoint.save(tmp_path, 1, parameters(1), {"stream": "one"})
    with monkeypatch.context() as patch:
        patch.setattr(place, name, half_written(getattr(place, name), error))
        with pytest.raises(CheckpointError) as caught:
            checkpoint.save(tmp_path, 2, parameters(2), {"stream": "two"}, keep=1)
    message = str(caught.value)
    assert message.startswith(f"checkpoint of step 2 not written to {tmp_path}")
    assert FULL in message
    assert "free some space and start the same command again" in message
    assert "\n" not in message
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [
        "0000000001"
    ]
    step, model, parts = checkpoint.load(tmp_path)
    assert (step, parts) == (1, {"stream": "one"})
    same(model, parameters(1))
    checkpoint.save(tmp_path, 2, parameters(2), {"stream": "two"}, keep=1)
    assert checkpoint.steps(tmp_path) == [2]


def test_a_full_disk_at_a_step_saved_before_leaves_that_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 2, parameters(1), {})

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError):
        checkpoint.save(tmp_path, 2, parameters(2), {"stream": "two"})
    same(checkpoint.load(tmp_path)[1], parameters(1))


def test_what_a_killed_save_left_behind_is_no_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 1, parameters(1), {})
    left = tmp_path / "checkpoints/.partial-0000000002"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (left / "other.pt").write_bytes(b"half")
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.save(tmp_path, 2, parameters(2), {})
    assert not left.exists()
    step, model, parts = checkpoint.load(tmp_path)
    assert (step, parts) == (2, {})
    same(model, parameters(2))


@pytest.mark.parametrize("file", ["model.safetensors", "stream.pt"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, file):
    checkpoint.save(tmp_path, 1, parameters(1), {"stream": "one"})
    folder = checkpoint.save(tmp_path, 2, parameters(2), {"stream": "two"})
    os.truncate(folder / file, 40)
    with pytest.raises(CheckpointError, match=r"0000000002 is damaged .* delete it to"):
        checkpoint.load(tmp_path)
    shutil.rmtree(folder)
    assert checkpoint.load(tmp_path)[0] == 1


def test_fit_loads_what_fits():
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    checkpoint.fit(model, other.state_dict(), "the test")
    same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(2, 3)}, "the test lacks bias; is it another model's?"),
        (
            {"bias": torch.ones(2), "weight": torch.ones(2, 3), "x": torch.ones(1)},
            "the test has an unknown x; is it another model's?",
        ),
        (
            {"bias": torch.ones(2), "weight": torch.ones(2, 4)},
            r"the test: weight is \[2, 4\], the model needs \[2, 3\]; use the wei",
        ),
        ({"bias": torch.ones(9), "weight": torch.ones(9)}, r"the test: bias is \[9\]"),
    ],
)
def test_fit_names_the_first_tensor_that_does_not(tensors, message):
    model = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        checkpoint.fit(model, tensors, "the test")
    same(model.state_dict(), before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_instead_of_ending_the_process(number):
    before = signal.getsignal(number)
    with checkpoint.stop_on_signal() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
    assert signal.getsignal(number) is before
    with checkpoint.stop_on_signal() as again:
        assert not again.asked


def test_signals_mean_what_they_meant_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), checkpoint.stop_on_signal():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGTERM) is before
