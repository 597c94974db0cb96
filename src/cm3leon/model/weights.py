"""Do these tensors fit that model? Asked wherever weights are read."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cm3leon.errors import CheckpointError


def fit(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: str | Path
) -> None:
    """Check that tensors have exactly the names and shapes a model needs.

    Args:
        expected: the model's own state, which may lie on the meta device.
        tensors: what was read.
        origin: where from, for the message.

    Raises:
        CheckpointError: a name or a shape differs; the first is named.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            lacks = "lacks" if name not in tensors else "has an unknown"
            raise CheckpointError(f"{origin} {lacks} {name}; is it another model's?")
        ours, theirs = tuple(expected[name].shape), tuple(tensors[name].shape)
        if ours != theirs:
            raise CheckpointError(
                f"{origin}: {name} is {list(theirs)}, the model needs {list(ours)}; "
                "use the weights and the settings of one model"
            )
