"""What an author gives to the suite: a connector, its settings, a sandbox, and how to reach into it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from hub.clock import ManualClock
from hub.errors import VendorError
from hub.model import ConsentWrite, Erase, FieldWrite, Outcome, Push, Record, RecordState, Result
from hub.sdk.conformance.verdict import NotApplicable, NotGiven
from hub.sdk.connector import Connector, Context, Cursor, Manifest, Page, WebhookRequest
from hub.sdk.http import Http
from hub.sdk.oauth import MemoryTokens
from hub.sdk.quota import MemoryQuota
from hub.sdk.sandbox import Sandbox

KINDS: Mapping[type[Any], str] = {
    Result: "results",
    ConsentWrite: "consent",
    FieldWrite: "fields",
    Erase: "erasure",
}
MAX_PAGES = 5_000
NO_OUTCOME = "(no outcome)"
SECRET_NAMES = re.compile(r"token|secret|password|passphrase|api_?key|private_?key|credential")
NO_SECRETS = re.compile(r"_(url|uri|path|file|id)$")


class ConnectorCase:
    """A connector and the world to try it in. Every check makes a new case, so it starts from the same world.

    Set `connector`; set `self.sandbox` in `__init__` (after `super().__init__()`) with `clock=self.clock`, seeded.
    What you leave out is reported as skipped where the connector has it, and stands in the way of the grade.
    """

    connector: ClassVar[type[Connector[Any]]]
    look_back: ClassVar[timedelta] = timedelta(hours=1)
    """The longest time after which this connector still tells something again, or tells it only then."""
    full_streams: ClassVar[frozenset[str]] = frozenset()
    """Streams of which the vendor tells no changes, so that each pull reads them as a whole."""
    dated_webhooks: ClassVar[bool] = True
    """Whether the vendor signs the time of a webhook; else an old one cannot be told from a new one."""
    stand_in_loggers: ClassVar[tuple[str, ...]] = ()
    """Loggers of the sandbox, which lives in the same process; what they say is not held against the connector."""
    sandbox: Sandbox

    def __init__(self) -> None:
        self.clock = ManualClock()

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve the vendor's stand-in for the time of a check."""
        with self.sandbox.serve():
            yield

    def url(self) -> str:
        """Where the stand-in serves: the only place that the connector may call."""
        return self.sandbox.url

    def settings(self) -> dict[str, Any]:
        """The connector's own keys as in hub.yaml, secrets filled in, `base_url` pointing at the served sandbox."""
        raise NotGiven("override settings()")

    def fields(self) -> Mapping[str, Sequence[str]]:
        """object -> vendor fields that a mapping would ask for; empty lets the connector choose."""
        return {}

    # -- pulling ------------------------------------------------------------------------------------------

    def seeded(self, stream: str) -> Collection[str]:
        """The ids of all live records in a stream. Seed several pages: faults strike between them."""
        raise NotGiven(f"override seeded({stream!r}) to say which ids the sandbox holds")

    def change(self, stream: str, id: str) -> None:
        """Change a record at the vendor, as a person there would."""
        raise NotGiven(f"override change({stream!r}, id)")

    def remove(self, stream: str, id: str) -> None:
        """Delete or archive a record at the vendor, as a person there would."""
        raise NotGiven(f"override remove({stream!r}, id)")

    def convert(self, id: str) -> Mapping[str, str]:
        """Convert a lead at the vendor, as a person there would. Returns the id of what it became by object: `contact`, and
        where there are such, `company` and `deal`."""
        raise NotGiven("override convert(id)")

    # -- pushing ------------------------------------------------------------------------------------------

    def pushes(self) -> list[Push]:
        """Pushes that the vendor takes: several, of every kind that the manifest lists."""
        raise NotGiven("override pushes()")

    def bad_pushes(self) -> list[Push]:
        """Pushes that the vendor refuses for good, with ids of their own."""
        raise NotGiven("override bad_pushes()")

    def written(self) -> list[str]:
        """One line for each thing that pushes left at the vendor, in its state now: an event that came twice is two
        lines. Ask the vendor's side of the sandbox, not the connector; leave out when it was written."""
        raise NotGiven("override written() to read what arrived at the vendor")

    # -- webhooks -----------------------------------------------------------------------------------------

    def webhook_bodies(self) -> list[bytes]:
        """Bodies of different webhook calls, all of their events different from each other."""
        raise NotGiven("override webhook_bodies()")

    def sign(self, body: bytes, at: datetime, *, wrong: bool = False) -> WebhookRequest:
        """The call as the vendor would sign and send it at a time; `wrong` signs with somebody else's secret."""
        raise NotGiven("override sign(body, at, wrong=...)")

    def repeated(self, body: bytes) -> bytes:
        """The body of the same call when the vendor sends it once more."""
        return body

    # -- faults -------------------------------------------------------------------------------------------

    def fault(self, kind: str, *, times: int = 1, skip: int = 0) -> None:
        """Let `times` calls fail after letting `skip` through; `kind` is one of `failing.KINDS`."""
        self.sandbox.faults.plan(kind, times=times, skip=skip, seconds=1.0)

    def heal(self) -> None:
        """Take back what is left of planned faults."""
        self.sandbox.faults.planned.clear()

    def calls(self) -> int:
        """How many calls the stand-in has seen so far."""
        return self.sandbox.faults.count()


