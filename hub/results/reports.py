"""Take delivery reports out of a Maildir: each file once, moved aside only after its result is committed."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from psycopg import AsyncConnection

from hub.bounces import classify
from hub.clock import Clock
from hub.errors import SignatureError
from hub.model import BounceClass, ResultKind
from hub.results import dsn
from hub.signing import Signer
from hub.store import events
from hub.store.database import Database

log = structlog.get_logger()

BATCH = 200
MAX_BYTES = 1_000_000


@dataclass
class Taken:
    """How many reports were read, and what they were."""

    read: int = 0
    bounced: int = 0
    unmatched: int = 0
    ignored: int = 0
    unreadable: int = 0


_KINDS = {
    dsn.Verdict.BOUNCED: ResultKind.BOUNCED, dsn.Verdict.DELAYED: ResultKind.DELAYED,
    dsn.Verdict.DELIVERED: ResultKind.DELIVERED, dsn.Verdict.COMPLAINED: ResultKind.COMPLAINED,
    dsn.Verdict.UNSUBSCRIBED: ResultKind.UNSUBSCRIBED, dsn.Verdict.REPLIED: ResultKind.REPLIED,
}  # fmt: skip
_FAILURES = (dsn.Verdict.BOUNCED, dsn.Verdict.DELAYED)
_NEEDS_NO_MAIL = (dsn.Verdict.IGNORED, dsn.Verdict.AUTO_REPLY)


async def take(db: Database, clock: Clock, signer: Signer, maildir: Path) -> Taken:
    """Read everything in `new/`. A crash repeats files whose result is committed already, which changes nothing."""
    taken = Taken()
    new, seen = maildir / "new", maildir / "cur"
    while files := await asyncio.to_thread(_list, new, BATCH):
        contents = await asyncio.to_thread(_read_all, files)
        for raw in contents:
            if raw is not None:
                # One transaction each: a group would hold many mails' rows in an order of its own.
                async with db.transaction() as conn:
                    await _one(conn, clock, signer, raw, taken)
        await asyncio.to_thread(_move, files, seen)
    return taken


def unread(maildir: Path) -> int:
    """How many reports wait."""
    folder = maildir / "new"
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def _list(folder: Path, limit: int) -> list[Path]:
    return sorted(folder.iterdir())[:limit] if folder.is_dir() else []


def _read(file: Path) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES)
    except FileNotFoundError:  # another worker took it
        return None


def _read_all(files: list[Path]) -> list[bytes | None]:
    return [_read(f) for f in files]


def _move(files: list[Path], seen: Path) -> None:
    seen.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            file.rename(seen / f"{file.name}:2,S")
        except FileNotFoundError:
            continue  # another worker moved it


async def _one(conn: AsyncConnection[Any], clock: Clock, signer: Signer, raw: bytes, taken: Taken) -> None:
    taken.read += 1
    key = "dsn:" + hashlib.sha256(raw).hexdigest()
    try:
        report = dsn.parse(raw)
    except Exception as error:  # a stranger wrote it; what stops the parser must not stop the mailbox
        reason = f"cannot be read: {type(error).__name__}"
        log.warning("a mail is set aside", reason=reason)
        await events.keep_report(conn, key, "unreadable", None, {"reason": reason}, now=clock.now(), raw=raw)
        taken.unreadable += 1
        return
    delivery_id = await _match(conn, signer, report)
    verdict = report.verdict.value
    if delivery_id is None and report.verdict not in _NEEDS_NO_MAIL:
        verdict = "unmatched"
    detail = await _detail(conn, report, delivery_id)
    await events.keep_report(conn, key, verdict, delivery_id, detail, now=clock.now())
    if delivery_id is not None and report.verdict in _KINDS:
        evidence = events.Evidence(delivery_id, _KINDS[report.verdict], clock.now(), "dsn", key, detail)
        await events.record(conn, evidence, now=clock.now())
    taken.bounced += verdict == "bounced"
    taken.unmatched += verdict == "unmatched"
    taken.ignored += report.verdict in _NEEDS_NO_MAIL


async def _detail(conn: AsyncConnection[Any], report: dsn.Report, delivery_id: int | None) -> dict[str, Any]:
    if report.verdict not in _FAILURES:
        return {"reason": report.text} if report.text else {}
    kind = classify(code=report.code, enhanced=report.enhanced, text=report.text, stage=report.stage)
    detail: dict[str, Any] = {"code": report.code, "enhanced": report.enhanced, "reason": report.text}
    if kind is BounceClass.ADDRESS and delivery_id is not None and report.recipients:
        ours = await events.address(conn, delivery_id)
        if (
            ours and ours.lower() not in report.recipients
        ):  # what it was forwarded to died, not what we sent to
            kind, detail["forwarded"] = BounceClass.ADDRESS_WEAK, True
    return {**detail, "class": kind.value}


async def _match(conn: AsyncConnection[Any], signer: Signer, report: dsn.Report) -> int | None:
    """The delivery that a report is about, by the tokens that only our mails carry: the return path, the Message-ID."""
    reads = [(signer.read_return_path, address) for address in report.sent_to]
    for read, text in [*reads, *((signer.read_message_id, each) for each in report.message_ids)]:
        try:
            delivery_id = read(text)
        except SignatureError:
            continue
        if await events.exists(conn, delivery_id):
            return delivery_id
    return None
