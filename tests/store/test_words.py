"""Two systems that tell of one person: whose word stands, by authority and by time; blanks; clocks."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.mapping import Standing
from hub.store import contacts
from hub.store.contacts import ContactRow
from hub.store.database import Database

ANN = "ann@example.com"
FIELDS = ("email", "city", "phone", "tier")


def standing(**authority: str) -> list[Standing]:
    """Both systems pull all fields; `city="sales"` gives the word on it to sales, the other follows."""
    return [
        Standing(connection, name, 0 if authority.get(name) == connection else 1, order)
        for order, connection in enumerate(("crm", "sales"))
        for name in FIELDS
    ]


class Systems:
    """Two CRMs that both know Ann."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock
        self.start = clock.now()

    def at(self, minutes: float) -> datetime:
        return self.start + timedelta(minutes=minutes)

    async def tell(
        self,
        connection: str,
        minutes: float | None,
        *,
        id: str = "1",
        who: list[Standing] | None = None,
        blank: dict[str, str] | None = None,
        fill: dict[str, Any] | None = None,
        state: str = "live",
        untold: tuple[str, ...] = (),
        **fields: Any,
    ) -> None:
        """A pulled record that changed so many minutes after the start."""
        columns = {"email": ANN, **{k: v for k, v in fields.items() if k in contacts.COLUMNS}}
        custom = {k: v for k, v in fields.items() if k not in contacts.COLUMNS}
        said = repr((sorted(columns.items(), key=str), custom, fill, minutes)).encode()
        row = ContactRow(
            id, columns, custom, hashlib.sha256(said).digest()[:16], fill=fill or {}, state=state, untold=untold,
            vendor_changed_at=None if minutes is None else self.at(minutes),
        )  # fmt: skip
        async with self.db.transaction() as conn:
            await contacts.merge(
                conn, connection, [row], on_blank={**dict.fromkeys(columns, "keep"), **(blank or {})}, run_id=None,
                now=self.clock.now(), standing=standing() if who is None else who,
            )  # fmt: skip

    async def ann(self, *names: str) -> Any:
        async with self.db.connection() as conn:
            rows = await (
                await conn.execute("SELECT to_jsonb(c) || c.fields FROM contact c ORDER BY id")
            ).fetchall()
        assert len(rows) == 1
        found = tuple(rows[0][0].get(name) for name in names)
        return found if len(found) > 1 else found[0]

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())


@pytest.fixture
def systems(database: Database, clock: ManualClock) -> Systems:
    clock.advance(hours=0)
    made = Systems(database, clock)
    clock.advance(days=1)  # what the vendors tell of is past
    return made


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_newest_word_stands_in_whatever_order_it_comes(systems: Systems, place: int) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 1, city="Graz")
    told = [("crm", 10, "Linz"), ("crm", 15, "Rom")]
    told.insert(place, ("sales", 20, "Bonn"))
    for connection, minutes, city in told:
        await systems.tell(connection, minutes, city=city)
    assert await systems.ann("city") == "Bonn"


