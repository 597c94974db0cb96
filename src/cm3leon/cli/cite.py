"""`cm3leon cite`: where a picture came from."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def cite(
    picture: Path, *, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Show how a picture was drawn, and whose pictures were retrieved for it.

    Of a sheet, of each of its pictures, left to right and top to bottom.

    For example:

    ```
    cm3leon cite a-red-apple-7.png
    cm3leon cite a-red-apple-7.png --json
    cm3leon cite sheet.png
    ```

    Args:
        picture: a PNG that `cm3leon generate` wrote, or its --grid.
        json: print one JSON table.
    """
    from cm3leon.decoding.pictures import notes_of

    notes = notes_of(picture)
    if json:
        print(json_module.dumps(notes, indent=1))
        return
    for number, one in enumerate(notes.get("pictures", []), 1):
        _tell(f"{picture}, picture {number}", one)
    if "pictures" not in notes:
        _tell(str(picture), notes)


def _tell(name: str, notes: Mapping[str, Any]) -> None:
    print(f"{name}: {notes['prompt']}")
    print(f"drawn by {notes['Software']}, model {notes['model']}, seed {notes['seed']}")
    found = notes.get("attribution") or []
    if not found:
        print("no neighbours were retrieved for it")
    for number, one in enumerate(found, 1):
        owner = [one[name] for name in ("source", "author", "licence") if one[name]]
        about = ", ".join([one["key"], *(owner or ["owner unknown"])])
        print(f"{number}. {one['text']}")
        print(f"   {about}; {one['relevance']:.3f}")
