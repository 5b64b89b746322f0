"""HubSpot on loopback: a stateful stand-in that pages, limits, refuses and tells as the vendor does.

`python -m contracts.hubspot.sandbox --port 0 --demo` prints its URL and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from contracts.hubspot.account import Account
from contracts.hubspot.answers import Answer, Refusal
from contracts.hubspot.associations import AssociationApi
from contracts.hubspot.auth import OAuthApi, Tokens, expired
from contracts.hubspot.calls import Gate
from contracts.hubspot.catalog import DirectoryApi, PropertyApi
from contracts.hubspot.limits import Counter, Limits, too_many
from contracts.hubspot.lists import SegmentApi, Segments
from contracts.hubspot.objects import ObjectApi, Quirks
from contracts.hubspot.preferences import PreferencesApi
from contracts.hubspot.records import PERSON, Record
from contracts.hubspot.seed import seed_demo
from contracts.hubspot.webhooks import WebhookApi, Webhooks
from hub.clock import Clock, SteppedClock
from hub.sdk.sandbox import Sandbox

Seed = Callable[["HubSpotSandbox"], None]


class HubSpotSandbox(Sandbox):
    """One HubSpot account with one app.

    Rehearsals reach into `account`, `segments`, `tokens`, `webhooks`, `counter` and `quirks`; hold `account.lock`
    while it serves, or use the methods below, which do. `seed` is called with the new sandbox.
    """

    vendor = "hubspot"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        token: str = "pat-na1-sandbox",  # noqa: S107 - opens nothing but this sandbox
        client_id: str = "sandbox-client-id",
        client_secret: str = "sandbox-client-secret",  # noqa: S107
        app_id: int = 4_411_002,
        limits: Limits | None = None,
        webhook_url: str | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(clock=clock)
        self.token, self.client_id, self.client_secret, self.app_id = token, client_id, client_secret, app_id
        self.account = Account(self.clock)
        self.segments = Segments(self.account)
        self.quirks = Quirks()
        self.counter = Counter(limits or Limits())
        self.tokens = Tokens(self.clock, token, client_id, client_secret, app_id, self.account.portal_id)
        self.webhooks = Webhooks(self.account, app_id, client_secret, webhook_url)
        if seed is not None:
            seed(self)
        if webhook_url:
            self.webhooks.subscribe_all()
        self.account.listener = self.webhooks.hear

    # -- as a person in HubSpot's own pages ---------------------------------------------------------------

    def create(self, object_type: str, values: dict[str, Any]) -> Record:
        """A record entered by hand; raises `Refusal` as the API would."""
        with self.account.lock:
            return self.account.create(object_type, values, PERSON)

    def edit(self, object_type: str, identifier: str, values: dict[str, Any]) -> Record:
        """Change a record by hand. `identifier` is its id, or a contact's e-mail address."""
        with self.account.lock:
            return self.account.update(object_type, self.record(object_type, identifier), values, PERSON)

    def archive(self, object_type: str, identifier: str) -> None:
        with self.account.lock:
            self.account.archive(object_type, self.record(object_type, identifier), PERSON)

    def merge(self, object_type: str, primary: str, other: str) -> Record:
        """Merge by hand; returns the new record that both become."""
        with self.account.lock:
            pair = self.record(object_type, primary), self.record(object_type, other)
            return self.account.merge(object_type, *pair, PERSON)

    def record(self, object_type: str, identifier: str) -> Record:
        """A live record by id or e-mail address. Raises KeyError when there is none."""
        store = self.account.store(object_type)
        found = store.resolve(identifier, "email" if "@" in identifier else None)
        if found is None:
            raise KeyError(f"{object_type} {identifier}")
        return found

    def opt_out(self, address: str) -> None:
        """The person behind an address leaves all e-mail on HubSpot's own page."""
        with self.account.lock:
            self.account.preferences.left_all.setdefault(address.lower(), self.account.now_ms())
            self.account.show_preferences(address.lower())

    def flush_webhooks(self) -> int:
        """Deliver queued webhooks now; returns how many events were accepted."""
        return self.webhooks.flush()

    # -- serving ------------------------------------------------------------------------------------------

    def routes(self) -> Sequence[BaseRoute]:
        gate, account = Gate(self.account, self.tokens, self.counter), self.account
        return [
            *ObjectApi(account, self.quirks).routes(gate),
            *PropertyApi(account).routes(gate),
            *SegmentApi(self.segments).routes(gate),
            *AssociationApi(account).routes(gate),
            *DirectoryApi(account).routes(gate),
            *PreferencesApi(account).routes(gate),
            *WebhookApi(self.webhooks).routes(gate),
            *OAuthApi(self.tokens).routes(),
        ]

    def too_many(self, request: Request) -> Response:
        if request.url.path.endswith("/search"):
            return Answer(too_many("SECONDLY", {}).body(), 429)
        limits = {"Max": "190", "Remaining": "0", "Interval-Milliseconds": "10000"}
        refusal = too_many("TEN_SECONDLY_ROLLING", {f"X-HubSpot-RateLimit-{k}": v for k, v in limits.items()})
        return Answer(refusal.body(), 429, refusal.headers)

    def unauthorised(self, request: Request) -> Response:
        return Answer(expired(self.clock.wall()).body(), 401)

    def control_routes(self) -> Sequence[BaseRoute]:
        """What a rehearsal in another process may ask for, under /_sandbox/."""
        actions: dict[str, Callable[[Any], Any]] = {
            "token-expire": lambda _: {"expired": self.tokens.expire_access()},
            "flush-webhooks": lambda _: {"delivered": self.flush_webhooks()},
            "duplicates": self._plan_duplicates,
            "limits": self._set_limits,
            "edit": lambda b: {"id": self.edit(b["object_type"], b["id"], b["properties"]).id},
            "archive": self._archive_asked,
            "merge": lambda b: {"id": self.merge(b["object_type"], b["primary"], b["other"]).id},
            "opt-out": self._opt_out_asked,
        }
        return [Route(f"/_sandbox/{name}", _control(act), methods=["POST"]) for name, act in actions.items()]

    def _archive_asked(self, body: Any) -> Any:
        self.archive(body["object_type"], body["id"])
        return {"archived": body["id"]}

    def _opt_out_asked(self, body: Any) -> Any:
        self.opt_out(body["email"])
        return {"opted_out": 1}

    def _plan_duplicates(self, body: Any) -> Any:
        self.webhooks.send_twice = int(body.get("batches", 1))
        self.webhooks.disorder = bool(body.get("disorder", self.webhooks.disorder))
        return {"batches": self.webhooks.send_twice, "disorder": self.webhooks.disorder}

    def _set_limits(self, body: Any) -> Any:
        self.counter.limits = Limits(**body)
        return body

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """As every sandbox; webhooks go out in the background meanwhile when a target URL is set."""
        sender = threading.Thread(target=self.webhooks.run, daemon=True)
        with super().serve(port) as url:
            if self.webhooks.url:
                sender.start()
            try:
                yield url
            finally:
                self.webhooks.stop()
                if sender.is_alive():
                    sender.join(10)


