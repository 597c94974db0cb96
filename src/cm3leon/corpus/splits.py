"""Which split a picture belongs to: decided by hashes, so that it stays.

test_concept   3 %    no picture of the concept is in train, in any style
val_concept    1.5 %  the same, to choose settings by
test_style            this drawing is not in train, others of its concept are
train                 the rest
"""

import hashlib
from typing import Literal, get_args

Split = Literal["train", "val_concept", "test_concept", "test_style"]
SPLITS: tuple[Split, ...] = get_args(Split)

_TEST_CONCEPTS = 0.03
_VAL_CONCEPTS = 0.015
_TEST_STYLES = 0.03
_SOURCES_FOR_STYLE = 3


def split_of(identity: str, concept: str, *, sources: int, toned: bool) -> Split:
    """The split of one picture.

    Args:
        identity: its id.
        concept: what it shows.
        sources: sources that show the same.
        toned: whether it is a skin-tone variant; those are no test of style.
    """
    share = _share(f"concept:{concept}")
    if share < _TEST_CONCEPTS:
        return "test_concept"
    if share < _TEST_CONCEPTS + _VAL_CONCEPTS:
        return "val_concept"
    many = sources >= _SOURCES_FOR_STYLE
    if many and not toned and _share(f"style:{identity}") < _TEST_STYLES:
        return "test_style"
    return "train"


def _share(text: str) -> float:
    """A number in [0, 1) that is always the same for the same text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
