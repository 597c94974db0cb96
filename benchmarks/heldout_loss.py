"""Held-out loss of a model beside the codes' unigram entropy; margin and 16-way match.

python benchmarks/heldout_loss.py --shards SHARDS [--model MODEL] [--neighbours 0,2]
    [--precision int8]

SHARDS has the folders train, test_style and test_concept that `cm3leon data shards`
writes with the model's own tokenizers. Neighbours are those that a caption finds in the
model's memory bank, as at a prompt. Prints a Markdown table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cm3leon import load
from cm3leon.data.shards import Record, Shards
from cm3leon.decoding.engine import Engine
from cm3leon.evaluation.likelihood import (
    Reader,
    Retrieved,
    caption_match,
    held_out_loss,
    perplexity,
    unigram_entropy,
)
from cm3leon.retrieval.retriever import Retriever

BARS = {  # with two neighbours: gain over the entropy, margin, match
    "train": (None, 0.6, 0.80),
    "test_style": (3.7, 0.25, 0.55),
    "test_concept": (3.4, None, 0.40),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=256, help="for the match")
    parser.add_argument("--precision", choices=["fp32", "bf16", "int8"], default=None)
    parser.add_argument("--neighbours", type=numbers, default=[0, 2])
    arguments = parser.parse_args()
    engine = load(arguments.model, precision=arguments.precision)
    entropy = unigram_entropy(Shards(arguments.shards / "train"))
    print(f"unigram entropy of the train codes: {entropy:.3f} nats")
    print(
        "| split | pictures | neighbours | nats per code | gain (bar) | first quarter "
        "| perplexity | nats per text id | text perplexity | caption margin (bar) "
        "| 16-way match (bar) |"
    )
    print("|---|" + "---:|" * 10)
    for split, (gain_bar, margin_bar, match_bar) in BARS.items():
        shards = Shards(arguments.shards / split)
        stride = max(1, len(shards) // 2048) if split == "train" else 1
        records = [shards[index] for index in range(0, len(shards), stride)]
        step = max(1, len(records) // arguments.pictures)
        for count in arguments.neighbours:
            reader = Reader(
                engine.model,
                engine.codec.vocabulary,
                engine.position_slot,
                neighbours=retrieved(engine, records, count) if count else None,
            )
            loss = held_out_loss(reader, records)
            match = caption_match(reader, records[::step][: arguments.pictures])
            gain = f"{entropy - loss.image:.3f}" + bar(gain_bar)
            print(
                f"| {split} | {loss.documents} | {count} | {loss.image:.3f} | {gain} "
                f"| {loss.first_rows:.3f} | {perplexity(loss.image):.1f} "
                f"| {loss.text:.3f} | {perplexity(loss.text):.1f} "
                f"| {match.margin:.3f}{bar(margin_bar)} "
                f"| {match.right:.1%} (≥ {match_bar:.0%}) |"
            )
            sys.stdout.flush()


def numbers(words: str) -> list[int]:
    """`"0,2"` -> [0, 2]."""
    return [int(word) for word in words.split(",")]


def bar(least: float | None) -> str:
    """A bar in brackets, where there is one."""
    return f" (≥ {least})" if least else ""


def retrieved(engine: Engine, records: Sequence[Record], count: int) -> Retrieved:
    """What the captions of some records find in the model's memory bank."""
    assert isinstance(engine.retriever, Retriever)
    return Retrieved(records, engine.retriever, engine.codec, count)


if __name__ == "__main__":
    main()
