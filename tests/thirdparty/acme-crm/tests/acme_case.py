"""What the conformance suite must know of Acme."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from acme_crm import AcmeCrm
from acme_crm.sandbox import AcmeSandbox

from hub.model import FieldWrite, Push, Result, ResultKind
from hub.sdk.conformance import ConnectorCase
from hub.sdk.connector import WebhookRequest


class AcmeCase(ConnectorCase):
    connector = AcmeCrm
    sandbox: AcmeSandbox

    def __init__(self) -> None:
        super().__init__()
        self.sandbox = AcmeSandbox(clock=self.clock)

    def settings(self) -> dict[str, Any]:
        s = self.sandbox
        return {"base_url": s.url, "token": s.token, "webhook_secret": s.secret}

    def seeded(self, stream: str) -> Collection[str]:
        return [id for id, row in self.sandbox.records[stream].items() if not row["removed"]]

    def change(self, stream: str, id: str) -> None:
        self.sandbox.put(stream, id, **({"phase": "Won"} if stream == "deals" else {"town": "Graz"}))

    def convert(self, id: str) -> Mapping[str, str]:
        return self.sandbox.convert(id)

    def remove(self, stream: str, id: str) -> None:
        self.sandbox.remove(stream, id)

    def pushes(self) -> list[Push]:
        return [
            *(self._result(f"r{n}", str(n)) for n in range(1, 5)),
            FieldWrite(id="f1", contact_ref="5", email="p5@example.com", fields={"town": "Wels"}),
            FieldWrite(id="f2", contact_ref="6", email="p6@example.com", fields={"given_name": "Ann"}),
        ]

    def bad_pushes(self) -> list[Push]:
        return [
            FieldWrite(id="b1", contact_ref="7", fields={"no_such": "x"}),
            self._result("b2", "no-such-contact"),
        ]

    def _result(self, id: str, contact: str) -> Result:
        return Result(id=id, kind=ResultKind.SENT, delivery_id=id, occurred_at=self.clock.now(), message="welcome",
                      contact_ref=contact, email=f"p{contact}@example.com")  # fmt: skip

    def written(self) -> list[str]:
        people = self.sandbox.records["contacts"].values()
        return [*self.sandbox.notes.values(), *(f"{row['id']} {row['fields']}" for row in people)]

    def webhook_bodies(self) -> list[bytes]:
        return [
            self.sandbox.webhook(("e1", "contact.changed", "1"), ("e2", "contact.removed", "2")),
            self.sandbox.webhook(("e3", "deal.changed", "d1")),
        ]

    def sign(self, body: bytes, at: datetime, *, wrong: bool = False) -> WebhookRequest:
        headers = self.sandbox.signature(body, at, "somebody-else's" if wrong else "")
        return WebhookRequest("POST", "https://hub.example/webhooks/crm", headers, body, at)
