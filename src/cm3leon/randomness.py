"""One seed -> as many named, independent streams of chance as a run needs.

A stream is known by its names alone, so asking for one never moves another, and a
resumed run finds each where it would have been:

    generator(seed, "spans", step)      which spans step `step` hides
    generator(seed, "shuffle", epoch)   the order of one epoch
"""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The numpy stream called `names` under `seed`.

    Equal arguments give equal streams on every machine; `1` and `"1"`, `("ab",)` and
    `("a", "b")` are different names.
    """
    return np.random.default_rng(np.random.SeedSequence(_entropy(seed, names)))


def torch_generator(seed: int, *names: str | int) -> "torch.Generator":
    """The torch stream called `names` under `seed`, on the CPU."""
    import torch

    return torch.Generator().manual_seed(_entropy(seed, names) % 2**63)


def _entropy(seed: int, names: tuple[str | int, ...]) -> int:
    """256 bits that depend on every argument; `hash()` differs between processes."""
    plain = [name if isinstance(name, str) else int(name) for name in names]
    spelled = json.dumps([int(seed), *plain]).encode()
    return int.from_bytes(hashlib.sha256(spelled).digest(), "big")
