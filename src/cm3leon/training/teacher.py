"""What a small bi-encoder learns from larger networks that read and see apart.

    p_i(j) = softmax_j <x_i, x_j> / temperature     j != i, x unit vectors
    L      = mean_i KL(p_i of the teacher || p_i of ours)

Only who is like whom is taught (Park et al. 2019, "Relational knowledge distillation"),
so vectors need be of no one width. Beside captions and pictures of the corpus the text
tower is taught words it has never met in one, so that it finds something for them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cm3leon.data.pictures import Pictures
from cm3leon.errors import DataError

PARTS = ("ids", "images", "texts", "words", "word_vectors")
BATCH = 256


def relation_loss(
    ours: Float[Tensor, "pair width"],
    theirs: Float[Tensor, "pair others"],
    temperature: float,
) -> Float[Tensor, ""]:
    """L of the formula above, of unit vectors."""
    own = torch.eye(len(ours), dtype=torch.bool)

    def log_shares(vectors: Tensor) -> Tensor:
        similar = vectors @ vectors.T / temperature
        return similar.masked_fill(own, -1e9).log_softmax(dim=-1)

    return F.kl_div(
        log_shares(ours), log_shares(theirs), reduction="batchmean", log_target=True
    )


class Teacher:
    """Others' vectors of pictures and of their captions, by picture id, and of words.

    Raises:
        DataError: the file is none that `write_teacher` makes.
    """

    def __init__(self, path: str) -> None:
        try:
            with np.load(path) as file:
                ids, images, texts, words, word_vectors = (file[x] for x in PARTS)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path} is no .npz of {', '.join(PARTS)}: {error}"
            ) from error
        if not len(ids) == len(images) == len(texts):
            raise DataError(
                f"{path} has {len(ids)} ids, {len(images)} images, {len(texts)} texts"
            )
        self.path = path
        self.rows = {name: row for row, name in enumerate(ids.tolist())}
        self.images, self.texts = images, texts
        self._words, self._word_vectors = words, word_vectors

    def loss(
        self, ids: Sequence[str], texts: Tensor, images: Tensor, temperature: float
    ) -> Tensor:
        """The mean of both towers' `relation_loss` to the teacher.

        Raises:
            DataError: it has no vectors of one of the pictures.
        """
        if missing := [name for name in ids if name not in self.rows]:
            raise DataError(f"{self.path} has no vectors of picture {missing[0]}")
        rows = [self.rows[name] for name in ids]
        pairs = ((texts, self.texts[rows]), (images, self.images[rows]))
        losses = [relation_loss(ours, _unit(x), temperature) for ours, x in pairs]
        return sum(losses, torch.tensor(0.0)) / 2

    def words(
        self, captions: Sequence[str], random: np.random.Generator
    ) -> tuple[list[str], Float[Tensor, "word width"]]:
        """As many words as captions, drawn with their unit vectors.

        Half of them stand where a caption names what it shows: a flat emoji of a WORD.
        """
        rows = random.integers(len(self._words), size=len(captions))
        texts = self._words[rows].tolist()
        for number, caption in enumerate(captions):
            style, of, _ = caption.partition(" of a ")
            if of and random.random() < 0.5:
                texts[number] = style + of + texts[number]
        return texts, _unit(self._word_vectors[rows])


def _unit(vectors: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(vectors).float(), dim=-1)


def write_teacher(
    path: Path,
    pictures: Pictures,
    see: Callable[[Sequence[Image.Image]], Tensor],
    read: Callable[[Sequence[str]], Tensor],
    words: Sequence[str],
    on_progress: Callable[[int], object] | None = None,
) -> None:
    """Ask two networks for all that `Teacher` reads.

    Args:
        path: of the .npz.
        pictures: a collection, scanned before if some may be damaged.
        see: pictures -> vectors.
        read: texts -> vectors; of a picture it reads what it shows, without the style
            and the colours, where the collection says so.
        words: taught beside those of the pictures.
        on_progress: called with the pictures done.
    """
    seen, labels = [], []
    for start in range(0, len(pictures), BATCH):
        stop = min(start + BATCH, len(pictures))
        group = [pictures[number] for number in range(start, stop)]
        seen.append(see([one.image for one in group]).half().numpy())
        labels += [one.label for one in group]
        if on_progress:
            on_progress(stop)
    known = {text: row for row, text in enumerate(sorted({*labels, *words}))}
    vectors = read(list(known)).half().numpy()
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        ids=np.array(list(pictures.ids())),
        images=np.concatenate(seen),
        texts=vectors[[known[label] for label in labels]],
        words=np.array(list(known)),
        word_vectors=vectors,
    )
    partial.replace(path)
