"""Writing to HubSpot by its official SDK: results onto timelines and contacts, consent, plain fields, and erasure.

One mail is one e-mail engagement on the contact's timeline. It is upserted by `mailyard_delivery`, a unique
property of ours, and says in words what came back of the mail; so a repeated write has no second effect.
Sources: "Emails", "Using object APIs", "Associations v4", "Subscriptions v4", "Properties".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from connectors.hubspot.errors import advice, of_sdk
from hub.errors import Drop, FixNeeded, Retry, VendorError
from hub.model import ConsentWrite, Erase, FieldWrite, Outcome, OutcomeStatus, Push, Result, ResultKind
from hub.sdk.http import Http

GROUP = "mailyard"
EMAIL_TO_CONTACT = 198
ORDER = [kind.value for kind in ResultKind]
WORDS = {
    "sent": "Sent", "delivered": "Delivered", "bounced": "Bounced", "complained": "Complained", "opened": "Opened",
    "clicked": "Clicked", "replied": "Replied", "unsubscribed": "Unsubscribed",
}  # fmt: skip
DATES = {
    "sent": "mailyard_last_sent", "opened": "mailyard_last_opened", "clicked": "mailyard_last_clicked",
    "bounced": "mailyard_bounced_at", "unsubscribed": "mailyard_unsubscribed_at",
}  # fmt: skip
PROPERTIES: dict[str, tuple[dict[str, Any], ...]] = {
    "emails": (
        {
            "name": "mailyard_delivery",
            "label": "Mailyard delivery",
            "type": "string",
            "fieldType": "text",
            "hasUniqueValue": True,
        },
        {"name": "mailyard_results", "label": "Mailyard results", "type": "string", "fieldType": "text"},
    ),
    "contacts": (
        *(
            {"name": name, "label": f"Mailyard: last {kind}", "type": "datetime", "fieldType": "date"}
            for kind, name in DATES.items()
        ),
        {
            "name": "mailyard_last_message",
            "label": "Mailyard: last message",
            "type": "string",
            "fieldType": "text",
        },
        {
            "name": "mailyard_bounce_reason",
            "label": "Mailyard: why it bounced",
            "type": "string",
            "fieldType": "textarea",
        },
    ),
}


class Writer:
    """Writes one batch. Every push gets its own outcome; what a row's several calls say is its worst word."""

    def __init__(self, http: Http, base_url: str) -> None:
        self.http, self.base_url = http, base_url
        self.outcomes: dict[str, Outcome] = {}

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        for each in batch:
            self.outcomes[each.id] = Outcome(id=each.id)
        results = [p for p in batch if isinstance(p, Result)]
        if results:
            await self._results(results)
        fields = [p for p in batch if isinstance(p, FieldWrite)]
        if fields:
            await self._fields(
                [(p.contact_ref, {k: str(v) for k, v in p.fields.items()}, [p.id]) for p in fields]
            )
        for consent in (p for p in batch if isinstance(p, ConsentWrite)):
            await self._consent(consent)
        for erase in (p for p in batch if isinstance(p, Erase)):
            await self._erase(erase)
        return list(self.outcomes.values())

    # --- results ----------------------------------------------------------------------------------------

    async def _results(self, results: Sequence[Result]) -> None:
        deliveries: dict[str, list[Result]] = {}
        for result in results:
            deliveries.setdefault(result.delivery_id, []).append(result)
        try:
            entries = await self._entries(list(deliveries))
        except Retry:
            raise  # the account is out of reach: the other kinds of the batch are, too
        except VendorError as error:  # e.g. nothing is prepared; opt-outs and fields must still go out
            self._mark((r.id for r in results), error)
            return
        inputs = [
            {
                "idProperty": "mailyard_delivery",
                "id": delivery,
                "objectWriteTraceId": delivery,
                "properties": _entry(delivery, told, entries.get(delivery, {})),
            }
            for delivery, told in deliveries.items()
        ]
        rows = {delivery: [r.id for r in told] for delivery, told in deliveries.items()}
        written = await self._batch(lambda sdk: sdk.crm.objects.emails.batch_api.upsert, inputs, rows)
        await self._associate(written, deliveries)
        await self._fields(
            [
                (ref, _contact_properties(told), [r.id for r in told])
                for ref, told in _grouped(results, lambda r: r.contact_ref).items()
            ]
        )
        for result in results:
            if self.outcomes[result.id].status is OutcomeStatus.DONE:
                self.outcomes[result.id] = Outcome(
                    id=result.id, remote_id=written.get(result.delivery_id, ""), object="email"
                )

    async def _entries(self, deliveries: Sequence[str]) -> dict[str, dict[str, str]]:
        """delivery -> what its timeline entry says so far; a delivery without an entry is missing."""
        body = {
            "idProperty": "mailyard_delivery",
            "inputs": [{"id": d} for d in deliveries],
            "properties": [
                "mailyard_delivery",
                "mailyard_results",
                "hs_email_text",
                "hs_timestamp",
                "hs_email_status",
            ],
            "propertiesWithHistory": [],
        }
        answer = await self._sdk(lambda sdk: sdk.crm.objects.emails.batch_api.read(body))
        return {
            row["properties"]["mailyard_delivery"]: row["properties"]
            for row in answer["results"]
            if row["properties"].get("mailyard_delivery")
        }

    async def _associate(self, written: Mapping[str, str], deliveries: Mapping[str, list[Result]]) -> None:
        """Tie each entry to its contact. Doing it again changes nothing, so a crash before it is mended by the retry."""
        types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": EMAIL_TO_CONTACT}]
        inputs = [
            {"from": {"id": entry}, "to": {"id": deliveries[delivery][0].contact_ref}, "types": types}
            for delivery, entry in written.items()
        ]
        if not inputs:
            return
        try:
            answer = await self._sdk(
                lambda sdk: sdk.crm.associations.v4.batch_api.create("emails", "contacts", {"inputs": inputs})
            )
        except VendorError as error:
            self._mark((r.id for d in written for r in deliveries[d]), error)
            return
        by_contact = _grouped(list(itertools.chain(*deliveries.values())), lambda r: r.contact_ref)
        for refused in answer.get("errors") or []:
            ids = list(itertools.chain(*(refused.get("context") or {}).values()))
            rows = [r.id for i in ids for r in by_contact.get(i, [])] or [
                r.id for d in written for r in deliveries[d]
            ]
            self._mark(rows, _refusal(refused))

    # --- fields and consent -----------------------------------------------------------------------------

    async def _fields(self, writes: Sequence[tuple[str, dict[str, str], list[str]]]) -> None:
        """(contact id, properties, the pushes that want them). Writes on one contact are one input: ids may not repeat."""
        merged: dict[str, dict[str, str]] = {}
        rows: dict[str, list[str]] = {}
        for ref, properties, ids in writes:
            merged.setdefault(ref, {}).update(properties)
            rows.setdefault(ref, []).extend(ids)
        inputs = [
            {"id": ref, "objectWriteTraceId": ref, "properties": properties}
            for ref, properties in merged.items()
            if properties
        ]
        await self._batch(lambda sdk: sdk.crm.contacts.batch_api.update, inputs, rows)
        for ref, ids in rows.items():
            for id in ids:
                if self.outcomes[id].status is OutcomeStatus.DONE:
                    self.outcomes[id] = Outcome(id=id, remote_id=ref, object="contact", wrote=merged[ref])

    async def _consent(self, push: ConsentWrite) -> None:
        """One status per call: the batch endpoint belongs to one edition only. An opt-in needs a proof."""
        if push.opted_in and not push.proof:
            fix = "nothing, if nobody asked for it; else opt in again with the proof"
            self._mark(
                [push.id], Drop("an opt-in without a proof is never written", code="NO_PROOF", fix=fix)
            )
            return
        body: dict[str, Any] = {
            "subscriptionId": int(push.subscription),
            "statusState": "SUBSCRIBED" if push.opted_in else "UNSUBSCRIBED",
            "channel": "EMAIL",
            "legalBasis": "CONSENT_WITH_NOTICE",
            "legalBasisExplanation": push.proof[:500] or "opted out",
        }
        try:
            await self._sdk(lambda sdk: _set_status(sdk, push.email, body))
        except VendorError as error:
            already = "already" in error.message.lower() and error.status == 400
            if not already:
                self._mark([push.id], error)

    async def _erase(self, push: Erase) -> None:
        """For good: no recycle bin. Of a record that is gone already HubSpot says done, too."""
        try:
            await self._sdk(lambda sdk: sdk.crm.contacts.basic_api.purge({"objectId": push.contact_ref}))
        except VendorError as error:
            if error.status != 404:
                self._mark([push.id], error)

    # --- preparing --------------------------------------------------------------------------------------

    async def prepare(self, *, dry: bool) -> list[str]:
        """Create the property group and the properties that results need. Returns what was, or would be, made."""
        made: list[str] = []
        for kind, wanted in PROPERTIES.items():
            made += await self._prepare_kind(kind, wanted, dry=dry)
        return made

    async def _prepare_kind(self, kind: str, wanted: Sequence[dict[str, Any]], *, dry: bool) -> list[str]:
        known = await self._sdk(lambda sdk: sdk.crm.properties.core_api.get_all(kind))
        names = {found["name"] for found in known["results"]}
        missing = [wish for wish in wanted if wish["name"] not in names]
        if dry or not missing:
            return [f"{kind} property {wish['name']} is missing" for wish in missing]
        groups = await self._sdk(lambda sdk: sdk.crm.properties.groups_api.get_all(kind))
        if GROUP not in {found["name"] for found in groups["results"]}:
            group = {"name": GROUP, "label": "Mailyard", "displayOrder": -1}
            await self._sdk(lambda sdk: sdk.crm.properties.groups_api.create(kind, group))
        inputs = {"inputs": [{**wish, "groupName": GROUP} for wish in missing]}
        await self._sdk(lambda sdk: sdk.crm.properties.batch_api.create(kind, inputs))
        return [f"{kind} property {wish['name']} created" for wish in missing]

    # --- the SDK ----------------------------------------------------------------------------------------

    async def _batch(
        self,
        method: Callable[[Any], Callable[..., Any]],
        inputs: Sequence[dict[str, Any]],
        rows: Mapping[str, list[str]],
    ) -> dict[str, str]:
        """One batch call. Returns trace id -> HubSpot's id of what was written; refusals go to the outcomes of `rows`."""
        if not inputs:
            return {}
        try:
            answer = await self._sdk(lambda sdk: method(sdk)({"inputs": list(inputs)}))
        except VendorError as error:
            if error.status == 400 and len(inputs) > 1:  # one bad row refuses the whole batch: find it alone
                written: dict[str, str] = {}
                for each in inputs:
                    written |= await self._batch(method, [each], rows)
                return written
            self._mark((id for each in inputs for id in rows[each["objectWriteTraceId"]]), error)
            return {}
        for refused in answer.get("errors") or []:
            context = refused.get("context") or {}
            traces = context.get("objectWriteTraceId") or context.get("ids") or []
            self._mark((id for trace in traces for id in rows.get(trace, [])), _refusal(refused))
        written = {
            r["object_write_trace_id"]: r["id"] for r in answer["results"] if r.get("object_write_trace_id")
        }
        told = {t for e in answer.get("errors") or [] for v in (e.get("context") or {}).values() for t in v}
        for each in inputs:
            trace = each["objectWriteTraceId"]
            if trace not in written and trace not in told:
                self._mark(rows[trace], Retry("HubSpot gave no answer for this row", code="NO_ANSWER"))
        return written

    async def _sdk(self, call: Callable[[Any], Any]) -> dict[str, Any]:
        def work(authorization: str) -> dict[str, Any]:
            client = _client(self.base_url, authorization.removeprefix("Bearer "))
            answer = call(client)
            return dict(answer.to_dict()) if hasattr(answer, "to_dict") else {}

        return await self.http.in_thread(work, translate=of_sdk, repeatable=True)

    def _mark(self, ids: Iterable[str], error: VendorError) -> None:
        status = OutcomeStatus.FIX_NEEDED
        if isinstance(error, Drop):
            status = OutcomeStatus.DROPPED
        elif isinstance(error, Retry):
            status = OutcomeStatus.RETRY
        for id in ids:
            self.outcomes[id] = Outcome(
                id=id, status=status, code=error.code, message=error.message, fix=error.fix,
                retry_after_seconds=error.retry_after_seconds,
            )  # fmt: skip


