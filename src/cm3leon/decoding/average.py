"""A model folder that is the weighted mean of others: a model soup."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from cm3leon.decoding.folder import KINDS, located, model_of, settings_of
from cm3leon.decoding.interchange import new_folder
from cm3leon.errors import RequestError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.model.average import mean, scale_logits

WEIGHTS = "model.safetensors"
SAME = ("vocabulary.json", "text_tokenizer.json")


def average(
    out: Path,
    folders: Sequence[Path],
    weights: Sequence[float] = (),
    logit_scale: float = 1.0,
) -> Path:
    """Write the mean of models, with everything else the first one's.

    Args:
        out: a new or empty folder; it appears when all of it is written.
        folders: of models with the same shape, ids and image tokenizer.
        weights: of each, summing to 1; below 0 leads away from a model. By default all
            count alike.
        logit_scale: by which the mean's logits are multiplied, above 0.

    Raises:
        CheckpointError: a folder is missing or damaged.
        RequestError: the models do not fit together, or a number is out of range.
    """
    if not folders:
        raise RequestError("name at least one model to average")
    weights = weights or [1 / len(folders)] * len(folders)
    if len(weights) != len(folders):
        raise RequestError(
            f"weights are given for {len(weights)} of {len(folders)} models; give each "
            "one, or none"
        )
    if not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise RequestError(f"the weights sum to {sum(weights):g}; they must sum to 1")
    if not 0 < logit_scale < math.inf:
        raise RequestError(f"the logit scale is {logit_scale}; it must be above 0")
    first, *others = folders = [located(folder) for folder in folders]
    settings = settings_of(first)
    if logit_scale != 1 and settings.get("model", KINDS[0]) != KINDS[0]:
        raise RequestError(
            f"{first} is a {settings['model']}, whose norms learn; its logits cannot "
            "be scaled"
        )
    if others:
        ours = _identity(first)
        for other in others:
            if _identity(other) != ours:
                raise RequestError(
                    f"{first} and {other} differ in shape, ids or image tokenizer; "
                    "average models that were trained from one"
                )
    # mapped from the disk, so they are not in memory together
    models = [model_of(x, settings, widen=False).state_dict() for x in folders]
    with new_folder(out) as partial:  # which refuses before anything is computed
        tensors = scale_logits(mean(zip(models, weights, strict=True)), logit_scale)
        shutil.copytree(
            first,
            partial,
            ignore=lambda folder, _: [WEIGHTS] if Path(folder) == first else [],
            dirs_exist_ok=True,
        )
        written = {name: x.to(models[0][name].dtype) for name, x in tensors.items()}
        save_file(written, partial / WEIGHTS)
    return out


def _identity(folder: Path) -> tuple[Any, ...]:
    """What models that can be averaged have in common."""
    ids = [(folder / name).read_bytes() for name in SAME]
    pictures = ImageTokenizer.load(folder / "image_tokenizer").fingerprint
    return settings_of(folder), ids, pictures
