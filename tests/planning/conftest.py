import pytest
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)


def every_second_product():
    """Attention and every second product with weights are kept."""
    products = {False: 0, True: 0}

    def policy(context, operation, *args, **kwargs):
        name = str(operation)
        keep = "attention" in name or "bmm" in name
        if name.startswith("aten.mm"):
            products[context.is_recompute] += 1
            keep = products[context.is_recompute] % 2 == 1
        chosen = "MUST_SAVE" if keep else "PREFER_RECOMPUTE"
        return CheckpointPolicy[chosen]

    return create_selective_checkpoint_contexts(policy)


@pytest.fixture
def checkpointed():
    """Make the blocks of a model keep what a mode says."""

    def change(model, mode):
        for block in model.blocks:
            inner = block.forward
            more = {"context_fn": every_second_product} if mode == "selective" else {}

            def forward(*words, inner=inner, more=more):
                return checkpoint(inner, *words, use_reentrant=False, **more)

            if mode != "off":
                block.forward = forward
        return model

    return change
