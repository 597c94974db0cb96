"""One training on many processes, by torch's own FSDP2; torchrun starts them.

The processes form a mesh of `replicate` x `shard`. Each holds a part in `shard` of
every weight, gradient and moment; the blocks and the tables come together just before
they compute, and gradients are summed over all. So `replicate` groups hold the same,
and the sum of all processes' losses is the loss of the batch that they share.

The model's file knows nothing of this. A process that torchrun did not start is alone:
no process group, no mesh, nothing sharded.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from cm3leon.errors import ConfigError, TrainingError
from cm3leon.model.transformer import Transformer, TransformerConfig, initialise
from cm3leon.precision import autocast, uses_bfloat16
from cm3leon.randomness import torch_generator

Checkpointing = Literal["off", "selective", "full"]
Value = TypeVar("Value")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How processes share a model, and what its blocks keep."""

    replicate: int | None = None  # groups of processes that each hold everything
    shard: int | None = None  # processes of a group; by default it is one group
    checkpointing: Checkpointing = "off"  # which activations are made again
    compile: bool = False  # each block
    timeout: float = 600.0  # seconds that a process waits for another

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "timeout"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, below 1")

    def mesh(self, ranks: int) -> tuple[int, int]:
        """`replicate` and `shard` for so many processes.

        Raises:
            ConfigError: the processes do not fill the mesh.
        """
        replicate = self.replicate or (ranks // self.shard if self.shard else 1)
        shard = self.shard or ranks // replicate
        if replicate * shard != ranks:
            raise ConfigError(
                f"distributed.replicate = {self.replicate or 'the rest'} and shard = "
                f"{self.shard or 'the rest'} do not make a mesh of the {ranks} "
                f"process{'es' if ranks > 1 else ''} there are; torchrun "
                "--nnodes and --nproc-per-node say how many to start"
            )
        return replicate, shard


@dataclass(frozen=True)
class World:
    """This process among those of its training."""

    rank: int = 0
    ranks: int = 1
    device: torch.device = CPU
    mesh: DeviceMesh | None = None  # None: alone
    timeout: float = 600.0  # seconds that it waits for another

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor that each has."""
        if self.mesh is not None:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process; all get the same answer."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def gather(self, value: Value) -> list[Value]:
        """The plain values of all processes, by rank."""
        values = [value] * self.ranks
        if self.mesh is not None:
            distributed.all_gather_object(values, value)
        return values

    def autocast(self, bfloat16: bool) -> AbstractContextManager[Any]:
        """Products in bf16 for a process alone; a mesh has a policy instead."""
        return autocast(bfloat16) if self.mesh is None else nullcontext()

    def bfloat16(self, wanted: bool | None) -> bool:
        """A setting as it is meant here: None is whatever is faster."""
        return uses_bfloat16(wanted, self.device.type)


@contextmanager
def world(config: DistributedConfig) -> Iterator[World]:
    """Meet the other processes, if torchrun started this one.

    A process group that is there already is used and stays.

    Raises:
        ConfigError: they do not make the mesh that the settings ask for.
        TrainingError: within the block, another process was lost.
    """
    if not distributed.is_torchelastic_launched():
        config.mesh(1)
        yield World()
        return
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    replicate, shard = config.mesh(ranks)
    device, backend = CPU, "gloo"
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    ours = not distributed.is_initialized()
    try:
        if ours:
            patience = timedelta(seconds=config.timeout)
            distributed.init_process_group(backend, timeout=patience)
        axes = ("replicate", "shard")
        mesh = init_device_mesh(device.type, (replicate, shard), mesh_dim_names=axes)
        yield World(rank, ranks, device, mesh, config.timeout)
    except RuntimeError as error:
        if not lost(error):
            raise
        raise TrainingError(
            f"process {rank} of {ranks} lost another, or waited {config.timeout:g} s "
            "for it (distributed.timeout); the same command resumes from the last "
            f"checkpoint ({str(error).splitlines()[0]})"
        ) from error
    finally:
        if ours and distributed.is_initialized():
            distributed.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether an error is that of a connection: gloo's have no class of their own."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def build(
    shape: TransformerConfig,
    seed: int,
    config: DistributedConfig,
    world: World,
    bfloat16: bool,
) -> Transformer:
    """A model with fresh weights, in parts if there is a mesh.

    Args:
        shape: of the model.
        seed: of the weights; equal seeds give equal weights on any mesh.
        config: what blocks keep, and whether they are compiled.
        world: where it is to be.
        bfloat16: whether a mesh multiplies in bf16; sums stay in fp32.
    """
    generator = torch_generator(seed, "parameters")
    if world.mesh is None:
        model = Transformer(shape, generator)
        change_blocks(model, config.checkpointing, compiled=config.compile)
        return model
    with torch.device("meta"):
        model = Transformer(shape)
    change_blocks(model, config.checkpointing, compiled=config.compile)
    _shard(model, world.mesh, bfloat16)
    model.to_empty(device=world.device)
    for name, weight in model.named_parameters():
        whole = torch.empty(weight.shape)
        initialise(name, whole, generator)
        weight.data.copy_(part_of(whole, weight))
    return model


def _shard(model: Transformer, mesh: DeviceMesh, bfloat16: bool) -> None:
    axes = mesh if mesh.shape[0] > 1 else mesh["shard"]
    dtype = torch.bfloat16 if bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=axes, mp_policy=policy)
    # the tables stay whole from the first id to the loss, which reads them again
    fully_shard(model, mesh=axes, mp_policy=policy, reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    for module in model.modules():
        if isinstance(module, FSDPModule):  # gradients add up, as the losses do
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a tensor; all of it if `like` is no DTensor."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(
        whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def whole_model(model: Transformer, world: World) -> Transformer | None:
    """The model in one piece on the first process, None on the others.

    All must ask. On a mesh it is a copy, in the CPU's memory.
    """
    if world.mesh is None:
        return model
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    tensors = get_model_state_dict(model, options=options)
    if not world.first:
        return None
    with torch.device("meta"):
        whole = Transformer(model.config)
    whole.load_state_dict(tensors, assign=True)
    return whole


def change_blocks(
    model: Transformer, checkpointing: Checkpointing, *, compiled: bool = False
) -> None:
    """Make blocks keep less for the backward pass, and compile them.

    The forward function of each is replaced, so parameters keep their names.
    """
    for block in model.blocks:
        forward: Callable[..., Tensor] = block.forward
        if checkpointing == "full":
            forward = partial(checkpoint, forward, use_reentrant=False)
        elif checkpointing == "selective":
            forward = partial(
                checkpoint,
                forward,
                use_reentrant=False,
                context_fn=_every_second_product,
            )
        if compiled:
            forward = torch.compile(forward)
        block.forward = forward


def _every_second_product() -> Any:
    """Attention and every second product with weights are kept, as in torchtitan."""
    products = {False: 0, True: 0}

    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        name = str(operation)
        keep = "attention" in name or "bmm" in name
        if name.startswith("aten.mm"):
            products[context.is_recompute] += 1
            keep = products[context.is_recompute] % 2 == 1
        chosen = "MUST_SAVE" if keep else "PREFER_RECOMPUTE"
        return CheckpointPolicy[chosen]

    return create_selective_checkpoint_contexts(policy)


def sums(records: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Totals by name, over the records that have it."""
    totals: dict[str, float] = {}
    for record in records:
        for name, value in record.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
