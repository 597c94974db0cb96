"""`cm3leon average`: one model of several."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def average(
    out: Path,
    /,
    *models: Path,
    weight: Annotated[list[float] | None, Parameter(negative="")] = None,
    logit_scale: float = 1.0,
) -> None:
    """Write the weighted mean of models: a model soup (Wortsman et al. 2022).

    Of trainings that began at one model it is often better than each of them, and
    between two models that are good at different things. What is not a parameter is
    the first one's. Nothing that exists is overwritten.

    For example:

    ```
    cm3leon average mean runs/a/model runs/b/model
    cm3leon average mean runs/a/model runs/b/model --weight 0.7 --weight 0.3
    cm3leon average sharper runs/a/model --logit-scale 1.1
    ```

    Args:
        out: the folder to write.
        models: model folders with the same shape, ids and image tokenizer.
        weight: of a model, once for each, in their order; they sum to 1. By default all
            count alike.
        logit_scale: what multiplies logits: below 1 for a model that is too sure. A
            temperature then means as much less.
    """
    from cm3leon.decoding import average as folders

    print(folders.average(out, models, weight or (), logit_scale))
