"""A hub for the bench: embedded servers, people in the contact table, mails in the ledger, and what became of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from hub import embedded
from hub.config.settings import Settings
from hub.store.database import migrate
from scripts.benches.common.measured import BenchError, tree_cpu
from scripts.benches.sending import message

KEY = base64.urlsafe_b64encode(b"a key of the bench, no secret...").decode()
CONNECTIONS = 10
PEOPLE_FOR_PEERS = 5_000
PURPOSE, MESSAGE = "news", "offer"
PORTION = 100_000


@dataclass
class World:
    """Built by `built`. `folder` holds hub.yaml, the template and the DKIM key."""

    folder: Path
    servers: embedded.EmbeddedServers
    people: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """What our worker needs in its environment."""
        return {
            "HUB_DATABASE_URL": self.servers.urls.database,
            "HUB_REDIS_URL": self.servers.urls.redis,
            "HUB_SECRET_KEY": KEY,
        }

    def configure(self, port: int, *, dkim: bool) -> Path:
        """Write hub.yaml for a relay at this port of this machine."""
        file = self.folder / ("hub-dkim.yaml" if dkim else "hub.yaml")
        file.write_text(_hub_yaml(port, self.folder, dkim=dkim), encoding="utf-8")
        return file

    def have_people(self, count: int) -> None:
        """Make contacts until there are so many."""
        with self._connected() as conn:
            while self.people < count:
                last = min(count, self.people + PORTION)
                conn.execute(message.PEOPLE.encode(), {"first": self.people + 1, "last": last})
                self.people = last
            conn.execute("VACUUM ANALYZE contact")

    def queue(self, count: int) -> None:
        """Empty the ledger and queue one mail for each of the first `count` contacts."""
        self.have_people(count)
        with self._connected() as conn:
            conn.execute("TRUNCATE delivery, event CASCADE")
            for first in range(0, count, PORTION):
                conn.execute(
                    """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at)
                       SELECT %s, id, 'bench', %s, now() FROM contact WHERE id > %s AND id <= %s ORDER BY id""",
                    [MESSAGE, PURPOSE, first, min(count, first + PORTION)],
                )
            conn.execute("VACUUM ANALYZE delivery")
            conn.execute("CHECKPOINT")

    def states(self) -> dict[str, int]:
        """state -> mails in the ledger."""
        with self._connected() as conn:
            return dict(conn.execute("SELECT state, count(*) FROM delivery GROUP BY state").fetchall())

    def agree(self, count: int, taken: int) -> None:
        """Raise BenchError unless the ledger and the relay both know of exactly so many mails."""
        states = self.states()
        with self._connected() as conn:
            row = conn.execute("SELECT count(*) FROM event WHERE kind = 'sent'").fetchone()
        events = row[0] if row else 0
        if states != {"accepted": count} or taken != count or events != count:
            raise BenchError(
                f"the sums differ: {count} mails were queued, the ledger has {states} and {events} events, the relay took {taken}"
            )

    def postgres_cpu(self) -> float:
        """CPU seconds of PostgreSQL and all its processes so far."""
        return tree_cpu(self.servers.pids()["postgres"])

    def people_file(self) -> Path:
        """The first contacts as JSON, for the other contenders."""
        self.have_people(PEOPLE_FOR_PEERS)
        file = self.folder / "people.json"
        with self._connected() as conn:
            rows = conn.execute(
                f"SELECT email, {', '.join(message.VALUES)} FROM contact WHERE id <= %s ORDER BY id".encode(),
                [PEOPLE_FOR_PEERS],
            ).fetchall()
        people = [dict(zip(("email", *message.VALUES), row, strict=True)) for row in rows]
        file.write_text(json.dumps({"mail": message.for_peers(), "people": people}), encoding="utf-8")
        return file

    def _connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.servers.urls.database, autocommit=True)


@contextmanager
def built(folder: Path) -> Iterator[World]:
    """Start the servers under `folder`, migrate, yield, stop."""
    with embedded.EmbeddedServers(folder / "servers") as servers:
        migrate(servers.urls.database)
        (folder / "offer.mjml").write_text(message.MJML, encoding="utf-8")
        _write_key(folder / "dkim.pem")
        yield World(folder, servers)


def signs() -> bool:
    """Whether this hub can sign with DKIM."""
    return "dkim" in Settings.model_fields


def _write_key(file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)


def _hub_yaml(port: int, folder: Path, *, dkim: bool) -> str:
    quoted = json.dumps  # JSON's strings are YAML's
    text = f"""\
purposes:
  {PURPOSE}: {{title: News}}
messages:
  {MESSAGE}:
    subject: {quoted(message.SUBJECT)}
    preheader: {quoted(message.PREHEADER)}
    template: offer.mjml
    text: {quoted(message.TEXT)}
    from: {quoted(message.FROM)}
    purpose: {PURPOSE}
relays:
  main: {{host: 127.0.0.1, port: {port}, tls: none, limits: {{connections: {CONNECTIONS}}}}}
bounces: {{return_path: {message.RETURN_PATH}}}
sender: {{postal_address: {quoted(message.POSTAL_ADDRESS)}, list_domain: mailyard.example}}
web: {{public_url: {quoted(message.PUBLIC_URL)}}}
"""
    if dkim:
        file = quoted(str(folder / "dkim.pem"))
        text += f"dkim: {{mailyard.example: [{{selector: bench, private_key_file: {file}}}]}}\n"
    return text
