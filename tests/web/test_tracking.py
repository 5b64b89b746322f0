"""What mails lead to: a click goes where the mail said and nowhere else, and only a POST takes anybody off a list."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from hub.clock import ManualClock
from hub.signing import PREVIEW
from tests.support.rig import Rig

LINK = "https://mailyard.example/start?a=1&b=ä b#top"


async def events(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT kind, source, detail FROM event ORDER BY id")


async def nothing_happened(rig: Rig) -> bool:
    return await rig.rows("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM consent)") == [(0, 0)]


def click_path(rig: Rig, mail: int, link: str = LINK) -> str:
    signer = rig.runtime.signer
    return f"/c/{signer.token('click', mail)}.{signer.link(link)}?u={quote(link, safe='')}"


def token(rig: Rig, kind: Any, mail: int) -> str:
    return rig.runtime.signer.token(kind, mail)


# --- clicks ------------------------------------------------------------------------------------------------------


async def test_a_click_goes_to_the_link_and_is_told_once(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    for _ in range(3):
        answer = await web.get(click_path(rig, mail), headers={"User-Agent": "Reader/1.0"})
        assert answer.status_code == 302
        assert answer.headers["location"] == "https://mailyard.example/start?a=1&b=%C3%A4%20b#top"
        assert answer.headers["cache-control"] == "no-store, private"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
    assert await events(rig) == [("clicked", "web", {"link": LINK, "user_agent": "Reader/1.0"})]
    await web.get(click_path(rig, mail, "https://mailyard.example/other"))
    assert len(await events(rig)) == 2


async def test_it_redirects_to_nothing_that_is_not_signed(
    rig: Rig, web: httpx.AsyncClient, mail: int
) -> None:
    link = rig.runtime.signer.link(LINK)
    good = f"{rig.runtime.signer.token('click', mail)}.{link}"
    evil = quote("https://evil.example/", safe="")
    here = quote(LINK, safe="")
    paths = [
        f"/c/{good}?u={evil}",
        f"/c/{good}",
        f"/c/{good}?u=",
        f"/c/{good}?u={here}%20",
        f"/c/{good}?u={here}&u={evil}",
        f"/c/{good}?u={evil}&x={here}",
        f"/c/{good}?u=//evil.example",
        f"/c/{good}?U={here}",
        f"/c/{token(rig, 'click', mail)}?u={here}",
        f"/c/{token(rig, 'click', mail)}.?u={here}",
        f"/c/.{link}?u={here}",
        f"/c/{token(rig, 'click', mail)}.{rig.runtime.signer.link('https://evil.example')}?u={here}",
        f"/c/{token(rig, 'open', mail)}.{link}?u={here}",
        f"/c/{token(rig, 'unsubscribe', mail)}?u=",
        f"/c/{token(rig, 'click', mail + 1)[:8]}{good[8:]}?u={here}",
        f"/c/{good}x?u={here}",
        f"/c/{good[:-1]}?u={here}",
        f"/c/{'A' + good[1:] if good[0] != 'A' else 'B' + good[1:]}?u={here}",
        f"/c/{good.swapcase()}?u={here}",
        f"/c/x?u={here}",
        f"/c/%00?u={here}",
        f"/c/%C3%A4%F0%9F%98%80?u={here}",
        f"/c/{'A' * 20_000}?u={here}",
        f"/c/{good}?u={'x' * 50_000}",
    ]
    for path in paths:
        answer = await web.get(path)
        assert answer.status_code == 404, path
        assert "location" not in answer.headers
        assert "damaged" in answer.text
        assert "evil" not in answer.text
    assert await nothing_happened(rig)


async def test_looking_ahead_is_no_click(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    answer = await web.head(click_path(rig, mail))
    assert (answer.status_code, answer.content) == (302, b"")
    assert (await web.head(click_path(rig, mail).replace("start", "evil"))).status_code == 404
    assert (await web.post(click_path(rig, mail))).status_code == 405
    assert await nothing_happened(rig)


async def test_a_very_long_link_and_reader_are_kept_short(
    rig: Rig, web: httpx.AsyncClient, mail: int
) -> None:
    link = "https://mailyard.example/" + "x" * 5_000
    answer = await web.get(click_path(rig, mail, link), headers={"User-Agent": "y" * 9_000})
    assert answer.headers["location"] == link
    ((_, _, detail),) = await events(rig)
    assert (len(detail["link"]), len(detail["user_agent"])) == (2_000, 200)


async def test_odd_bytes_in_a_readers_name_break_nothing(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    agent = b"\xff\x00\xe4\x7f"
    assert (await web.get(click_path(rig, mail), headers=[(b"User-Agent", agent)])).status_code == 302
    assert (
        await web.get(f"/o/{token(rig, 'open', mail)}", headers=[(b"User-Agent", agent)])
    ).status_code == 200
    assert [kind for kind, *_ in await events(rig)] == ["clicked", "opened"]


async def test_a_mail_that_is_not_in_the_ledger_any_more(rig: Rig, web: httpx.AsyncClient) -> None:
    gone = 987_654
    assert (await web.get(click_path(rig, gone))).status_code == 302
    assert (await web.get(f"/o/{token(rig, 'open', gone)}")).status_code == 200
    assert (await web.post(f"/u/{token(rig, 'unsubscribe', gone)}")).status_code == 200
    assert await nothing_happened(rig)


# --- opens -------------------------------------------------------------------------------------------------------


async def test_the_pixel_is_told_once(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    for _ in range(2):
        answer = await web.get(f"/o/{token(rig, 'open', mail)}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
        assert answer.content.startswith(b"GIF89a")
        assert answer.headers["cache-control"] == "no-store, private"
    assert [kind for kind, *_ in await events(rig)] == ["opened"]


async def test_a_forged_pixel_is_a_pixel_and_nothing_else(
    rig: Rig, web: httpx.AsyncClient, mail: int
) -> None:
    good = token(rig, "open", mail)
    for path in (
        "x",
        good[:-1],
        token(rig, "click", mail),
        token(rig, "unsubscribe", mail),
        "A" * 20_000,
        "%00",
        "%F0%9F%98%80",
    ):
        answer = await web.get(f"/o/{path}")
        assert (answer.status_code, answer.content[:6]) == (200, b"GIF89a")
    assert (await web.head(f"/o/{good}")).content == b""
    assert (await web.post(f"/o/{good}")).status_code == 405
    assert await nothing_happened(rig)


# --- unsubscription ------------------------------------------------------------------------------------------------


async def test_opening_the_page_changes_nothing(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    path = f"/u/{token(rig, 'unsubscribe', mail)}"
    for ask in (web.get, web.head):
        answer = await ask(path)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    page = await web.get(path, params={"List-Unsubscribe": "One-Click"})
    assert '<form method="post">' in page.text
    assert "ann@example.com" not in page.text
    assert await nothing_happened(rig)


@pytest.mark.parametrize(
    ("request_", "how"),
    [
        ({"data": {"List-Unsubscribe": "One-Click"}}, "one-click"),
        ({"files": {"List-Unsubscribe": (None, "One-Click")}}, "one-click"),
        ({}, "page"),
    ],
    ids=["one-click", "one-click as multipart", "the page's button"],
)  # fmt: skip
async def test_a_post_takes_them_off_at_once(
    rig: Rig, web: httpx.AsyncClient, mail: int, clock: ManualClock, request_: dict[str, Any], how: str
) -> None:
    answer = await web.post(f"/u/{token(rig, 'unsubscribe', mail)}", **request_)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert "You are unsubscribed" in answer.text
    assert await events(rig) == [("unsubscribed", "web", {"how": how})]
    consent = (
        "SELECT purpose, status, source, at, email_hash = address_hash('Ann@example.com'), proof FROM consent"
    )
    assert await rig.rows(consent) == [
        ("news", "out", "web", clock.now(), True, f"one-click unsubscribe of delivery {mail}")
    ]


async def test_posting_again_changes_nothing(
    rig: Rig, web: httpx.AsyncClient, mail: int, clock: ManualClock
) -> None:
    path = f"/u/{token(rig, 'unsubscribe', mail)}"
    await web.post(path)
    before = await rig.rows("SELECT * FROM event"), await rig.rows("SELECT * FROM consent")
    for _ in range(3):
        clock.advance(hours=1)
        assert (await web.post(path, content="List-Unsubscribe=One-Click")).status_code == 200
    assert (await rig.rows("SELECT * FROM event"), await rig.rows("SELECT * FROM consent")) == before


async def test_nobody_is_taken_off_by_a_forged_link(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    good = token(rig, "unsubscribe", mail)
    for path in (
        "x",
        good[:-1],
        good + "A",
        token(rig, "open", mail),
        token(rig, "click", mail),
        "A" * 20_000,
        "%00",
    ):
        for ask in (web.get, web.post, web.head):
            assert (await ask(f"/u/{path}")).status_code == 404
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await web.request(method, f"/u/{good}")).status_code == 405
    assert await nothing_happened(rig)


async def test_a_body_without_end_is_not_read(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    answer = await web.post(f"/u/{token(rig, 'unsubscribe', mail)}", content=b"x" * 10_001)
    assert answer.status_code == 413
    assert await nothing_happened(rig)


async def test_links_of_a_preview_do_nothing_and_say_so(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    answers = [
        await web.get(f"/u/{PREVIEW}"),
        await web.post(f"/u/{PREVIEW}", data={"List-Unsubscribe": "One-Click"}),
        await web.get(f"/c/{PREVIEW}.AAAAAAAAAAAAAA?u=https://evil.example/"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert "nobody is unsubscribed" in answer.text
        assert "location" not in answer.headers
    assert (await web.get(f"/o/{PREVIEW}")).status_code == 200
    assert await nothing_happened(rig)
