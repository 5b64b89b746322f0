"""Lists on a million contacts: rebuilds and previews beside the bare SELECT, changed contacts beside rebuilds.

1,000,000 contacts and 300,000 deals are made in SQL. A rebuild that changes nothing, of a small list and of one with
about 200,000 members, is a worker's whole refresh of it; the SELECT is the same rule fetched by the same driver. Then 50
lists take in 1,000 changed contacts, as a refresh does after a pull, and are rebuilt for comparison. The figures are
medians of rounds in which all have their turns. After the increments every list is held against its whole rule.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub import embedded
from hub.clock import ManualClock
from hub.config.settings import ListSection
from hub.lists import compiled, preview, refresh_all
from hub.model import CONTACT_FIELDS, FieldType, HubField
from hub.rules import Catalog
from hub.store.database import Database, migrate
from scripts.benches.common.measured import BenchError
from scripts.benches.common.table import Aim, Column, Said, finish, median, ratio, show

SMALL = "country = 'AT' AND city LIKE 'City 1%' AND score > 50 AND lifecycle = 'lead' AND has_deal(stage => 'trial')"
LARGE = "country IN ('DE', 'AT', 'CH') AND score > 10 AND lifecycle <> 'customer' AND NOT has_deal(stage => 'won')"
AIMS = {
    "small_rebuild_vs_select": Aim(1.3, 1.1, at_most=True),
    "large_rebuild_vs_select": Aim(2.3, 2.0, at_most=True),
    "incremental_vs_rebuild": Aim(0.125, at_most=True),
    "preview_vs_select": Aim(3.0, at_most=True),
}
COLUMNS = (
    Column("ms", "ms", 1), Column("members", "members"), Column("lists", "lists"), Column("rounds", "rounds"),
)  # fmt: skip
CATALOG = Catalog(
    {**CONTACT_FIELDS, "score": HubField("score", FieldType.NUMBER)},
    lists=frozenset({"small", "large", *(f"list{n}" for n in range(50))}),
)
START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Plan:
    contacts: int
    deals: int
    changed: int
    rounds: int


FULL = Plan(1_000_000, 300_000, 1_000, 7)
QUICK = Plan(60_000, 18_000, 300, 3)


def fifty() -> dict[str, ListSection]:
    """50 lists as people make them: by place, score, age, deals, and by one another."""
    rules = {}
    for n in range(50):
        where = (
            f"country = '{('DE', 'AT', 'CH', 'FR')[n % 4]}' AND city LIKE 'City {n + 1}%' AND score > {n}",
            f"has_deal(stage => '{('trial', 'won', 'lost')[n % 3]}', amount_over => {5000 + n * 100}) AND score > {n}",
            f"city = 'City {n}' AND days_since(created_at) > {n * 10} AND NOT has_deal('won')",
            f"in_list('list{n - 3}') AND score < 80" if n > 3 else "score < 10 AND city = 'City 7'",
            f"score BETWEEN {n} AND {n + 3} AND (city = 'City {n}' OR has_deal(stage => 'trial'))",
        )[n % 5]
        rules[f"list{n}"] = ListSection(where=where)
    return rules


class Bench:
    def __init__(self, db: Database, plan: Plan, said: Said) -> None:
        self.db, self.plan, self.said = db, plan, said
        self.clock = ManualClock(START)

    async def execute(self, query: str, values: dict[str, Any] | None = None) -> list[Any]:
        async with self.db.connection() as conn:
            await conn.commit()
            await conn.set_autocommit(True)
            try:
                cursor = await conn.execute(query.encode(), values)
                return list(await cursor.fetchall()) if cursor.description else []
            finally:
                await conn.set_autocommit(False)

    async def fill(self) -> None:
        self.said.step(f"making {self.plan.contacts:,} contacts and {self.plan.deals:,} deals")
        n = {"contacts": self.plan.contacts, "deals": self.plan.deals, "now": START}
        await self.execute(
            """INSERT INTO contact (email, first_name, country, city, lifecycle, created_at, fields, changed_at)
               SELECT 'p' || n || '@example.com', 'P' || n, (ARRAY['DE', 'AT', 'CH', 'FR', 'IT', 'ES', 'US', 'PL'])[1 + n % 8],
                      'City ' || n * 7 %% 500, (ARRAY['lead', 'subscriber', 'customer'])[1 + n % 3],
                      %(now)s::timestamptz - n % 1000 * interval '1 day',
                      jsonb_build_object('score', n * 13 % 100, 'note', 'x' || n, 'vip', n % 2 = 0), %(now)s
               FROM generate_series(1, %(contacts)s) n""".replace(" % ", " %% "),
            n,
        )
        await self.execute(
            "INSERT INTO contact_identity SELECT 'crm', 'contact', id::text, id, NULL, NULL, 'live', %(now)s FROM contact",
            n,
        )
        await self.execute(
            """INSERT INTO deal (connection, external_id, name, stage, amount, currency, created_at, changed_at)
               SELECT 'crm', n::text, 'Deal ' || n, (ARRAY['trial', 'won', 'lost', 'open'])[1 + n %% 4], n * 7 %% 10000, 'EUR',
                      %(now)s, %(now)s FROM generate_series(1, %(deals)s) n""",
            n,
        )
        await self.execute(
            "INSERT INTO deal_contact SELECT id, 'crm', (1 + id * 31 %% %(contacts)s)::text, '' FROM deal", n
        )
        await self.execute("TRUNCATE list_touch")
        await self.execute("VACUUM ANALYZE")

    async def refresh(self, sections: dict[str, ListSection]) -> None:
        done = await refresh_all(self.db, self.clock, sections, CATALOG, {})
        if problems := [f"{one.name}: {one.problem}" for one in done if one.problem]:
            raise BenchError("; ".join(problems))

    async def all_anew(self) -> None:
        await self.execute("UPDATE list SET needs_rebuild = true WHERE retired_at IS NULL")

    async def select(self, section: ListSection) -> int:
        rule = compiled("it", section, CATALOG)
        async with self.db.connection() as conn:
            cursor = await conn.execute(rule.select().encode(), rule.values(START))
            return len(await cursor.fetchall())

    async def touch(self) -> None:
        await self.execute(
            """UPDATE contact SET fields = fields || jsonb_build_object('score', (random() * 100)::int)
               WHERE id IN (SELECT 1 + (random() * (%(contacts)s - 1))::bigint FROM generate_series(1, %(changed)s))""",
            {"contacts": self.plan.contacts, "changed": self.plan.changed},
        )

    async def timed(self, work: Callable[[], Awaitable[Any]]) -> float:
        started = time.perf_counter()
        await work()
        return (time.perf_counter() - started) * 1_000

    async def measure(self) -> list[dict[str, Any]]:
        return [*(await self.rebuilds()), *(await self.increments())]

    async def rebuilds(self) -> list[dict[str, Any]]:
        return [
            row
            for name, where in (("small", SMALL), ("large", LARGE))
            for row in await self.one_list(name, where)
        ]

    async def one_list(self, name: str, where: str) -> list[dict[str, Any]]:
        section = ListSection(where=where)
        rule = compiled(name, section, CATALOG)
        await self.refresh({name: section})
        members = await self.select(section)
        works: dict[str, Callable[[], Awaitable[Any]]] = {
            "select": lambda: self.select(section),
            "rebuild": lambda: self.refresh({name: section}),
            "preview": lambda: preview(self.db, rule, START, samples=5),
        }
        times: dict[str, list[float]] = {key: [] for key in works}
        for number in range(1, self.plan.rounds + 1):
            self.said.step(f"{name} list, round {number} of {self.plan.rounds}")
            for key, work in works.items():
                await self.all_anew()
                times[key].append(await self.timed(work))
        return [
            {
                "name": f"{name}-{key}",
                "ms": round(median(found), 2),
                "members": members,
                "lists": 1,
                "rounds": len(found),
            }
            for key, found in times.items()
        ]

    async def increments(self) -> list[dict[str, Any]]:
        sections = fifty()
        self.said.step("50 lists, built for the first time")
        await self.refresh(sections)
        await self.execute("VACUUM ANALYZE list_member")
        rounds = max(3, self.plan.rounds // 2)
        times: dict[str, list[float]] = {"50-changed": [], "50-rebuild": []}
        for number in range(1, rounds + 1):
            self.said.step(f"50 lists, round {number} of {rounds}")
            await self.touch()
            times["50-changed"].append(await self.timed(lambda: self.refresh(sections)))
            done = await refresh_all(self.db, self.clock, sections, CATALOG, {}, verify=number == 1)
            drift = await self.execute("SELECT count(*) FROM run_reject WHERE code = 'DRIFT'")
            if drift[0][0] or any(one.looked_at is None for one in done):
                raise BenchError(f"{drift[0][0]} members are not those of the whole rules")
            await self.all_anew()
            times["50-rebuild"].append(await self.timed(lambda: self.refresh(sections)))
        members = (await self.execute("SELECT sum(size)::bigint FROM list WHERE retired_at IS NULL"))[0][0]
        return [
            {
                "name": key,
                "ms": round(median(found), 1),
                "members": members,
                "lists": 50,
                "rounds": len(found),
            }
            for key, found in times.items()
        ]


def ratios(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    ms = {row["name"]: row["ms"] for row in rows}
    previews = [ratio(ms[f"{name}-preview"], ms[f"{name}-select"]) or 0.0 for name in ("small", "large")]
    return {
        "small_rebuild_vs_select": ratio(ms["small-rebuild"], ms["small-select"]),
        "large_rebuild_vs_select": ratio(ms["large-rebuild"], ms["large-select"]),
        "incremental_vs_rebuild": ratio(ms["50-changed"], ms["50-rebuild"]),
        "preview_vs_select": max(previews),
    }


async def run(url: str, plan: Plan, said: Said) -> list[dict[str, Any]]:
    async with Database(url, size=2) as db:
        bench = Bench(db, plan, said)
        await bench.fill()
        return await bench.measure()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench lists", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--quick", action="store_true", help="fewer contacts and rounds: it works, but says little"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    parser.add_argument(
        "--contacts", type=int, metavar="N", help="so many contacts, and three deals for ten of them"
    )
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    if given.rounds:
        plan = replace(plan, rounds=given.rounds)
    if given.contacts:
        count = given.contacts
        plan = replace(plan, contacts=count, deals=count * 3 // 10, changed=min(plan.changed, count // 10))
    # Whoever ends the bench ends its server, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    said = Said()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        said.step("starting PostgreSQL")
        with embedded.EmbeddedServers(Path(folder) / "servers") as servers:
            migrate(servers.urls.database)
            try:
                rows = asyncio.run(run(servers.urls.database, plan, said))
            except BenchError as error:
                print(f"The bench failed: {error}", file=sys.stderr)
                return 1
    show(f"{plan.contacts:,} contacts, {plan.deals:,} deals", COLUMNS, rows)
    notes = [f"50-changed: {plan.changed:,} changed contacts taken in by 50 lists that build on each other"]
    finish("lists", rows, ratios(rows), AIMS, notes=notes, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
