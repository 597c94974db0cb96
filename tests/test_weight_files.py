"""Weights of others: tensors come back, code never runs, damage is said in a line."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cm3leon import weight_files
from cm3leon.errors import CheckpointError

TENSORS = {"a": torch.arange(3000.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}


class Code:
    """What runs a command when it is unpickled carelessly."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def same(tensors):
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_come_back_from_every_kind_of_file(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    torch.save(TENSORS, tmp_path / "a.pth")
    torch.save({"state_dict": TENSORS, "epoch": 3}, tmp_path / "a.ckpt")
    old = {"_use_new_zipfile_serialization": False}
    torch.save({**TENSORS, "none": None}, tmp_path / "a.bin", **old)
    for path in tmp_path.iterdir():
        same(weight_files.load(path))


def test_shapes_can_be_had_without_the_numbers():
    shapes = weight_files.on_meta(TENSORS)
    assert shapes["b"].is_meta
    assert (shapes["b"].shape, shapes["b"].dtype) == ((2, 3), torch.bfloat16)


def test_code_is_named_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": TENSORS, "hook": Code()}, tmp_path / "a.ckpt")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"hook": Code()}, protocol=2))
    for name in ("a.ckpt", "b.pth"):
        with pytest.raises(CheckpointError, match=r"\w\.\w+ holds more than tensors"):
            weight_files.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("kept", [0, 5, 100, 7000])
def test_a_file_cut_short_is_refused_in_a_line(tmp_path, name, kept):
    path = tmp_path / name
    (save_file if name == "a.safetensors" else torch.save)(TENSORS, path)
    whole = path.read_bytes()
    assert len(whole) > kept
    path.write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match=f"{name} is missing or damaged") as error:
        weight_files.load(path)
    assert "\n" not in str(error.value)


def test_no_file_and_no_table_are_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "a.pth")
    for name in ("a.pth", "b.pth", "b.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name} is missing or damaged"):
            weight_files.load(tmp_path / name)


def index(folder, stem, *names):
    table = {"weight_map": {f"tensor {i}": name for i, name in enumerate(names)}}
    (folder / f"{stem}.index.json").write_text(json.dumps(table))
    for name in names:
        (folder / name).touch()


def test_the_files_of_an_index_are_found_safetensors_first(tmp_path):
    index(tmp_path, "pytorch_model.bin", "1.bin", "2.bin")
    assert weight_files.parts(tmp_path) == [tmp_path / "1.bin", tmp_path / "2.bin"]
    (tmp_path / "model.safetensors").touch()
    assert weight_files.parts(tmp_path) == [tmp_path / "model.safetensors"]
    index(tmp_path, "model.safetensors", "b", "a", "b")
    assert weight_files.parts(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_a_missing_file_of_an_index_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors, "):
        weight_files.parts(tmp_path)
    index(tmp_path, "model.safetensors", "a", "b")
    (tmp_path / "b").unlink()
    with pytest.raises(CheckpointError, match="lacks b, one of the 2 files of"):
        weight_files.parts(tmp_path)
    for content in ("{", "[]", "{}", '{"weight_map": []}'):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"index\.json is missing or damaged"):
            weight_files.parts(tmp_path)
