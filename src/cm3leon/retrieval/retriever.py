"""Which documents stand before a document. Yu et al. 2023, §2.1.

    walk the bank from the most relevant document down, and take m unless
        r(q, m) > 0.9                      it all but repeats what is asked for
        r(m, s) > 0.9 for a chosen s       it all but repeats another neighbour
        its picture is excluded, or that of a chosen s; equal codes are one picture

Neighbours are whole documents, text and picture. For training, two are sought by a
document's text, of which a fifth of the words is left out (query dropout), and two by
its picture.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from cm3leon.errors import ConfigError
from cm3leon.retrieval.encoder import BiEncoder
from cm3leon.retrieval.memory import BankDocument, MemoryBank

Picture = str | tuple[int, ...]  # its key, or its codes

DEPTH = 32  # documents looked at first; four times as many as long as too few pass


@dataclass(frozen=True, kw_only=True)
class RetrieverConfig:
    """The rules. The defaults are the paper's."""

    most_relevance: float = 0.9  # to the query, and of two neighbours to each other
    query_dropout: float = 0.2  # share of a query's words left out, in training
    by_text: int = 2  # candidates in training
    by_image: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.most_relevance <= 1:
            raise ConfigError(
                f"most_relevance is {self.most_relevance}, outside (0, 1]; 0.9 is the "
                "paper's"
            )
        if not 0 <= self.query_dropout < 1:
            raise ConfigError(f"query_dropout is {self.query_dropout}, outside [0, 1)")
        for name in ("by_text", "by_image"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, below 0")


class Neighbour(NamedTuple):
    """A retrieved document."""

    number: int  # in the bank
    relevance: float  # cosine of query and document
    document: BankDocument

    def attribution(self) -> dict[str, Any]:
        """Whose it is and how it was found, ready for JSON."""
        about = asdict(self.document)
        del about["codes"]
        return about | {"relevance": round(self.relevance, 4)}


class Retriever:
    """A bank, and the encoder its vectors were made with.

    Raises:
        ConfigError: the bank's vectors are another encoder's.
    """

    def __init__(
        self,
        bank: MemoryBank,
        encoder: BiEncoder,
        config: RetrieverConfig | None = None,
    ) -> None:
        if encoder.fingerprint != bank.config.encoder:
            raise ConfigError(
                "the memory bank was built with another bi-encoder; build it again "
                "with this one"
            )
        self.bank = bank
        self.encoder = encoder
        self.config = config or RetrieverConfig()

    def by_text(
        self, texts: Sequence[str], count: int, excluded: Collection[Picture] = ()
    ) -> list[list[Neighbour]]:
        """Up to `count` neighbours of each text, the most relevant first.

        Fewer come back where no more documents pass the rules.

        Args:
            texts: what is asked for.
            count: of neighbours, 0 or more.
            excluded: keys or codes of pictures that must not come back.
        """
        queries = self.encoder.texts(texts).numpy()
        return self.by_vector(queries, count, [excluded] * len(texts))

    def by_image(
        self,
        images: Sequence[Image.Image],
        count: int,
        excluded: Collection[Picture] = (),
    ) -> list[list[Neighbour]]:
        """The same for pictures."""
        queries = self.encoder.images(images).numpy()
        return self.by_vector(queries, count, [excluded] * len(images))

    def by_vector(
        self,
        queries: Float[np.ndarray, "query width"],
        count: int,
        excluded: Sequence[Collection[Picture]],
    ) -> list[list[Neighbour]]:
        """The same for unit vectors, each with the pictures it must not meet."""
        if count < 0:
            raise ConfigError(f"neighbours is {count}, below 0")
        chosen: list[list[Neighbour]] = [[] for _ in queries]
        waiting = list(range(len(queries))) if count else []
        depth = DEPTH
        while waiting:
            depth = min(depth, len(self.bank))
            relevances, numbers = self.bank.search(queries[waiting], depth)
            short = []
            for row, query in enumerate(waiting):
                passed = self._pass(
                    relevances[row], numbers[row], count, excluded[query]
                )
                chosen[query] = passed
                if len(passed) < count and depth < len(self.bank):
                    short.append(query)
            waiting, depth = short, 4 * depth
        return chosen

    def candidates(
        self,
        texts: Float[np.ndarray, "doc width"],
        images: Float[np.ndarray, "doc width"],
        own: Sequence[Collection[Picture]],
    ) -> list[list[Neighbour]]:
        """Neighbours of documents to learn from: by text, then by picture, best first.

        None all but repeats another. Which of them are kept, and in which order, is
        drawn whenever the document is read (`data.stream`).

        Args:
            texts: vectors of their texts, some words left out (`drop_words`).
            images: vectors of their pictures.
            own: keys and codes of their pictures, which never come back.
        """
        found = []
        for by_text, by_image in zip(
            self.by_vector(texts, self.config.by_text, own),
            self.by_vector(images, self.config.by_image, own),
            strict=True,
        ):
            both = (*by_text, *by_image)  # found apart, so they may repeat each other
            relevances = np.array([one.relevance for one in both])
            numbers = np.array([one.number for one in both], dtype=np.int64)
            found.append(self._pass(relevances, numbers, len(both), ()))
        return found

    def agreement(
        self, texts: Sequence[str], images: Sequence[Image.Image]
    ) -> list[float]:
        """The cosine of each text and its picture, as the bi-encoder sees them."""
        vectors = self.encoder.texts(texts) * self.encoder.images(images)
        return [float(x) for x in vectors.sum(dim=-1)]

    def _pass(
        self,
        relevances: Float[np.ndarray, " count"],
        numbers: np.ndarray,
        count: int,
        excluded: Collection[Picture],
    ) -> list[Neighbour]:
        """The first of a list that the rules let through."""
        cap = self.config.most_relevance
        if cap == 1:
            cap = math.inf  # of fp16 vectors, a product may be 1.0005
        passed: list[Neighbour] = []
        taken = set(excluded)
        vectors: list[np.ndarray] = []
        for relevance, number in zip(
            relevances.tolist(), numbers.tolist(), strict=True
        ):
            if relevance > cap:
                continue
            vector = self.bank.vectors([number])[0]
            if any(float(vector @ other) > cap for other in vectors):
                continue
            document = self.bank[number]
            if document.key in taken or document.codes in taken:
                continue
            taken |= {document.key, document.codes}
            passed.append(Neighbour(number, relevance, document))
            vectors.append(vector)
            if len(passed) == count:
                break
        return passed


def drop_words(text: str, share: float, random: np.random.Generator) -> str:
    """The text with each word left out with chance `share`; never all of them.

    >>> drop_words("a red apple", 0.0, np.random.default_rng(0))
    'a red apple'
    """
    words = text.split()
    kept = [word for word in words if random.random() >= share]
    if not kept and words:
        kept = [words[int(random.integers(len(words)))]]
    return " ".join(kept)
