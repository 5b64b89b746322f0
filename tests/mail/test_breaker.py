"""The life of a breaker in one worker; what several share is in test_traffic."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hub.mail.breaker import FAILURES, FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, LOGIN_PAUSE_SECONDS, Breaker
from hub.store.relays import State


@dataclass
class Life:
    breaker: Breaker

    def fail(self, times: int = 1, *, login: bool = False) -> None:
        for _ in range(times):
            self.breaker.failed("no answer", login=login)

    def told(self, *, trips: int, probing: bool = False) -> None:
        """What the database says after the news was told."""
        self.breaker.news = ""
        self.breaker.adopt(State("main", "open", "no answer", trips, probing=probing))


@pytest.fixture
def life() -> Life:
    return Life(Breaker(lambda: 0.5))


def test_it_opens_after_some_failures_in_a_row(life: Life) -> None:
    life.fail(FAILURES - 1)
    life.breaker.worked()
    life.fail(FAILURES - 1)
    assert (life.breaker.sessions(8), life.breaker.news) == (8, "")
    life.fail()
    assert (life.breaker.sessions(8), life.breaker.news, life.breaker.reason) == (0, "open", "no answer")


def test_a_refused_login_opens_it_at_once_and_for_longer(life: Life) -> None:
    life.fail(login=True)
    assert life.breaker.sessions(8) == 0
    assert life.breaker.pause_seconds() == LOGIN_PAUSE_SECONDS


def test_pauses_double_to_a_cap(life: Life) -> None:
    life.fail(FAILURES)
    pauses = [life.breaker.pause_seconds()]
    for trips in range(1, 12):
        life.told(trips=trips, probing=True)
        assert life.breaker.sessions(8) == 1
        life.fail()
        assert life.breaker.news == "open"
        pauses.append(life.breaker.pause_seconds())
    assert pauses[:4] == [FIRST_PAUSE_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LAST_PAUSE_SECONDS


def test_workers_do_not_come_back_together() -> None:
    pauses = []
    for dice in (0.0, 0.3, 0.999):
        breaker = Breaker(lambda dice=dice: dice)  # type: ignore[misc]
        breaker.failed("x", login=True)
        pauses.append(breaker.pause_seconds())
    assert pauses == sorted(pauses)
    assert pauses[0] == LOGIN_PAUSE_SECONDS * 0.8
    assert pauses[2] == pytest.approx(LOGIN_PAUSE_SECONDS * 1.2, rel=0.01)


def test_a_probe_that_gets_through_closes_it(life: Life) -> None:
    life.fail(FAILURES)
    life.told(trips=1, probing=True)
    life.breaker.worked()
    assert (life.breaker.sessions(8), life.breaker.news, life.breaker.reason) == (8, "closed", "")
    life.fail(FAILURES - 1)
    assert life.breaker.sessions(8) == 8


def test_late_failures_of_sessions_from_before_are_no_news(life: Life) -> None:
    life.fail(FAILURES)
    life.told(trips=1)
    life.fail(20)
    assert life.breaker.news == ""


def test_news_of_ours_is_not_overwritten_by_what_was_read_meanwhile(life: Life) -> None:
    life.fail(FAILURES)
    life.breaker.adopt(State("main"))
    assert life.breaker.open


def test_few_mails_are_led_to_a_probe(life: Life) -> None:
    assert all(life.breaker.leads() for _ in range(100))
    life.fail(FAILURES)
    life.told(trips=1)
    assert not life.breaker.leads()
    assert life.breaker.missed
    life.told(trips=1, probing=True)
    assert 1 <= sum(life.breaker.leads() for _ in range(100)) <= 5
