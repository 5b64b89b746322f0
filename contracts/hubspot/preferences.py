"""What each e-mail address has agreed to, and the communication preferences API (v4) over it.

Consent hangs on the address, not on the contact: it survives deleting and creating anew.
Source: HubSpot developer docs "Subscriptions v4", "Get unsubscribed status".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from contracts.hubspot.answers import Answer, Json, bad_request, batch_answer, field_of, iso
from contracts.hubspot.properties import Property

if TYPE_CHECKING:
    from contracts.hubspot.account import Account
    from contracts.hubspot.calls import Call, Gate

STATES = ("SUBSCRIBED", "UNSUBSCRIBED", "NOT_SPECIFIED")
BASES = (
    "LEGITIMATE_INTEREST_PQL",
    "LEGITIMATE_INTEREST_CLIENT",
    "PERFORMANCE_OF_CONTRACT",
    "CONSENT_WITH_NOTICE",
    "NON_GDPR",
    "PROCESS_AND_STORE",
    "LEGITIMATE_INTEREST_OTHER",
)


@dataclass(frozen=True, slots=True)
class Status:
    """What an address has said about one subscription."""

    state: str
    at_ms: int
    source: str
    legal_basis: str = ""
    explanation: str = ""


@dataclass(slots=True)
class Preferences:
    """Subscription definitions by id, statuses by address, and the addresses that left all e-mail."""

    definitions: dict[int, Json] = field(default_factory=dict)
    statuses: dict[str, dict[int, Status]] = field(default_factory=dict)
    left_all: dict[str, int] = field(default_factory=dict)  # address -> when, in ms
    privacy_settings: bool = False  # with them on, a legal basis must come with each status

    def define(
        self, number: int, name: str, description: str, at_ms: int, purpose: str = "Marketing"
    ) -> None:
        instant = iso(at_ms)
        self.definitions[number] = {
            "id": str(number),
            "name": name,
            "description": description,
            "purpose": purpose,
            "communicationMethod": "Email",
            "isActive": True,
            "isDefault": False,
            "isInternal": False,
            "businessUnitId": 0,
            "createdAt": instant,
            "updatedAt": instant,
        }

    def shown_on_contact(self, address: str) -> dict[str, str]:
        """The read-only contact properties that mirror the preferences of its address."""
        shown = {
            f"hs_email_optout_{n}": "true"
            for n, s in self.statuses.get(address, {}).items()
            if s.state == "UNSUBSCRIBED"
        }
        if address in self.left_all:
            shown["hs_email_optout"] = "true"
            shown |= {f"hs_email_optout_{n}": "true" for n in self.definitions}
        return shown

    def as_json(self, address: str, number: int, reason: str = "") -> Json:
        status = self.statuses.get(address, {}).get(number, Status("NOT_SPECIFIED", 0, ""))
        if address in self.left_all:
            status = Status("UNSUBSCRIBED", self.left_all[address], "UNSUBSCRIBE_FROM_ALL")
        body: Json = {
            "subscriberIdString": address,
            "channel": "EMAIL",
            "subscriptionId": number,
            "subscriptionName": self.definitions[number]["name"],
            "status": status.state,
            "source": status.source,
            "timestamp": iso(status.at_ms),
            "businessUnitId": 0,
        }
        if status.legal_basis:
            body |= {"legalBasis": status.legal_basis, "legalBasisExplanation": status.explanation}
        if reason:
            body["setStatusSuccessReason"] = reason
        return body

    def set(self, address: str, number: int, status: Status) -> str:
        """Record a status; the answer says what happened, in HubSpot's words."""
        before = "UNSUBSCRIBED" if address in self.left_all else self.state(address, number)
        if status.state == before:
            return "NO_STATUS_CHANGE"
        if address in self.left_all and status.state == "SUBSCRIBED":
            at_ms = self.left_all.pop(address)
            for other in self.definitions:
                self.statuses.setdefault(address, {})[other] = Status(
                    "UNSUBSCRIBED", at_ms, "UNSUBSCRIBE_FROM_ALL"
                )
        self.statuses.setdefault(address, {})[number] = status
        return (
            "RESUBSCRIBE_OCCURRED"
            if before == "UNSUBSCRIBED" and status.state == "SUBSCRIBED"
            else "REQUESTED_CHANGE_OCCURRED"
        )

    def state(self, address: str, number: int) -> str:
        held = self.statuses.get(address, {}).get(number)
        return held.state if held else "NOT_SPECIFIED"