class ListeningCase(ConnectorCase):
    """A connector that calls nobody: its system calls the hub, and there is nothing to stand in for."""

    @contextmanager
    def serve(self) -> Iterator[None]:
        yield

    def url(self) -> str:
        return ""

    def fault(self, kind: str, *, times: int = 1, skip: int = 0) -> None:
        raise NotApplicable("it calls nobody")

    def heal(self) -> None:
        """Nothing is planned."""

    def calls(self) -> int:
        return 0


class Pauses:
    """Time for retries and quotas that passes when somebody waits: no check sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)


@dataclass
class Pulled:
    """One run of a pull: its pages, and the error that ended it early."""

    pages: list[Page] = field(default_factory=list)
    error: VendorError | None = None

    @property
    def records(self) -> list[Record]:
        return [record for page in self.pages for record in page.records]

    @property
    def live(self) -> dict[str, Record]:
        """id -> the last that was said of each record that lives."""
        last = {record.id: record for record in self.records}
        return {id: record for id, record in last.items() if record.state is RecordState.LIVE}

    def cursor(self, before: Cursor) -> Cursor:
        """The cursor that the hub would have saved, after its way through the database."""
        return as_saved(self.pages[-1].cursor if self.pages else before)


@dataclass
class Bench:
    """A case that is being served, and connectors made for it as the hub makes them."""

    case: ConnectorCase
    pauses: Pauses = field(default_factory=Pauses)
    made: list[Connector[Any]] = field(default_factory=list)

    @property
    def kind(self) -> type[Connector[Any]]:
        return self.case.connector

    @property
    def manifest(self) -> Manifest:
        return self.kind.manifest

    def connector(self, *, fresh: bool = False) -> Connector[Any]:
        """The connection's connector, kept as the hub keeps it; a fresh one is as after a restart."""
        if self.made and not fresh:
            return self.made[-1]
        http = Http(quota=MemoryQuota(self.pauses), account="conformance", sleep=self.pauses.sleep)
        context = Context(http=http, clock=self.case.clock, tokens=MemoryTokens(), fields=self.case.fields())
        made = self.kind("conformance", self.kind.Settings.model_validate(self.case.settings()), context)
        self.made.append(made)
        return made

    async def pull(self, stream: str, cursor: Cursor | None = None, *, fresh: bool = False) -> Pulled:
        """One run from a cursor to its end, or to the error that ends it."""
        pulled = Pulled()
        try:
            async for page in self.connector(fresh=fresh).pull(stream, as_saved(cursor or {})):
                pulled.pages.append(page)
                assert len(pulled.pages) < MAX_PAGES, f"{stream}: the pull does not end: {MAX_PAGES} pages"
        except VendorError as error:
            pulled.error = error
        return pulled

    async def whole(self, stream: str, cursor: Cursor | None = None, *, fresh: bool = False) -> Pulled:
        """A run that nothing disturbs; AssertionError where it does not reach its end."""
        pulled = await self.pull(stream, cursor, fresh=fresh)
        assert pulled.error is None, f"{stream}: an undisturbed pull ends in {described(pulled.error)}"
        assert pulled.pages, f"{stream}: an undisturbed pull gives no page, so no cursor can be saved"
        return pulled

    def streams(self) -> tuple[str, ...]:
        return tuple(self.manifest.streams)

    async def push(self, pushes: Sequence[Push]) -> dict[str, Outcome]:
        """id -> outcome of a batch. A row without one counts as done here: `push.outcomes` alone judges that.

        A raised error is the whole batch's outcome, as in the hub.
        """
        found = {each.id: Outcome(id=each.id, code=NO_OUTCOME) for each in pushes}
        try:
            found.update({o.id: o for o in await self.connector().push(pushes)})
        except VendorError as error:
            found = {each.id: outcome_of(error, each.id) for each in pushes}
        return found


