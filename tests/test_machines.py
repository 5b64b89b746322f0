"""People and machines: what the field's programs do, judged; and no verdict depends on the order of the hits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.machines import Hit, is_machine, judge, known_signs, network_of

SENT = datetime(2026, 11, 25, 9, tzinfo=UTC)
SOON = timedelta(seconds=3)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HOME = "203.0.113.0/24"


def hit(
    kind: str = "clicked",
    seconds: float = 3_600,
    link: str = "a",
    agent: str = FIREFOX,
    network: str = HOME,
    *,
    trap: bool = False,
    said: str = "",
) -> Hit:
    key = f"{kind} {seconds} {link} {agent} {network} {trap} {said}"
    return Hit(key, kind, SENT + timedelta(seconds=seconds), agent, network, link, trap, said)


def machines(*hits: Hit, sent_at: datetime | None = SENT, soon: timedelta = SOON) -> list[bool]:
    found = judge(hits, sent_at, soon=soon)
    return [is_machine(found[each.key]) for each in hits]


@pytest.mark.parametrize(
    ("one", "machine"),
    [
        (hit(), False),
        (hit("opened"), False),
        (hit("opened", agent="Mozilla/5.0"), True),  # Apple, whether anybody reads or not
        (hit("clicked", agent="Mozilla/5.0"), False),  # a click is no prefetched image
        (hit("opened", agent="Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"), False),
        (hit("opened", agent="Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
             "Safari/537.36 Edge/12.246 Mozilla/5.0"), True),
        (hit("opened", agent="Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17; Pro)"), False),
        (hit(agent="BarracudaCentral"), True),
        (hit(agent="Mozilla/5.0 (compatible; Proofpoint)"), True),
        (hit(agent="Mimecast/1.0"), True),
        (hit(agent="python-requests/2.32"), True),
        (hit(agent="Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/130.0"), True),
        (hit(agent="Slackbot-LinkExpanding 1.0"), True),
        (hit(agent=""), False),  # odd, but one weak sign
        (hit(agent="", seconds=20), False),
        (hit(network="64.235.150.0/24"), True),
        (hit(network="40.94.12.0/24"), False),
        (hit(network="40.93.12.0/24"), True),
        (hit(seconds=1), True),
        (hit("opened", seconds=1), True),
        (hit(seconds=20), False),
        (hit("opened", said="the relay says that a machine opened it"), True),
        (hit(trap=True), True),
    ],
)  # fmt: skip
def test_one_hit(one: Hit, machine: bool) -> None:
    assert machines(one) == [machine]


def test_what_came_before_the_relays_answer_was_written_down_came_too_soon() -> None:
    assert machines(hit(), sent_at=None) == [True]
    assert machines(hit(seconds=0), soon=timedelta()) == [False]


def test_two_links_at_once_make_machines_of_both() -> None:
    first, second = hit(seconds=60, link="a"), hit(seconds=61, link="b")
    assert machines(first) == [False]
    assert machines(first, second) == [True, True]


def test_a_double_click_and_a_reader_of_several_links_are_people() -> None:
    assert machines(hit(seconds=60), hit(seconds=60.4)) == [False, False]
    assert (
        machines(hit(seconds=60, link="a"), hit(seconds=65, link="b"), hit(seconds=72, link="c"))
        == [False] * 3
    )


def test_three_links_within_ten_seconds() -> None:
    assert machines(*(hit(seconds=60 + 4 * n, link=str(n)) for n in range(3))) == [True] * 3


def test_who_came_with_a_visitor_of_the_trap_is_a_machine_also_before_it() -> None:
    before, trap = hit(seconds=50), hit(seconds=70, link="", trap=True)
    elsewhere, later = hit(seconds=60, network="198.51.100.0/24"), hit(seconds=4_000, link="c")
    assert machines(before, trap, elsewhere, later) == [True, True, False, False]


def test_an_admins_networks() -> None:
    one = hit(network="198.51.100.0/24")
    found = judge([one], SENT, soon=SOON, networks=[ip_network("198.51.100.64/26")])
    assert is_machine(found[one.key])


HITS = st.lists(
    st.builds(
        hit, st.sampled_from(["opened", "clicked"]), st.integers(0, 90), st.sampled_from("abc"),
        st.sampled_from([FIREFOX, "", "curl/8"]), st.sampled_from([HOME, "", "64.235.150.0/24"]), trap=st.booleans(),
    ),
    max_size=8, unique_by=lambda each: each.key,
)  # fmt: skip


@given(HITS.flatmap(lambda hits: st.tuples(st.just(hits), st.permutations(hits))))
def test_no_verdict_depends_on_the_order(case: tuple[list[Hit], list[Hit]]) -> None:
    one, other = (judge(hits, SENT, soon=SOON) for hits in case)
    assert {key: set(signs) for key, signs in one.items()} == {
        key: set(signs) for key, signs in other.items()
    }


@given(HITS, HITS)
def test_more_evidence_never_makes_a_person_of_a_machine(hits: list[Hit], more: list[Hit]) -> None:
    before = judge(hits, SENT, soon=SOON)
    known = {each.key for each in hits}
    after = judge([*hits, *(each for each in more if each.key not in known)], SENT, soon=SOON)
    assert all(is_machine(after[key]) for key, signs in before.items() if is_machine(signs))


def test_each_sign_names_its_source() -> None:
    for sign in known_signs():
        assert sign.source.strip() and sign.means.strip()
        assert sign.what in ("opened", "clicked", "any")
        if sign.of == "network":
            ip_network(sign.pattern)


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_of_an_address_only_its_network_is_kept(address: str, kept: str) -> None:
    assert network_of(address) == kept
