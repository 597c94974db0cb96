"""Public folders of Chameleon, Anole and Lumina-mGPT 1 -> model folders.

Read are two layouts (docs/formats.md):

    transformers   config.json, model*.safetensors, tokenizer.json
    Meta's         params.json, consolidated*.pth; beside or above them a folder
                   tokenizer/ with text_tokenizer.json, vqgan.ckpt and vqgan.yaml

All of it is looked at first, names and shapes without the numbers, so whatever does not
fit is said before any long work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from cm3leon import weight_files
from cm3leon.decoding.folder import FORMAT, write_table
from cm3leon.decoding.interchange import new_folder
from cm3leon.errors import CheckpointError
from cm3leon.images import checkpoint as pictures
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.images.vqgan import VQGANConfig
from cm3leon.model import chameleon_checkpoint as weights
from cm3leon.model.chameleon import ChameleonConfig
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import TURN, Vocabulary

TOKENIZERS = ("text_tokenizer.json", "tokenizer.json")  # Meta's name, transformers'
PICTURES = ("vqgan.safetensors", "vqgan.ckpt")
CODEBOOK = "quantize.embedding.weight"
# how Meta's own program draws (chameleon/inference/chameleon.py)
OPTIONS = {
    "temperature": 0.7,
    "top_p": 0.9,
    "guidance_scale": 3.0,
    "repetition_penalty": 1.2,
}
CARD = """---
license: other
---
# {name}

Imported by `cm3leon import chameleon` from files in the layout of {layout}. They have a
licence of their own, which holds for this folder too; read it where they came from.
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A public model that was looked at: all of it fits, nothing is read yet."""

    layout: Literal["transformers", "Meta"]
    files: tuple[Path, ...]  # with the model's weights
    config: ChameleonConfig
    shards: Sequence[Mapping[str, Tensor]]  # what the files hold, still on disk
    used: int  # tensors in them that a parameter needs
    unused: tuple[str, ...]  # names of those that none needs
    pictures: VQGANConfig
    pictures_file: Path  # with the image tokenizer's weights
    pictures_tensors: Mapping[str, Tensor]
    vocabulary: Vocabulary
    text_tokenizer: TextTokenizer

    def parameters(self) -> dict[str, Tensor]:
        """The model's parameters under our names, in the precision they have."""
        return _renamed(
            self.layout, self.shards, self.config, str(self.files[0].parent)
        )

    def image_tokenizer(self) -> ImageTokenizer:
        """What turns pictures into codes, and back if its decoder is there."""
        origin = str(self.pictures_file)
        tensors = pictures.from_taming(self.pictures_tensors, self.pictures, origin)
        return ImageTokenizer(pictures.built(tensors, self.pictures))

    def report(self) -> dict[str, str]:
        """What was found, in rows for people."""
        config, v = self.config, self.vocabulary
        pairs = [pair for shard in self.shards for pair in shard.items()]
        types = {str(x.dtype) for name, x in pairs if name not in self.unused}
        kinds = sorted(kind.removeprefix("torch.") for kind in types)
        norm = "behind" if config.norm_after else "before"
        codes = f"code 0 … {len(v.image) - 1} is id {v.image.start} … {v.image[-1]}"
        named = {"<racm3:break>": v.break_, "<eoss>": v.end, "<s>": v.begin}
        named |= {"</s>": v.eos, "<pad>": v.pad}
        named |= {TURN: v.names[TURN]} if TURN in v.names else {}
        drawn = "encoder and decoder" if self.pictures.decodes else "encoder only"
        return {
            "layout": f"{self.layout}, {len(self.files)} file(s) of weights",
            "parameters": f"{config.parameters:,} ({', '.join(kinds)})",
            "shape": f"{config.layers} layers, width {config.width}, {config.heads} "
            f"heads ({config.key_heads} of keys), norms {norm} the parts",
            "context": f"{config.context:,} ids",
            "tensors read": str(self.used),
            "tensors unused": _some(self.unused),
            "tensors missing": "0"
            if self.pictures.decodes
            else "the picture decoder's",
            "vocabulary": f"{v.size:,} ids: {len(v.text):,} of text, "
            f"{len(v.image):,} image codes, {len(v.specials):,} specials",
            "image codes": codes,
            "names": ", ".join(f"{name} {id}" for name, id in named.items()),
            "pictures": f"{self.pictures.pixels} x {self.pictures.pixels} pixels, "
            f"{self.pictures.codes_per_image:,} codes each; {drawn}, from "
            f"{self.pictures_file.name}",
        }


