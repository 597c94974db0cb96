"""Bytes as planned and as torch counts them."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cm3leon.model.language_model import SHORT
from cm3leon.model.presets import PRESETS
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.objective.loss import head_loss
from cm3leon.planning.memory import MODES, Job, Precision, kept, made_again, memory
from cm3leon.training.distributed import change_blocks
from cm3leon.training.optimizer import Optimizer, OptimizerConfig

SMALL = TransformerConfig(
    vocabulary_size=96, context=SHORT + 128, width=64, layers=2, heads=4
)
WIDE = TransformerConfig(
    vocabulary_size=8192, context=2048, width=1024, layers=6, heads=16
)


@pytest.mark.parametrize("product", [2, 4], ids=["bf16", "fp32"])
def test_a_block_keeps_what_autograd_saves(product):
    model, rows = Transformer(SMALL), 2
    ids = rows * SMALL.context
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.shape[0] in (rows, ids):  # not a weight
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    x = torch.randn(rows, SMALL.context, SMALL.width, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=product == 2),
    ):
        for layer, block in enumerate(model.blocks):
            x = block(x, None, None, layer)
    measured = sum(size for size, _ in saved.values()) / (ids * SMALL.layers)
    assert kept(SMALL, Precision(product=product), "off") == measured


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_takes_what_it_takes(kind):
    model = Transformer(SMALL)
    optimizer = Optimizer(model, OptimizerConfig(kind=kind), steps=1)
    sum(weight.sum() for weight in model.parameters()).backward()
    gradients = sum(weight.grad.nbytes for weight in model.parameters())
    optimizer.step(0)
    moments = sum(
        value.nbytes
        for part in optimizer.parts
        for state in part.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )
    job = Job(shape=SMALL, rows=1, accumulate=1, steps=1, optimizer=kind)
    planned = memory(job, 1, "off")
    assert planned.weights == sum(weight.nbytes for weight in model.parameters())
    assert planned.gradients == gradients
    assert planned.optimizer == moments
    assert memory(job, 4, "off").optimizer == pytest.approx(moments / 4)


@pytest.fixture
def ranks(monkeypatch):
    """A process group of any size, of which only this process is there."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def start(count):
        distributed.init_process_group(
            "fake", rank=0, world_size=count, store=FakeStore()
        )
        return distributed.init_device_mesh("cpu", (count,))

    # weights have no values, so there is nothing to draw
    monkeypatch.setattr("cm3leon.model.transformer.initialise", lambda *_: None)
    yield start
    distributed.destroy_process_group()


class Loss(nn.Module):
    """What FSDP2 wraps: its parameters are whole from the first id to the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        hidden = self.model.hidden(ids)
        weights = torch.ones(ids.shape)
        return head_loss(hidden, self.model.embedding.weight, ids, weights)[0]


def peak(shape, rows, mesh, mode):
    """Bytes of the first rank at the peak of a second step of two batches.

    By torch's own accounting, which needs no values and so no memory.
    """
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    with FakeTensorMode():
        inner = Transformer(shape)
        change_blocks(inner, mode)
        model = Loss(inner)
        for block in model.model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        # torch counts the fused one as if it had whole parameters
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs(())
        with tracker:
            for _ in range(2):
                for _ in range(2):
                    tracker.reset_mod_stats()
                    ids = torch.zeros(rows, shape.context, dtype=torch.long)
                    model(ids).backward()
                optimizer.step()
                optimizer.zero_grad()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "rows", "shards"),
    [
        pytest.param(WIDE, 1, 8, id="small"),
        pytest.param(WIDE, 4, 2, id="wide"),
        pytest.param(PRESETS["7b"], 1, 512, id="7b", marks=pytest.mark.slow),
    ],
)
def test_the_plan_is_the_peak_of_sharded_training_or_a_little_more(
    shape, rows, shards, mode, ranks
):
    # under FSDP2's policy the stream is in bf16 too
    precision = Precision(stream=2)
    job = Job(shape=shape, rows=rows, accumulate=2, steps=2, precision=precision)
    mesh = ranks(shards)
    measured = peak(shape, rows, mesh, mode)
    assert measured <= memory(job, shards, mode).total <= 1.1 * measured


def test_the_less_is_kept_the_more_is_made_again():
    for precision in (Precision(), Precision(product=4), Precision(stream=2)):
        less = [kept(WIDE, precision, mode) for mode in MODES]
        more = [made_again(WIDE, precision, mode) for mode in MODES]
        assert less == sorted(less, reverse=True)
        assert more == sorted(more)
        assert more[0] == 0
