"""What cannot be used of a collection of pictures, counted and by name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "unreadable picture",
    "too many pixels",
    "no picture",
    "no caption",
    "unreadable metadata",
    "unreadable file",
]


@dataclass(frozen=True)
class Problem:
    """One picture, or one file of them, that cannot be used."""

    kind: Kind
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known so far; pictures nobody has decoded yet count as good."""

    good: int
    problems: Sequence[Problem]

    @property
    def total(self) -> int:
        """Good ones and problems."""
        return self.good + len(self.problems)

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How often each kind of problem occurs, most frequent first."""
        kinds = Counter(problem.kind for problem in self.problems)
        return dict(kinds.most_common())

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "total": self.total,
            "good": self.good,
            "counts": dict(self.counts),
            "problems": [asdict(problem) for problem in self.problems],
        }

    def __str__(self) -> str:
        """One line with the first name.

        >>> print(Report(good=2, problems=[Problem("no caption", "a.png", "")]))
        2 good, 1 no caption (first: a.png)
        """
        counts = [f"{number:,} {kind}" for kind, number in self.counts.items()]
        first = f" (first: {self.problems[0].name})" if self.problems else ""
        return ", ".join([f"{self.good:,} good", *counts]) + first
