"""AdamW or Muon, and the learning rate at each step.

The paper names neither optimizer nor decay; its parents use Adam, clipping at 1 and a
linear decay to a tenth of the peak (docs/paper.md). Muon (Jordan et al. 2024) learns
faster per step at the shipped size; it takes the matrices of the blocks, AdamW the
embedding and the positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cm3leon.errors import ConfigError
from cm3leon.training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters move."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 6e-4  # peak, of AdamW
    muon_learning_rate: float = 0.02  # peak, of Muon
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    warmup_steps: int = 1500
    decay: Literal["linear", "cosine", "constant"] = "linear"
    final_share: float = 0.1  # of the peak, at the last step
    second_start: int = 0  # step from which the schedule runs again; 0: it does not
    second_share: float = 0.5  # of the peak, where it starts again
    clip: float = 1.0  # largest norm of all gradients together; 0: none

    def __post_init__(self) -> None:
        for name in ("learning_rate", "muon_learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, not above 0")
        for name in ("final_share", "second_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, outside [0, 1]")
        if 0 < self.second_start <= self.warmup_steps:
            raise ConfigError(
                f"second_start is {self.second_start}, within the {self.warmup_steps} "
                "steps of warm-up"
            )


def share_of_peak(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of `step` (from 0) of `steps`, over its peak.

    With a `second_start` the first schedule ends there and a second one, without
    warm-up, falls from `second_share` to the end (Yu et al. 2023, figure 3).

    >>> config = OptimizerConfig(warmup_steps=2, final_share=0.0)
    >>> [share_of_peak(config, step, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    first, peak = config.warmup_steps, 1.0
    if config.second_start:
        if step >= config.second_start:
            first, peak = config.second_start, config.second_share
        else:
            steps = config.second_start
    if config.decay == "constant":
        return peak
    done = (step - first) / max(1, steps - first)
    left = 1 - min(1.0, done)
    if config.decay == "cosine":
        left = float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * (1 - left))))
    return config.final_share + (peak - config.final_share) * left


class Optimizer:
    """One or two torch optimizers under one schedule."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, steps: int) -> None:
        self.config = config
        self.steps = steps
        self.parameters = list(model.parameters())
        tables = [w for n, w in model.named_parameters() if not n.startswith("blocks.")]
        matrices = [w for n, w in model.named_parameters() if n.startswith("blocks.")]
        self.parts: list[torch.optim.Optimizer] = []
        if config.kind == "muon":
            self.parts.append(
                Muon(
                    matrices,
                    lr=config.muon_learning_rate,
                    weight_decay=config.weight_decay,
                )
            )
            self.parts.append(_adamw(tables, config))
        else:
            self.parts.append(_adamw([*tables, *matrices], config))
        self.peaks = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, step: int) -> float:
        """Clip, move the parameters, forget the gradients; the norm before clipping."""
        norm = self.clip()
        self.move(step)
        return norm

    def clip(self) -> float:
        """Cut the gradients to the largest norm allowed; the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(
            self.parameters, self.config.clip or float("inf")
        )
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def move(self, step: int) -> None:
        """Move the parameters and forget the gradients."""
        share = share_of_peak(self.config, step, self.steps)
        for part, peak in zip(self.parts, self.peaks, strict=True):
            for group in part.param_groups:
                group["lr"] = peak * share
            part.step()
        self.forget()

    def forget(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` said."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def _adamw(
    weights: Iterable[torch.Tensor], config: OptimizerConfig
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        weights,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
