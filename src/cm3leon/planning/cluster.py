"""The GPUs of a training."""

from dataclasses import dataclass

from cm3leon.errors import ConfigError

USABLE = 0.9  # of a GPU's memory; the rest: CUDA, NCCL, what fragmentation loses


@dataclass(frozen=True, kw_only=True)
class GPU:
    """One kind of GPU."""

    memory: float  # bytes
    peak: float  # FLOP/s of dense bf16 products


GPUS = {  # NVIDIA's data sheets; H100 and H200: SXM
    "a100-40gb": GPU(memory=40e9, peak=312e12),
    "a100-80gb": GPU(memory=80e9, peak=312e12),
    "h100": GPU(memory=80e9, peak=989e12),
    "h200": GPU(memory=141e9, peak=989e12),
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """So many of one kind, sharding a model among them."""

    gpu: str  # a key of GPUS
    gpus: int
    replicate: int = 1  # groups that each hold everything, sharded within

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise ConfigError(f"no GPU {self.gpu!r} is known; {', '.join(GPUS)} are")
        if self.gpus < 1:
            raise ConfigError(f"gpus is {self.gpus}, below 1")
        if self.replicate < 1 or self.gpus % self.replicate:
            raise ConfigError(
                f"replicate is {self.replicate}, which does not divide {self.gpus} GPUs"
            )

    @property
    def shards(self) -> int:
        """Parts in which a model is held."""
        return self.gpus // self.replicate

    @property
    def usable(self) -> float:
        """Bytes of each GPU that a training may fill."""
        return USABLE * GPUS[self.gpu].memory

    @property
    def peak(self) -> float:
        """FLOP/s of all together."""
        return self.gpus * GPUS[self.gpu].peak
