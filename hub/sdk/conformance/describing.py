"""Checks of what a connector says about itself: its manifest, its settings, and what `hub connections test` shows."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from hub.errors import VendorError
from hub.sdk.conformance.case import KINDS, ConnectorCase, described, looks_secret, opened, secrets_of
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable
from hub.sdk.connector import Connector, ConnectorSettings

STREAMS = ("contacts", "deals", "segments")
checks: Checks[ConnectorCase] = Checks()


def overrides(kind: type[Connector[Any]], name: str) -> bool:
    return getattr(kind, name) is not getattr(Connector, name)


@checks("manifest.complete", Grade.BRONZE)
async def complete(case: type[ConnectorCase]) -> None:
    """The manifest has a name, a title, kinds of credentials, a link to documentation, limits and OAuth's scopes."""
    m = case.connector.manifest
    wrong = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", m.name):
        wrong.append(f"name {m.name!r} is not of lower case letters, digits and underscores")
    if not m.title.strip():
        wrong.append("title is empty")
    if not m.auth:
        wrong.append("auth names no kind of credentials")
    if not re.match(r"https://|docs/[\w/.-]+\.md$", m.docs):
        wrong.append(f"docs {m.docs!r} is neither an https:// link nor a page docs/....md")
    if not m.limits and (m.streams or m.pushes):
        wrong.append("limits is empty: name the vendor's, or your own restraint where it names none")
    names = [limit.name for limit in m.limits]
    wrong += [f"limit {n!r} stands twice" for n in sorted(set(names)) if names.count(n) > 1]
    wrong += [
        f"limit {one.name!r} allows {one.calls} calls in {one.seconds} s"
        for one in m.limits
        if one.calls <= 0 or one.seconds <= 0
    ]
    if any("oauth" in way.lower() for way in m.auth) and not m.scopes:
        wrong.append("scopes is empty although OAuth is offered: an admin must know what to grant")
    if len(set(m.scopes)) != len(m.scopes) or not all(scope.strip() for scope in m.scopes):
        wrong.append("scopes has an empty or a repeated entry")
    if m.batch < 1:
        wrong.append(f"batch is {m.batch}")
    assert not wrong, "; ".join(wrong)


@checks("manifest.consistent", Grade.BRONZE)
async def consistent(case: type[ConnectorCase]) -> None:
    """The manifest lists what the class can do: streams, pushes and webhooks, no more and no less."""
    kind, m = case.connector, case.connector.manifest
    pairs = (
        ("streams", bool(m.streams), ("pull",)),
        ("pushes", bool(m.pushes), ("push",)),
        ("webhooks", bool(m.webhooks), ("verify", "events")),
    )
    wrong = []
    for listed, has, methods in pairs:
        for method in methods:
            if has != overrides(kind, method):
                verb = "lists" if has else "lists no"
                wrong.append(f"the manifest {verb} {listed}, and {method}() is {'not ' if has else ''}there")
    wrong += [
        f"the hub keeps no stream {s!r}, only {', '.join(STREAMS)}" for s in m.streams if s not in STREAMS
    ]
    known = tuple(KINDS.values())
    wrong += [f"the hub has no push {p!r}, only {', '.join(known)}" for p in m.pushes if p not in known]
    if m.webhooks and not m.whole_events and not overrides(kind, "read"):
        wrong.append("webhooks are listed, and read() is not there: the hub reads what an event names")
    assert not wrong, "; ".join(wrong)


@checks("settings.strict", Grade.BRONZE)
async def strict(case: type[ConnectorCase]) -> None:
    """The settings take what the case gives, refuse a key that they do not know, and have a JSON schema."""
    model: type[BaseModel] = case.connector.Settings
    assert issubclass(model, ConnectorSettings), (
        "Settings must descend from hub.sdk.connector.ConnectorSettings"
    )
    async with opened(case) as bench:
        given = bench.case.settings()
        model.model_validate(given)
        try:
            model.model_validate({**given, "a_key_that_nobody_knows": 1})
        except ValidationError:
            pass
        else:
            raise AssertionError("an unknown key is taken: keep ConnectorSettings' extra='forbid'")
    model.model_json_schema()
    base = model.model_fields.get("base_url")
    if base is not None and isinstance(base.default, str):
        assert base.default.startswith("https://"), f"base_url is {base.default!r} by default, without TLS"


@checks("settings.secret", Grade.BRONZE)
async def secret(case: type[ConnectorCase]) -> None:
    """No secret is shown by the settings, as text or as JSON, nor by the connector or its credentials."""
    async with opened(case) as bench:
        given = bench.case.settings()
        model: type[BaseModel] = case.connector.Settings
        settings, connector = model.model_validate(given), bench.connector()
        shown = {
            "repr(settings)": repr(settings),
            "str(settings)": str(settings),
            "settings.model_dump_json()": settings.model_dump_json(),
            "repr(connector)": repr(connector),
            "repr(connector.http.auth)": repr(connector.http.auth),
        }
        wrong = [
            f"{where} shows the secret under {key!r}: type it as SecretStr"
            for key, value in given.items()
            for where, text in shown.items()
            if any(
                s in text for s in secrets_of(model, {**given, key: value}) if s == value or s in str(value)
            )
        ]
        assert not wrong, "; ".join(dict.fromkeys(wrong))
        plain = [key for key in given if looks_secret(key) and str(given[key]) in repr(settings)]
        assert not plain, f"{', '.join(plain)} look like secrets and are no SecretStr"


@checks("test.sound", Grade.SILVER)
async def sound(case: type[ConnectorCase]) -> None:
    """`hub connections test` finds something to say, and finds good credentials good."""
    async with opened(case) as bench:
        await bench.connector().prepare()
        findings = await bench.connector().test()
        assert findings, "test() finds nothing: say at least whether the credentials are taken"
        bad = [f"{found.what} ({found.fix})" for found in findings if not found.ok]
        assert not bad, f"test() is not content with a sound account: {'; '.join(bad)}"


@checks("test.refused", Grade.SILVER)
async def refused(case: type[ConnectorCase]) -> None:
    """`hub connections test` says what is wrong with an expired token, wherever it expires, and never raises."""
    async with opened(case) as bench:
        before = bench.case.calls()
        await bench.connector().test()
        calls = bench.case.calls() - before
        if not calls:
            raise NotApplicable("test() asks the vendor nothing")
        for skip in range(calls):
            bench.case.fault("expired_token", times=1_000, skip=skip)
            try:
                findings = await bench.connector().test()
            except VendorError as error:
                raise AssertionError(
                    f"test() raises {described(error)} when call {skip + 1} is refused; tell it as a Finding"
                ) from None
            finally:
                bench.case.heal()
            bad = [found for found in findings if not found.ok]
            assert bad, f"test() is content although the vendor refused the token at call {skip + 1}"
            assert any(found.fix.strip() for found in bad), f"test() proposes no fix for: {bad[0].what}"


@checks("prepare.twice", Grade.SILVER)
async def twice(case: type[ConnectorCase]) -> None:
    """`prepare` makes what is missing once: dry it only says so, and afterwards nothing is left to make."""
    if not overrides(case.connector, "prepare"):
        raise NotApplicable("the connector needs nothing prepared")
    async with opened(case) as bench:
        wished = await bench.connector().prepare(dry=True)
        again = await bench.connector().prepare(dry=True)
        assert wished == again, f"a dry prepare() changed something: first {wished}, then {again}"
        made = await bench.connector().prepare()
        assert len(made) == len(wished), f"dry said {wished}, and made was {made}"
        left = await bench.connector().prepare()
        assert not left, f"prepare() after prepare() still makes {left}"
