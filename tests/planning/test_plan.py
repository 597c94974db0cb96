from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cm3leon.config import load_settings
from cm3leon.errors import ConfigError
from cm3leon.model.presets import PRESETS
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.objective.loss import head_loss
from cm3leon.planning.cluster import GPUS, Cluster
from cm3leon.planning.memory import MODES, Job
from cm3leon.planning.plan import TABLE_3, Plan, flops_again
from cm3leon.training.distributed import change_blocks
from cm3leon.training.pretrain import Pretrain

ROOT = Path(__file__).parents[2]
SMALL = TransformerConfig(vocabulary_size=96, context=128, width=64, layers=3, heads=4)


def plan(name="7b", gpu="a100-80gb", gpus=512, mfu=0.4, **job):
    settings = {"rows": 1, "accumulate": 4, "steps": 286_000} | job
    return Plan(
        job=Job(shape=PRESETS[name], **settings),
        cluster=Cluster(gpu=gpu, gpus=gpus),
        mfu=mfu,
    )


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [("350m", 373.8e6, 4.0e21), ("760m", 787.2e6, 1.1e22), ("7b", 6730e6, 1.04e23)],
)
def test_the_configs_cost_what_the_paper_spent(name, parameters, flops):
    settings = load_settings(Pretrain, ROOT / f"configs/pretrain/{name}.toml")
    paper = TABLE_3[name]
    made = plan(
        settings.model.preset,
        gpus=paper.gpus,
        rows=settings.stream.batch_rows() // paper.gpus,
        accumulate=settings.loop.accumulate,
        steps=settings.loop.steps,
    )
    assert made.job.shape.parameters == pytest.approx(parameters, rel=1e-3)
    assert made.ids_per_step == pytest.approx(paper.ids_per_step, rel=0.05)
    assert made.ids == pytest.approx(paper.ids, rel=0.01)
    assert made.flops == pytest.approx(flops, rel=0.05)
    assert made.accumulate_for(paper.ids_per_step) == made.job.accumulate
    assert made.choose() == "off"


@pytest.mark.parametrize("mode", MODES)
def test_flops_are_those_torch_counts_in_a_step(mode):
    rows, time = 2, SMALL.context
    with FlopCounterMode(display=False) as counter:
        model = Transformer(SMALL)
        change_blocks(model, mode)
        ids = torch.zeros(rows, time, dtype=torch.long)
        head, weights = model.embedding.weight, torch.ones(rows, time)
        head_loss(model.hidden(ids), head, ids, weights)[0].backward()
    made = Plan(
        job=Job(shape=SMALL, rows=rows, accumulate=1, steps=1),
        cluster=Cluster(gpu="h100", gpus=1),
    )
    planned = made.flops + made.ids * flops_again(SMALL, mode)
    # torch counts the whole square of attention, we the half below the diagonal
    half = 2 * SMALL.layers * SMALL.width * time * made.ids
    squares = 4 if mode == "full" else 3  # forward is one of them, backward two
    assert counter.get_total_flops() == planned + squares * half


def test_time_is_flops_over_those_of_all_gpus():
    one = plan(gpus=1, accumulate=2048)
    many = plan(gpus=512, accumulate=4)
    assert many.flops == one.flops
    assert many.seconds == pytest.approx(one.seconds / 512)
    assert many.seconds * 512 * GPUS["a100-80gb"].peak * 0.4 == pytest.approx(one.flops)
    assert plan(mfu=0.2).seconds == pytest.approx(2 * plan(mfu=0.4).seconds)


@pytest.mark.parametrize("gpus", [1, 24, 64, 4096])
def test_other_numbers_of_gpus_are_told_how_to_keep_the_batch(gpus):
    made = plan(gpus=gpus)
    job = replace(made.job, accumulate=made.accumulate_for(8e6))
    step = replace(made, job=job).ids_per_step
    assert step == pytest.approx(8e6, abs=gpus * 4096 / 2) or job.accumulate == 1


def test_the_first_mode_that_fits_is_chosen():
    assert plan(rows=1).choose() == "off"
    tight = plan(gpu="a100-40gb", gpus=64, rows=4)
    assert tight.choose() == "full"
    assert tight.choose("full") == "full"


def test_what_does_not_fit_is_told_what_would():
    tight = plan(gpu="a100-40gb", gpus=64, rows=4)
    with pytest.raises(ConfigError, match=r"off takes 6\d.* 36.0 GB .*ing full takes"):
        tight.choose("off")
    with pytest.raises(ConfigError, match=r"full takes 11\d.* take more or larger"):
        plan(gpus=1).choose()
    with pytest.raises(ConfigError, match="selective takes"):
        plan(gpus=1).choose("selective")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "b9"}, "no GPU 'b9' is known; a100-40gb, a100-80gb, h100, h200 are"),
        ({"gpus": 0}, "gpus is 0, below 1"),
        ({"mfu": 0.0}, r"mfu is 0.0, outside \(0, 1\]"),
        ({"mfu": 1.1}, "mfu is 1.1"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


def test_replicas_hold_everything_and_divide_the_gpus():
    whole = Cluster(gpu="h100", gpus=8, replicate=8)
    assert whole.shards == 1
    with pytest.raises(ConfigError, match="replicate is 3, which does not divide 8"):
        Cluster(gpu="h100", gpus=8, replicate=3)
