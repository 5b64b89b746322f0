"""Connectors that are wrong in one way each, made out of Acme's good one, and the checks that must find them out."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import importlib
import json
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import structlog
from acme_case import AcmeCase
from acme_crm import AcmeCrm
from pydantic import ConfigDict, SecretStr

from hub.errors import FixNeeded, Retry, SignatureError
from hub.model import Outcome, OutcomeStatus, Push, Record, RecordState
from hub.sdk.connector import (
    ConnectorSettings,
    Cursor,
    Finding,
    Limit,
    Page,
    Unreadable,
    WebhookEvent,
    WebhookRequest,
)
from hub.sdk.http import Bearer, Http

acme: Any = importlib.import_module("acme_crm.connector")  # the package's own `connector` is the class
BROKEN: list[tuple[type[AcmeCase], frozenset[str], tuple[str, ...]]] = []
"""(case, the checks that must fail, the families of checks that are run)."""


def found_by(*checks: str, among: Sequence[str] = ()) -> Any:
    """The connector below must fail exactly these of all the checks that begin with `among` (or with their own words)."""

    def keep(kind: type[AcmeCrm]) -> type[AcmeCrm]:
        families = tuple(among) or tuple({f"{check.partition('.')[0]}." for check in checks})
        case = type(f"{kind.__name__}Case", (AcmeCase,), {"connector": kind})
        globals()[case.__name__] = case
        BROKEN.append((case, frozenset(checks), families))
        return kind

    return keep


# -- what it says of itself ---------------------------------------------------------------------------------


@found_by("manifest.complete")
class HasNoLimits(AcmeCrm):
    manifest = dataclasses.replace(AcmeCrm.manifest, limits=())


@found_by("manifest.complete")
class OffersOAuthWithoutScopes(AcmeCrm):
    manifest = dataclasses.replace(AcmeCrm.manifest, auth=("OAuth 2",))


@found_by("manifest.complete")
class LimitsNothing(AcmeCrm):
    manifest = dataclasses.replace(AcmeCrm.manifest, limits=(Limit("minute", 0, 60),))


@found_by("manifest.consistent")
class ListsNoPushes(AcmeCrm):
    manifest = dataclasses.replace(AcmeCrm.manifest, pushes=())


@found_by("manifest.consistent")
class ListsAStreamThatTheHubDoesNotKeep(AcmeCrm):
    manifest = dataclasses.replace(AcmeCrm.manifest, streams=("contacts", "companies"))


@found_by("settings.strict")
class TakesAnyKey(AcmeCrm):
    class Settings(acme.AcmeSettings):
        model_config = ConfigDict(extra="allow", frozen=True)


@found_by("settings.secret")
class ShowsItsToken(AcmeCrm):
    class Settings(ConnectorSettings):
        token: str
        webhook_secret: SecretStr
        base_url: str = "https://api.acme.example"

    def connect(self, http: Http) -> Http:
        return http.configured(self.settings.base_url, auth=Bearer(str(self.settings.token)))


@found_by("settings.secret")
class ShowsItsTokenInItsRepr(AcmeCrm):
    def __repr__(self) -> str:
        return f"Acme({self.settings.token.get_secret_value()})"


@found_by("test.sound")
class FindsNothing(AcmeCrm):
    async def test(self) -> list[Finding]:
        return []


@found_by("test.refused")
class RaisesInsteadOfFinding(AcmeCrm):
    async def test(self) -> list[Finding]:
        await self.http.request("GET", "/v1/me")
        return [Finding(True, "signed in")]


@found_by("prepare.twice")
class PreparesForEver(AcmeCrm):
    async def prepare(self, *, dry: bool = False) -> list[str]:
        return ["contact field results created"]


# -- reading ------------------------------------------------------------------------------------------------


class Pages(AcmeCrm):
    """Alters the good connector's pages."""

    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        async for page in super().pull(stream, cursor):
            yield self.altered(page, cursor)

    def altered(self, page: Page, since: Cursor) -> Page:
        raise NotImplementedError


