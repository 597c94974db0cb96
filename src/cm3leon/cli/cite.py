"""`cm3leon cite`: where a picture came from."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def cite(
    picture: Path, *, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Show how a picture was drawn, and whose pictures were retrieved for it.

    For example:

    ```
    cm3leon cite a-red-apple-7.png
    cm3leon cite a-red-apple-7.png --json
    ```

    Args:
        picture: a PNG that `cm3leon generate` wrote.
        json: print one JSON table.
    """
    from cm3leon.decoding.pictures import notes_of

    notes = notes_of(picture)
    if json:
        print(json_module.dumps(notes, indent=1))
        return
    print(f"{picture}: {notes['prompt']}")
    print(f"drawn by {notes['Software']}, model {notes['model']}, seed {notes['seed']}")
    if not notes["attribution"]:
        print("no neighbours were retrieved for it")
    for number, one in enumerate(notes["attribution"] or [], 1):
        owner = ", ".join(one[name] for name in ("author", "licence") if one[name])
        print(f"{number}. {one['text']}")
        print(f"   {one['key']}, {owner or 'owner unknown'}; {one['relevance']:.3f}")
