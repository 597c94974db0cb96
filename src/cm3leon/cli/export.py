"""`cm3leon export`: a model folder for other programs, and the way back."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import CycloptsError, Parameter

Program = Literal["transformers"]


def export(
    folder: Path,
    out: Path | None = None,
    /,
    *,
    to: Program | None = None,
    from_: Annotated[Program | None, Parameter(name="--from")] = None,
    model: Path | None = None,
) -> None:
    """Write a model for other programs, or read one of theirs.

    `--to transformers` writes a folder that `OPTForCausalLM` of transformers reads;
    `--from transformers` makes a model folder of one, for instance after training
    there. Nothing that exists is overwritten.

    For example:

    ```
    cm3leon export --to transformers as-opt
    cm3leon export --to transformers as-opt --model runs/large/model
    cm3leon export --from transformers as-opt back
    cm3leon export --from transformers trained back --model runs/large/model
    ```

    Args:
        folder: the folder to write; with `--from`, the one to read.
        out: the model folder to write, with `--from`.
        to: the program to write for.
        from_: the program whose folder is read.
        model: the model folder to write, by default the model that ships; with
            `--from`, one with the tokenizers where the folder read has none.
    """
    if (to is None) == (from_ is None):
        raise CycloptsError(msg="Give either --to transformers or --from transformers.")
    if from_ is not None and out is None:
        raise CycloptsError(msg="--from needs two folders: the one to read, a new one.")
    if from_ is None and out is not None:
        raise CycloptsError(msg="--to needs one folder; the model is --model FOLDER.")

    from cm3leon.decoding import interchange

    if out is not None:
        print(interchange.import_transformers(folder, out, like=model))
    else:
        print(interchange.export_transformers(model, folder))
