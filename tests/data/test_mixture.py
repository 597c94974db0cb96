from collections import Counter
from itertools import islice

from cm3leon.data.mixture import Selection, interleave

GROUPS = {
    "few": Selection("abcdefghij", [0, 1, 2]),
    "many": Selection("abcdefghij", range(3, 10)),
}


def taken(shares, count, seed=0):
    return list(islice(interleave(GROUPS, shares, seed), count))


def test_groups_come_in_their_shares_and_each_passes_over_all_it_has():
    seen = Counter(taken({"few": 3.0, "many": 1.0}, 400))
    assert sum(seen[letter] for letter in "abc") == 300
    assert all(seen[letter] == 100 for letter in "abc")
    assert set(seen) == set("abcdefghij")


def test_a_group_without_a_share_stays_away():
    assert set(taken({"few": 1.0}, 30)) == set("abc")


def test_the_order_is_the_seeds():
    shares = {"few": 1.0, "many": 1.0}
    assert taken(shares, 50) == taken(shares, 50)
    assert taken(shares, 50) != taken(shares, 50, seed=1)
