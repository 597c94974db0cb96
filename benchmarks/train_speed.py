"""Training speed and memory beside transformers' OPT, the plan and the machine's limit.

pip install -c constraints.txt accelerate
python benchmarks/train_speed.py [--preset 350m] [--rows 1] [--time 1024] [--steps 3]
    [--rounds 2]

OPT of the same shape trains under transformers' own `Trainer` (which needs accelerate),
once as it comes and once with freed memory kept as `cm3leon train` does it; ours under
`training.loop.Run` with its activations kept, made again in part, or made again: the
same random ids and AdamW, bf16 autocast where the processor has it. Each variant has
a process of its own, they take turns, and medians over the rounds are printed. In each
the matrix product is measured between steps; the first step, in which torch counts
FLOPs, is not timed.

GFLOP/s are of the model's own FLOPs, without what is made again. The second table is
beside `cm3leon plan`'s formulas for one process and rows of so many ids. Memory there
is the largest resident set less what was resident before the model was built. The plan
counts tensors under FSDP2, which holds two blocks in bf16 at a time; autocast holds
all, 2 bytes a parameter more. torch counts the whole square of attention (and in the
fused kernel's backward pass its scores again), the plan the causal half.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import repeat
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cm3leon.data.stream import Batch
from cm3leon.model.opt import settings_to_opt
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.planning.memory import MODES, Checkpointing, Job, Precision, memory
from cm3leon.planning.plan import flops_again
from cm3leon.precision import has_bfloat16
from cm3leon.tokens.vocabulary import Vocabulary
from cm3leon.training.allocation import keep_freed_memory
from cm3leon.training.distributed import CPU, change_blocks
from cm3leon.training.loop import LoopConfig, Run, matrix_peak
from cm3leon.training.metrics import peak_memory
from cm3leon.training.optimizer import Optimizer, OptimizerConfig

PEER = "transformers OPT"
KEEPING = f"{PEER}, freed memory kept"
SIZES = {
    "tiny": {"rows": 4, "time": 64, "steps": 2},
    "shipped": {"rows": 48, "time": 88, "steps": 6},
    "350m": {"rows": 1, "time": 1024, "steps": 3},
}
FASTER, SHARE = 1.3, 0.55  # bars: times the peer, of the peak
ADAMW = OptimizerConfig(learning_rate=1e-4)

FUSED = "_scaled_dot_product_flash_attention"
for _pass in ("", "_backward"):  # torch counts it on GPUs only
    _on_cpu = getattr(torch.ops.aten, f"{FUSED}_for_cpu{_pass}")
    flop_registry[_on_cpu] = flop_registry[getattr(torch.ops.aten, FUSED + _pass)]


class Clock(transformers.TrainerCallback):
    """FLOPs of the first step, seconds of the others, the peak after each."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)
        self.flops: int | None = None
        self.seconds: list[float] = []
        self.peaks: list[float] = []
        self.since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Count."""
        self.counter.__enter__()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the step; the next begins when this returns."""
        if self.flops is None:
            self.counter.__exit__(None, None, None)
            self.flops = self.counter.get_total_flops()
        else:
            self.seconds.append(time.perf_counter() - self.since)
        self.peaks.append(matrix_peak(0.3))
        self.since = time.perf_counter()


def train_peer(
    config: TransformerConfig, ids: torch.Tensor, steps: int, clock: Clock
) -> None:
    """The same function in transformers, under its own loop."""
    settings = transformers.OPTConfig(**settings_to_opt(config, pad=1, eos=2))
    model = transformers.OPTForCausalLM(settings)
    (optimizer,) = Optimizer(model, ADAMW, steps).parts
    with TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=has_bfloat16(),
            max_steps=steps,
            per_device_train_batch_size=len(ids),
            max_grad_norm=ADAMW.clip,
            lr_scheduler_type="constant",
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rows = [{"input_ids": row, "labels": row} for row in ids[:, :-1]]
        trainer = transformers.Trainer(
            model, arguments, train_dataset=rows * steps, optimizers=(optimizer, None)
        )
        trainer.add_callback(clock)
        trainer.train()


