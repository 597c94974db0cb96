"""Text <-> text ids: byte-level BPE by Hugging Face `tokenizers`.

The paper's has 56,320 ids, the shipped one a few thousand; both are trained by
`TextTokenizer.train`. It knows no special tokens, so text that spells one is text.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cm3leon.errors import ConfigError, DataError

BYTES = 256


def _blank() -> Tokenizer:
    """A byte-level BPE that has learned nothing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class TextTokenizer:
    """Any string <-> ids 0 … size - 1, without loss."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "TextTokenizer":
        """Learn merges until there are `size` ids, or nothing left to merge.

        Raises:
            ConfigError: `size` is below the 256 bytes.
        """
        if size < BYTES:
            raise ConfigError(f"a text tokenizer of {size} ids; it needs at least 256")
        tokenizer = _blank()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Read a `tokenizer.json`.

        Raises:
            DataError: the file is missing, no tokenizer, or one that loses text or
                reads some text as a special token.
        """
        try:
            tokenizer = Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is no text tokenizer: {error}") from error
        # Anything but its entries and merges must be as in those trained here: an
        # added token would turn text that spells it into its id, a normalizer or
        # another splitter would not give the text back.
        found, ours = json.loads(tokenizer.to_str()), json.loads(_blank().to_str())
        vocabulary = found["model"].pop("vocab", {})
        for part in (found, ours):
            for learned in ("vocab", "merges"):
                part["model"].pop(learned, None)
        for key, value in ours.items():
            if found.get(key) != value:
                raise DataError(
                    f"{path} is no plain byte-level BPE: {key} is set otherwise; "
                    "train one here"
                )
        if set(vocabulary.values()) != set(range(len(vocabulary))):
            raise DataError(f"{path}: its ids are not 0 … {len(vocabulary) - 1}")
        if missing := set(pre_tokenizers.ByteLevel.alphabet()) - set(vocabulary):
            raise DataError(f"{path} lacks {len(missing)} of the 256 bytes")
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write one `tokenizer.json`."""
        Path(path).write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of any text.

        Raises:
            DataError: half a surrogate pair, which no file can hold either.
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"character {error.start} of a text is half a surrogate pair "
                    f"({text[error.start]!a}); remove it"
                ) from error
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
