"""Relays' events over the web: authentic or refused, kept once, matched to their mail, in the hub's words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import respx
from ruamel.yaml import YAML

from connectors.sendgrid.events import SendGridEvents, SendGridEventSettings
from hub.clock import ManualClock
from hub.errors import SignatureError
from hub.sdk.connector import WebhookRequest
from hub.sdk.relay import token_of
from hub.web.app import application
from tests.connectors.events import callers, samples
from tests.support.rig import HUB_YAML, Rig

VENDORS: dict[str, tuple[Callable[..., callers.Call], list[tuple[dict[str, Any], tuple[str, str] | None]]]] = {
    "sendgrid": (callers.sendgrid, samples.SENDGRID), "mailgun": (callers.mailgun, samples.MAILGUN),
    "postmark": (callers.postmark, samples.POSTMARK), "brevo": (callers.brevo, samples.BREVO),
    "amazon_ses": (callers.amazon_ses, samples.SES),
}  # fmt: skip
CONTRACTS = Path(__file__).parents[3] / "contracts"


@pytest.fixture
def hub_yaml() -> str:
    relays = "".join(
        f"  {name}: {{{{host: 127.0.0.1, port: 9, tls: none, events: {{{{from: {name}, {json.dumps(given)[1:-1]}}}}}}}}}\n"
        for name, given in callers.SETTINGS.items()
    )
    for key in ("signing_key", "password", "token", "secret"):
        relays = relays.replace(f'"{key}": "{callers.SECRET}"', f'"{key}": "${{{{HUBSPOT_APP_SECRET}}}}"')
    return HUB_YAML.replace("relays:\n", f"relays:\n{relays}")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "SECRET", "sandbox-client-secret")


@pytest.fixture
async def web(post: Rig) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application(post.runtime))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        yield client


@pytest.fixture
async def mail(post: Rig) -> int:
    return int(
        await post.value(
            """WITH c AS (INSERT INTO contact (email, changed_at) VALUES ('ann@example.com', now()) RETURNING id)
               INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, queued_at, sent_at)
               SELECT 'hello', id, 'x', 'news', 'ann@example.com', 'uncertain', now(), NULL FROM c RETURNING id"""
        )
    )


@pytest.fixture
def amazon() -> Any:
    with respx.mock(assert_all_called=False) as router:
        router.get(callers.CERTIFICATE_URL).respond(content=callers.certificate())
        yield router


def filled(row: Any, token: str) -> Any:
    return json.loads(json.dumps(row).replace("{token}", token))


async def called(web: httpx.AsyncClient, relay: str, call: callers.Call) -> httpx.Response:
    body, headers = call
    return await web.post(f"/webhooks/relays/{relay}", content=body, headers=headers)


def now() -> datetime:
    """What the rig's clock shows."""
    return ManualClock().wall()


def contract(vendor: str) -> dict[str, Any]:
    found = YAML(typ="safe").load(CONTRACTS / vendor / "openapi.yaml")
    ((content,),) = (
        [each["post"]["requestBody"]["content"].values() for each in found["webhooks"].values()],
    )
    return {**next(iter(content))["schema"], "components": found.get("components", {})}


async def worked(rig: Rig, relay: str) -> list[tuple[Any, ...]]:
    from hub.jobs import stages

    await stages.run(rig.runtime, "inbox", f"relay {relay}")
    return await rig.rows(
        "SELECT kind, detail ->> 'class', machine, source FROM event WHERE source_key NOT LIKE 'sent:%%'"
    )


