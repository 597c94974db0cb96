"""Seconds per picture with and without retrieved neighbours, one and sixteen at once.

python benchmarks/decode.py [--model FOLDER] [--rounds 7]

Wall clock of `Engine.extend` on prompts of `benchmarks/prompts.txt`: search, prefix,
64 guided codes, decoding to pixels. The model and its memory bank are open and warm.
Calls with 0 and 2 neighbours alternate; medians over the rounds, and the ratio.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import cm3leon
from cm3leon.decoding.engine import Engine
from cm3leon.tokens.document import Document, Text

BAR = 1.25  # the most that two neighbours may cost


def seconds(engine: Engine, words: list[str], neighbours: int, seed: int) -> float:
    """Of one call."""
    options = replace(engine.options, neighbours=neighbours, seed=seed)
    began = time.perf_counter()
    engine.extend([Document(Text(text)) for text in words], options)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    engine = cm3leon.load(arguments.model)
    lines = (Path(__file__).parent / "prompts.txt").read_text().splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    print("| pictures at once | no neighbours, s | two neighbours, s | ratio (bar) |")
    print("|---:|---:|---:|---:|")
    for count in (1, 16):
        taken: dict[int, list[float]] = {0: [], 2: []}
        for number in range(arguments.rounds + 1):
            for neighbours, times in taken.items():
                spent = seconds(engine, words[:count], neighbours, number)
                if number:  # the first round warms up
                    times.append(spent)
        none, two = median(taken[0]), median(taken[2])
        print(f"| {count} | {none:.2f} | {two:.2f} | {two / none:.2f} (≤ {BAR}) |")


if __name__ == "__main__":
    main()