async def test_a_record_that_comes_again_for_another_fields_sake_overwrites_nothing(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien", phone="1")
    await systems.tell("sales", 10, city="Graz", phone="1")
    await systems.tell("crm", 20, city="Wien", phone="2")  # only the phone changed there
    assert await systems.ann("city", "phone") == ("Graz", "2")
    await systems.tell("crm", 30, city="Rom", phone="2")
    assert await systems.ann("city", "phone") == ("Rom", "2")


@pytest.mark.parametrize("last", ["crm", "sales"])
async def test_a_system_with_authority_wins_over_newer_words(systems: Systems, last: str) -> None:
    who = standing(city="sales")
    await systems.tell("crm", 0, who=who, city="Wien", phone="1")
    await systems.tell("sales", 5, who=who, city="Graz", phone="2")
    tell = {"crm": ("crm", 99, "Rom", "3"), "sales": ("sales", 50, "Bonn", "4")}
    for connection in ("crm", "sales") if last == "sales" else ("sales", "crm"):
        name, minutes, city, phone = tell[connection]
        await systems.tell(name, minutes, who=who, city=city, phone=phone)
    assert await systems.ann("city", "phone") == ("Bonn", "3")


async def test_who_has_authority_and_no_value_leaves_the_word_to_others(systems: Systems) -> None:
    who = standing(city="sales")
    await systems.tell("crm", 0, who=who, city="Wien")
    await systems.tell("sales", 5, who=who, city=None)
    assert await systems.ann("city") == "Wien"
    await systems.tell("crm", 6, who=who, city="Rom")
    assert await systems.ann("city") == "Rom"


@pytest.mark.parametrize("first", ["crm", "sales"])
async def test_of_two_words_of_one_time_that_of_the_first_connection_stands(
    systems: Systems, first: str
) -> None:
    cities = {"crm": "Wien", "sales": "Graz"}
    for connection in (first, "sales" if first == "crm" else "crm"):
        await systems.tell(connection, 7, city=cities[connection])
    assert await systems.ann("city") == "Wien"


async def test_a_clock_that_runs_ahead_wins_until_our_time_at_most(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 60 * 24 * 365, city="Graz")  # a year ahead
    assert await systems.ann("city") == "Graz"
    systems.clock.advance(minutes=5)
    await systems.tell("crm", 60 * 24 + 3, city="Rom")
    assert await systems.ann("city") == "Rom"


async def test_a_system_without_times_speaks_when_it_is_heard(systems: Systems) -> None:
    await systems.tell("crm", 60, city="Wien")
    await systems.tell("sales", None, city="Graz")
    assert await systems.ann("city") == "Graz"


@pytest.mark.parametrize(
    ("policy", "told", "stands"),
    [
        ("keep", None, "Wien"), ("keep", "Graz", "Graz"), ("fill", None, "Wien"), ("fill", "Graz", "Wien"), ("clear", None, None),
        ("clear", "Graz", "Graz"),
    ],
)  # fmt: skip
async def test_a_blank_against_a_value(
    systems: Systems, policy: str, told: str | None, stands: str | None
) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 10, city=told, blank={"city": policy})
    assert await systems.ann("city") == stands


@pytest.mark.parametrize(("policy", "stands"), [("keep", "gold"), ("fill", "gold"), ("clear", None)])
async def test_a_blank_against_a_value_of_a_field_of_ones_own(
    systems: Systems, policy: str, stands: str | None
) -> None:
    await systems.tell("crm", 0, tier="gold")
    await systems.tell("sales", 10, **({"tier": None} if policy == "clear" else {}))
    assert await systems.ann("tier") == stands


async def test_what_only_fills_fills_a_blank_and_gives_way(systems: Systems) -> None:
    await systems.tell("crm", 0)
    await systems.tell("sales", 10, fill={"tier": "silver"})
    assert await systems.ann("tier") == "silver"
    await systems.tell("crm", 5, tier="gold")  # older, but no mere filling
    assert await systems.ann("tier") == "gold"


async def test_a_value_that_cannot_be_read_is_no_word(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 10, city=None, blank={"city": "clear"}, untold=("city",))
    assert await systems.ann("city") == "Wien"
    await systems.tell("crm", 20, city=None, phone="1", blank={"city": "clear"}, untold=("city",))
    assert await systems.ann("city", "phone") == ("Wien", "1")


async def test_the_word_of_a_system_that_no_longer_pulls_the_field_does_not_count(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 10, city="Graz")
    only = [s for s in standing() if (s.connection, s.field) != ("sales", "city")]
    await systems.tell("crm", 5, who=only, city="Wien", phone="7")
    assert await systems.ann("city", "phone") == ("Wien", "7")


async def test_the_word_of_a_record_that_is_gone_does_not_count(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 10, city="Graz")
    await systems.tell("sales", 20, city="Graz", state="deleted")
    await systems.tell("crm", 5, city="Wien", phone="1")
    assert await systems.ann("city", "state") == ("Wien", "live")


async def test_what_stands_is_kept_as_lineage_with_its_system(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("sales", 10, city="Graz")
    await systems.tell("crm", 5, city="Rom")  # older than what stands: no change
    assert await systems.rows("SELECT connection, kind, diff FROM contact_change ORDER BY id") == [
        ("crm", "created", {}),
        ("sales", "changed", {"city": ["Wien", "Graz"]}),
    ]


async def test_a_single_record_leaves_no_words(systems: Systems) -> None:
    await systems.tell("crm", 0, city="Wien")
    await systems.tell("crm", 10, city="Rom")
    assert await systems.rows("SELECT said FROM contact_identity") == [({},)]