def train_ours(
    config: TransformerConfig,
    ids: torch.Tensor,
    steps: int,
    clock: Clock,
    mode: Checkpointing,
) -> None:
    """Ours under our loop, which reads the same batch each time."""
    model = Transformer(config)
    change_blocks(model, mode)
    rows, length = len(ids), ids.shape[1] - 1
    places = torch.arange(length).expand(rows, -1)
    weights, none = torch.ones(rows, length), torch.zeros_like(places)
    batch = Batch(ids[:, :-1], places, ids[:, 1:], weights, none, 0.0, 0.0)
    optimizer = Optimizer(model, ADAMW, steps)
    vocabulary = Vocabulary.own(256, 128)  # the loss is told by its ranges, no more
    run = Run(model, optimizer, repeat(batch), vocabulary, LoopConfig())
    clock.on_train_begin()
    for number in range(steps):
        run.step(number)
        clock.on_step_end()


def measure(variant: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds, FLOPs and bytes of one variant in this process."""
    torch.manual_seed(0)
    config = preset(arguments.preset)
    shape = (arguments.rows, arguments.time + 1)
    ids = torch.randint(4, config.vocabulary_size, shape)
    clock, before = Clock(), psutil.Process().memory_info().rss
    if variant != PEER:
        keep_freed_memory()
    if variant in (PEER, KEEPING):
        train_peer(config, ids, arguments.steps + 1, clock)
    else:
        train_ours(config, ids, arguments.steps + 1, clock, variant)
    most = peak_memory(CPU)
    return {
        "seconds": median(clock.seconds),
        "peak": median(clock.peaks),
        "memory": most,
        "training": most - before,
        "flops": clock.flops,
    }


def report(
    medians: Mapping[str, Mapping[str, float]], arguments: argparse.Namespace
) -> None:
    """Both tables."""
    config, rows, length = preset(arguments.preset), arguments.rows, arguments.time
    tokens = rows * length
    own = config.flops_per_id(length) * tokens
    bf16 = has_bfloat16()
    peak = median(found["peak"] for found in medians.values())
    print(
        f"{arguments.preset}: {config.parameters / 1e6:.1f}M parameters, rows of "
        f"{length} ids, {rows} a step; {'bf16' if bf16 else 'fp32'} matrix product "
        f"{peak / 1e9:.0f} GFLOP/s\n\n"
        "| | tokens/s | GFLOP/s | of the peak | peak GB | times the peer | bars |\n"
        "|---|---:|---:|---:|---:|---:|---|"
    )
    for variant, found in medians.items():
        seconds = found["seconds"]
        name = f"cm3leon, checkpointing {variant}" if variant in MODES else variant
        bars = f"≥ {SHARE:.0%}, ≥ {FASTER}" if variant == "off" else ""
        print(
            f"| {name} | {tokens / seconds:.0f} | {own / seconds / 1e9:.0f} "
            f"| {own / seconds / found['peak']:.1%} | {found['memory'] / 1e9:.2f} "
            f"| {medians[PEER]['seconds'] / seconds:.2f} | {bars} |"
        )
    shape = replace(config, context=length)  # the plan's rows are as long as that
    precision = Precision(product=2 if bf16 else 4)
    job = Job(shape=shape, rows=rows, accumulate=1, steps=1, precision=precision)
    # weights, gradients and moments of the positions that no row reaches
    unread = 16 * (config.parameters - shape.parameters)
    print(
        "\n| checkpointing | GB above the start | GB planned | GFLOP torch counts "
        "| GFLOP planned |\n|---|---:|---:|---:|---:|"
    )
    for mode in MODES:
        found = medians[mode]
        planned = own + flops_again(shape, mode) * tokens
        print(
            f"| {mode} | {found['training'] / 1e9:.2f} "
            f"| {(memory(job, 1, mode).total + unread) / 1e9:.2f} "
            f"| {found['flops'] / 1e9:.1f} | {planned / 1e9:.1f} |"
        )


def main() -> None:
    """Measure each variant in its own process, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=list(SIZES), default="shipped")
    for name in ("rows", "time", "steps"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--only", choices=[PEER, KEEPING, *MODES], help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    for name, usual in SIZES[arguments.preset].items():
        setattr(arguments, name, getattr(arguments, name) or usual)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    if find_spec("accelerate") is None:
        parser.error("the peer needs: pip install -c constraints.txt accelerate")
    variants = (PEER, KEEPING, *MODES)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(arguments.rounds):
        for variant in variants:
            command = [sys.executable, *sys.argv, "--only", variant]
            said = subprocess.check_output(command, text=True)
            found[variant].append(json.loads(said.splitlines()[-1]))
    medians = {
        variant: {name: median(one[name] for one in ones) for name in ones[0]}
        for variant, ones in found.items()
    }
    report(medians, arguments)


if __name__ == "__main__":
    main()
