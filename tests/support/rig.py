"""A whole hub in one test process: a real database and Redis, a HubSpot account, a relay, and every stage by hand.

The web application and the worker run as processes of their own in `tests/acceptance`; here a test calls one
stage after the other and looks at what stands in the tables and at the vendor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.hubspot.limits import Limits
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from hub.jobs import runtime as runtimes
from hub.jobs import stages
from hub.jobs.runtime import Runtime

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
SECRETS = {"HUBSPOT_TOKEN": "pat-na1-sandbox", "HUBSPOT_APP_SECRET": "sandbox-client-secret"}

HUB_YAML = """\
connections:
  crm:
    connector: hubspot
    base_url: {hubspot}
    token: "${{HUBSPOT_TOKEN}}"
    webhook_secret: "${{HUBSPOT_APP_SECRET}}"
sync:
  crm: {{every: 5m, pull: [contacts, deals, segments], push: [results, consent, fields]}}
purposes:
  news: {{title: News, subscriptions: {{crm: "730001"}}}}
lists:
  berlin: {{where: "city = 'Berlin'"}}
messages:
  hello:
    subject: "Hello {{{{ contact.first_name or 'there' }}}}"
    template: hello.html
    from: "Ann <ann@mailyard.example>"
    purpose: news
funnels:
  greeting:
    enter: {{list: berlin}}
    steps:
      - send: hello
      - wait: 2 days
      - when: opened('hello')
        then: [{{set: {{crm: {{lifecycle: marketingqualifiedlead}}}}}}]
relays:
  main: {{host: {relay_host}, port: {relay_port}, tls: {relay_tls}{relay_ca}}}
bounces: {{return_path: bounce@mailyard.example, maildir: bounces}}
sender: {{postal_address: "Mailyard, Vienna", list_domain: mailyard.example}}
web: {{public_url: "https://hub.example"}}
"""
HELLO = """<p>Hello {{ contact.first_name or 'there' }}</p><a href="https://mailyard.example/start">Start</a>
<a href="{{ unsubscribe_url }}">Unsubscribe</a>"""


@dataclass
class Rig:
    """An opened hub and the worlds around it."""

    runtime: Runtime
    hubspot: HubSpotSandbox
    clock: ManualClock
    folder: Path
    environ: Mapping[str, str]
    ran: list[Any] = field(default_factory=list)

    async def run(self, *kinds: str) -> None:
        """Run stages by name; `pull:contacts` and `push` are those of the connection `crm`."""
        for kind in kinds:
            name, _, stream = kind.partition(":")
            key = {"pull": f"crm/{stream}", "push": "crm", "inbox": "crm"}.get(name, "")
            self.ran.append(await stages.run(self.runtime, name, key))

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.runtime.db.connection() as conn:
            return list(await (await conn.execute(query.encode(), values or None)).fetchall())

    async def value(self, query: str, *values: Any) -> Any:
        return (await self.rows(query, *values))[0][0]

    async def last_run(self, kind: str = "pull") -> dict[str, Any]:
        found = await self.rows(
            "SELECT state, reason, counts, resumes_at, stream FROM run WHERE kind = %s ORDER BY id DESC LIMIT 1",
            kind,
        )
        return dict(zip(("state", "reason", "counts", "resumes_at", "stream"), found[0], strict=True))


@contextmanager
def hubspot_account(clock: ManualClock, **settings: Any) -> Iterator[HubSpotSandbox]:
    """A served, empty account with lifted limits."""
    sandbox = HubSpotSandbox(clock=clock, **({"limits": Limits.generous()} | settings))
    with sandbox.serve():
        yield sandbox


@asynccontextmanager
async def opened(
    folder: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    *,
    database_url: str,
    redis_url: str,
    relay: Any = None,
    yaml: str = HUB_YAML,
) -> AsyncIterator[Rig]:
    """A hub whose hub.yaml is `yaml`, filled with where the sandboxes serve."""
    (folder / "hub.yaml").write_text(
        yaml.format(
            hubspot=hubspot.url,
            relay_host=relay.host if relay else "127.0.0.1",
            relay_port=relay.port if relay else 9,
            relay_tls="starttls" if relay else "none",
            relay_ca=f", ca_file: {relay.ca_file}" if relay else "",
        )
    )
    (folder / "hello.html").write_text(HELLO)
    environ = {
        **SECRETS, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY,
    }  # fmt: skip
    async with runtimes.opened(folder / "hub.yaml", environ, clock=clock) as runtime:
        yield Rig(runtime, hubspot, clock, folder, environ)
