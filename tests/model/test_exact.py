from functools import partial

import pytest
import torch
from torch.testing import assert_close

from cm3leon.model.exact import COLUMNS, Linear, product


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(384, 1536), (1536, 384), (64, 50)], ids=str)
def test_a_row_is_multiplied_as_if_it_were_alone(shape, random):
    layer = Linear(*shape, bias=False).requires_grad_(False)
    rows = torch.randn(41, shape[0], generator=random)
    whole = layer(rows)
    assert_close(whole, rows @ layer.weight.T)
    for count in range(1, 41):
        assert torch.equal(layer(rows[:count]), whole[:count])
        assert torch.equal(layer(rows[count:][None])[0], whole[count:])


@pytest.mark.parametrize(
    ("rows", "of"), [(1, 1), (2, 2), (3, 3), (1, 40), (2, 40), (7, 40), (30, 40)]
)
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_products_of_attention_do_not_depend_on_what_is_masked(
    rows, of, head_dim, random
):
    """Nor on other lanes, nor, in fours, on further queries."""
    q, keys, values = (
        torch.randn(5, 2, n, head_dim, generator=random) for n in (of, 512, 512)
    )
    times = partial(product, fours=rows < of)
    scores = times(q, keys.mT)
    assert_close(scores, q @ keys.mT, rtol=1e-4, atol=1e-4)
    for seen in range(COLUMNS, 512, COLUMNS):
        shares = scores.masked_fill(torch.arange(512) >= seen - 7, -torch.inf)
        shares = shares.softmax(-1)
        found = times(shares, values)
        some = times(q[1:3, :, :rows], keys[1:3, :, :seen].mT)
        assert torch.equal(some, scores[1:3, :, :rows, :seen])
        some = some.masked_fill(torch.arange(seen) >= seen - 7, -torch.inf).softmax(-1)
        assert torch.equal(some, shares[1:3, :, :rows, :seen])
        some = times(some, values[1:3, :, :seen])
        assert torch.equal(some, found[1:3, :, :rows])
