"""Next-id cross-entropy, weighted by id, and its means for text and image apart.

    L = sum_i w_i · -log p(y_i) / sum_i w_i

Yu et al. 2023, §2.2: all weights 1 (padding 0).
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1024  # ids whose logits exist at one time


def per_id_loss(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Nats of each target, in fp32."""
    flat = logits.flatten(0, 1).float()
    losses = F.cross_entropy(flat, targets.flatten(), reduction="none")
    return losses.view(targets.shape)


def next_id_loss(
    logits: Float[Tensor, "batch time vocab"],
    targets: Int[Tensor, "batch time"],
    weights: Float[Tensor, "batch time"],
) -> Float[Tensor, ""]:
    """The weighted mean of `per_id_loss`; ids of weight 0 do not matter."""
    return (per_id_loss(logits, targets) * weights).sum() / weights.sum()


class _HeadLoss(torch.autograd.Function):
    """Weighted sum of nats, its gradients made along the way, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, rows: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        matrix = rows.to(hidden.dtype)
        losses = torch.empty(len(targets), device=hidden.device)
        of_hidden = torch.empty_like(hidden)
        of_rows = torch.zeros_like(rows, dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            wanted = targets[part, None]
            log_shares = torch.log_softmax(
                hidden[part] @ matrix.T, -1, dtype=torch.float32
            )
            losses[part] = -log_shares.gather(1, wanted)[:, 0]
            gradient = log_shares.exp_()
            gradient.scatter_add_(
                1, wanted, -torch.ones_like(wanted, dtype=gradient.dtype)
            )
            gradient = gradient.mul_(weights[part, None]).to(hidden.dtype)
            of_hidden[part] = gradient @ matrix
            of_rows += gradient.T @ hidden[part]
        ctx.save_for_backward(of_hidden, of_rows.to(rows.dtype))
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _losses: Tensor) -> Any:
        of_hidden, of_rows = ctx.saved_tensors
        return of_hidden * scale, of_rows * scale, None, None


def head_loss(
    hidden: Float[Tensor, "batch time width"],
    rows: Float[Tensor, "vocab width"],
    targets: Int[Tensor, "batch time"],
    weights: Float[Tensor, "batch time"],
    total: Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch time"]]:
    """`next_id_loss` of the logits `hidden rows^T`, which never exist all at once.

    The gradients of a chunk are formed with its logits, so nothing of the vocabulary's
    size is kept for the backward pass. Products run in `hidden`'s precision, softmax
    and loss in fp32.

    Args:
        hidden: what the head multiplies.
        rows: the head.
        targets: ids.
        weights: of each.
        total: what the weighted sum is divided by, where these are a share of a batch;
            by default the sum of these weights.

    Returns:
        The weighted mean, and the nats of each target (without gradient).
    """
    shares = weights / (weights.sum() if total is None else total)
    mean, losses = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1), rows, targets.flatten(), shares.flatten()
    )
    return mean, losses.view(targets.shape)


class Tally:
    """Running sums of nats, text ids (specials among them) apart from image codes.

    Only ids with a weight above 0 count, each equally.
    """

    def __init__(self, image: range) -> None:
        """Start at nothing.

        Args:
            image: the vocabulary's ids of image codes.
        """
        self._range = image
        self._text_nats = self._image_nats = 0.0
        self.texts = self.images = 0  # ids counted

    def add(
        self,
        losses: Float[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        weights: Float[Tensor, "batch time"],
    ) -> None:
        """Count the nats of these targets."""
        counted = weights > 0
        codes = (targets >= self._range.start) & (targets < self._range.stop) & counted
        text = counted & ~codes
        self._text_nats += float(losses[text].sum())
        self._image_nats += float(losses[codes].sum())
        self.texts += int(text.sum())
        self.images += int(codes.sum())

    def merge(self, others: Iterable["Tally"]) -> "Tally":
        """Count what others have counted, too."""
        for other in others:
            self._text_nats += other._text_nats
            self._image_nats += other._image_nats
            self.texts += other.texts
            self.images += other.images
        return self

    @property
    def text(self) -> float:
        """Mean nats per text id; 0 of none."""
        return self._text_nats / max(1, self.texts)

    @property
    def image(self) -> float:
        """Mean nats per image code; 0 of none."""
        return self._image_nats / max(1, self.images)
