"""Licences and authors by file, from Debian's machine-readable copyright files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debian.copyright import Copyright


@dataclass(frozen=True)
class Credit:
    """Who made a file, and under which licence it may be used."""

    licence: str
    author: str


class Copyrights:
    """The copyright file of one package."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8", errors="replace") as file:
            self._paragraphs = Copyright(file, strict=False)

    def credit(self, file: str) -> Credit:
        """What the last paragraph says that covers `file`; `?` if none does."""
        paragraph: Any = self._paragraphs.find_files_paragraph(file)
        if paragraph is None or paragraph.license is None:
            return Credit("?", "")
        synopsis = paragraph.license.synopsis.split(" ")[0]
        return Credit(synopsis, " ".join((paragraph.copyright or "").split()))