def _control(act: Callable[[Any], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        body = await request.json() if await request.body() else {}
        try:
            return JSONResponse(await run_in_threadpool(act, body))
        except Refusal as refusal:
            return Answer(refusal.body(), refusal.status)
        except (KeyError, TypeError, ValueError) as e:
            return JSONResponse({"message": f"{type(e).__name__}: {e}"}, status_code=400)

    return answer


def main() -> None:
    """Serve one sandbox until SIGTERM or SIGINT; the first line of output is its URL."""
    parser = argparse.ArgumentParser(description="HubSpot's stand-in on loopback")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--demo", action="store_true", help="fill it with 2,000 contacts and lift the rate limits"
    )
    parser.add_argument("--contacts", type=int, default=2000)
    parser.add_argument("--clock", default="", help="stepped:/path/to/offset")
    parser.add_argument("--token", default="pat-na1-sandbox")
    parser.add_argument("--webhook-url", default=None)
    parser.add_argument("--real-limits", action="store_true")
    wish = parser.parse_args()
    clock = (
        SteppedClock(Path(wish.clock.removeprefix("stepped:"))) if wish.clock.startswith("stepped:") else None
    )
    sandbox = HubSpotSandbox(
        clock=clock,
        token=wish.token,
        limits=Limits.generous() if wish.demo and not wish.real_limits else Limits(),
        webhook_url=wish.webhook_url,
        seed=(lambda s: seed_demo(s, contacts=wish.contacts)) if wish.demo else None,
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with sandbox.serve(wish.port) as url:
        print(url, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