def find(folder: Path, tokenizer: Path | None = None) -> Found:
    """Look at a public model.

    Args:
        folder: one with `config.json`, or with Meta's `params.json`.
        tokenizer: one with Meta's tokenizers, where `folder` has none near it, or no
            decoder for pictures, as folders of transformers.

    Raises:
        CheckpointError: a file is missing, damaged, holds code, or does not fit.
        DataError: the tokenizer is damaged, or another model's.
    """
    if (folder / "config.json").is_file():
        layout: Literal["transformers", "Meta"] = "transformers"
        settings = weight_files.settings(folder / "config.json")
        config = weights.settings_from_transformers(
            settings, str(folder / "config.json")
        )
        files = weight_files.parts(folder)
        shards = [dict[str, Tensor]()]
        for file in files:
            shards[0] |= weight_files.load(file)
    elif (folder / "params.json").is_file():
        layout, settings, files = "Meta", _metas_settings(folder), _ranks(folder)
        shards = [weight_files.load(file) for file in files]
        on_meta = [weight_files.on_meta(shard) for shard in shards]
        config = weights.settings_from_meta(settings, on_meta, str(folder))
    else:
        raise CheckpointError(
            f"{folder} holds neither config.json nor params.json; name the folder with "
            "a Chameleon's weights"
        )
    looked = [weight_files.on_meta(shard) for shard in shards]
    _renamed(layout, looked, config, str(folder))

    places = [
        folder,
        folder / "tokenizer",
        folder.resolve().parent.parent / "tokenizer",
    ]
    places = places if tokenizer is None else [tokenizer, *places]
    shape, file, tensors = _pictures(folder, places, settings, shards[0])
    words = _first(places, TOKENIZERS)
    if words is None:
        raise CheckpointError(
            f"there is no {' or '.join(TOKENIZERS)} in {folder}; name with --tokenizer "
            "the folder that holds it"
        )
    table = weight_files.settings(words)
    vocabulary = Vocabulary.chameleon(_entries(table, words), config.vocabulary_size)
    if len(vocabulary.image) != shape.quantizer.codebook_size:
        raise CheckpointError(
            f"{words} names {len(vocabulary.image)} image codes, {file} has "
            f"{shape.quantizer.codebook_size}; take both from one model"
        )
    wanted = {
        rule.meta if layout == "Meta" else rule.transformers
        for _, rule in weights.names(config.layers)
    }
    if file in files:
        wanted |= {name for name in shards[0] if name.startswith(weights.PICTURES)}
    names = [name for shard in shards for name in shard]
    return Found(
        layout=layout,
        files=tuple(files),
        config=config,
        shards=shards,
        used=sum(name in wanted for name in names),
        unused=tuple(sorted(set(names) - wanted)),
        pictures=shape,
        pictures_file=file,
        pictures_tensors=tensors,
        vocabulary=vocabulary,
        text_tokenizer=TextTokenizer.part(table, vocabulary.text, str(words)),
    )