@found_by("pull.complete")
class DropsTheLastRowOfAFullPage(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        full = len(page.records) == acme.PAGE
        return msgspec.structs.replace(page, records=page.records[:-1] if full else page.records)


@found_by("pull.complete")
class GivesARowTwice(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        return msgspec.structs.replace(page, records=[*page.records[:1], *page.records])


@found_by("pull.typed")
class NeverSaysDone(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        return msgspec.structs.replace(page, done=False)


@found_by("pull.typed")
class NamesTheVendorsObject(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        records = [msgspec.structs.replace(r, object="person") for r in page.records]
        return msgspec.structs.replace(page, records=records)


@found_by("pull.cursor")
class KeepsATimeInItsCursor(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        return msgspec.structs.replace(page, cursor={**page.cursor, "at": datetime.now(UTC)})


@found_by("pull.resume")
class SavesACursorThatIsOneTooFar(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        ahead = {"position": page.cursor["position"] + 1}
        return page if page.done else msgspec.structs.replace(page, cursor=ahead)


@found_by("pull.resume")
class SavesACursorThatIsOnePageBack(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        behind = {"position": max(page.cursor["position"] - acme.PAGE, 1)}
        return page if page.done else msgspec.structs.replace(page, cursor=behind)


@found_by("pull.resume")
class KeepsItsPlaceInMemory(AcmeCrm):
    """Right as long as nobody restarts the hub."""

    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        places: dict[str, Cursor] = self.__dict__.setdefault("places", {})
        known = places.get(cursor.get("place", ""), {"position": 10**9} if cursor else {})
        async for page in super().pull(stream, known):
            place = str(uuid.uuid4())
            places[place] = page.cursor
            yield msgspec.structs.replace(page, cursor={"place": place})


@found_by("pull.again")
class ReadsEverythingAgain(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        return msgspec.structs.replace(page, cursor={"position": 0}) if page.done else page


@found_by("pull.changes")
class MissesChanges(AcmeCrm):
    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        async for page in super().pull(stream, cursor):
            kept = [r for r in page.records if r.state is not RecordState.LIVE or not cursor.get("ended")]
            ended = {**page.cursor, "ended": True} if page.done else page.cursor
            yield msgspec.structs.replace(page, records=kept, cursor=ended)


@found_by("pull.removals")
class MissesRemovals(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        live = [r for r in page.records if r.state is RecordState.LIVE]
        return msgspec.structs.replace(page, records=live)


@found_by("pull.moving")
class PagesByOffset(AcmeCrm):
    """The classic: what is removed from a page that was read draws the first of the next page into it."""

    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        if "position" in cursor and "offset" not in cursor:
            async for page in super().pull(stream, cursor):
                yield page
            return
        feed = (await self.http.request("GET", f"/v1/{stream}", params={"after": 0, "limit": 9_999})).json()
        rows = [row for row in feed["rows"] if not row["removed"]]
        start = cursor.get("offset", 0)
        end = cursor.get("position", feed["position"])
        while True:
            records = [acme._record(stream, row) for row in rows[start : start + acme.PAGE]]
            start += acme.PAGE
            done = start >= len(rows)
            yield Page(
                records=records, done=done, cursor={"position": end, **({} if done else {"offset": start})}
            )
            if done:
                return


@found_by("read.gone")
class ForgetsWhatIsGone(AcmeCrm):
    async def read(self, object: str, ids: Sequence[str]) -> list[Record]:
        return [r for r in await super().read(object, ids) if r.state is RecordState.LIVE]


@found_by("read.same")
class ReadsOtherValues(AcmeCrm):
    async def read(self, object: str, ids: Sequence[str]) -> list[Record]:
        found = await super().read(object, ids)
        return [
            msgspec.structs.replace(r, fields={k: str(v).upper() for k, v in r.fields.items()}) for r in found
        ]


@found_by("fault.500", among=("fault.500", "fault.html"))
class TakesAnErrorForTheEnd(AcmeCrm):
    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        try:
            async for page in super().pull(stream, cursor):
                yield page
        except Retry as error:
            if error.status != 500:
                raise
            yield Page(records=[], cursor={"position": 10**9}, done=True)


@found_by("fault.429", among=("fault.429", "fault.html"))
class TakesALimitForAMistake(AcmeCrm):
    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        try:
            async for page in super().pull(stream, cursor):
                yield page
        except Retry as error:
            raise FixNeeded(error.message, status=429) if error.status == 429 else error from None


# -- writing ------------------------------------------------------------------------------------------------

CALM = ("push.outcomes", "push.accepted", "push.neighbours", "push.refusals", "push.repeat")


@found_by("push.outcomes", among=CALM)
class ForgetsAnOutcome(AcmeCrm):
    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        return (await super().push(batch))[:-1]


@found_by("push.outcomes", among=CALM)
class AnswersTwice(AcmeCrm):
    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        return [*(found := await super().push(batch)), found[0]]


@found_by("push.accepted", among=CALM)
class SaysDoneAndWritesNothing(AcmeCrm):
    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        bad = [each for each in batch if each.id.startswith("b")]
        return [*(await super().push(bad)), *(Outcome(id=each.id) for each in batch if each not in bad)]


@found_by("push.neighbours", among=CALM)
class FailsTheWholeBatch(AcmeCrm):
    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        found = await super().push(batch)
        bad = next((o for o in found if o.status is not OutcomeStatus.DONE), None)
        return [msgspec.structs.replace(bad, id=o.id) for o in found] if bad else found


@found_by("push.refusals", among=CALM)
class RefusesWithoutAdvice(AcmeCrm):
    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        return [msgspec.structs.replace(o, fix="") for o in await super().push(batch)]


class Rekeyed(AcmeCrm):
    """Gives the vendor a new key each time it sends a push."""

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        names = {each.id: f"{each.id}:{uuid.uuid4()}" for each in batch}
        found = await super().push([msgspec.structs.replace(each, id=names[each.id]) for each in batch])
        ids = {name: id for id, name in names.items()}
        return [msgspec.structs.replace(o, id=ids[o.id]) for o in found]


@found_by("push.repeat", among=CALM)
class WritesTwice(Rekeyed):
    pass


@found_by("push.lost-answer", "push.truncated", among=("push.lost-answer", "push.truncated", "push.429"))
class RepeatsBlindly(Rekeyed):
    """It says that its pushes are not repeatable, and takes a lost answer for a refusal."""

    manifest = dataclasses.replace(AcmeCrm.manifest, repeatable=False)

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        try:
            return await super().push(batch)
        except Retry as error:
            return [Outcome(id=each.id, status=OutcomeStatus.RETRY, message=str(error)) for each in batch]


# -- hearing ------------------------------------------------------------------------------------------------


@found_by("webhook.right")
class RefusesEverything(AcmeCrm):
    def verify(self, request: WebhookRequest) -> None:
        raise SignatureError("no")


@found_by("webhook.unsigned")
class TakesWhatIsUnsigned(AcmeCrm):
    def verify(self, request: WebhookRequest) -> None:
        if "x-acme-signature" in request.headers:
            super().verify(request)


@found_by("webhook.wrong", "webhook.altered")
class LooksOnlyForTheHeader(AcmeCrm):
    def verify(self, request: WebhookRequest) -> None:
        if "x-acme-signature" not in request.headers:
            raise SignatureError("no")
        acme.check_fresh(
            datetime.fromtimestamp(int(request.headers["x-acme-time"]), UTC), request.received_at
        )


class ByHand(AcmeCrm):
    """Computes the signature itself."""

    fresh: ClassVar[bool] = True

    def verify(self, request: WebhookRequest) -> None:
        stamp = request.headers.get("x-acme-time", "")
        if not stamp:
            raise SignatureError("no")
        if self.fresh:
            acme.check_fresh(datetime.fromtimestamp(int(stamp), UTC), request.received_at)
        secret = self.settings.webhook_secret.get_secret_value().encode()
        text = stamp.encode() + b"." + self.signed(request.body)
        right = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
        if right != request.headers["x-acme-signature"]:
            raise SignatureError("no")

    def signed(self, body: bytes) -> bytes:
        return body


@found_by("webhook.old")
class TakesReplays(ByHand):
    fresh = False


@found_by("webhook.altered")
class SignsWhatItParsed(ByHand):
    def signed(self, body: bytes) -> bytes:
        with contextlib.suppress(ValueError):
            return json.dumps(json.loads(body)).encode()
        return body


@found_by("webhook.events")
class FallsOverNonsense(AcmeCrm):
    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        if request.body == b"null" and not json.loads(request.body)["events"]:
            return []
        return super().events(request)


@found_by("webhook.hostile")
class LosesAllForOne(AcmeCrm):
    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        found = super().events(request)
        return [] if any(isinstance(each, Unreadable) for each in found) else found


@found_by("webhook.hostile")
class DiesOfOne(AcmeCrm):
    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        found = super().events(request)
        for event in json.loads(request.body)["events"]:
            event["at"].upper()
        return found


class Keys(AcmeCrm):
    """Alters the keys of the good connector's events."""

    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        return [
            msgspec.structs.replace(event, key=self.key(event)) if isinstance(event, WebhookEvent) else event
            for event in super().events(request)
        ]

    def key(self, event: WebhookEvent) -> str:
        raise NotImplementedError


@found_by("webhook.stable")
class MakesUpKeys(Keys):
    def key(self, event: WebhookEvent) -> str:
        return str(uuid.uuid4())


@found_by("webhook.distinct")
class KeysByTime(Keys):
    def key(self, event: WebhookEvent) -> str:
        return str(event.occurred_at)


# -- discretion ---------------------------------------------------------------------------------------------


@found_by("privacy.secrets")
class PrintsItsToken(AcmeCrm):
    async def test(self) -> list[Finding]:
        print("token:", self.settings.token.get_secret_value())
        return await super().test()


@found_by("privacy.secrets")
class LogsItsToken(AcmeCrm):
    async def test(self) -> list[Finding]:
        structlog.get_logger().debug("signing in", headers=dict(await self.http.auth.headers()))  # type: ignore[union-attr]
        return await super().test()


@found_by("privacy.secrets")
class TellsItsTokenInAnError(AcmeCrm):
    async def test(self) -> list[Finding]:
        return [Finding(False, f"{self.settings.token.get_secret_value()} is not taken", "take another")]


@found_by("privacy.people")
class LogsAddresses(Pages):
    def altered(self, page: Page, since: Cursor) -> Page:
        logging.getLogger("acme").info("read %s", [r.fields.get("mail") for r in page.records][:1])
        return page


@found_by("privacy.hosts")
class PhonesHome(AcmeCrm):
    async def test(self) -> list[Finding]:
        with contextlib.suppress(OSError), socket.socket() as line:
            line.connect(("127.0.0.1", 9))
        return await super().test()
