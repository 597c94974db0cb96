"""`cm3leon info`: what a model folder holds."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def info(
    *,
    model: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a model folder holds: shape, vocabulary, licence, sizes.

    For example:

    ```
    cm3leon info
    cm3leon info --model runs/large/model --json
    ```

    Args:
        model: a model folder; by default the model that ships.
        json: print one JSON table.
    """
    from cm3leon.decoding.card import describe

    found = describe(model)
    if json:
        print(json_module.dumps(found, indent=1))
        return

    from rich.console import Console
    from rich.table import Table

    rows = {
        "model": found["name"],
        "licence": found["licence"] or "none stated in README.md",
        "parameters": f"{found['parameters']:,} ({', '.join(found['stored_as'])})",
        "shape": f"{found['layers']} layers, width {found['width']}, "
        f"{found['heads']} heads",
        "context": f"{found['context']:,} ids"
        + (
            f", pictures at multiples of {slot}"
            if (slot := found["position_slot"])
            else ""
        ),
        "vocabulary": f"{found['vocabulary']:,} ids: {found['text_ids']:,} of text, "
        f"{found['codes']:,} image codes, specials",
        "pictures": f"{found['pixels']} x {found['pixels']} pixels, "
        f"{found['codes_per_image']:,} codes each",
        "image tokenizer": f"{found['image_tokenizer_parameters']:,} parameters",
        "on disk": _size(found["bytes"]),
    }
    rows |= {f"  {name}": _size(size) for name, size in found["files"].items()}
    table = Table(show_header=False, box=None, pad_edge=False)
    for row in rows.items():
        table.add_row(*row)
    Console(soft_wrap=True).print(table)


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
