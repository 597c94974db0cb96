"""What a training costs, before it runs: FLOPs, time, and whether it fits."""

from dataclasses import asdict, dataclass
from typing import Any

from cm3leon.errors import ConfigError
from cm3leon.model.transformer import TransformerConfig
from cm3leon.planning.cluster import Cluster
from cm3leon.planning.memory import MODES, Checkpointing, Job, Memory, memory


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper says of a training."""

    gpus: int
    ids_per_step: float
    ids: float


TABLE_3 = {  # Yu et al. 2023
    "350m": Published(gpus=256, ids_per_step=8e6, ids=1.4e12),
    "760m": Published(gpus=256, ids_per_step=8e6, ids=1.9e12),
    "7b": Published(gpus=512, ids_per_step=8e6, ids=2.4e12),
}


def flops_again(shape: TransformerConfig, checkpointing: Checkpointing) -> float:
    """FLOPs per id of what checkpointing makes again: never the last product, `fc2`."""
    width = shape.width
    match checkpointing:
        case "off":
            return 0.0
        case "selective":  # `out`
            return 2.0 * shape.layers * width**2
        case "full":  # `qkv`, causal attention, `out`, `fc1`
            return 2.0 * shape.layers * (8 * width**2 + width * shape.context)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job on a cluster.

    Args:
        job: what is trained.
        cluster: on what.
        mfu: share of the peak that goes into the model's own FLOPs.
    """

    job: Job
    cluster: Cluster
    mfu: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"mfu is {self.mfu}, outside (0, 1]")

    @property
    def ids_per_step(self) -> int:
        """Over all GPUs."""
        job = self.job
        return self.cluster.gpus * job.accumulate * job.rows * job.shape.context

    @property
    def ids(self) -> int:
        """That are read in all."""
        return self.job.steps * self.ids_per_step

    @property
    def flops(self) -> float:
        """Of all steps, without what checkpointing makes again."""
        return self.ids * self.job.shape.flops_per_id(self.job.shape.context)

    @property
    def seconds(self) -> float:
        """From the first step to the last."""
        return self.flops / (self.cluster.peak * self.mfu)

    def accumulate_for(self, ids_per_step: float) -> int:
        """The `accumulate` whose step comes nearest to so many ids; at least 1."""
        batch = self.ids_per_step / self.job.accumulate
        return max(1, round(ids_per_step / batch))

    def memory(self, checkpointing: Checkpointing) -> Memory:
        """Bytes on each GPU."""
        return memory(self.job, self.cluster.shards, checkpointing)

    def choose(self, wanted: Checkpointing | None = None) -> Checkpointing:
        """`wanted`, or what makes the least again, if it fits.

        Raises:
            ConfigError: it does not fit, or nothing does.
        """
        needed = {mode: self.memory(mode).total for mode in MODES}
        usable = self.cluster.usable
        fitting = [mode for mode in MODES if needed[mode] <= usable]
        if fitting and wanted in (*fitting, None):
            return wanted or fitting[0]
        mode = wanted or "full"
        way = "take more or larger GPUs, or lower stream.rows"
        if fitting:
            best = fitting[0]
            way = f"--checkpointing {best} takes {needed[best] / 1e9:.1f} GB"
        raise ConfigError(
            f"checkpointing {mode} takes {needed[mode] / 1e9:.1f} GB a GPU, and of "
            f"{self.cluster.gpu} {usable / 1e9:.1f} GB can be filled; {way}"
        )

    def table(self) -> dict[str, Any]:
        """Its numbers by name; memory in bytes, FLOPs made again as a share."""
        shape = self.job.shape
        whole = shape.flops_per_id(shape.context)
        return {
            "parameters": shape.parameters,
            "ids_per_step": self.ids_per_step,
            "ids": self.ids,
            "flops": self.flops,
            "tokens_per_second": self.ids / self.seconds,
            "days": self.seconds / 86_400,
            "gpu_hours": self.cluster.gpus * self.seconds / 3600,
            "usable": self.cluster.usable,
            "memory": {
                mode: asdict(found := self.memory(mode))
                | {"total": found.total, "fits": found.total <= self.cluster.usable}
                | {"flops_again": flops_again(shape, mode) / whole}
                for mode in MODES
            },
        }
