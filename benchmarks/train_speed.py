"""Training speed beside transformers' OPT of the same shape and the machine's limit.

python benchmarks/train_speed.py [--preset shipped] [--rows 48] [--time 88] [--steps 6]

One step is forward, backward, clipping and the optimizer, in bf16 autocast where the
processor has it, on the same random ids and with each one's own loss. The models take
turns, the peak of the matrix product is measured between them, and medians are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.objective.loss import head_loss
from cm3leon.precision import autocast, has_bfloat16
from cm3leon.training.loop import matrix_peak


def step_of(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], float]:
    """One training step; its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        started = time.perf_counter()
        with autocast():
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    return step


def peer(config: TransformerConfig) -> OPTForCausalLM:
    """The same function in transformers."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            ffn_dim=4 * config.width,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context,
            word_embed_proj_dim=config.width,
            dropout=0.0,
            attention_dropout=0.0,
            enable_bias=False,
            layer_norm_elementwise_affine=False,
        )
    ).train()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="shipped")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--time", type=int, default=88)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    config = preset(arguments.preset)
    torch.manual_seed(0)
    shape = (arguments.rows, arguments.time + 1)
    ids = torch.randint(4, config.vocabulary_size, shape)
    weights = torch.ones(arguments.rows, arguments.time)
    ours = Transformer(config)

    def loss() -> torch.Tensor:
        hidden = ours.hidden(ids[:, :-1])
        if has_bfloat16():
            hidden = hidden.bfloat16()
        return head_loss(hidden, ours.embedding.weight, ids[:, 1:], weights)[0]

    theirs = peer(config)
    steps = {
        "cm3leon": step_of(ours, loss),
        "transformers OPT": step_of(
            theirs, lambda: theirs(ids[:, :-1], labels=ids[:, :-1]).loss
        ),
    }
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    for _ in range(arguments.steps):
        for name, step in steps.items():
            times[name].append(step())
        peaks.append(matrix_peak(0.3))
    peak = statistics.median(peaks)
    tokens = arguments.rows * arguments.time
    flops = config.flops_per_id(arguments.time) * tokens
    precision = "bf16" if has_bfloat16() else "fp32"
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{arguments.preset}: {config.parameters / 1e6:.1f}M parameters, rows of "
        f"{arguments.time} ids, {arguments.rows} a step; {precision} matrix product "
        f"{peak / 1e9:.0f} GFLOP/s"
    )
    print("| | tokens/s | GFLOP/s | of the peak | bar |")
    print("|---|---:|---:|---:|---|")
    for name, seconds in medians.items():
        bar = "≥ 45 %" if name == "cm3leon" else ""
        print(
            f"| {name} | {tokens / seconds:.0f} | {flops / seconds / 1e9:.0f} "
            f"| {flops / seconds / peak:.1%} | {bar} |"
        )
    ratio = medians["transformers OPT"] / medians["cm3leon"]
    print(f"ours is {ratio:.2f} times as fast (bar 1.2)")


if __name__ == "__main__":
    main()
