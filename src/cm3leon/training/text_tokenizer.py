"""Training of the text tokenizer on a corpus's captions."""

from dataclasses import dataclass
from pathlib import Path

from cm3leon.data.pictures import Pictures
from cm3leon.errors import ConfigError
from cm3leon.tokens.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class TextTokenizerTraining:
    """Settings of one training of a text tokenizer."""

    run: str  # folder that `text_tokenizer.json` is written to
    data: str | None = None  # a corpus or folder that `Pictures.open` reads
    text: str | None = None  # or a plain text file, a document a line
    split: str = "train"
    size: int = 3072  # ids; the paper: 56,320

    def __post_init__(self) -> None:
        if (self.data is None) == (self.text is None):
            raise ConfigError("give data=FOLDER or text=FILE, one of the two")


def train(settings: TextTokenizerTraining) -> Path:
    """Learn the merges; the file that was written."""
    if settings.text is not None:
        with Path(settings.text).open(encoding="utf-8") as lines:
            tokenizer = TextTokenizer.train(lines, settings.size)
    else:
        pictures = Pictures.open(str(settings.data), settings.split)
        captions = (text for group in pictures.captions() for text in group)
        tokenizer = TextTokenizer.train(captions, settings.size)
    folder = Path(settings.run)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "text_tokenizer.json"
    tokenizer.save(file)
    return file