def _client(base_url: str, token: str) -> Any:
    """The SDK's client for a token. Kept, since each one holds its own connections."""
    import hubspot

    key = (base_url, token)
    if key not in _CLIENTS:
        _CLIENTS.clear()  # a renewed token makes the old client useless
        _CLIENTS[key] = _Quick(hubspot.HubSpot(access_token=token, host=base_url))
    return _CLIENTS[key]


class _Quick:
    """The SDK builds a new API object, and with it a new connection pool, at each attribute: keep the first."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name.endswith("_api"):
            kept = found
        elif callable(found) and not hasattr(found, "config"):
            return found
        else:
            kept = _Quick(found)
        self.__dict__[name] = kept
        return kept


_CLIENTS: dict[tuple[str, str], Any] = {}


def _refusal(refused: Mapping[str, Any]) -> VendorError:
    """The error of one row in a partial answer."""
    code, message = str(refused.get("category") or ""), str(refused.get("message") or "refused")
    if code == "OBJECT_NOT_FOUND":
        return Drop(
            message, code=code, fix="the record is gone or was merged in HubSpot; the next pull will tell"
        )
    return FixNeeded(message, code=code, fix=advice(code, message))


def _entry(delivery: str, told: Sequence[Result], before: Mapping[str, str]) -> dict[str, str]:
    """The properties of a timeline entry: what it said before and what these results add."""
    known = [r for r in (before.get("mailyard_results") or "").split(";") if r]
    lines = [line for line in (before.get("hs_email_text") or "").split("\n") if line]
    for result in told:
        if result.kind.value not in known:
            known.append(result.kind.value)
            lines.append(_line(result))
    first = told[0]
    at = first.sent_at or first.occurred_at
    failed = "bounced" in known
    return {
        "mailyard_delivery": delivery,
        "mailyard_results": ";".join(sorted(known, key=ORDER.index)),
        "hs_timestamp": _iso(at),
        "hs_email_direction": "EMAIL",
        "hs_email_status": "BOUNCED" if failed else "SENT",
        "hs_email_subject": first.subject or first.message,
        "hs_email_text": "\n".join(lines),
        "hs_email_headers": json.dumps({"from": {}, "to": [{"email": first.email}], "cc": [], "bcc": []}),
    }


def _line(result: Result) -> str:
    """One result in words, e.g. `Clicked 2026-11-24 10:02 UTC: https://...`."""
    more = result.detail.get("link") or result.detail.get("reason") or ""
    at = result.occurred_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{WORDS.get(result.kind.value, result.kind.value)} {at}" + (f": {more}" if more else "")


def _contact_properties(told: Sequence[Result]) -> dict[str, str]:
    """The contact's own properties after these results, the newest of a kind winning."""
    found: dict[str, str] = {}
    for result in sorted(told, key=lambda r: r.occurred_at):
        if name := DATES.get(result.kind.value):
            found[name] = _iso(result.occurred_at)
        if result.kind is ResultKind.SENT:
            found["mailyard_last_message"] = result.message
        if result.kind is ResultKind.BOUNCED:
            found["mailyard_bounce_reason"] = (
                f"{result.detail.get('class', '')}: {result.detail.get('reason', '')}"[:500]
            )
    return found


def _grouped(results: Sequence[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return found


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _set_status(sdk: Any, address: str, body: dict[str, Any]) -> Any:
    """Consent v4 by the SDK's transport: its preferences client still speaks v3, which cannot say all of this.

    Not by `Http`, whose log names paths: this one holds the address.
    """
    return sdk.communication_preferences.status_api.api_client.call_api(
        "/communication-preferences/v4/statuses/{address}",
        "POST",
        {"address": address},
        header_params={"Content-Type": "application/json", "Accept": "application/json"},
        body=body,
        response_types_map={},
        auth_settings=["oauth2"],
        _return_http_data_only=True,
    )
