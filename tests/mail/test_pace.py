"""Paces under random arrivals: never above, never stuck; and a receiver that refuses what comes too fast."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.mail.pace import FLOOR_PER_SECOND, HOLD_SECONDS, Pace, Slow, slows
from hub.sdk.relay import Reply

RATES = st.one_of(st.integers(1, 60).map(float), st.floats(0.2, 60.0))


def times_of(pace: Pace, arrivals: list[float], late: float = 0.0) -> list[float]:
    """When each of the mails goes that arrive so long after each other; timers ring up to `late` seconds late."""
    dice = random.Random(3)
    now, went, found = 1_000.0, 1_000.0, []
    for gap in arrivals:
        now += gap
        went = max(went, now)
        while wait := pace.wait(went):
            assert wait < 60.0
            went += wait + dice.random() * late
        pace.count(went)
        found.append(went)
    return found


def most_within(times: list[float], seconds: float) -> int:
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds - 1e-6:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(rate=RATES, gaps=st.lists(st.one_of(st.just(0.0), st.floats(0, 3)), max_size=300))
@settings(deadline=None, max_examples=60)
def test_never_more_within_a_second_than_the_limit(rate: float, gaps: list[float]) -> None:
    times = times_of(Pace(rate), gaps)
    assert most_within(times, 1.0) <= math.ceil(rate)
    for seconds in (3.0, 10.0):
        assert most_within(times, seconds) <= math.ceil(rate * seconds) + math.ceil(rate)


@given(rate=RATES, late=st.floats(0, 0.03))
@settings(deadline=None, max_examples=40)
def test_everything_goes_and_at_the_limit(rate: float, late: float) -> None:
    times = times_of(Pace(rate), [0.0] * 200, late)
    assert times[-1] - times[0] <= 200 / rate * 1.15 + 1


def test_it_is_even_and_a_pause_allows_no_burst() -> None:
    pace = Pace(10.0)
    times = times_of(pace, [0.0] * 30 + [60.0] + [0.0] * 30)
    for first in (0, 30):
        gaps = [b - a for a, b in zip(times[first : first + 29], times[first + 1 : first + 30], strict=True)]
        assert min(gaps) > 0.04
        assert max(gaps) < 0.16


def test_workers_share_a_second() -> None:
    first, second = Pace(40.0), Pace(40.0)
    first.shared_by(2)
    second.shared_by(2)
    times = sorted(times_of(first, [0.0] * 100) + times_of(second, [0.0] * 100))
    assert most_within(times, 1.0) <= 40
    assert times[-1] - times[0] == pytest.approx(100 / 20, abs=0.6)
    first.shared_by(1)  # the other one has gone
    alone = times_of(first, [60.0] + [0.0] * 99)
    assert most_within(alone, 1.0) <= 40
    assert alone[-1] - alone[0] == pytest.approx(100 / 40, abs=0.3)


# --- slowing -------------------------------------------------------------------------------------------------


class Receiver:
    """Takes `per_second`, with a bucket of one second; refuses the rest."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self.bucket, self.at = per_second, per_second, 0.0

    def takes(self, now: float) -> bool:
        self.bucket = min(self.per_second, self.bucket + (now - self.at) * self.per_second)
        self.at = now
        if self.bucket < 1:
            return False
        self.bucket -= 1
        return True


def run(slow: Slow, receiver: Receiver, now: float, seconds: float) -> tuple[int, int, float]:
    """(taken, refused, the time) of a saturated sender whose answers come 0.2 s later."""
    taken = refused = 0
    answers: list[tuple[float, bool]] = []
    until = now + seconds
    while now < until and not slow.over:
        wait = slow.wait(now)
        if answers and answers[0][0] <= now + wait:
            now, took = max(now, answers[0][0]), answers.pop(0)[1]
            taken, refused = taken + took, refused + (not took)
            if took:
                slow.accepted()
            else:
                slow.refused("421 slower", now)
            continue
        now += wait
        slow.count(now)
        answers.append((now + 0.2, receiver.takes(now)))
    return taken, refused, now


@pytest.mark.parametrize(("measured", "limit"), [(200.0, 20.0), (500.0, 100.0), (50.0, 1.0), (30.0, 25.0)])
def test_the_rate_finds_what_a_receiver_takes(measured: float, limit: float) -> None:
    receiver, slow = Receiver(limit), Slow.begun(measured, "421", 0.0)
    *_, now = run(slow, receiver, 0.0, 60)
    slow.free_at = math.inf  # look at it for longer than it would be slowed
    taken, refused, _ = run(slow, receiver, now, 600)
    assert 0.6 * limit * 600 <= taken <= 1.05 * limit * 600
    assert refused <= 0.05 * taken


def test_it_ends_when_the_receiver_takes_all_again() -> None:
    slow = Slow.begun(100.0, "421", 0.0)
    *_, now = run(slow, Receiver(1_000.0), 0.0, 300)
    assert slow.over
    assert now < 90


def test_refusals_of_mails_under_way_together_count_once_and_there_is_a_floor() -> None:
    slow = Slow.begun(80.0, "421", 0.0)
    for n in range(50):
        slow.refused("421", n * 0.01)
    assert slow.per_second == 40.0
    for n in range(1, 50):
        slow.refused("421", n * HOLD_SECONDS)
    assert slow.per_second == FLOOR_PER_SECOND
    assert slow.wait(49 * HOLD_SECONDS) <= 1 / FLOOR_PER_SECOND


@pytest.mark.parametrize(
    ("code", "text", "stage", "whom"),
    [
        (421, "4.7.28 Our system has detected an unusual rate of unsolicited mail", "rcpt", "receiver"),
        (421, "4.7.0 [TSS04] Messages temporarily deferred due to volume", "data", "receiver"),
        (451, "4.7.650 The mail server has been temporarily rate limited due to IP reputation", "rcpt", "receiver"),
        (451, "4.7.500 Server busy. Please try again later", "rcpt", "receiver"),
        (452, "4.3.1 Insufficient system storage", "data", "receiver"),
        (450, "Too many connections, try again later", "rcpt", "receiver"),
        (432, "4.7.1 Slow down", "rcpt", "receiver"),
        (421, "4.3.2 Closing", "mail", "relay"),
        (451, "4.3.0 Not now", "mail", "relay"),
        (454, "Throttling failure: Maximum sending rate exceeded", "data", "relay"),
        (450, "4.2.0 Greylisted, please try again in 300 seconds", "rcpt", ""),
        (451, "4.7.1 Greylisting in action, please come back later", "rcpt", ""),
        (451, "4.7.1 Sorry, the service is currently unavailable. Please come back later", "rcpt", ""),
        (452, "4.2.2 The recipient's inbox is out of storage space", "rcpt", ""),
        (450, "4.2.1 The user you are trying to contact is receiving mail at a rate", "rcpt", ""),
        (454, "4.1.1 TLS not available", "rcpt", ""),
        (550, "5.7.1 Unusual rate", "data", ""),
        (250, "2.0.0 Ok", "data", ""),
    ],
)  # fmt: skip
def test_who_asks_for_less(code: int, text: str, stage: str, whom: str) -> None:
    assert slows(Reply(code, text, stage)) == whom