@asynccontextmanager
async def opened(kind: type[ConnectorCase], needs: str = "") -> AsyncIterator[Bench]:
    """A served world in which what was seeded is older than the connector's look-back.

    `needs` is what the manifest must list: streams, pushes or webhooks. Raises NotApplicable where it lists none.
    """
    if needs and not getattr(kind.connector.manifest, needs):
        raise NotApplicable(f"the manifest lists no {needs}")
    case = kind()
    bench, served = Bench(case), ExitStack()
    served.enter_context(case.serve())
    try:
        rest(case)
        yield bench
    finally:
        for connector in bench.made:
            await connector.http.close()
        # A server takes a tenth of a second to say goodbye, and a suite has a hundred: nobody waits for it.
        threading.Thread(target=served.close, name="conformance-goodbye", daemon=True).start()


def rest(case: ConnectorCase) -> None:
    """Let the look-back pass, and a minute."""
    case.clock.advance(seconds=case.look_back.total_seconds() + 60)


def as_saved(cursor: Cursor) -> Cursor:
    """A cursor after its way through a JSON column; a connector may not rely on anything else of it."""
    saved: Cursor = json.loads(json.dumps(cursor, default=str))
    return saved


def described(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def outcome_of(error: VendorError, id: str) -> Outcome:
    """A batch's error as the outcome of one row, as the hub reads it."""
    from hub.errors import Drop, Retry, Unclear
    from hub.model import OutcomeStatus

    status = OutcomeStatus.FIX_NEEDED
    for kind, meant in (
        (Unclear, OutcomeStatus.UNCERTAIN),
        (Retry, OutcomeStatus.RETRY),
        (Drop, OutcomeStatus.DROPPED),
    ):
        if isinstance(error, kind):
            status = meant
    return Outcome(id=id, status=status, code=error.code, message=error.message, fix=error.fix)


def secrets_of(model: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    """The secrets among the settings: those that are typed so, and those whose names say so."""
    typed = _secret_values(dict(model.model_validate(dict(given))))
    named = [
        str(value)
        for key, value in given.items()
        if looks_secret(key) and isinstance(value, str) and len(value) >= 4
    ]
    return list(dict.fromkeys([*typed, *named]))


def looks_secret(key: str) -> bool:
    return bool(SECRET_NAMES.search(key)) and not NO_SECRETS.search(key)


def _secret_values(value: Any) -> list[str]:
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        return [found for each in value.values() for found in _secret_values(each)]
    if isinstance(value, (list, tuple)):
        return [found for each in value for found in _secret_values(each)]
    return []


def place_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
