"""Acme's API in one page: a feed of changes, batches with an answer for each row, webhooks with a dated signature."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from hub.errors import SignatureError, VendorError
from hub.model import (
    FieldType,
    FieldWrite,
    Link,
    Outcome,
    OutcomeStatus,
    Push,
    Record,
    RecordState,
    Result,
    VendorField,
)
from hub.sdk.connector import (
    Connector,
    ConnectorSettings,
    Cursor,
    Finding,
    Limit,
    Manifest,
    Page,
    Unreadable,
    WebhookEvent,
    WebhookRequest,
    each_event,
)
from hub.sdk.http import Bearer, Http
from hub.sdk.signatures import check_base64_hmac, check_fresh

PAGE = 50
ADVICE = {"UNKNOWN_FIELD": "correct the mapping", "GONE": "the next pull tells what became of it"}


class AcmeSettings(ConnectorSettings):
    token: SecretStr = Field(description="an API token, from Acme's settings page")
    webhook_secret: SecretStr | None = Field(None, description="the secret of the webhook")
    base_url: str = "https://api.acme.example"


def _known(names: str, kind: FieldType = FieldType.TEXT) -> dict[str, VendorField]:
    return {name: VendorField(name=name, type=kind) for name in names.split()}


class AcmeCrm(Connector[AcmeSettings]):
    """An Acme account."""

    Settings = AcmeSettings
    known_fields: ClassVar[Mapping[str, Mapping[str, VendorField]]] = {
        "contact": _known("mail given_name town"),
        "deal": {**_known("title phase"), **_known("worth", FieldType.NUMBER)},
    }
    manifest = Manifest(
        name="acme_crm",
        title="Acme CRM",
        streams=("contacts", "deals"),
        pushes=("results", "fields"),
        auth=("API token",),
        webhooks=("contact.*", "deal.*"),
        limits=(Limit("minute", 600, 60),),
        docs="https://acme.example/docs/api",
        batch=100,
    )

    def connect(self, http: Http) -> Http:
        token = self.settings.token.get_secret_value()
        return http.configured(self.settings.base_url, auth=Bearer(token), limits=self.manifest.limits)

    async def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        """The feed tells every record once, at its last change; a number says how far it was read."""
        position, more = cursor.get("position", 0), True
        while more:
            params = {"after": position, "limit": PAGE}
            feed = (await self.http.request("GET", f"/v1/{stream}", params=params)).json()
            position, more = feed["position"], feed["more"]
            records = [_record(stream, row) for row in feed["rows"]]
            yield Page(records=records, cursor={"position": position}, done=not more)

    async def read(self, object: str, ids: Sequence[str]) -> list[Record]:
        body = {"ids": list(ids)}
        found = (await self.http.request("POST", f"/v1/{object}s/read", json=body, repeatable=True)).json()
        return [_record(f"{object}s", row) for row in found["rows"]]

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        """Acme takes a batch of anything; its `key` makes a repetition harmless."""
        rows = [row for row in map(_row, batch) if row is not None]
        answers: dict[str, Any] = {}
        if rows:
            sent = await self.http.request("POST", "/v1/batch", json={"rows": rows}, repeatable=True)
            answers = {answer["key"]: answer for answer in sent.json()["answers"]}
        return [_outcome(each.id, answers.get(each.id)) for each in batch]

    async def test(self) -> list[Finding]:
        try:
            account = (await self.http.request("GET", "/v1/me")).json()
        except VendorError as error:
            return [Finding(False, f"cannot sign in: {error.message}", error.fix)]
        return [Finding(True, f"signed in to {account['name']}")]

    def verify(self, request: WebhookRequest) -> None:
        if self.settings.webhook_secret is None:
            raise SignatureError(
                "the connection has no webhook_secret", "set it as in Acme's webhook settings"
            )
        stamp, given = request.headers.get("x-acme-time", ""), request.headers.get("x-acme-signature", "")
        if not stamp.isdigit() or not given:
            raise SignatureError("the call is not signed", "use Acme's webhooks of version 2")
        check_fresh(datetime.fromtimestamp(int(stamp), UTC), request.received_at)
        secret = self.settings.webhook_secret.get_secret_value()
        check_base64_hmac(given, [secret], (stamp.encode(), b".", request.body))

    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        try:
            found = json.loads(request.body)
        except RecursionError:
            raise ValueError("the body is nested without end") from None
        if not isinstance(found, dict) or not isinstance(found.get("events"), list):
            raise ValueError("the body holds no events")
        return each_event(found["events"], _event)


def _event(event: Mapping[str, Any]) -> WebhookEvent:
    return WebhookEvent(
        key=event["id"],
        object=event["type"].partition(".")[0],
        id=event["record"],
        action="deleted" if event["type"].endswith(".removed") else "changed",
        occurred_at=datetime.fromisoformat(event["at"]),
    )


def _record(stream: str, row: Mapping[str, Any]) -> Record:
    return Record(
        object=stream.removesuffix("s"),
        id=row["id"],
        fields=row["fields"],
        changed_at=datetime.fromisoformat(row["changed"]),
        state=RecordState.DELETED if row["removed"] else RecordState.LIVE,
        links=tuple(Link("contact", id) for id in row.get("contacts", ())),
    )


def _row(push: Push) -> dict[str, Any] | None:
    if isinstance(push, Result):
        text = f"{push.kind.value}: {push.message}"
        return {"key": push.id, "do": "note", "contact": push.contact_ref, "text": text}
    if isinstance(push, FieldWrite):
        return {"key": push.id, "do": "set", "contact": push.contact_ref, "fields": push.fields}
    return None


def _outcome(id: str, answer: Mapping[str, Any] | None) -> Outcome:
    if answer is None:
        return Outcome(id=id, status=OutcomeStatus.DROPPED, code="NO_SUCH_PUSH", message="Acme keeps no consent",
                       fix="push only results and fields to this connection")  # fmt: skip
    if answer["code"] == "OK":
        return Outcome(id=id, remote_id=answer["contact"], object="contact")
    return Outcome(
        id=id, status=OutcomeStatus.DROPPED if answer["code"] == "GONE" else OutcomeStatus.FIX_NEEDED,
        code=answer["code"], message=answer["message"], fix=ADVICE.get(answer["code"], "ask Acme's support"),
    )  # fmt: skip
