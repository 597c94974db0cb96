"""Staged pictures -> the rows of the corpus: which stay, their ids, splits, captions.

Pictures that may be used by naming their author come first in every choice made here,
so adding others leaves their ids, splits and captions as they were.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cm3leon.corpus.captions import captions_of, main_caption, tier_of
from cm3leon.corpus.naming import concept_of, slug
from cm3leon.corpus.near_duplicates import find_twins
from cm3leon.corpus.splits import Split, split_of
from cm3leon.corpus.staging import Staged

_MOST_FURTHER_LABELS = 4
# Near-duplicates by a hair, which the first build kept since it compared in single
# precision. The shipped model was trained on it, so they stay.
_KEPT = frozenset(
    {
        ("fluent-emoji-3d", "1f5fe"),
        ("fluent-emoji-3d", "1f9cd-1f3ff-200d-2640-fe0f"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture of the corpus, without its pixels."""

    id: str
    caption: str
    captions: tuple[str, ...]
    label: str
    style: str
    keywords: tuple[str, ...]
    colors: tuple[str, ...]
    concept: str
    group: str
    subgroup: str
    tier: str
    source: str
    licence: str
    author: str
    skin_tone: bool
    unicode: str
    split: Split = field(metadata={"column": False})
    place: int = field(metadata={"column": False})  # in the source's staged file


def assemble(pictures: Sequence[Staged]) -> list[Row]:
    """The rows of all pictures that stay, those under free licences first."""
    pictures = sorted(pictures, key=lambda picture: not picture.is_attribution)
    kept, labels = _without_near_duplicates(pictures)
    concepts = {index: _concept(pictures[index]) for index in kept}
    sources = defaultdict(set)
    for index, concept in concepts.items():
        if pictures[index].is_attribution:
            sources[concept].add(pictures[index].source.name)
    taken: set[str] = set()
    rows = []
    for index, concept in concepts.items():
        picture = pictures[index]
        identity = _identity(picture, taken)
        taken.add(identity)
        split = split_of(
            identity,
            concept,
            sources=len(sources[concept]),
            toned=picture.facts.toned,
        )
        rows.append(_row(picture, identity, concept, split, labels[index]))
    return rows


def _without_near_duplicates(
    pictures: Sequence[Staged],
) -> tuple[list[int], dict[int, list[str]]]:
    """The places of pictures that stay, and labels they take over from the others.

    Of a skin-tone variant and the plain emoji the plain one stays.
    """
    order = sorted(
        range(len(pictures)),
        key=lambda i: (not pictures[i].is_attribution, pictures[i].facts.toned),
    )
    keep = {
        index
        for index, picture in enumerate(pictures)
        if (picture.source.name, picture.facts.key) in _KEPT
    }
    twins = find_twins(np.stack([p.thumbnail for p in pictures]), order, keep=keep)
    labels: dict[int, list[str]] = defaultdict(list)
    for index, twin in enumerate(twins):
        if twin is not None and _same_thing(pictures[index], pictures[twin]):
            further, label = labels[twin], pictures[index].facts.label
            if label != pictures[twin].facts.label and (
                len(further) < _MOST_FURTHER_LABELS
            ):
                further.append(label)
    return [index for index, twin in enumerate(twins) if twin is None], labels


def _same_thing(one: Staged, other: Staged) -> bool:
    """Whether one's label may be said of the other."""
    return (
        one.source.name == other.source.name
        and one.is_attribution == other.is_attribution
        and concept_of(one.facts.label) == concept_of(other.facts.label)
    )


def _concept(picture: Staged) -> str:
    return picture.facts.concept or concept_of(picture.facts.label)


def _identity(picture: Staged, taken: set[str]) -> str:
    """`source/name`, with an `x` for each picture before that had the same name."""
    identity = f"{picture.source.name}/{slug(picture.facts.key)}"
    while identity in taken:
        identity += "x"
    return identity


def _row(
    picture: Staged, identity: str, concept: str, split: Split, labels: Sequence[str]
) -> Row:
    facts, source = picture.facts, picture.source.name
    return Row(
        id=identity,
        caption=main_caption(facts),
        captions=captions_of(facts, picture.colors, labels),
        label=facts.label,
        style=facts.style,
        keywords=facts.keywords,
        colors=picture.colors,
        concept=concept,
        group=facts.group,
        subgroup=facts.subgroup,
        tier=tier_of(source, facts, grey=picture.grey),
        source=source,
        licence=facts.licence,
        author=facts.author,
        skin_tone=facts.toned,
        unicode=facts.unicode,
        split=split,
        place=picture.place,
    )
