"""The Measurement Protocol's stand-in: 204 for everything, silent losses at the documented limits, debug's words."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.google_analytics import hits
from hub.clock import ManualClock, SteppedClock
from tests.contracts.conftest import Serve, contract_of
from tests.contracts.google_analytics_case import Case, event, google_case
from tests.contracts.spec_check import Conformance

NOW = ManualClock().now()


def micros(age: timedelta) -> int:
    return int((NOW - age).timestamp() * 1_000_000)


@pytest.fixture
def case(serve_recorded: Serve) -> Iterator[Case]:
    with google_case(serve_recorded) as opened:
        yield opened


def hit(*events: Any, **rest: Any) -> bytes:
    return json.dumps({"client_id": "1.1", "events": list(events), **rest}).encode()


LOST: list[tuple[str, bytes, str]] = [
    ("no JSON", b"{", "request: body VALUE_INVALID"),
    ("no object", b"[]", "request: body VALUE_INVALID"),
    ("no client", json.dumps({"events": [event()]}).encode(), "request: client_id VALUE_REQUIRED"),
    ("no events", hit(), "request: events VALUE_REQUIRED"),
    ("too long", hit(event(), filler="x" * 130_000), "request: body VALUE_OUT_OF_BOUNDS"),
    ("nameless", hit({"params": {}}), "event: events VALUE_REQUIRED"),
    ("reserved", hit(event("click")), "event: events NAME_RESERVED"),
    ("reserved prefix", hit(event("ga_mail")), "event: events NAME_RESERVED"),
    ("hyphen", hit(event("email-sent")), "event: events NAME_INVALID"),
    ("digit first", hit(event("1st_mail")), "event: events NAME_INVALID"),
    ("41 characters", hit(event("e" * 41)), "event: events NAME_INVALID"),
    (
        "too old",
        hit({**event(), "timestamp_micros": micros(timedelta(hours=72, seconds=1))}),
        "event: timestamp_micros VALUE_OUT_OF_BOUNDS",
    ),
    (
        "of tomorrow",
        hit({**event(), "timestamp_micros": micros(timedelta(seconds=-1))}),
        "event: timestamp_micros VALUE_OUT_OF_BOUNDS",
    ),
    ("odd time", hit({**event(), "timestamp_micros": "now"}), "event: timestamp_micros VALUE_INVALID"),
    (
        "whole request too old",
        hit(event(), timestamp_micros=micros(timedelta(days=4))),
        "event: timestamp_micros VALUE_OUT_OF_BOUNDS",
    ),
]


@pytest.mark.parametrize(("body", "reason"), [x[1:] for x in LOST], ids=[x[0] for x in LOST])
def test_what_is_bad_gets_204_and_is_lost(case: Case, body: bytes, reason: str) -> None:
    assert case.post("/mp/collect", body) == (204, None)
    assert case.sandbox.events == []
    assert dict(case.sandbox.dropped) == {reason: 1}


def test_another_streams_secret_gets_204_and_everything_is_lost(case: Case) -> None:
    assert case.post("/mp/collect", hit(event()), secret="of-another-stream") == (204, None)
    assert case.post("/mp/collect", hit(event()), measurement_id="G-OTHER") == (204, None)
    assert case.sandbox.events == []
    assert case.sandbox.dropped.total() == 2


def test_the_limits_themselves_are_allowed(case: Case) -> None:
    names = [f"p{n:02}" for n in range(24)]
    full = event("e" * 40, **dict.fromkeys(names, "v" * 100))
    old = {**event("oldest"), "timestamp_micros": micros(timedelta(hours=72))}
    case.collect(full, old, *[event() for _ in range(23)])
    assert len(case.sandbox.events) == 25
    assert case.sandbox.dropped == {}
    assert len(case.sandbox.events[0].params) == 25
    assert case.sandbox.events[1].at == NOW - timedelta(hours=72)


def test_what_goes_beyond_a_limit_is_cut_off(case: Case) -> None:
    case.collect(event("first", long="v" * 101, ga_x="1", **{f"p{n}": n for n in range(30)}))
    case.collect(*[event() for _ in range(26)])
    kept = case.sandbox.events[0].params
    assert len(kept) == 25
    assert "long" not in kept
    assert "ga_x" not in kept
    assert len(case.sandbox.events) == 26
    assert case.sandbox.dropped["event: events EXCEEDED_MAX_ENTITIES"] == 1
    assert case.sandbox.dropped["value: events.params VALUE_OUT_OF_BOUNDS"] == 1
    assert case.sandbox.dropped["value: events.params NAME_RESERVED"] == 1


def test_an_events_own_time_wins_over_the_requests(case: Case) -> None:
    hour, day = micros(timedelta(hours=1)), micros(timedelta(days=1))
    case.collect({**event("own"), "timestamp_micros": hour}, event("shared"), timestamp_micros=day)
    assert [NOW - e.at for e in case.sandbox.events] == [timedelta(hours=1), timedelta(days=1)]


def test_user_properties_have_limits_of_their_own(case: Case) -> None:
    given = {
        "plan": {"value": "pro"},
        "user_id": {"value": "1"},
        "n" * 25: {"value": 1},
        "long": {"value": "v" * 37},
    }
    case.collect(event(), user_properties=given)
    assert case.sandbox.events[0].user_properties == {"plan": "pro"}
    assert case.sandbox.dropped.total() == 3


def debug(case: Case, body: bytes) -> list[dict[str, str]]:
    status, answer = case.post("/debug/mp/collect", body, secret="anything")
    assert status == 200
    messages: list[dict[str, str]] = answer["validationMessages"]
    return messages


def test_debug_names_the_mistake_and_stores_nothing(case: Case) -> None:
    assert debug(case, hit(event())) == []
    (message,) = debug(case, hit(event("_x")))
    assert message["fieldPath"] == "events"
    assert message["validationCode"] == "NAME_INVALID"
    assert message["description"].startswith("Event at index: [0] has invalid name [_x].")
    assert case.sandbox.events == []
    assert case.sandbox.dropped == {}


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        (event(long="v" * 101), "VALUE_OUT_OF_BOUNDS"),
        ({**event(), "timestamp_micros": micros(timedelta(days=5))}, "VALUE_OUT_OF_BOUNDS"),
        (event(**{f"p{n}": n for n in range(25)}), "EXCEEDED_MAX_ENTITIES"),
    ],
)
def test_debug_is_silent_about_parameters_unless_asked(case: Case, spoilt: dict[str, Any], code: str) -> None:
    assert debug(case, hit(spoilt)) == []
    strict = debug(case, hit(spoilt, validation_behavior="ENFORCE_RECOMMENDATIONS"))
    assert [m["validationCode"] for m in strict] == [code]


def test_a_repeat_after_a_lost_answer_counts_twice(case: Case) -> None:
    case.sandbox.faults.plan("lost_answer", path="/mp/collect")
    with case.sandbox.serve() as url:
        case.url = url
        with pytest.raises(OSError, match=r"closed|reset"):
            case.collect(event(event_id="r1"))
        case.collect(event(event_id="r1"))
    assert [e.params["event_id"] for e in case.sandbox.events] == ["r1", "r1"]


def test_the_sandbox_tells_what_it_lost_and_what_came_twice(case: Case) -> None:
    case.collect(event(event_id="r1"), event("email_open", event_id="r1"), event("click"), event())
    with urlopen(f"{case.url}/_sandbox/dropped", timeout=10) as answer:
        assert json.load(answer) == {"total": 1, "reasons": {"event: events NAME_RESERVED": 1}}
    with urlopen(f"{case.url}/_sandbox/events", timeout=10) as answer:
        told = json.load(answer)
    assert told == {"total": 3, "by_name": {"email_sent": 2, "email_open": 1}, "doubles": 1}


def test_as_a_process_on_a_stepped_clock(tmp_path: Path) -> None:
    clock = SteppedClock(tmp_path / "clock")
    clock.jump(timedelta(days=10))
    command = [sys.executable, "-m", "contracts.google_analytics.sandbox", "--clock", f"stepped:{clock.path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for age in (timedelta(), timedelta(days=10)):  # the second lies ten days back on this clock
            moment = int((clock.now() - age).timestamp() * 1_000_000)
            body = hit({**event(), "timestamp_micros": moment})
            query = "measurement_id=G-SANDBOX01&api_secret=sandbox-api-secret"
            with urlopen(Request(f"{url}/mp/collect?{query}", body), timeout=10) as answer:
                assert answer.status == 204
        with urlopen(f"{url}/_sandbox/events", timeout=10) as answer:
            assert json.load(answer)["total"] == 1
        process.terminate()
        assert process.wait(10) == 0


TYPED = {"engagement_time_msec", "session_id"}  # the contract wants more of these than text or number
NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=40).filter(
    lambda n: (
        n[0].isalpha() and not n.startswith(hits.RESERVED_PREFIXES) and n not in hits.RESERVED_EVENTS | TYPED
    )
)
VALUES = st.one_of(st.text(max_size=100), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9))
EVENTS = st.fixed_dictionaries({"name": NAMES, "params": st.dictionaries(NAMES, VALUES, max_size=25)})


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=25))
def test_whatever_the_contract_allows_is_kept_whole(events: list[dict[str, Any]]) -> None:
    body = {"client_id": "1.1", "events": events}
    assert Conformance(contract_of("google_analytics")).request_errors("POST", "/mp/collect", body) == []
    raw = json.dumps(body).encode()
    read = hits.read(raw, NOW)
    if len(raw) < hits.MAX_BODY_BYTES:
        assert read.problems == []
        assert [(e.name, e.params) for e in read.events] == [(e["name"], e["params"]) for e in events]
