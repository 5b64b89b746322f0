"""Acme on loopback: enough of its API for the connector's tests and for a rehearsal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub.clock import Clock
from hub.sdk.sandbox import Sandbox

LEADS, CONTACTS, DEALS = 60, 120, 60
PERSON = ("mail", "given_name", "town")
FIELDS = {"leads": PERSON, "contacts": PERSON, "deals": ("title", "phase", "worth")}


class AcmeSandbox(Sandbox):
    """One account. A record moves to the end of the feed whenever it changes."""

    vendor = "acme_crm"
    token, secret = "acme-token-0815", "acme-webhook-secret"

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(clock=clock)
        self.records: dict[str, dict[str, dict[str, Any]]] = {"leads": {}, "contacts": {}, "deals": {}}
        self.notes: dict[str, str] = {}
        self.position = 0
        for n in range(1, CONTACTS + 1):
            self.put("contacts", str(n), mail=f"p{n}@example.com", given_name=f"P{n}", town="Linz")
        for n in range(1, LEADS + 1):
            self.put("leads", f"l{n}", mail=f"lead{n}@example.com", given_name=f"L{n}", town="Linz")
        for n in range(1, DEALS + 1):
            self.put("deals", f"d{n}", title=f"Deal {n}", phase="Open", worth=n)
            self.records["deals"][f"d{n}"]["contacts"] = [str(n)]

    def put(self, stream: str, id: str, **fields: Any) -> None:
        """Create or change a record."""
        before = self.records[stream].get(id, {"id": id, "fields": {}})
        self._move(stream, {**before, "fields": {**before["fields"], **fields}, "removed": False})

    def remove(self, stream: str, id: str) -> None:
        self._move(stream, {**self.records[stream][id], "removed": True})

    def convert(self, id: str) -> dict[str, str]:
        """Make a contact and a deal of a lead, which stays and says so."""
        lead, became = self.records["leads"][id], {"contact": f"c-{id}", "deal": f"d-{id}"}
        self.put("contacts", became["contact"], **lead["fields"])
        self.put("deals", became["deal"], title=f"Deal of {id}", phase="Open", worth=1)
        self.records["deals"][became["deal"]]["contacts"] = [became["contact"]]
        self._move("leads", {**lead, "became": became})
        return became

    def _move(self, stream: str, row: dict[str, Any]) -> None:
        self.position += 1
        changed = self.clock.wall().isoformat()
        self.records[stream][row["id"]] = {**row, "changed": changed, "position": self.position}

    def routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/v1/me", self._me),
            Route("/v1/{stream:str}", self._feed, methods=["GET"]),
            Route("/v1/batch", self._batch, methods=["POST"]),
            Route("/v1/{stream:str}/read", self._read, methods=["POST"]),
        ]

    def _known(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.token}"

    async def _me(self, request: Request) -> Response:
        return (
            JSONResponse({"name": "Acme test account"})
            if self._known(request)
            else self.unauthorised(request)
        )

    async def _feed(self, request: Request) -> Response:
        if not self._known(request):
            return self.unauthorised(request)
        after, limit = int(request.query_params["after"]), int(request.query_params["limit"])
        rows = sorted(self.records[request.path_params["stream"]].values(), key=lambda row: row["position"])
        rest = [row for row in rows if row["position"] > after]
        page = rest[:limit]
        position = page[-1]["position"] if page else after
        # 0 would mean the beginning to a client that has read an empty account.
        return JSONResponse({"rows": page, "position": position or 1, "more": len(rest) > limit})

    async def _read(self, request: Request) -> Response:
        if not self._known(request):
            return self.unauthorised(request)
        held = self.records[request.path_params["stream"]]
        ids = (await request.json())["ids"]
        return JSONResponse({"rows": [held[id] for id in ids if id in held]})

    async def _batch(self, request: Request) -> Response:
        if not self._known(request):
            return self.unauthorised(request)
        return JSONResponse({"answers": [self._do(row) for row in (await request.json())["rows"]]})

    def _do(self, row: dict[str, Any]) -> dict[str, Any]:
        contact = self.records["contacts"].get(row["contact"])
        answer = {"key": row["key"], "contact": row["contact"], "code": "OK", "message": ""}
        if contact is None or contact["removed"]:
            return {**answer, "code": "GONE", "message": "there is no such contact"}
        if row["do"] == "note":
            self.notes[row["key"]] = f"{row['contact']} {row['text']}"
            return answer
        unknown = [name for name in row["fields"] if name not in FIELDS["contacts"]]
        if unknown:
            return {**answer, "code": "UNKNOWN_FIELD", "message": f"there is no field {unknown[0]}"}
        self.put("contacts", row["contact"], **row["fields"])
        return answer

    def signature(self, body: bytes, at: datetime, secret: str = "") -> dict[str, str]:
        """The headers of a webhook."""
        stamp = str(int(at.timestamp()))
        digest = hmac.new(
            (secret or self.secret).encode(), stamp.encode() + b"." + body, hashlib.sha256
        ).digest()
        return {"x-acme-time": stamp, "x-acme-signature": base64.b64encode(digest).decode()}

    @staticmethod
    def webhook(*events: tuple[str, str, str]) -> bytes:
        """A body out of (event id, type, record id)."""
        rows = [{"id": e, "type": t, "record": r, "at": "2026-11-24T09:00:00+00:00"} for e, t, r in events]
        return json.dumps({"events": rows}).encode()