@pytest.mark.parametrize(
    ("vendor", "row", "means"),
    [(vendor, row, means) for vendor, (_, rows) in VENDORS.items() for row, means in rows],
    ids=lambda value: str(value)[:60],
)
async def test_a_documented_event(
    post: Rig,
    web: httpx.AsyncClient,
    mail: int,
    amazon: Any,
    vendor: str,
    row: Any,
    means: tuple[str, str] | None,
) -> None:
    await post.rows("UPDATE delivery SET state = 'accepted', sent_at = '2026-11-20' RETURNING id")
    call = VENDORS[vendor][0]([filled(row, post.runtime.signer.token("bounce", mail))], now())
    body = json.loads(call[0])
    jsonschema.validate(body, contract(vendor))
    for _ in range(2):  # told twice
        answer = await called(web, vendor, call)
        assert answer.status_code == 200, answer.text
    found = await worked(post, vendor)
    if means is None or means[0] == "sent":
        assert found == []
        return
    kind, verdict = means
    machine = verdict == "machine"
    kept = verdict if kind == "bounced" else found[0][1]
    assert found == [(kind, kept, machine, f"relay {vendor}")]


@pytest.mark.parametrize("vendor", list(VENDORS))
async def test_an_uncertain_mail_is_settled(
    post: Rig, web: httpx.AsyncClient, mail: int, amazon: Any, vendor: str
) -> None:
    make, rows = VENDORS[vendor]
    row = next(row for row, means in rows if means == ("delivered", ""))
    await called(web, vendor, make([filled(row, post.runtime.signer.token("bounce", mail))], now()))
    await worked(post, vendor)
    assert await post.rows("SELECT state, result FROM delivery") == [("accepted", "delivered")]


@pytest.mark.parametrize("vendor", list(VENDORS))
async def test_mails_of_others_and_forged_tokens_do_nothing(
    post: Rig, web: httpx.AsyncClient, mail: int, amazon: Any, vendor: str
) -> None:
    make, rows = VENDORS[vendor]
    row = next(row for row, means in rows if means == ("complained", ""))
    for token in ("", "0" * 30, post.runtime.signer.token("bounce", mail)[:-1] + "x"):
        assert (await called(web, vendor, make([filled(row, token)], now()))).status_code == 200
    assert await worked(post, vendor) == []
    assert await post.rows("SELECT DISTINCT state, reason FROM inbox") == [("done", "of no mail of this hub")]


@pytest.mark.parametrize("vendor", list(callers.SETTINGS))
async def test_what_is_not_authentic_is_refused(
    post: Rig, web: httpx.AsyncClient, amazon: Any, vendor: str
) -> None:
    make = getattr(callers, vendor)
    rows = [{"event": "x", "timestamp": 1}]
    body, headers = make(rows, now())
    stale = make(rows, now() - timedelta(days=3))
    last = body[:-1] + b" " + body[-1:]
    tries: dict[str, list[callers.Call]] = {
        "sendgrid": [(body, {}), (b"", headers), (last, headers), (b"\xff\x00", headers), stale],
        "signed": [(body, {}), (b"", headers), (last, headers), (b"\xff\x00", headers), stale],
        "mailgun": [
            (b"{}", {}),
            (b"[]", {}),
            (body.replace(b'"signature": "', b'"signature": "0', 1), {}),
            stale,
        ],
        "postmark": [
            (body, {}),
            (body, {"Authorization": "Basic eDp5"}),
            (body, {"Authorization": "Bearer x"}),
        ],
        "brevo": [(body, {}), (body, {"Authorization": "Basic eDp5"}), (body, {"Authorization": "Bearer x"})],
        "amazon_ses": [
            (b"{}", {}),
            (b"\xff", {}),
            (body.replace(b"timestamp", b"timestomp", 1), headers),
            stale,
        ],
    }
    for call in tries[vendor]:
        answer = await called(web, vendor, call)
        assert answer.status_code == 401, (call, answer.text)
    assert await post.rows("SELECT 1 FROM inbox") == []


@pytest.mark.parametrize("vendor", list(callers.SETTINGS))
async def test_authentic_nonsense_is_kept_whole(
    post: Rig, web: httpx.AsyncClient, amazon: Any, vendor: str
) -> None:
    nonsense = {"event": "bounce", "RecordType": "Bounce", "eventType": "Bounce"}
    answer = await called(web, vendor, getattr(callers, vendor)([nonsense], now()))
    assert answer.status_code == 200
    rows = await post.rows("SELECT state, length(body) > 0 FROM inbox")
    assert rows == ([("set_aside", True)] if answer.json().get("kept_whole") else [])
    assert await worked(post, vendor) == []


