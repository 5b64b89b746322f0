"""Routes: what a relay serves, its order, its weight, and that a delivery keeps its way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hub.config.settings import RelaySection
from hub.mail.routing import Routing


def routing(**relays: dict[str, Any]) -> Routing:
    return Routing({name: RelaySection.model_validate(section) for name, section in relays.items()})


def test_without_orders_relays_are_tried_as_they_stand() -> None:
    ways = routing(main={}, spare={}, last={})
    assert {ways.routes("news", "a.example", "DE", n) for n in range(50)} == {("main", "spare", "last")}


def test_a_lower_order_comes_first() -> None:
    ways = routing(spare={"order": 9}, main={"order": 1}, other={"order": 5})
    assert ways.routes("news", "a.example", "", 1) == ("main", "other", "spare")


def test_relays_of_one_order_share_by_weight_and_stand_in_for_each_other_by_weight() -> None:
    ways = routing(
        a={"order": 1, "weight": 1}, b={"order": 1, "weight": 2}, c={"order": 1, "weight": 5}, z={"order": 2}
    )
    found = [ways.routes("news", "a.example", "DE", delivery) for delivery in range(40_000)]
    assert all(len(set(each)) == 4 and each[3] == "z" for each in found)
    first = Counter(each[0] for each in found)
    for name, share in (("a", 1 / 8), ("b", 2 / 8), ("c", 5 / 8)):
        assert first[name] / 40_000 == pytest.approx(share, abs=0.01)
    second = Counter(each[1] for each in found if each[0] == "c")
    assert second["b"] / first["c"] == pytest.approx(2 / 3, abs=0.02)


def test_a_relay_without_weight_only_stands_in() -> None:
    ways = routing(main={"order": 1}, spare={"order": 1, "weight": 0})
    assert {ways.routes("news", "a.example", "DE", n) for n in range(200)} == {("main", "spare")}


def test_a_delivery_keeps_its_way_when_another_relay_comes() -> None:
    two = routing(a={"order": 1}, b={"order": 1})
    three = routing(a={"order": 1}, c={"order": 1}, b={"order": 1})
    moved = 0
    for delivery in range(3_000):
        before = two.routes("news", "a.example", "DE", delivery)
        after = three.routes("news", "a.example", "DE", delivery)
        assert tuple(name for name in after if name != "c") == before
        moved += after[0] == "c"
    assert moved / 3_000 == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize(
    ("purpose", "domain", "country", "expected"),
    [
        ("news", "news.example", "DE", ("eu", "any")),
        ("news", "news.example", "de", ("eu", "any")),
        ("news", "News.Example", "AT", ("eu", "any")),
        ("news", "news.example", "US", ("any",)),
        ("news", "news.example", "", ("any",)),
        ("news", "other.example", "DE", ("any",)),
        ("receipts", "news.example", "DE", ("mine", "any")),
    ],
)
def test_a_relay_carries_what_it_serves(
    purpose: str, domain: str, country: str, expected: tuple[str, ...]
) -> None:
    ways = routing(
        eu={"serves": {"purposes": ["news"], "from_domains": ["news.example"], "countries": ["DE", "at"]}},
        mine={"serves": {"purposes": ["receipts"]}},
        any={},
    )
    assert ways.routes(purpose, domain, country, 5) == expected


def test_nobody_may_carry_it() -> None:
    assert routing(eu={"serves": {"countries": ["DE"]}}).routes("news", "a.example", "US", 1) == ()
