"""How fast pictures are drawn, and what neighbours cost.

python benchmarks/decode.py [--model FOLDER] [--rounds 7] [--picture PNG]
python benchmarks/decode.py --preset 350m [--codes 1024] [--rounds 1] [--no-peer]
python benchmarks/decode.py [--preset 350m] --windows 1,4,8,16

The first: seconds of `Engine.extend` on prompts of `benchmarks/prompts.txt` (search,
prefix, 64 guided codes, decoding to pixels), everything open and warm; calls with 0 and
2 neighbours alternate; medians, their ratio, the time to a first row of the picture,
and where the time goes.

The second: guided image codes per second of a preset's shape with random weights, after
64 text ids, beside transformers' OPT with the same weights, its own guidance and static
cache, and beside the limit: the bytes a step must read (weights, rows of the head, keys
and values half way) over the bandwidth of reading, measured before each row.

Either with --windows 1,4,8,16 instead: codes that a request draws in one pass, and the
time against one code a pass, windows alternating. With random weights the codes of a
pass say nothing, but what a pass costs does.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest import mock

import torch

import cm3leon
from cm3leon.decoding import drawing
from cm3leon.decoding.constraints import Constraint
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.lanes import Lane
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import Prompt
from cm3leon.model.opt import settings_to_opt, to_opt
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.randomness import torch_generator
from cm3leon.tokens.document import Document, Text

BAR = 1.25  # the most that two neighbours may cost
WORDS = 64  # ids of the prompt
IMAGE = range(4, 8196)  # 8,192 codes
EOS, MASK, BREAK = 2, 65_540, 65_538


def seconds(work: Callable[[], object]) -> float:
    """That some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def prompts(count: int) -> list[Document]:
    """The first prompts of the list."""
    lines = (Path(__file__).parent / "prompts.txt").read_text().splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    return [Document(Text(text)) for text in words[:count]]


def parts(engine: Engine, documents: list[Document], neighbours: int) -> dict[str, Any]:
    """Seconds of one call by what they are spent on."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = work(*given, **named)
            spent[name] += time.perf_counter() - began
            return result

        return wrapped

    options = replace(engine.options, neighbours=neighbours, seed=0)
    lanes, decode = drawing.Lanes, engine.image_tokenizer.decode
    find = engine._retrieve
    with (
        mock.patch.object(lanes, "join", timed("prompt", lanes.join)),
        mock.patch.object(lanes, "read", timed("codes: model", lanes.read)),
        mock.patch.object(drawing, "sample", timed("codes: choice", drawing.sample)),
        mock.patch.object(engine.image_tokenizer, "decode", timed("pixels", decode)),
        mock.patch.object(engine, "_retrieve", timed("search", find)),
    ):
        whole = seconds(lambda: engine.extend(documents, options))
    names = ("search", "prompt", "codes: model", "codes: choice", "pixels")
    found = {name: spent[name] for name in names}
    return {**found, "rest": whole - sum(found.values())}


def shipped(arguments: argparse.Namespace) -> None:
    """Time pictures of a model folder."""
    engine = cm3leon.load(arguments.model)
    if arguments.windows:
        for count in (1, 16):
            documents = prompts(count)

            def draw(window: int, seed: int, asked: list[Document] = documents) -> None:
                options = replace(engine.options, window=window, seed=seed)
                engine.extend(asked, options)

            print(f"{count} pictures at once")
            compare_windows(arguments.windows, arguments.rounds, draw)
        return
    print("| pictures at once | no neighbours, s | two neighbours, s | ratio (bar) |")
    print("|---:|---:|---:|---:|")
    for count in (1, 16):
        documents = prompts(count)
        taken: dict[int, list[float]] = {0: [], 2: []}
        for number in range(arguments.rounds + 1):
            for neighbours, times in taken.items():
                options = replace(engine.options, neighbours=neighbours, seed=number)
                spent = seconds(partial(engine.extend, documents, options))
                if number:  # the first round warms up
                    times.append(spent)
        none, two = median(taken[0]), median(taken[2])
        print(f"| {count} | {none:.2f} | {two:.2f} | {two / none:.2f} (≤ {BAR}) |")
    rows = {}
    for neighbours in (0, 2):
        options, documents = replace(options, neighbours=neighbours), prompts(1)
        first = [
            seconds(partial(next, engine.stream(documents[0], options)))
            for _ in range(arguments.rounds)
        ]
        print(f"first row of a picture, {neighbours} neighbours: {median(first):.3f} s")
        for count in (1, 16):
            name = f"{count}, {neighbours} neighbours"
            rows[name] = parts(engine, prompts(count), neighbours)
    names = list(next(iter(rows.values())))
    print(f"\n| pictures at once, ms | {' | '.join(names)} |")
    print(f"|---|{'---:|' * len(names)}")
    for name, row in rows.items():
        cells = " | ".join(f"{1000 * row[part]:.0f}" for part in names)
        print(f"| {name} | {cells} |")
    if arguments.picture:
        draw_parts(rows, names, arguments.picture)


def draw_parts(rows: dict[str, Any], names: list[str], path: Path) -> None:
    """Stacked bars of where the time goes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 2.2), layout="constrained")
    left = [0.0] * len(rows)
    for part in names:
        widths = [row[part] for row in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part)
        left = [one + more for one, more in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="seconds")
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


