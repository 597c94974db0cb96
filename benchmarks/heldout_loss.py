"""Held-out loss of a model beside the codes' unigram entropy; margin and 16-way match.

python benchmarks/heldout_loss.py --shards SHARDS [--model MODEL]

SHARDS has the folders train, test_style and test_concept that `cm3leon data shards`
writes with the model's own tokenizers. Prints a Markdown table.
"""

import argparse
import sys
from pathlib import Path

from cm3leon import load
from cm3leon.data.shards import Shards
from cm3leon.evaluation.likelihood import (
    Reader,
    caption_match,
    held_out_loss,
    perplexity,
    unigram_entropy,
)

BARS = {  # gain over the entropy, margin, match
    "train": (None, 0.40, 0.65),
    "test_style": (3.4, None, 0.48),
    "test_concept": (3.2, None, 0.35),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=256, help="for the match")
    arguments = parser.parse_args()
    engine = load(arguments.model)
    reader = Reader(engine.model, engine.codec.vocabulary, engine.position_slot)
    entropy = unigram_entropy(Shards(arguments.shards / "train"))
    print(f"unigram entropy of the train codes: {entropy:.3f} nats")
    print(
        "| split | pictures | nats per code | gain (bar) | first quarter | perplexity "
        "| nats per text id | text perplexity | caption margin (bar) "
        "| 16-way match (bar) |"
    )
    print("|---|" + "---:|" * 9)
    for split, (gain_bar, margin_bar, match_bar) in BARS.items():
        shards = Shards(arguments.shards / split)
        stride = max(1, len(shards) // 2048) if split == "train" else 1
        records = [shards[index] for index in range(0, len(shards), stride)]
        loss = held_out_loss(reader, records)
        step = max(1, len(records) // arguments.pictures)
        match = caption_match(reader, records[::step][: arguments.pictures])
        gain = f"{entropy - loss.image:.3f}" + (f" (≥ {gain_bar})" if gain_bar else "")
        margin = f"{match.margin:.3f}" + (f" (≥ {margin_bar})" if margin_bar else "")
        print(
            f"| {split} | {loss.documents} | {loss.image:.3f} | {gain} "
            f"| {loss.first_rows:.3f} | {perplexity(loss.image):.1f} "
            f"| {loss.text:.3f} | {perplexity(loss.text):.1f} | {margin} "
            f"| {match.right:.1%} (≥ {match_bar:.0%}) |"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