def save(found: Found, out: Path) -> Path:
    """Read a public model and write it as a model folder.

    Args:
        found: what `find` found.
        out: a new or empty folder; it appears when all of it is written.

    Raises:
        RequestError: `out` is not empty.
    """
    with new_folder(out) as partial:
        shape = {"format": FORMAT, "model": "chameleon", **asdict(found.config)}
        write_table(partial / "config.json", shape | {"position_slot": 0})
        found.image_tokenizer().save(partial / "image_tokenizer")
        found.vocabulary.save(partial / "vocabulary.json")
        found.text_tokenizer.save(partial / "text_tokenizer.json")
        write_table(partial / "generation.json", OPTIONS)
        card = CARD.format(name=out.resolve().name, layout=found.layout)
        (partial / "README.md").write_text(card, encoding="utf-8")
        parameters = found.parameters()
        for name in list(parameters):
            parameters[name] = parameters[name].contiguous()
        save_file(parameters, partial / "model.safetensors")
    return out


def _renamed(
    layout: str,
    shards: Sequence[Mapping[str, Tensor]],
    config: ChameleonConfig,
    origin: str,
) -> dict[str, Tensor]:
    if layout == "Meta":
        return weights.from_meta(shards, config, origin)
    return weights.from_transformers(shards[0], config, origin)


def _pictures(
    folder: Path,
    places: Sequence[Path],
    settings: Mapping[str, Any],
    held: Mapping[str, Tensor],
) -> tuple[VQGANConfig, Path, dict[str, Tensor]]:
    """Shape, file and tensors of the image tokenizer: Meta's, or what the model has."""
    prefix = weights.PICTURES
    own = {
        name.removeprefix(prefix): x
        for name, x in held.items()
        if name.startswith(prefix)
    }
    if (file := _first(places, PICTURES)) is not None:
        shape = pictures.settings_from_yaml(file.with_name("vqgan.yaml"))
        tensors = weight_files.load(file)
        pictures.from_taming(weight_files.on_meta(tensors), shape, str(file))
        if CODEBOOK in own:
            codebook = own[CODEBOOK]
            if not torch.equal(tensors[CODEBOOK].to(codebook.dtype), codebook):
                raise CheckpointError(
                    f"{file} has another codebook than {folder}; take the image "
                    "tokenizer the model was trained with"
                )
        return shape, file, tensors
    if not own:
        raise CheckpointError(
            f"{folder} holds no image tokenizer; name with --tokenizer the folder with "
            "its vqgan.ckpt and vqgan.yaml"
        )
    origin = f"{folder / 'config.json'}: vq_config"
    shape = pictures.settings_from_transformers(settings.get("vq_config") or {}, origin)
    pictures.from_taming(weight_files.on_meta(own), shape, str(folder))
    return shape, weight_files.parts(folder)[0], own


def _ranks(folder: Path) -> list[Path]:
    """Meta's files of weights, one for each rank."""
    if (folder / "consolidated.pth").is_file():
        return [folder / "consolidated.pth"]
    files = sorted(folder.glob("consolidated.[0-9][0-9].pth"))
    wanted = [folder / f"consolidated.{rank:02}.pth" for rank in range(len(files))]
    if not files or files != wanted:
        missing = sorted(set(wanted) - set(files)) or [folder / "consolidated.pth"]
        raise CheckpointError(f"{folder} lacks {missing[0].name}; copy it again")
    return files


def _metas_settings(folder: Path) -> dict[str, Any]:
    settings = weight_files.settings(folder / "params.json")
    above = folder / "consolidate_params.json"
    later = weight_files.settings(above) if above.is_file() else {}
    inner = settings.get("model")
    return {**settings, **(inner if isinstance(inner, dict) else {}), **later}


def _first(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of some files that is in the first place that has any."""
    found = (place / name for place in places for name in names)
    return next((path for path in found if path.is_file()), None)


def _entries(table: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Every token of a `tokenizer.json` and its id."""
    try:
        added = {token["content"]: token["id"] for token in table["added_tokens"]}
        return {**table["model"]["vocab"], **added}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no tokenizer ({error!r})") from error


def _some(names: Sequence[str]) -> str:
    """How many, and the first few."""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} ({shown})" if names else "0"