def bandwidth() -> float:
    """Bytes per second that a sum over 400 MB reads in the fastest tenth of 30 runs.

    Not the best of all, which may be twice as fast as any other.
    """
    numbers = torch.ones(100_000_000)
    return 4e8 / quantiles((seconds(numbers.sum) for _ in range(30)), n=10)[0]


def must_read(shape: TransformerConfig, lanes: int, codes: int, weight: int) -> float:
    """Bytes of a step half way: weights, rows of the head, bf16 keys and values."""
    blocks = 12 * shape.layers * shape.width**2 + len(IMAGE) * shape.width
    seen = WORDS + codes / 2
    return weight * blocks + 2 * 2 * lanes * seen * shape.layers * shape.width


def compare_windows(
    windows: list[int], rounds: int, draw: Callable[[int, int], object]
) -> None:
    """Print what a window brings.

    Args:
        windows: those to compare with 1.
        rounds: of which the medians are taken, after one that warms up.
        draw: does it with a window and a seed.
    """
    widths = sorted({1, *windows})
    times: dict[int, list[float]] = {width: [] for width in widths}
    drawn: dict[int, list[float]] = {width: [] for width in widths}
    for number in range(rounds + 1):
        for width in widths:
            kept: list[float] = []
            with mock.patch.object(drawing.Lanes, "keep", counting(kept)):
                spent = seconds(partial(draw, width, number))
            if number:
                times[width].append(spent)
                drawn[width] += kept or [1.0]
    print("| window | codes a pass | seconds | against window 1 | a pass against 1's |")
    print("|---:|---:|---:|---:|---:|")
    for width in widths:
        codes = sum(drawn[width]) / len(drawn[width])
        ratio = median(times[width]) / median(times[1])
        print(
            f"| {width} | {codes:.2f} | {median(times[width]):.2f} | {ratio:.2f} "
            f"| {ratio * codes:.2f} |",
            flush=True,
        )


def counting(kept: list[float]) -> Callable[..., None]:
    """`Lanes.keep`, with a note of the ids that each lane keeps while it goes on."""
    keep = drawing.Lanes.keep

    def counted(lanes: drawing.Lanes, counts: torch.Tensor, time: int) -> None:
        kept.extend(counts[counts > 0].tolist())
        keep(lanes, counts, time)

    return counted


