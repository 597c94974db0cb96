"""A model as a folder on disk, and back.

config.json            shape of the model, which model, position slot, format
model.safetensors      its parameters, fp32 or bf16
vocabulary.json        which ids are what
text_tokenizer.json    words <-> text ids
image_tokenizer/       config.json and model.safetensors of the VQGAN
memory/, bi_encoder/   if it draws with neighbours: where from, and what finds them
generation.json        how to draw unless told otherwise
README.md              model card: data, licences, limits
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from cm3leon import weight_files
from cm3leon.decoding.engine import Engine, Retrieves
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import PromptWriter
from cm3leon.errors import CheckpointError, Cm3leonError, ConfigError, DataError
from cm3leon.images.tokenizer import ImageTokenizer, shape_of
from cm3leon.model.chameleon import Chameleon
from cm3leon.model.chameleon_checkpoint import config_from
from cm3leon.model.language_model import LanguageModel
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.model.weights import fit
from cm3leon.precision import has_bfloat16
from cm3leon.tokens.codec import Codec
from cm3leon.tokens.document import Image
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import Vocabulary

FORMAT = 1
PRECISIONS = ("fp32", "bf16", "int8")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHAPE = ("vocabulary_size", "context", "width", "layers", "heads")
KINDS = ("cm3leon", "chameleon")  # `model` in config.json; the first if it is not there


def shipped() -> Path:
    """Where the model that comes with the package lies."""
    return Path(str(resources.files("cm3leon") / "shipped"))


def located(path: str | Path | None = None) -> Path:
    """The model folder meant by `path`; None is the shipped one.

    Raises:
        CheckpointError: there is none.
    """
    folder = shipped() if path is None else Path(path)
    if (folder / "config.json").is_file():
        return folder
    if path is None:
        raise CheckpointError(
            "no model ships with this copy of cm3leon; name a model folder "
            "(--model FOLDER, or cm3leon.load(FOLDER))"
        )
    what = "is no folder" if not folder.is_dir() else "has no config.json"
    raise CheckpointError(
        f"{folder} {what}; a model folder is what cm3leon.decoding.folder.save writes"
    )


def load(
    path: str | Path | None = None,
    *,
    memory: str | Path | None = None,
    encoder: str | Path | None = None,
    precision: str | None = None,
    compiled: bool = False,
) -> Engine:
    """The engine of a model folder, by default the model that ships.

    Args:
        path: the folder.
        memory: a memory bank to take neighbours from; by default the folder's own.
        encoder: the CLIPModel it was built with; by default the folder's own.
        precision: of the transformer's weights: "fp32", "bf16", or "int8" with products
            in bf16 (docs/decoding.md). By default bf16 where the processor has it,
            which is twice as fast, else fp32.
        compiled: draw with kernels compiled for this processor, which pays for large
            models: 20 seconds once. Without a C++ compiler, ninja (extra `[compiled]`)
            and AVX-512, or in fp32, nothing changes.

    Raises:
        CheckpointError: the folder is missing, incomplete, or its files do not fit.
        ConfigError: there is no such precision.
        DataError: the vocabulary or the text tokenizer is damaged.
    """
    if precision not in (None, *PRECISIONS):
        raise ConfigError(
            f"precision is {precision!r}; it can be {', '.join(PRECISIONS)}"
        )
    folder = located(path)
    settings = settings_of(folder)
    precision = precision or ("bf16" if has_bfloat16() else "fp32")
    model = model_of(folder, settings, widen=precision == "fp32")
    if precision != "fp32":
        model.pack("int8" if precision == "int8" else "bf16", compiled)
    codec, image_tokenizer = tokenizers_of(folder)
    options = _options(folder / "generation.json")
    bank, towers = memory or folder / "memory", encoder or folder / "bi_encoder"
    retriever = None
    if memory is not None or Path(bank).is_dir():
        retriever = partial(_retriever, Path(bank), towers, image_tokenizer)
    slot = settings["position_slot"]
    return Engine(model, codec, image_tokenizer, slot, options, retriever)


@dataclass(frozen=True)
class Outline:
    """What a model can be asked, known without its weights."""

    writer: PromptWriter  # as the engine's, so it refuses the same
    pixels: int  # side of the pictures it draws
    grid: int  # codes along a side
    options: GenerationOptions  # how it draws unless told otherwise

    @property
    def picture(self) -> Image:
        """Any picture, to see whether what is asked about one fits."""
        return Image(codes=(0,) * self.grid**2)


def outline(path: str | Path | None = None) -> Outline:
    """The outline of the model that `load` would load.

    Raises:
        CheckpointError: the folder is missing, or its small files are.
        DataError: the vocabulary or the text tokenizer is damaged.
    """
    folder = located(path)
    settings = settings_of(folder)
    shape = shape_of(folder / "image_tokenizer")
    writer = PromptWriter(
        codec=_codec(folder, shape.codes_per_image),
        context=settings["context"],
        position_slot=settings["position_slot"],
    )
    options = _options(folder / "generation.json")
    return Outline(writer, shape.pixels, shape.grid, options)


def save(
    folder: str | Path,
    model: Transformer,
    vocabulary: Vocabulary,
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    position_slot: int = 0,
    options: GenerationOptions | None = None,
    card: str | None = None,
    *,
    dtype: Literal["fp32", "bf16"] = "bf16",
) -> None:
    """Write a model folder; other files in it stay.

    Everything is written beside its place and then moved, so a full disk leaves a
    model that was there before as it was.

    Args:
        folder: made if missing.
        model: its parameters are stored as `dtype`.
        vocabulary: the layout of ids.
        text_tokenizer: words <-> text ids.
        image_tokenizer: pictures <-> codes.
        position_slot: as the model was trained with.
        options: what drawing uses unless told otherwise.
        card: the README.md, in Markdown.
        dtype: of the stored parameters; with bf16 the image tokenizer's are fp16.

    Raises:
        CheckpointError: it could not be written.
    """
    if model.packing is not None:
        raise CheckpointError(
            f"the model is packed as {model.packing} to draw with and cannot be saved; "
            'load it with precision="fp32"'
        )
    folder = Path(folder)
    partial = folder / ".partial"
    settings = {"format": FORMAT, **asdict(model.config)}
    settings["position_slot"] = position_slot
    weights = {
        name: tensor.detach().to("cpu", DTYPES[dtype]).contiguous()
        for name, tensor in model.state_dict().items()
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        image_tokenizer.save(partial / "image_tokenizer", half=dtype == "bf16")
        save_file(weights, partial / "model.safetensors")
        vocabulary.save(partial / "vocabulary.json")
        text_tokenizer.save(partial / "text_tokenizer.json")
        write_table(partial / "generation.json", asdict(options or GenerationOptions()))
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")
        write_table(partial / "config.json", settings)
        for path in sorted(p for p in partial.rglob("*") if p.is_file()):
            place = folder / path.relative_to(partial)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model was not written to {folder} ({error}); free some space or "
            "choose another folder, and save again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def settings_of(folder: Path) -> dict[str, Any]:
    """What `config.json` of a model folder says, checked.

    Raises:
        CheckpointError: it is damaged, or from another format.
    """
    path = folder / "config.json"
    settings = weight_files.settings(path)
    if settings.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {settings.get('format')!r}, this version reads "
            f"{FORMAT}; save the model again with this version"
        )
    if (kind := settings.get("model", KINDS[0])) not in KINDS:
        raise CheckpointError(
            f"{path}: model is {kind!r}; this version reads {' and '.join(KINDS)}"
        )
    for name in (*SHAPE, "position_slot"):
        value = settings.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise CheckpointError(f"{path}: {name} is {value!r}, not a whole number")
    return settings


def tokenizers_of(folder: Path) -> tuple[Codec, ImageTokenizer]:
    """What turns documents and pictures of a model folder into ids and codes.

    Raises:
        CheckpointError: the image tokenizer is missing or damaged.
        DataError: the vocabulary or the text tokenizer is.
    """
    image_tokenizer = ImageTokenizer.load(folder / "image_tokenizer")
    return _codec(folder, image_tokenizer.codes_per_image), image_tokenizer


def _codec(folder: Path, codes_per_image: int) -> Codec:
    return Codec(
        Vocabulary.load(folder / "vocabulary.json"),
        TextTokenizer.load(folder / "text_tokenizer.json"),
        codes_per_image,
    )


def parameters_of(folder: Path, *, widen: bool = True) -> dict[str, torch.Tensor]:
    """The transformer's parameters in a model folder.

    Args:
        folder: a model folder.
        widen: to fp32; else as they are stored.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); copy the model folder again"
        ) from error
    if not widen:
        return tensors
    return {name: tensor.float() for name, tensor in tensors.items()}


