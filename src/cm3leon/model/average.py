"""One model of several: weighted means of parameters, and sharper or softer logits."""

from collections.abc import Iterable, Mapping

from torch import Tensor

# What the residual stream of a `Transformer` is a sum of.
TABLES = ("embedding.", "positions.")
OUTPUTS = (".out.weight", ".fc2.weight")


def mean(
    models: Iterable[tuple[Mapping[str, Tensor], float]],
) -> dict[str, Tensor]:
    """The weighted mean of models' parameters, fp32: a soup (Wortsman et al. 2022).

    Of trainings that began at one model it is often better than each of them.

    Args:
        models: parameters by name, all of one shape, each with its weight; read one
            after another, so they need not be in memory together.
    """
    total: dict[str, Tensor] = {}
    for tensors, weight in models:
        for name, tensor in tensors.items():
            part = tensor.float() * weight
            total[name] = total[name].add_(part) if name in total else part
    return total


def scale_logits(tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Parameters of a `Transformer` whose logits are `factor` times as large.

    The residual stream is a sum of embeddings, positions and what the blocks add, all
    of which grow alike; every norm that reads it takes the factor out again, and only
    the head, which is the embedding, keeps it (to the norms' epsilon). It is a
    temperature that needs no setting (Guo et al. 2017, "On calibration").
    """
    return {
        name: tensor * factor
        if name.startswith(TABLES) or name.endswith(OUTPUTS)
        else tensor
        for name, tensor in tensors.items()
    }
