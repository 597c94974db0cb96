"""What a model folder holds, read without its weights."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cm3leon.decoding.folder import located, settings_of, shipped
from cm3leon.errors import CheckpointError
from cm3leon.images.tokenizer import shape_of
from cm3leon.tokens.vocabulary import Vocabulary


def describe(path: str | Path | None = None) -> dict[str, Any]:
    """Parameters, shapes, vocabulary, licence and sizes on disk of a model folder.

    Counts are whole numbers, sizes are bytes; the result is ready for JSON.

    Raises:
        CheckpointError: the folder is missing or damaged.
        DataError: its vocabulary is.
    """
    folder = located(path)
    settings = settings_of(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    transformer = _numbers(folder / "model.safetensors")
    vqgan = _numbers(folder / "image_tokenizer/model.safetensors")
    pictures = shape_of(folder / "image_tokenizer")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        "name": name(path),
        "parameters": sum(transformer["tensors"].values()),
        "image_tokenizer_parameters": sum(vqgan["tensors"].values()),
        "stored_as": sorted(transformer["dtypes"]),
        "layers": settings["layers"],
        "width": settings["width"],
        "heads": settings["heads"],
        "context": settings["context"],
        "position_slot": settings["position_slot"],
        "vocabulary": vocabulary.size,
        "text_ids": len(vocabulary.text),
        "codes": len(vocabulary.image),
        "codes_per_image": pictures.codes_per_image,
        "pixels": pictures.pixels,
        "licence": _licence(folder / "README.md"),
        "files": {str(p.relative_to(folder)): p.stat().st_size for p in files},
        "bytes": sum(p.stat().st_size for p in files),
    }


def name(path: str | Path | None) -> str:
    """What to call a model: its folder's own name."""
    return (shipped() if path is None else Path(path).resolve()).name


def _numbers(path: Path) -> dict[str, Any]:
    """Elements of each tensor and the dtypes there are, from the file's header."""
    tensors, dtypes = {}, set()
    try:
        with safe_open(path, "np") as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                size = 1
                for length in part.get_shape():
                    size *= length
                tensors[key] = size
                dtypes.add(str(part.get_dtype()))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); copy the model folder again"
        ) from error
    return {"tensors": tensors, "dtypes": dtypes}


def _licence(card: Path) -> str | None:
    """What the model card says after `license:`."""
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip().lower() in ("license", "licence"):
            return value.strip().strip("\"'")
    return None
