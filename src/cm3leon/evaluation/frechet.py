"""Fréchet distance of two sets of pictures. Heusel et al. 2017, §3."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _Given(nn.Identity):
    """Features that have been computed already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def frechet_distance(
    left: Float[Tensor, "picture width"], right: Float[Tensor, "other width"]
) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^1/2) of their means and covariances; >= 0.

    Sets of few pictures are further apart than large ones would be: compare only
    distances of equally many.

    Args:
        left: features of one set, two pictures or more.
        right: of the other.
    """
    # In axes of the features' own span the distance is the same; fewer pictures than
    # features then take milliseconds instead of seconds.
    features = torch.cat([left, right]).double()
    features -= features.mean(0)
    features = features @ torch.linalg.qr(features.T).Q
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its parts that are not used here
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=_Given(features.shape[1]))
    metric.update(features[: len(left)], real=True)
    metric.update(features[len(left) :], real=False)
    return max(0.0, float(metric.compute()))