def _retriever(
    memory: Path, encoder: str | Path, image_tokenizer: ImageTokenizer
) -> Retrieves:
    """What finds neighbours in a bank whose codes are the image tokenizer's."""
    from cm3leon.retrieval.encoder import BiEncoder  # only if wanted
    from cm3leon.retrieval.memory import MemoryBank
    from cm3leon.retrieval.retriever import Retriever

    bank = MemoryBank.open(memory)
    if bank.config.image_tokenizer != image_tokenizer.fingerprint:
        raise DataError(
            f"{memory} holds codes of another model's image tokenizer; build it with "
            "this model"
        )
    return Retriever(bank, BiEncoder.load(encoder))


def model_of(
    folder: Path, settings: Mapping[str, Any], *, widen: bool = True
) -> LanguageModel:
    """The model in a folder.

    Args:
        folder: a model folder.
        settings: what `settings_of` says of it.
        widen: to fp32; else as it is stored.

    Raises:
        CheckpointError: its files are damaged or do not fit.
    """
    tensors = parameters_of(folder, widen=widen)
    origin = folder / "config.json"
    model: LanguageModel
    with torch.device("meta"), _Unfilled():  # all weights are replaced at once
        if settings.get("model", KINDS[0]) == "chameleon":
            model = Chameleon(config_from(settings, str(origin)))
        else:
            try:
                config = TransformerConfig(**{name: settings[name] for name in SHAPE})
            except ConfigError as error:
                raise CheckpointError(f"{origin}: {error}") from error
            model = Transformer(config)
    fit(model.state_dict(), tensors, folder / "model.safetensors")
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


class _Unfilled(TorchFunctionMode):
    """Leaves out `normal_`: on "meta" it imports torch's compiler, 1.4 s of CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.init.normal_:
            return None
        return func(*args, **(kwargs or {}))


def _options(path: Path) -> GenerationOptions:
    if not path.exists():
        return GenerationOptions()
    table = weight_files.settings(path)
    if unknown := sorted(set(table) - set(GenerationOptions.named())):
        raise CheckpointError(
            f"{path} has an unknown option {unknown[0]!r}; there are: "
            f"{', '.join(GenerationOptions.named())}"
        )
    try:
        return GenerationOptions(**table)
    except Cm3leonError as error:
        raise CheckpointError(f"{path}: {error}") from error


def write_table(path: Path, table: Mapping[str, Any]) -> None:
    """Settings as JSON."""
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