async def test_nobody_else_listens(web: httpx.AsyncClient) -> None:
    assert (await web.post("/webhooks/relays/main", content=b"[]")).status_code == 404
    assert (await web.post("/webhooks/relays/nobody", content=b"[]")).status_code == 404
    assert (await web.get("/webhooks/relays/sendgrid")).status_code in (404, 405)
    assert (await web.post("/webhooks/relays/sendgrid", content=b"x" * 4_000_001)).status_code == 413


async def test_sendgrids_own_vector() -> None:
    """Published in the vendor's SDK; the body ends with CR LF, which is signed."""
    key = (
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpV"
        "KS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
    )
    event = {
        "email": "hello@world.com", "event": "dropped", "reason": "Bounced Address",
        "sg_event_id": "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
        "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",
        "smtp-id": "<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>", "timestamp": 1600112492,
    }  # fmt: skip
    body = json.dumps([event], separators=(",", ":"), sort_keys=True).encode() + b"\r\n"
    signature = (
        "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
    )
    reader = SendGridEvents("main", SendGridEventSettings(public_key=key), None)  # type: ignore[arg-type]

    def request(body: bytes, signature: str = signature) -> WebhookRequest:
        headers = {
            "x-twilio-email-event-webhook-signature": signature, "x-twilio-email-event-webhook-timestamp": "1600112502",
        }  # fmt: skip
        return WebhookRequest("POST", "", headers, body, datetime.fromtimestamp(1600112600, UTC))

    await reader.verify(request(body))
    wrong = "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH3j/0="
    for bad in (request(body[:-2]), request(body[:-2] + b"\n"), request(body, wrong), request(body, "")):
        with pytest.raises(SignatureError):
            await reader.verify(bad)


async def test_a_token_of_mailguns_is_taken_once(post: Rig, web: httpx.AsyncClient, mail: int) -> None:
    ours = post.runtime.signer.token("bounce", mail)
    delivered, complained = (filled(samples.mailgun(event), ours) for event in ("delivered", "complained"))
    await called(web, "mailgun", callers.mailgun([delivered], now(), "t" * 50))
    # The signature does not cover what is told.
    answer = await called(web, "mailgun", callers.mailgun([complained], now(), "t" * 50))
    assert answer.json() == {"stored": 0, "repeated": 1}
    assert [kind for kind, *_ in await worked(post, "mailgun")] == ["delivered"]


# --- SNS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0abc.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0abc.pem",  # not the topic's region
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0abc.pem",
        "https://evil.example/sns.eu-west-1.amazonaws.com/SimpleNotificationService-0abc.pem",
        "https://user@sns.eu-west-1.amazonaws.com/SimpleNotificationService-0abc.pem",
        "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-0abc.pem",
        "https://sns.eu-west-1.amazonaws.com/../x/SimpleNotificationService-0abc.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0abc.pem?x=http://169.254.169.254/",
        "https://169.254.169.254/SimpleNotificationService-0abc.pem",
        "file:///etc/passwd",
        "",
    ],
)
async def test_nobody_is_asked_for_a_certificate_but_amazon(
    post: Rig, web: httpx.AsyncClient, amazon: Any, url: str
) -> None:
    call = callers.amazon_ses([samples.ses("Send", {})], now(), SigningCertURL=url)
    assert (await called(web, "amazon_ses", call)).status_code == 401
    assert amazon.calls.call_count == 0


