"""`hub relays`: how each way out is, how much of it is used, and what was found of it forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from hub.cli.place import Place, print_table

if TYPE_CHECKING:
    from hub.jobs.runtime import Runtime


@click.group("relays", invoke_without_command=True)
@click.pass_context
def relays_(ctx: click.Context) -> None:
    """Each relay: whether it is used and why not, its windows, its warm-up, and receivers that asked for less."""
    if ctx.invoked_subcommand is None:
        _overview(ctx.obj)


def _overview(place: Place) -> None:

    async def ask(runtime: Runtime) -> list[dict[str, Any]]:
        from hub.mail.traffic import overview

        return await overview(runtime.db, runtime.clock, runtime.settings.relays)

    found = place.run(ask)
    place.show(found, lambda: _tables(found))


@relays_.command()
@click.argument("name")
@click.pass_obj
def forget(place: Place, name: str) -> None:
    """Learn relay NAME anew: whether it works, which pipelining it bears, how much receivers take. Limits stay as used."""

    async def ask(runtime: Runtime) -> dict[str, Any]:
        from hub.mail import traffic

        return await traffic.forget(runtime.db, runtime.clock, runtime.settings.relays, name)

    found = place.run(ask)
    place.show(found, lambda: click.echo(_forgotten(found)))


def _forgotten(found: Mapping[str, Any]) -> str:
    slowed = ", ".join(receiver or "all mail" for receiver in found["slowed"])
    known = [
        f"left alone because {found['left_alone']}" if found["left_alone"] else "",
        f"pipelining {found['pipelining']}" if found["pipelining"] else "",
        f"slowed for {slowed}" if slowed else "",
    ]
    words = "; ".join(each for each in known if each) or "nothing was known"
    return f"Relay {found['relay']} is learned anew; forgotten: {words}"


def _tables(found: list[dict[str, Any]]) -> None:
    rows = [
        {
            **each,
            "next": "" if each["probe_in_seconds"] is None else f"{each['probe_in_seconds']:.0f} s",
            "used": _windows(each["windows"]),
            "warming": _warming(each["warm_up"]),
        }
        for each in found
    ]
    columns = {
        "relay": "relay", "order": "order", "weight": "weight", "state": "state", "reason": "reason", "since": "since",
        "next": "tried again in", "used": "used of", "warming": "warm-up", "pipelining": "pipelining",
    }  # fmt: skip
    print_table("Relays", columns, rows, empty="none are configured")
    limited = [
        {"relay": each["relay"], "receiver": name, "used": _windows(windows)}
        for each in found
        for name, windows in each["receivers"].items()
    ]
    if limited:
        columns = {"relay": "relay", "receiver": "receiver", "used": "used of"}
        print_table("Receivers with limits", columns, limited)
    slowed = [
        {
            "relay": each["relay"],
            **slow,
            "rate": f"{slow['per_second']:.2g}/s",
            "who": slow["receiver"] or "all mail",
        }
        for each in found
        for slow in each["slowed"]
    ]
    if slowed:
        columns = {
            "relay": "relay",
            "who": "receiver",
            "rate": "slowed to",
            "reason": "reason",
            "since": "since",
        }
        print_table("Asked for less", columns, slowed)


def _windows(windows: Mapping[str, Mapping[str, int | None]]) -> str:
    return ", ".join(
        f"{span} {each['used']}" + (f"/{each['limit']}" if each["limit"] is not None else "")
        for span, each in windows.items()
    )


def _warming(stage: Mapping[str, int | None] | None) -> str:
    if stage is None:
        return ""
    if stage["day"] == 0:
        return "not begun"
    return "over" if stage["allowance"] is None else f"day {stage['day']}: {stage['allowance']}"


COMMANDS = (relays_,)
