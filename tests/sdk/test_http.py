"""Calls to a vendor over real HTTP: what is repeated and when, what never is, and what never leaves the hub."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import structlog
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from hub.errors import FixNeeded, QuotaExhausted, Retry, Unclear, VendorError
from hub.sdk import http as module
from hub.sdk.http import RETRIED, Bearer, Http, metered, retry_after
from tests.sdk.conftest import Pauses, Vendor, said

TOKEN = "pat-eu1-0123456789abcdef"


class Renewing:
    """Credentials that change with each renewal."""

    def __init__(self, *, helps: bool = True) -> None:
        self.helps, self.refused = helps, list[Mapping[str, str]]()

    async def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {TOKEN}-{len(self.refused)}"}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        self.refused.append(refused)
        return self.helps


# --- repeated --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(RETRIED | {505, 599}))
async def test_passing_trouble_is_ridden_out(vendor: Vendor, http: Http, pauses: Pauses, status: int) -> None:
    vendor.then(status)
    assert (await http.request("GET", "/x")).json() == {"ok": True}
    assert len(vendor.calls) == 2
    assert len(pauses) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 418, 422, 451, 301, 302, 304])
async def test_a_refusal_is_not_repeated(vendor: Vendor, http: Http, pauses: Pauses, status: int) -> None:
    vendor.then(status)
    with pytest.raises(FixNeeded) as raised:
        await http.request("GET", "/x")
    assert (raised.value.status, raised.value.where) == (status, "/x")
    assert (len(vendor.calls), pauses) == (1, [])


async def test_pauses_grow_with_full_jitter(vendor: Vendor, http: Http, pauses: Pauses) -> None:
    for _ in range(12):
        vendor.then(*[500] * 5)
        with pytest.raises(Retry, match="500"):
            await http.request("GET", "/x")
    assert len(vendor.calls) == 12 * 5
    for attempt in range(1, 5):
        tried = pauses[attempt - 1 :: 4]
        assert len(set(tried)) == 12  # never two the same: a herd of callers does not come back at once
        assert all(0 <= pause <= 0.5 * 2**attempt for pause in tried)
        assert max(tried) > 0.5 * 2**attempt / 3


async def test_the_vendors_own_pause_is_kept(vendor: Vendor, http: Http, pauses: Pauses) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    vendor.then(said(429, retry_after="7"), said(503, retry_after=date))
    await http.request("POST", "/x")  # both are refused before anything is done: any call may be repeated
    assert 7 <= pauses[0] < 8
    assert 18 <= pauses[1] <= 20


async def test_a_pause_longer_than_half_a_minute_ends_the_call(
    vendor: Vendor, http: Http, pauses: Pauses
) -> None:
    vendor.then(said(429, retry_after="31"))
    with pytest.raises(Retry) as raised:
        await http.request("GET", "/x")
    assert raised.value.retry_after_seconds == 31
    assert (len(vendor.calls), pauses) == (1, [])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0), ("5", 5), ("0", 0), (" 2.5 ", 2.5), ("-5", 0), ("soon", 0), ("nan", 0), ("inf", 0), ("1e300", 7 * 86400),
        ("Tue, 24 Nov 2026 09:00:10 GMT", 10), ("Tue, 24 Nov 2026 08:00:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 7 * 86400),
        ("Tue, 99 Nov 2026 09:00:10 GMT", 0), ("2026-11-24", 0),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after({"retry-after": value}, lambda: datetime(2026, 11, 24, 9, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("fault", ["lost_answer", "truncated", "html"])
async def test_a_lost_answer_to_a_question_is_asked_for_again(vendor: Vendor, http: Http, fault: str) -> None:
    vendor.faults.plan(fault, times=2)
    assert (await http.request("GET", "/x")).json() == {"ok": True}


async def test_broken_json_under_a_200_is_passing_trouble(vendor: Vendor, http: Http) -> None:
    vendor.then(
        Response('{"a": ', headers={"Content-Type": "application/json"}),
        PlainTextResponse("<html>log in</html>", headers={"Content-Type": "text/html"}),
    )
    assert (await http.request("GET", "/x")).json() == {"ok": True}
    vendor.then(*[PlainTextResponse("fine")] * 2)
    assert (await http.request("GET", "/x", expect_json=False)).body == b"fine"
    with pytest.raises(Retry, match="NOT_JSON"):
        await http.request("GET", "/x", attempts=1)


async def test_nobody_listens(pauses: Pauses) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: a connection is refused
        client = Http(f"http://127.0.0.1:{taken.getsockname()[1]}", sleep=pauses)
        with pytest.raises(Retry, match="CONNECT: cannot connect"):
            await client.request("POST", "/x", json={})  # nothing can have arrived: any call may be repeated
        await client.close()
    assert len(pauses) == 4


# --- not repeated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost_answer", "truncated", "500"])
async def test_a_write_that_may_have_arrived_is_never_repeated(
    vendor: Vendor, http: Http, pauses: Pauses, fault: str
) -> None:
    vendor.faults.plan(fault)
    with pytest.raises(Unclear):
        await http.request("POST", "/x", json={"a": 1})
    assert (vendor.faults.count(method="POST"), pauses) == (1, [])
    vendor.faults.plan(fault)
    assert (await http.request("POST", "/x", json={"a": 1}, repeatable=True)).json() == {"ok": True}
    assert vendor.faults.count(method="POST") == 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
async def test_what_has_no_second_effect_by_its_nature_is_repeated(
    vendor: Vendor, http: Http, method: str
) -> None:
    vendor.faults.plan("lost_answer")
    await http.request(method, "/x")
    assert vendor.faults.count(method=method) == 2


async def test_patch_has(vendor: Vendor, http: Http) -> None:
    vendor.faults.plan("lost_answer")
    with pytest.raises(Unclear):
        await http.request("PATCH", "/x", json={})


# --- credentials -------------------------------------------------------------------------------------------------


async def test_a_401_renews_once_and_goes_on(vendor: Vendor, pauses: Pauses) -> None:
    auth = Renewing()
    client = Http(vendor.url, auth=auth, sleep=pauses)
    vendor.then(401)
    await client.request("POST", "/x", json={})
    assert [call.headers["authorization"] for call in vendor.calls] == [
        f"Bearer {TOKEN}-0",
        f"Bearer {TOKEN}-1",
    ]
    assert auth.refused == [{"Authorization": f"Bearer {TOKEN}-0"}]
    vendor.then(401, 401)
    with pytest.raises(FixNeeded, match="401"):
        await client.request("GET", "/x")
    assert len(auth.refused) == 2
    vendor.then(500, 500, 500, 500, 401)  # a renewal is no attempt
    assert (await client.request("GET", "/x")).status == 200
    await client.close()


async def test_a_401_that_renewing_does_not_help(vendor: Vendor, http: Http) -> None:
    for auth in (Renewing(helps=False), Bearer(TOKEN)):
        client = http.configured(vendor.url, auth=auth)
        vendor.then(401)
        with pytest.raises(FixNeeded, match="renew the connection's credentials"):
            await client.request("GET", "/x")
        await client.close()
    assert len(vendor.calls) == 2


async def test_no_secret_is_said_or_logged(
    vendor: Vendor, pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = Http(vendor.url, auth=Bearer(TOKEN), sleep=pauses, account="crm")
    told: list[str] = [repr(client), repr(Bearer(TOKEN))]
    quoting = {"message": f"the token {TOKEN} is not valid, nor is the secret s3cr3t-of-the-app"}
    with structlog.testing.capture_logs() as logged:
        for status in (400, 401, 403, 404, 500, 302):
            vendor.then(*[said(status, quoting)] * 5)
            with pytest.raises(VendorError) as raised:
                await client.request(
                    "POST", "/x", form={"client_secret": "s3cr3t-of-the-app"}, params={"api_secret": TOKEN}, repeatable=True,
                )  # fmt: skip
            told += [str(raised.value), repr(raised.value), repr(raised.value.__cause__)]
            vendor.answers.clear()
        for fault in ("lost_answer", "html", "truncated", "500"):
            vendor.faults.plan(fault, times=5)
            with pytest.raises(VendorError) as raised:
                await client.request("GET", "/x", params={"key": TOKEN})
            told.append(str(raised.value))
    await client.close()
    assert len(logged) > 10
    said_at_all = "\n".join([*told, str(logged), caplog.text])
    assert "the token *** is not valid, nor is the secret ***" in said_at_all
    assert TOKEN not in said_at_all
    assert "s3cr3t" not in said_at_all
    assert all(call.headers["authorization"] == f"Bearer {TOKEN}" for call in vendor.calls)


# --- where it goes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(vendor: Vendor, http: Http, status: int) -> None:
    other = Vendor()
    with other.serve():
        client = http.configured(vendor.url, auth=Bearer(TOKEN))
        for target in (f"{other.url}/steal", "/elsewhere"):
            vendor.then(RedirectResponse(target, status))
            with pytest.raises(FixNeeded, match=str(status)):
                await client.request("GET", "/x")
        await client.close()
    assert other.calls == []
    assert [call.path for call in vendor.calls] == ["/x", "/x"]


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/x", "//evil.example/x", "@evil.example/x", "x", "", "http://[evil", "ftp://127.0.0.1/x",
        "http://127.0.0.1:1/x", "{url}@evil.example/x", "{url}.evil.example/x",
    ],
)  # fmt: skip
async def test_no_other_host_is_ever_called(vendor: Vendor, http: Http, path: str) -> None:
    with pytest.raises(FixNeeded, match="FOREIGN_URL: a call outside the vendor's own host was refused"):
        await http.request("GET", path.format(url=vendor.url))
    assert vendor.calls == []


async def test_a_next_link_of_the_vendors_own_is_followed(vendor: Vendor, http: Http) -> None:
    await http.request("GET", f"{vendor.url}/next?after=5")
    assert [call.path for call in vendor.calls] == ["/next?after=5"]


async def test_the_machines_proxies_are_not_used(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = Http(vendor.url)
    assert (await client.request("GET", "/x", attempts=1)).status == 200
    await client.close()


async def test_a_body_without_end_is_cut_off(
    vendor: Vendor, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 10_000)
    vendor.then(said(200, "x" * 9_000))
    assert len((await http.request("GET", "/x")).body) == 9_002
    vendor.then(said(200, "x" * 20_000))
    with pytest.raises(FixNeeded, match="TOO_LARGE"):
        await http.request("GET", "/x")
    assert (await http.request("GET", "/x")).json() == {"ok": True}


# --- what a run is told ----------------------------------------------------------------------------------------------


async def test_calls_are_counted_where_they_are_made(vendor: Vendor, http: Http) -> None:
    await http.request("GET", "/before")
    with metered() as outer:
        vendor.then(429, 500)
        await http.request("GET", "/x")
        with metered() as inner:
            vendor.then(404)
            with pytest.raises(FixNeeded):
                await http.request("GET", "/x")
    assert outer.as_dict() == {"calls": 3, "repeated_calls": 2, "http_429": 1, "http_500": 1}
    assert inner.as_dict() == {"calls": 1, "repeated_calls": 0, "http_404": 1}


async def test_the_vendors_words_reach_the_error(vendor: Vendor, http: Http) -> None:
    for body, words in (
        ({"message": "no such field"}, "no such field"), ({"error": {"message": "bad"}}, "bad"),
        ({"error_description": "x"}, "x"), ({"other": 1}, "HTTP 422"), (["list"], "HTTP 422"),
    ):  # fmt: skip
        vendor.then(said(422, body))
        with pytest.raises(FixNeeded) as raised:
            await http.request("GET", "/x")
        assert raised.value.message == words
    vendor.then(PlainTextResponse("<html><b>long page</b></html>", 404))
    with pytest.raises(FixNeeded, match="404: HTTP 404"):
        await http.request("GET", "/x")


async def test_a_vendors_own_reading_of_an_error_comes_first(vendor: Vendor, http: Http) -> None:
    def classify(status: int, headers: Mapping[str, str], body: bytes) -> VendorError | None:
        return (
            QuotaExhausted("all used up", status=status, retry_after_seconds=600)
            if b"DAILY" in body
            else None
        )

    client = http.configured(vendor.url, classify=classify)
    vendor.then(said(403, {"message": "DAILY"}))
    with pytest.raises(QuotaExhausted, match="all used up"):
        await client.request("GET", "/x")
    with pytest.raises(QuotaExhausted, match="all used up"):  # and nobody calls this account for as long
        await http.configured(vendor.url).request("GET", "/x")
    assert len(vendor.calls) == 1
    await client.close()


# --- a vendor's own SDK in a thread ------------------------------------------------------------------------------------


class SdkError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def translated(error: Exception) -> VendorError | None:
    if not isinstance(error, SdkError):
        return None
    kind = FixNeeded if error.status in (400, 401) else Retry
    return kind("sdk", status=error.status)


async def test_an_sdk_is_retried_as_a_call_is(pauses: Pauses) -> None:
    auth, seen = Renewing(), list[Any]()
    fails = [429, 401, 500]
    client = Http(auth=auth, sleep=pauses)

    def work(authorization: str) -> str:
        seen.append((authorization, threading.current_thread() is threading.main_thread()))
        if fails:
            raise SdkError(fails.pop(0))
        return "done"

    assert await client.in_thread(work, translate=translated) == "done"
    assert [a.rpartition("-")[2] for a, _ in seen] == ["0", "0", "1", "1"]
    assert not any(main for _, main in seen)
    assert len(pauses) == 2


async def test_an_sdk_that_fails_for_good(pauses: Pauses) -> None:
    client = Http(sleep=pauses)

    def raising(error: Exception) -> Any:
        def work(_: str) -> None:
            raise error

        return work

    with pytest.raises(FixNeeded):
        await client.in_thread(raising(SdkError(400)), translate=translated)
    with pytest.raises(ZeroDivisionError):  # a bug stays a bug
        await client.in_thread(raising(ZeroDivisionError()), translate=translated)
    assert pauses == []
    with pytest.raises(Retry):
        await client.in_thread(raising(SdkError(500)), translate=translated)
    assert len(pauses) == 4


async def test_an_sdk_that_does_not_come_back(pauses: Pauses) -> None:
    client, release, calls = Http(sleep=pauses), threading.Event(), list[int]()

    def work(_: str) -> None:
        calls.append(1)
        release.wait(5)

    with pytest.raises(Unclear, match="TIMEOUT"):
        await client.in_thread(work, translate=translated, timeout_seconds=0.05)
    assert len(calls) == 1
    with pytest.raises(Retry, match="TIMEOUT"):
        await client.in_thread(work, translate=translated, timeout_seconds=0.05, repeatable=True, attempts=3)
    assert len(calls) == 4
    release.set()