def define_subscription(account: Account, number: int, name: str, description: str) -> None:
    """A new subscription type and the contact property that mirrors it."""
    account.preferences.define(number, name, description, account.now_ms())
    prop = Property(
        f"hs_email_optout_{number}", f"Opted out of email: {name}", "bool", "booleancheckbox", read_only=True
    )
    prop.group = "contactinformation"
    account.objects["contacts"].properties[prop.name] = prop


class PreferencesApi:
    """/communication-preferences/v4."""

    def __init__(self, account: Account) -> None:
        self.account, self.held = account, account.preferences

    def routes(self, gate: Gate) -> list[BaseRoute]:
        base = "/communication-preferences/v4"
        one = base + "/statuses/{address}"
        read, write = ("communication_preferences.read_write",), ("communication_preferences.read_write",)
        return [
            gate.route("GET", f"{base}/definitions", self.list_definitions, read),
            gate.route("GET", f"{one}/unsubscribe-all", self.get_left_all, read),
            gate.route("POST", f"{one}/unsubscribe-all", self.leave_all, write),
            gate.route("GET", one, self.get_statuses, read),
            gate.route("POST", one, self.set_status, write),
        ]

    def _answer(self, results: list[Json]) -> Answer:
        return batch_answer(results, [], iso(self.account.now_ms()))

    def _address(self, call: Call, *, channel: object) -> str:
        if channel != "EMAIL":
            raise bad_request(f"channel must be EMAIL, not {channel}")
        return call.path["address"].strip().lower()

    def list_definitions(self, call: Call) -> Answer:
        return self._answer(list(self.held.definitions.values()))

    def get_statuses(self, call: Call) -> Answer:
        address = self._address(call, channel=call.query.get("channel"))
        return self._answer([self.held.as_json(address, n) for n in self.held.definitions])

    def set_status(self, call: Call) -> Answer:
        address = self._address(call, channel=field_of(call.body, "channel", str))
        number, state = field_of(call.body, "subscriptionId", int), field_of(call.body, "statusState", str)
        if number not in self.held.definitions:
            raise bad_request(f"Subscription {number} does not exist")
        if state not in STATES:
            raise bad_request(f"statusState must be one of {list(STATES)}")
        basis = field_of(call.body, "legalBasis", str, "") or ""
        explanation = field_of(call.body, "legalBasisExplanation", str, "") or ""
        if basis and basis not in BASES:
            raise bad_request(f"legalBasis must be one of {list(BASES)}")
        if self.held.privacy_settings and not (basis and explanation):
            raise bad_request(
                "legalBasis and legalBasisExplanation are required by the account's privacy settings"
            )
        status = Status(state, self.account.now_ms(), f"API_{call.app.app_id}", basis, explanation)
        reason = self.held.set(address, number, status)
        self.account.show_preferences(address)
        return self._answer([self.held.as_json(address, number, reason)])

    def get_left_all(self, call: Call) -> Answer:
        address = self._address(call, channel=call.query.get("channel"))
        if address not in self.held.left_all:
            return self._answer([])
        wide = {
            "subscriberIdString": address,
            "channel": "EMAIL",
            "status": "UNSUBSCRIBED",
            "wideStatusType": "PORTAL_WIDE",
            "timestamp": iso(self.held.left_all[address]),
        }
        return self._answer([wide])

    def leave_all(self, call: Call) -> Answer:
        address = self._address(call, channel=call.query.get("channel"))
        changed = address not in self.held.left_all
        self.held.left_all.setdefault(address, self.account.now_ms())
        self.account.show_preferences(address)
        if not call.flag("verbose"):
            return self._answer([])
        reason = "UNSUBSCRIBE_FROM_ALL_OCCURRED" if changed else "NO_STATUS_CHANGE"
        return self._answer([self.held.as_json(address, n, reason) for n in self.held.definitions])
