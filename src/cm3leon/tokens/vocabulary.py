"""Which ids are text, image codes and specials: one vocabulary as data.

Three layouts are built in, and any other loads from JSON:

* our own: `<s> <pad> <eos> <unk>`, text, image codes, `<break> <end>`, masks, infills;
* the authors' (metaseq): 65,536 base ids, then `<racm3:break>`, `<eoss>` and
  `<sentinel:i>`, which is a mask where it stands in a hole's place and an infill
  where it is seen again;
* Chameleon's, read from its tokenizer: specials in `<…>`, image codes in letters
  (`IMGIMGBCZ` is code 12), and the rest text. It has no masks.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from cm3leon.errors import ConfigError, DataError

Kind = Literal["text", "image", "special", "unused"]
Order = Literal["cm3", "chameleon"]

CODE = re.compile("IMGIMG([A-J]+)Z")  # an image code of Chameleon, A for 0 … J for 9
CHAMELEON = {
    "<break>": "<racm3:break>",
    "<end>": "<eoss>",
    "<eos>": "</s>",
    "<s>": "<s>",
    "<pad>": "<pad>",
}
TURN = "<reserved08706>"  # ends a turn of a conversation


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ranges of text ids and image codes, and the special ids."""

    text: range
    image: range
    eos: int
    pad: int
    break_: int
    end: int
    masks: tuple[int, ...]
    infills: tuple[int, ...]  # equal to `masks` in the authors' layout
    size: int  # rows of the embedding
    names: Mapping[str, int] = field(hash=False)  # of every special, all spellings
    order: Order = "cm3"  # of documents, see `codec`

    def __post_init__(self) -> None:
        if (
            not self.text
            or not self.image
            or (self.text.step, self.image.step) != (1, 1)
        ):
            raise DataError(
                f"vocabulary: text {self.text} and image {self.image} must each be a "
                "range of at least one id"
            )
        roles = [self.eos, self.pad, self.break_, self.end, *self.masks]
        if self.infills != self.masks:
            roles += self.infills
        claimed = [*self.text, *self.image, *self.specials]
        if len(claimed) != len(set(claimed)) or len(roles) != len(set(roles)):
            raise DataError("vocabulary: an id has two meanings")
        if min(claimed) < 0 or max(claimed) >= self.size:
            raise DataError(
                f"vocabulary: ids reach {max(claimed)}, but it has {self.size} rows"
            )
        masked = bool(self.masks) or self.order == "chameleon"
        if len(self.masks) != len(self.infills) or not masked:
            raise DataError(
                f"vocabulary: {len(self.masks)} masks for {len(self.infills)} infills"
            )

    @cached_property
    def specials(self) -> frozenset[int]:
        """Every special id."""
        named = (self.eos, self.pad, self.break_, self.end)
        return frozenset((*named, *self.masks, *self.infills, *self.names.values()))

    @property
    def begin(self) -> int:
        """What a document begins with."""
        return self.names["<s>"] if self.order == "chameleon" else self.eos

    @property
    def stops(self) -> tuple[int, ...]:
        """What ends a text: a picture or another segment, the end, or a turn's end."""
        turn = (self.names[TURN],) if TURN in self.names else ()
        return (self.break_, self.eos, *turn)

    @classmethod
    def own(cls, text_size: int, codebook_size: int, holes: int = 8) -> "Vocabulary":
        """Our layout for that many text ids, codes and holes.

        Raises:
            ConfigError: a size is below 1.
        """
        for name, value in (
            ("text_size", text_size),
            ("codebook_size", codebook_size),
            ("holes", holes),
        ):
            if value < 1:
                raise ConfigError(f"{name} is {value}, below 1")
        text = range(4, 4 + text_size)
        image = range(text.stop, text.stop + codebook_size)
        names = {"<s>": 0, "<pad>": 1, "<eos>": 2, "<unk>": 3}
        names |= {"<break>": image.stop, "<end>": image.stop + 1}
        masks = tuple(range(image.stop + 2, image.stop + 2 + holes))
        infills = tuple(range(masks[-1] + 1, masks[-1] + 1 + holes))
        names |= {f"<mask:{i}>": mask for i, mask in enumerate(masks)}
        names |= {f"<infill:{i}>": infill for i, infill in enumerate(infills)}
        return cls._named(text, image, masks, infills, names)

    @classmethod
    def authors(
        cls,
        text_size: int = 56_320,
        codebook_size: int = 8_192,
        reserved: int = 1_024,
        holes: int = 512,
    ) -> "Vocabulary":
        """The authors' layout: text, codes and reserved ids, then the added specials.

        The first four text ids are the specials `<s> <pad> </s> <unk>`. That codes
        follow text and reserved ids follow codes is our reading (docs/paper.md).

        Raises:
            ConfigError: a size is too small.
        """
        for name, value, least in (
            ("text_size", text_size, 5),
            ("codebook_size", codebook_size, 1),
            ("reserved", reserved, 0),
            ("holes", holes, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}, below {least}")
        base = text_size + codebook_size + reserved
        image = range(text_size, text_size + codebook_size)
        names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<eos>": 2, "<unk>": 3}
        names |= {"<racm3:break>": base, "<break>": base}
        names |= {"<eoss>": base + 1, "<end>": base + 1}
        masks = tuple(range(base + 2, base + 2 + holes))
        for i, mask in enumerate(masks):
            names |= {
                f"<sentinel:{i}>": mask,
                f"<mask:{i}>": mask,
                f"<infill:{i}>": mask,
            }
        return cls._named(range(4, text_size), image, masks, masks, names)

    @classmethod
    def chameleon(cls, entries: Mapping[str, int], size: int) -> "Vocabulary":
        """The layout of a Chameleon tokenizer.

        Args:
            entries: every token and its id.
            size: rows of the embedding.

        Raises:
            DataError: a name is missing, or image codes or text are no range of ids.
        """
        codes: dict[int, int] = {}
        names: dict[str, int] = {}
        text: list[int] = []
        for name, id in entries.items():
            if spelled := CODE.fullmatch(name):
                codes[int("".join(str(ord(x) - ord("A")) for x in spelled[1]))] = id
            elif name.startswith("<") and len(name) > 1:
                names[name] = id
            else:
                text.append(id)
        for ours, theirs in CHAMELEON.items():
            if theirs not in names:
                raise DataError(f"the tokenizer has no {theirs}; is it Chameleon's?")
            names[ours] = names[theirs]
        if not codes or not text:
            raise DataError(
                f"the tokenizer has {len(codes)} image codes and {len(text)} text ids; "
                "is it Chameleon's?"
            )
        first = min(codes.values())
        for code in range(len(codes)):
            if codes.get(code) != first + code:
                raise DataError(
                    f"image code {code} has the id {codes.get(code)}; the ids of codes "
                    f"must follow one another from {first}"
                )
        words = range(min(text), max(text) + 1)
        if len(words) != len(text):
            raise DataError(
                f"{len(text)} text ids are spread over {words}; they must be one range"
            )
        image = range(first, first + len(codes))
        return cls._named(words, image, (), (), names, size, "chameleon")

    @classmethod
    def _named(
        cls,
        text: range,
        image: range,
        masks: tuple[int, ...],
        infills: tuple[int, ...],
        names: dict[str, int],
        size: int | None = None,
        order: Order = "cm3",
    ) -> "Vocabulary":
        last = max(text.stop - 1, image.stop - 1, *names.values())
        return cls(
            text=text,
            image=image,
            eos=names["<eos>"],
            pad=names["<pad>"],
            break_=names["<break>"],
            end=names["<end>"],
            masks=masks,
            infills=infills,
            size=-(-(last + 1) // 8) * 8 if size is None else size,
            names=names,
            order=order,
        )

    def kind(self, id: int) -> Kind:
        """What an id is.

        Raises:
            DataError: the vocabulary has no such row.
        """
        if not 0 <= id < self.size:
            raise DataError(f"id {id} is outside the vocabulary of {self.size}")
        if id in self.text:
            return "text"
        if id in self.image:
            return "image"
        return "special" if id in self.specials else "unused"

    def code(self, id: int) -> int:
        """The image code an id stands for."""
        assert id in self.image, f"id {id} is no image code"
        return id - self.image.start

    def image_id(self, code: int) -> int:
        """The id of an image code.

        Raises:
            DataError: the codebook has no such code.
        """
        if not 0 <= code < len(self.image):
            raise DataError(f"code {code} is outside 0 … {len(self.image) - 1}")
        return self.image.start + code

    def save(self, path: Path) -> None:
        """Write ranges and names as JSON."""
        table = {
            "format": 1,
            "text": [self.text.start, self.text.stop],
            "image": [self.image.start, self.image.stop],
            "size": self.size,
            "names": dict(self.names),
        }
        if self.order != "cm3":
            table["order"] = self.order
        path.write_text(json.dumps(table, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, no JSON, lacks or repeats a name, or gives
                an id two meanings.
        """
        try:
            table = json.loads(path.read_text(), object_pairs_hook=_unique)
            if table["format"] != 1:
                raise DataError(
                    f"{path} has format {table['format']!r}; this program reads 1"
                )
            names = dict(table["names"])
            numbers = (table["size"], *table["text"], *table["image"], *names.values())
            if wrong := [x for x in numbers if type(x) is not int]:
                raise DataError(f"{path}: {wrong[0]!r} is no whole number")
            order = table.get("order", "cm3")
            if order not in get_args(Order):
                raise DataError(f"{path}: documents have no order {order!r}")
            holes = sum(name.startswith("<mask:") for name in names)
            return cls._named(
                range(*table["text"]),
                range(*table["image"]),
                tuple(names[f"<mask:{i}>"] for i in range(holes)),
                tuple(names[f"<infill:{i}>"] for i in range(holes)),
                names,
                table["size"],
                order,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is no vocabulary: {error!r}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a second entry of a name would be lost silently."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return table
