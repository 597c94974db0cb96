import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from cm3leon.data.shards import Record, Shards, write_shards
from cm3leon.data.stream import Batch
from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.training import checkpoint, loop, pretrain
from cm3leon.training.loop import BUCKET, LoopConfig, loss_weights, parts_of
from cm3leon.training.pretrain import held_out_batches


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {
        record["step"]: (record["loss/image"], record["loss/text"])
        for record in map(json.loads, lines)
    }


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [1, 5])
def test_stopping_at_any_step_and_resuming_is_going_straight_on(
    settings, tmp_path, kind, stop, monkeypatch
):
    optimizer = f"optimizer.kind={kind}"
    straight = pretrain.train(settings("straight", optimizer))

    step = loop.Run.step

    def interrupted(self, number):
        step(self, number)
        if number + 1 == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "step", interrupted)
        assert pretrain.train(settings("resumed", optimizer)) is None
    assert checkpoint.steps(tmp_path / "resumed")[-1] == stop
    resumed = pretrain.train(settings("resumed", optimizer))

    assert losses(tmp_path / "straight") == losses(tmp_path / "resumed")
    one = load_file(straight / "model.safetensors")
    other = load_file(resumed / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_and_the_run_folder_tells_of_it(settings, tmp_path):
    out = pretrain.train(settings("run", "loop.steps=40", "optimizer.kind=muon"))
    run = tmp_path / "run"
    first, last = losses(run)[1][0], losses(run)[40][0]
    assert last < first - 1.0
    names = {path.name for path in run.iterdir()}
    assert {"settings.toml", "metrics.jsonl", "checkpoints", "tensorboard"} <= names
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for name in (
        "loss/text",
        "validation/image",
        "validation/text",
        "tokens_per_second",
        "flops_utilisation",
        "gradient_norm",
        "objective/hidden_captions",
    ):
        assert name in record
    assert (out / "config.json").exists()


def test_a_finished_run_is_not_run_again(settings, tmp_path):
    pretrain.train(settings("run"))
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    pretrain.train(settings("run"))
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_only_whole_checkpoints_are_kept_and_only_two(settings, tmp_path):
    pretrain.train(settings("run"))
    assert checkpoint.steps(tmp_path / "run") == [7, 8]


def test_resuming_with_another_shape_names_the_first_difference(settings):
    pretrain.train(settings("run"))
    with pytest.raises(CheckpointError, match=r"positions.weight is \[130, 64\]"):
        pretrain.train(settings("run", "loop.steps=9", "model.context=64"))


def test_accumulating_batches_is_one_larger_batch(settings, tmp_path):
    plain = ("objective.mode=none", "optimizer.clip=0.0", "loop.steps=3")
    pretrain.train(settings("large", "stream.rows=8", *plain))
    pretrain.train(settings("small", "loop.accumulate=2", *plain))
    large, small = losses(tmp_path / "large"), losses(tmp_path / "small")
    for step in large:
        assert large[step] == pytest.approx(small[step], abs=2e-3)


def test_a_start_from_a_model_folder_begins_at_its_loss(settings, tmp_path):
    out = pretrain.train(settings("first", "loop.steps=40", "optimizer.kind=muon"))
    pretrain.train(settings("second", f"model.start={out}", "loop.steps=1"))
    assert losses(tmp_path / "second")[1][0] < losses(tmp_path / "first")[1][0] - 1.0
    with pytest.raises(CheckpointError, match="missing or damaged"):
        pretrain.train(settings("third", f"model.start={tmp_path}"))


def test_sheets_for_the_prompts_are_drawn_while_it_trains(settings, tmp_path):
    pretrain.train(settings("run", 'prompts=["a cat", "a dog"]', "loop.sample_every=4"))
    sheets = sorted(path.name for path in (tmp_path / "run").glob("samples-*.png"))
    assert sheets == ["samples-0000004.png", "samples-0000008.png"]


def test_modalities_can_be_weighted(vocabulary):
    targets = torch.tensor([[vocabulary.text.start, vocabulary.image.start, 1]])
    weights = torch.tensor([[1.0, 1.0, 0.0]])
    batch = Batch(targets, targets, targets, weights, targets, 0.0, 0.0)
    plain = loss_weights(batch, vocabulary, LoopConfig())
    assert plain.tolist() == [[1, 1, 0]]
    weighted = LoopConfig(image_weight=0.5, text_weight=2.0)
    assert loss_weights(batch, vocabulary, weighted).tolist() == [[2, 0.5, 0]]


def test_counts_below_one_are_refused():
    with pytest.raises(ConfigError, match="checkpoint_every is 0, below 1"):
        LoopConfig(checkpoint_every=0)


def test_loss_is_told_apart_by_neighbours_and_place_where_they_differ(vocabulary):
    ids = torch.zeros(3, 4, dtype=torch.long)
    weights = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    places = torch.tensor([[0, 1, 2, 0]] * 2 + [[0, BUCKET - 1, BUCKET, BUCKET + 1]])
    counts = torch.tensor([[0] * 4, [2] * 4, [2] * 4])
    batch = Batch(ids, places, ids, weights, counts, 0.0, 0.0)
    parts = parts_of(batch)
    by_number = parts["neighbours_0"] + parts["neighbours_2"]
    by_place = parts["position_0"] + parts[f"position_{BUCKET}"]
    assert torch.equal(by_number, weights)
    assert torch.equal(by_place, weights)
    assert parts["neighbours_2"][0].sum() == 0
    assert parts[f"position_{BUCKET}"].tolist()[2] == [0, 0, 1, 1]
    alike = batch._replace(neighbours=ids + 1, positions=ids)
    assert set(parts_of(alike)) == {"neighbours_1"}


def test_held_out_rows_count_the_document_and_not_its_neighbours(
    tmp_path, vocabulary, shards
):
    plain = Shards(shards)
    folder = tmp_path / "near"
    near = (
        Record(
            record.key,
            record.group,
            record.segments,
            (plain[0].segments, plain[1].segments)[: number % 3],
        )
        for number, record in enumerate(plain[i] for i in range(len(plain)))
    )
    list(write_shards(folder, near, plain.alphabets))
    alone, pair = (
        held_out_batches(Shards(folder), vocabulary, 128, 8, count) for count in (0, 2)
    )
    for one, two in zip(alone, pair, strict=True):
        assert one.targets[one.weights > 0].tolist() == (
            two.targets[two.weights > 0].tolist()
        )
        assert two.ids.shape[1] > one.ids.shape[1]
