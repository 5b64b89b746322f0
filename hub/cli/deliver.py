"""`hub deliverability`: what receivers will say of the configured mails, before the first one goes out."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from hub.cli.place import Place, print_table
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.config import Config

WORDS = {True: "holds", False: "does not hold", None: "unknown"}


@click.command()
@click.argument("message", required=False)
@click.pass_obj
def deliverability(place: Place, message: str | None) -> None:
    """Ask DNS whether SPF, DKIM, DMARC and the rest hold for MESSAGE (or all of them) by each relay.

    Ends with 1 when a gate keeps a message from being sent, with 2 when DNS did not answer for one.
    """
    from hub.config import load

    config = load(place.config, dict(os.environ))
    names = [message] if message else list(config.settings.messages)
    if message and message not in config.settings.messages:
        known = ", ".join(config.settings.messages) or "none"
        raise HubError(f"there is no message {message!r}", f"hub.yaml has {known}")
    found = asyncio.run(_ask(config, names))
    place.show(found, lambda: _tables(found))
    states = {each["state"] for each in found}
    sys.exit(1 if "failed" in states else 2 if "unknown" in states else 0)


async def _ask(config: Config, names: list[str]) -> list[dict[str, Any]]:
    from hub.clock import from_environment
    from hub.mail import dkim, gates

    clock = from_environment()
    asked = gates.Gates(config, dkim.Signer(dkim.keys(config.settings.dkim), clock), clock)
    rows = []
    for message in names:
        for relay, section in config.settings.relays.items():
            findings = await asked.findings(message, relay)
            rows.append(
                {
                    "message": message,
                    "relay": relay,
                    "state": gates.verdict(findings).state,
                    "exempt": gates.exempt(config.own(section.own)),
                    "findings": [finding.as_dict() for finding in findings],
                }
            )
    return rows


def _tables(found: list[dict[str, Any]]) -> None:
    columns = {
        "gate": "gate",
        "verdict": "verdict",
        "what": "what",
        "fix": "what to do",
        "code": "receivers would say",
    }
    for each in found:
        rows = [
            {**finding, "verdict": WORDS[finding["ok"]] + (" (advice)" if _advice(finding) else "")}
            for finding in each["findings"]
        ]
        empty = "exempt: the relay is on this machine" if each["exempt"] else "nothing was asked"
        print_table(f"{each['message']} by {each['relay']}: {each['state']}", columns, rows, empty=empty)
    if not found:
        click.echo("there is no message, or no relay to send it by")


def _advice(finding: dict[str, Any]) -> bool:
    return finding["ok"] is not True and finding["severity"] == "warn"


COMMANDS = (deliverability,)