def codes_per_second(
    model: Transformer, pictures: int, codes: int, window: int = 1, seed: int = 0
) -> float:
    """Guided codes of all pictures per second, reading the prompts included."""
    text = torch.randint(8196, 60_000, (WORDS - 2,)).tolist()
    strong = (EOS, *text, BREAK)
    weak = (EOS, MASK, BREAK)
    prompt = Prompt(
        Lane(strong, tuple(range(len(strong))), len(strong)),
        Lane(weak, tuple(range(len(weak))), len(weak)),
        Constraint("image", IMAGE),
        codes,
    )
    options = GenerationOptions(top_p=0.9, guidance_scale=3.0, window=window)
    chances = [torch_generator(seed, "request", number) for number in range(pictures)]
    drawn: list[list[int]] = []

    def work() -> None:
        drawn[:] = drawing.draw(model, [prompt] * pictures, options, chances)

    spent = seconds(work)
    assert all(len(row) == codes for row in drawn)
    return pictures * codes / spent


def peer_codes_per_second(
    shape: TransformerConfig, weights: dict[str, Any], codes: int
) -> float:
    """The same of transformers, bf16, one picture."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(**settings_to_opt(shape, pad=1, eos=EOS))
    with torch.device("meta"):
        model = OPTForCausalLM(config)
    model.load_state_dict(to_opt(weights), assign=True, strict=False)
    model.tie_weights()
    model = model.to(torch.bfloat16).eval()
    ids = torch.randint(8196, 60_000, (1, WORDS))
    allowed = list(IMAGE)
    with torch.inference_mode():
        spent = seconds(
            lambda: model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=codes,
                min_new_tokens=codes,
                do_sample=True,
                top_p=0.9,
                guidance_scale=3.0,
                negative_prompt_ids=torch.tensor([[EOS, MASK, BREAK]]),
                prefix_allowed_tokens_fn=lambda *_: allowed,
                cache_implementation="static",
            )
        )
    return codes / spent


def random_preset(arguments: argparse.Namespace) -> None:
    """Time a preset's shape."""
    shape = preset(arguments.preset)
    codes = arguments.codes
    weights = Transformer(shape, torch_generator(0, "decode")).state_dict()
    print(
        f"{arguments.preset}: {shape.parameters / 1e6:.0f}M parameters, {codes} codes"
    )
    if arguments.windows:
        model = Transformer(shape)
        model.load_state_dict(weights)
        model.eval().pack("bf16", compiled=True)
        compare_windows(
            arguments.windows,
            arguments.rounds,
            lambda window, seed: codes_per_second(model, 1, codes, window, seed),
        )
        return
    print("| | pictures | reading, GB/s | codes/s | of the limit | against the peer |")
    print("|---|---:|---:|---:|---:|---:|")
    peer = 0.0
    if arguments.peer:
        speed = bandwidth()
        peer = peer_codes_per_second(shape, weights, codes)
        limit = speed / must_read(shape, 2, codes, 2)
        print(
            f"| transformers, bf16 | 1 | {speed / 1e9:.1f} | {peer:.1f} "
            f"| {peer / limit:.0%} | 1 |",
            flush=True,
        )
    for packing, compiled in product(("bf16", "int8"), (False, True)):
        model = Transformer(shape)
        model.load_state_dict(weights)
        model.eval().pack(packing, compiled)
        if compiled and model.kernels is None:
            continue  # none here
        weight = 2 if packing == "bf16" else 1
        name = f"{packing}, kernels" if compiled else packing
        codes_per_second(model, 1, 8)  # warms up
        for pictures in (1, 4):
            speed = bandwidth()
            found = median(
                codes_per_second(model, pictures, codes)
                for _ in range(arguments.rounds)
            )
            read = must_read(shape, 2 * pictures, codes, weight)
            limit = pictures * speed / read
            against = f"{found / peer:.2f}" if peer and pictures == 1 else ""
            print(
                f"| cm3leon, {name} | {pictures} | {speed / 1e9:.1f} | {found:.1f} "
                f"| {found / limit:.0%} | {against} |",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--preset", choices=["350m", "760m", "7b"], default=None)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument(
        "--windows", type=lambda text: [int(one) for one in text.split(",")]
    )
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.preset else 7)
    random_preset(arguments) if arguments.preset else shipped(arguments)


if __name__ == "__main__":
    main()