async def test_both_versions_of_the_signature_and_one_look_at_the_certificate(
    post: Rig, web: httpx.AsyncClient, mail: int, amazon: Any
) -> None:
    for version in ("1", "2"):
        call = callers.amazon_ses([samples.ses("Send", {"n": version})], now(), version)
        assert (await called(web, "amazon_ses", call)).status_code == 200
    assert amazon.calls.call_count == 1
    wrong = callers.amazon_ses([samples.ses("Send", {})], now(), "3")
    assert (await called(web, "amazon_ses", wrong)).status_code == 401
    other = callers.amazon_ses([samples.ses("Send", {})], now(), TopicArn=callers.TOPIC + "x")
    assert (await called(web, "amazon_ses", other)).status_code == 401


async def test_a_certificate_that_has_ended_proves_nothing(post: Rig, web: httpx.AsyncClient) -> None:
    with respx.mock() as router:
        ended = callers.certificate(until=datetime(2026, 1, 1, tzinfo=UTC))
        router.get(callers.CERTIFICATE_URL).respond(content=ended)
        call = callers.amazon_ses([samples.ses("Send", {})], now())
        assert (await called(web, "amazon_ses", call)).status_code == 401


async def test_our_own_topic_is_confirmed_at_amazon_whatever_address_was_told(
    post: Rig, web: httpx.AsyncClient, amazon: Any
) -> None:
    confirm = amazon.get(url__startswith="https://sns.eu-west-1.amazonaws.com/?").respond(content=b"<ok/>")
    more = {"Type": "SubscriptionConfirmation", "SubscribeURL": "http://169.254.169.254/", "Token": "t o&k"}
    answer = await called(web, "amazon_ses", callers.amazon_ses([], now(), **more))
    assert (answer.status_code, answer.json()) == (200, {"stored": 0, "repeated": 0})
    (asked,) = [call.request for call in confirm.calls]
    assert dict(asked.url.params) == {
        "Action": "ConfirmSubscription", "TopicArn": callers.TOPIC, "Token": "t o&k",
    }  # fmt: skip


# --- the other way: what each mail takes along ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "header", "value"),
    [
        ("sendgrid", "X-SMTPAPI", '{"unique_args": {"mailyard": "TOKEN"}}'),
        ("mailgun", "X-Mailgun-Variables", '{"mailyard": "TOKEN"}'),
        ("postmark", "X-PM-Metadata-mailyard", "TOKEN"),
        ("brevo", "X-Mailin-custom", "TOKEN"),
        ("amazon_ses", "X-SES-MESSAGE-TAGS", "mailyard=TOKEN"),
    ],
)
async def test_what_a_mail_takes_along(post: Rig, vendor: str, header: str, value: str) -> None:
    marks = post.runtime.events[vendor].marks
    token = token_of(f"bounce+{post.runtime.signer.token('bounce', 7)}@m.example")
    assert marks[header].format(token=token) == value.replace("TOKEN", token)
    assert post.runtime.relays[vendor].marks == marks  # type: ignore[attr-defined]
    assert post.runtime.relays["main"].marks == {}  # type: ignore[attr-defined]


async def test_the_generic_form(post: Rig, web: httpx.AsyncClient, mail: int) -> None:
    ours, at = post.runtime.signer.token("bounce", mail), "2026-11-25T09:00:00Z"
    rows = [
        {"id": "1", "event": "accepted", "at": at, "token": ours},
        {
            "id": "2",
            "event": "bounced",
            "at": at,
            "token": ours,
            "code": 550,
            "reason": "550 5.1.1 user unknown",
        },
    ]
    for _ in range(2):
        await called(web, "signed", callers.signed(rows, now()))
    assert await worked(post, "signed") == [("bounced", "address", False, "relay signed")]
    bad: list[dict[str, str]] = [
        {"id": "", "event": "bounced", "at": at},
        {"id": "3", "event": "what", "at": at},
        {"id": "3", "event": "bounced", "at": at.rstrip("Z")},
        {"id": "3", "event": "bounced"},
    ]
    for each in bad:
        answer = await called(web, "signed", callers.signed([each], now()))
        assert answer.json() == {"stored": 0, "repeated": 0, "kept_whole": True}
