"""The connector: settings, manifest, and which file answers for what.

Reading is in `reading.py`, writing in `writing.py` and `segments.py`, webhooks in `webhooks.py`, refusals in `errors.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from connectors.hubspot import errors, fields, reading, segments, webhooks, writing
from hub.errors import FixNeeded, VendorError
from hub.model import OBJECTS, FieldType, Outcome, Push, Record, VendorField
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
)
from hub.sdk.http import Auth, Bearer, Http
from hub.sdk.oauth import OAuth

SCOPES = (
    "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.objects.companies.read", "crm.objects.deals.read",
    "crm.lists.read", "crm.lists.write",
    "crm.schemas.contacts.read", "crm.schemas.contacts.write", "communication_preferences.read_write",
    "sales-email-read",
)  # fmt: skip


class HubSpotSettings(ConnectorSettings):
    """Either `token` (private app or service key) or `client_id`, `client_secret` and `refresh_token` (OAuth)."""

    token: SecretStr | None = Field(None, description="token of a private app or service key")
    client_id: str | None = Field(None, description="of an OAuth app")
    client_secret: SecretStr | None = Field(None, description="of an OAuth app")
    refresh_token: SecretStr | None = Field(
        None, description="the first one; later ones are kept sealed in PostgreSQL"
    )
    webhook_secret: SecretStr | list[SecretStr] = Field(
        default_factory=list, description="the app's client secret; two while it is being rotated"
    )
    base_url: str = Field("https://api.hubapi.com", description="another host, e.g. of a sandbox")
    burst_per_10_seconds: int = Field(
        190, gt=0, description="190 for Pro and Enterprise, 100 for Free and Starter, 110 for OAuth"
    )
    calls_per_day: int = Field(250_000, gt=0, description="the account's daily limit of private apps")

    @property
    def webhook_secrets(self) -> list[str]:
        given = self.webhook_secret if isinstance(self.webhook_secret, list) else [self.webhook_secret]
        return [secret.get_secret_value() for secret in given]


class HubSpot(Connector[HubSpotSettings]):
    """A HubSpot account."""

    Settings = HubSpotSettings
    known_fields: ClassVar[Mapping[str, Mapping[str, VendorField]]] = fields.KNOWN
    manifest = Manifest(
        name="hubspot",
        title="HubSpot",
        streams=("contacts", "companies", "deals", "segments"),
        pushes=("results", "consent", "fields", "erasure"),
        auth=("private app token", "OAuth 2 refresh token"),
        webhooks=("contact.*", "company.*", "deal.*"),
        limits=(
            Limit("burst", 190, 10),
            Limit("search", 5, 1, scope="search"),
            Limit("daily", 250_000, 86_400),
        ),
        scopes=SCOPES,
        docs="docs/connectors/hubspot.md",
        batch=100,
        mirrors=True,
    )

    def connect(self, http: Http) -> Http:
        limits = (
            Limit("burst", self.settings.burst_per_10_seconds, 10),
            Limit("search", 5, 1, scope="search"),
            Limit("daily", self.settings.calls_per_day, 86_400),
        )
        plain = http.configured(self.settings.base_url, limits=limits, classify=errors.classify)
        return http.configured(
            self.settings.base_url, auth=self._auth(plain), limits=limits, classify=errors.classify
        )

    def _auth(self, plain: Http) -> Auth:
        s = self.settings
        if s.token is not None:
            return Bearer(s.token.get_secret_value())
        if s.client_id is None or s.client_secret is None or s.refresh_token is None:
            raise FixNeeded(
                "no credentials",
                where=self.name,
                fix="set token, or client_id, client_secret and refresh_token together",
            )
        form = {
            "grant_type": "refresh_token",
            "client_id": s.client_id,
            "client_secret": s.client_secret.get_secret_value(),
        }
        first = s.refresh_token.get_secret_value()
        return OAuth(
            self.name,
            self.context.tokens,
            self.clock,
            plain,
            "/oauth/v1/token",
            lambda kept: {**form, "refresh_token": kept or first},
        )

    def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        if stream == "segments":
            return reading.segments(self.http, cursor)
        return reading.objects(self.http, self.clock, stream, self.wanted(OBJECTS[stream]), cursor)

    async def read(self, object: str, ids: Sequence[str]) -> list[Record]:
        return await reading.by_id(self.http, object, self.wanted(object), ids)

    def wanted(self, object: str) -> list[str]:
        """The properties to ask for: those that are mapped, and those that tell of merges."""
        mapped = self.context.fields.get(object) or list(fields.KNOWN[object])
        extra = ["hs_merged_object_ids"] + (["dealstage", "pipeline"] if object == "deal" else [])
        return list(dict.fromkeys([*(n for n in mapped if n not in fields.CONNECTOR_MADE), *extra]))

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        return await writing.Writer(self.http, self.settings.base_url).push(batch)

    async def prepare(self, *, dry: bool = False) -> list[str]:
        return await writing.Writer(self.http, self.settings.base_url).prepare(dry=dry)

    async def schema(self, object: str) -> list[VendorField]:
        answer = (await self.http.request("GET", f"/crm/v3/properties/{reading.PLURAL[object]}")).json()
        made = [field for name, field in fields.KNOWN[object].items() if name in fields.CONNECTOR_MADE]
        return [_vendor_field(found) for found in answer["results"]] + made

    async def test(self) -> list[Finding]:
        try:
            account = (await self.http.request("GET", "/account-info/v3/details")).json()
            findings = [Finding(True, f"signed in to account {account.get('portalId')}")]
        except VendorError as error:
            return [Finding(False, f"cannot sign in: {error.message}", error.fix)]
        for what, path in (
            ("read contacts", "/crm/v3/objects/contacts?limit=1"),
            ("read companies", "/crm/v3/objects/companies?limit=1"),
            ("read deals", "/crm/v3/objects/deals?limit=1"),
            ("read properties", "/crm/v3/properties/contacts"),
            ("read subscriptions", "/communication-preferences/v4/definitions"),
        ):
            try:
                await self.http.request("GET", path)
                findings.append(Finding(True, f"may {what}"))
            except VendorError as error:
                findings.append(Finding(False, f"may not {what}: {error.message}", error.fix))
        try:
            missing = await self.prepare(dry=True)
        except VendorError as error:
            what = f"may not read what results need: {error.message}"
            return [*findings, Finding(False, what, error.fix)]
        findings.append(Finding(not missing, "; ".join(missing) or "the properties for results are there",
                                "run `hub connections prepare`" if missing else ""))  # fmt: skip
        return findings

    async def static_segment(self, name: str) -> str:
        return await segments.static(self.http, self.name, name)

    async def make_segment(self, name: str) -> str:
        return await segments.make(self.http, name)

    async def members(self, segment: str) -> set[str]:
        return {link.id for link in await reading.members(self.http, segment)}

    async def change_members(self, segment: str, add: Sequence[str], remove: Sequence[str]) -> set[str]:
        return await segments.change(self.http, segment, add, remove)

    def verify(self, request: WebhookRequest) -> None:
        webhooks.verify(request, self.settings.webhook_secrets)

    def events(self, request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
        return webhooks.events(request)


_TYPES = {
    "number": FieldType.NUMBER, "bool": FieldType.BOOLEAN, "date": FieldType.DATE, "datetime": FieldType.TIME,
    "enumeration": FieldType.ENUM,
}  # fmt: skip


def _vendor_field(found: Mapping[str, Any]) -> VendorField:
    return VendorField(
        name=found["name"],
        type=_TYPES.get(found.get("type", ""), FieldType.TEXT),
        label=found.get("label", ""),
        read_only=bool(
            found.get("calculated") or (found.get("modificationMetadata") or {}).get("readOnlyValue")
        ),
        custom=not found.get("hubspotDefined") and found.get("groupName") != writing.GROUP,
        options=tuple(option["value"] for option in found.get("options") or ()),
    )
