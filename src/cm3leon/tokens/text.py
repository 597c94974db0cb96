"""Text <-> text ids: byte-level BPE by Hugging Face `tokenizers`.

The paper's has 56,320 ids, the shipped one a few thousand; both are trained by
`TextTokenizer.train`. It knows no special tokens, so text that spells one is text.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cm3leon.errors import ConfigError, DataError

BYTES = 256
CAPTION_IDS = 30  # of a caption in a shard, and of a neighbour's before a prompt
SPLITTERS = ("Split", "Digits", "Punctuation")  # may stand before the one into bytes


def _blank() -> Tokenizer:
    """A byte-level BPE that has learned nothing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _keeps_all(splitter: Mapping[str, Any] | None) -> bool:
    """Whether a splitter ends in bytes and drops nothing before that."""
    steps = (splitter or {}).get("pretokenizers", [splitter])
    *before, last = steps or [None]
    return (
        last is not None
        and (last["type"], last.get("add_prefix_space")) == ("ByteLevel", False)
        and all(
            step["type"] in SPLITTERS and step.get("behavior") != "Removed"
            for step in before
        )
    )


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
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no text tokenizer: {error}") from error
        return cls._parsed(content, str(path))

    @classmethod
    def part(
        cls, table: Mapping[str, Any], text: range, origin: str
    ) -> "TextTokenizer":
        """The words of a larger byte-level BPE, counted from 0.

        Args:
            table: a `tokenizer.json` whose ids are also specials and image codes.
            text: the ids of its words.
            origin: where it comes from, for the message.

        Raises:
            DataError: what is left is no byte-level BPE, or loses text.
        """
        whole = json.loads(_blank().to_str())
        try:
            model = table["model"]
            entries = model["vocab"].items()
            words = {token: id - text.start for token, id in entries if id in text}
            pairs = [
                pair.split(" ") if isinstance(pair, str) else pair
                for pair in model["merges"]
            ]
            decoder = table["decoder"]["type"]
            whole["pre_tokenizer"] = table["pre_tokenizer"]
            whole["normalizer"] = table.get("normalizer")
            kept = [x for x in pairs if {*x, "".join(x)} <= words.keys()]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{origin} is no text tokenizer: {error!r}") from error
        learned = {"vocab": words, "merges": kept}
        unknown = ("unk_token", "fuse_unk")  # no text is unknown to bytes
        for key, value in whole["model"].items():
            if key not in unknown:
                whole["model"][key] = learned.get(key, model.get(key) or value)
        if decoder != "ByteLevel":
            raise DataError(f"{origin} is no byte-level BPE: it decodes by {decoder}")
        return cls._parsed(json.dumps(whole), origin)

    @classmethod
    def _parsed(cls, content: str, path: str) -> "TextTokenizer":
        """The tokenizer of a JSON, checked."""
        try:
            tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is no text tokenizer: {error}") from error
        # Anything but its entries and merges must be as in those trained here: an
        # added token would turn text that spells it into its id, a normalizer or a
        # splitter that drops what it splits at would not give the text back.
        found, ours = json.loads(tokenizer.to_str()), json.loads(_blank().to_str())
        vocabulary = found["model"].pop("vocab", {})
        for part in (found, ours):
            for learned in ("vocab", "merges"):
                part["model"].pop(learned, None)
        for key, value in ours.items():
            splits = key == "pre_tokenizer" and _keeps_all(found[key])
            if found.get(key) != value and not splits:
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

    def cut(self, text: str, most: int = CAPTION_IDS) -> str:
        """The beginning of a text, in whole characters, that has at most `most` ids."""
        while len(ids := self.encode(text)) > most:
            begun = self.decode(ids[:most])
            same = (a == b for a, b in zip(text[:-1], begun, strict=False))
            text = text[: sum(takewhile(bool, same))]  # less a character cut in two
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
