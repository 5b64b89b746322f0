"""Mails as providers and people write them (samples/, made after their documented forms): from the Maildir into the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.clock import ManualClock
from hub.results import dsn, reports
from hub.signing import Signer
from hub.store.database import Database

SAMPLES = Path(__file__).parent / "samples"
SIGNER = Signer(b"k" * 32)
EXPECTED: dict[str, tuple[str, str, str]] = {
    # name: (verdict, class, result that the mail stands at)
    "postfix": ("bounced", "address", "bounced"),
    "exim": ("bounced", "address", "bounced"),
    "qmail": ("bounced", "mailbox-full", "bounced"),
    "sendmail_delayed": ("delayed", "transient", "delayed"),
    "gmail_over_quota": ("bounced", "mailbox-full", "bounced"),
    "gmail_unauthenticated": ("bounced", "policy", "bounced"),
    "exchange_online": ("bounced", "address", "bounced"),
    "outlook_com_blocked": ("bounced", "policy", "bounced"),
    "yahoo": ("bounced", "address", "bounced"),
    "icloud": ("bounced", "reputation", "bounced"),
    "gmx": ("bounced", "address", "bounced"),
    "mimecast": ("bounced", "policy", "bounced"),
    "smtputf8": ("bounced", "address", "bounced"),
    "forwarded": ("bounced", "address-weak", "bounced"),
    "arf_yahoo": ("complained", "", "delivered"),
    "arf_redacted": ("complained", "", "delivered"),
    "arf_not_spam": ("ignored", "", ""),
    "arf_opt_out": ("unsubscribed", "", "delivered"),
    "reply": ("replied", "", "delivered"),
    "out_of_office_exchange": ("auto_reply", "", ""),
    "out_of_office_old": ("auto_reply", "", ""),
    "read_receipt": ("ignored", "", ""),
}
SUPPRESSING = {
    name for name, (verdict, kind, _) in EXPECTED.items() if kind == "address" or verdict == "complained"
}


async def sent(db: Database, clock: ManualClock) -> int:
    async with db.transaction() as conn:
        cursor = await conn.execute(
            """WITH c AS (INSERT INTO contact (email, changed_at) VALUES ('bob@example.net', %(now)s) RETURNING id)
               INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, relay, queued_at, sent_at)
               SELECT 'hello', id, 'x', 'news', 'bob@example.net', 'accepted', 'main', %(now)s, %(now)s FROM c RETURNING id""",
            {"now": clock.now()},
        )
        row = await cursor.fetchone()
    assert row
    return int(row[0])


def drop(folder: Path, name: str, content: bytes) -> None:
    (folder / "new").mkdir(parents=True, exist_ok=True)
    (folder / "new" / name).write_bytes(content)


def sample(name: str, mail: int) -> bytes:
    text = (SAMPLES / f"{name}.eml").read_text()
    tokens = SIGNER.tokens(mail)
    message, bounce = (each.decode() for each in tokens[3:])
    return text.replace("{token}", bounce).replace("{message}", message).encode()


def test_every_sample_is_expected_and_every_expectation_has_its_sample() -> None:
    assert {file.stem for file in SAMPLES.glob("*.eml")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
async def test_a_sample(database: Database, clock: ManualClock, tmp_path: Path, name: str) -> None:
    mail = await sent(database, clock)
    verdict, kind, result = EXPECTED[name]
    for copy in ("a", "b"):  # the same mail twice counts once
        drop(tmp_path, copy, sample(name, mail))
    taken = await reports.take(database, clock, SIGNER, tmp_path)
    assert (taken.read, taken.unmatched, taken.unreadable) == (2, 0, 0)
    assert sorted(file.name for file in (tmp_path / "cur").iterdir()) == ["a:2,S", "b:2,S"]
    async with database.connection() as conn:
        cursor = await conn.execute("SELECT verdict, coalesce(detail ->> 'class', '') FROM report")
        assert await cursor.fetchall() == [(verdict, kind)]
        cursor = await conn.execute("SELECT coalesce(result, '') FROM delivery")
        assert await cursor.fetchall() == [(result,)]
        cursor = await conn.execute("SELECT count(*) FROM suppression")
        assert await cursor.fetchone() == (1 if name in SUPPRESSING else 0,)
        cursor = await conn.execute("SELECT purpose, source FROM consent")
        opted_out = {"complained": [("*", "complaint")], "unsubscribed": [("news", "dsn")]}
        assert await cursor.fetchall() == opted_out.get(verdict, [])


@pytest.mark.parametrize("name", sorted(EXPECTED))
async def test_without_our_token_it_proves_nothing(
    database: Database, clock: ManualClock, tmp_path: Path, name: str
) -> None:
    await sent(database, clock)
    text = (SAMPLES / f"{name}.eml").read_text()
    drop(tmp_path, "a", text.replace("{token}", "0" * 30).replace("{message}", "A" * 20).encode())
    await reports.take(database, clock, SIGNER, tmp_path)
    async with database.connection() as conn:
        for table in ("event", "suppression", "consent"):
            assert await (await conn.execute(f"SELECT count(*) FROM {table}".encode())).fetchone() == (0,)


async def test_what_cannot_be_read_is_set_aside_whole_and_stops_nothing(
    database: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = await sent(database, clock)
    parse = dsn.parse

    def stumble(raw: bytes) -> dsn.Report:
        if raw.startswith(b"strange"):
            raise LookupError("of a parser")
        return parse(raw)

    monkeypatch.setattr(dsn, "parse", stumble)
    drop(tmp_path, "a", b"strange")
    drop(tmp_path, "b", sample("postfix", mail))
    taken = await reports.take(database, clock, SIGNER, tmp_path)
    assert (taken.read, taken.unreadable, taken.bounced) == (2, 1, 1)
    async with database.connection() as conn:
        cursor = await conn.execute(
            "SELECT verdict, detail ->> 'reason', raw FROM report ORDER BY id LIMIT 1"
        )
        assert await cursor.fetchone() == ("unreadable", "cannot be read: LookupError", b"strange")


async def test_a_kill_between_commit_and_move_repeats_a_file_and_changes_nothing(
    database: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = await sent(database, clock)
    drop(tmp_path, "a", sample("arf_yahoo", mail))

    def killed(files: list[Path], seen: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(reports, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            await reports.take(database, clock, SIGNER, tmp_path)
    assert reports.unread(tmp_path) == 1
    await reports.take(database, clock, SIGNER, tmp_path)
    assert reports.unread(tmp_path) == 0
    async with database.connection() as conn:
        assert await (await conn.execute("SELECT kind, count(*) FROM event GROUP BY 1")).fetchall() == [
            ("complained", 1)
        ]
