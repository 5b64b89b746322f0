"""`hub check`: broken files, each with every mistake, its place and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.check import check
from hub.cli import main

FOLDER = Path(__file__).parent / "broken"
ENVIRONMENT = {"HUBSPOT_TOKEN": "pat-1"}

EXPECTED: dict[str, list[tuple[str, str]]] = {
    "01-unknown-key": [
        ("01-unknown-key.yaml:5:1", "unknown key 'porpoises'; did you mean 'purposes'?"),
        ("01-unknown-key.yaml:10:96", "there is no purpose 'news'; none is known"),
    ],
    "90-double-opt-in": [
        ("90-double-opt-in.yaml:3:48", "there is no message 'aks'; did you mean 'ask'?"),
        (
            "90-double-opt-in.yaml:4:48",
            "message hello does not print confirm_url; put the link into its template",
        ),
        (
            "90-double-opt-in.yaml:4:48",
            "message hello is of the purpose news, which is marketing; give it a purpose of its own with `marketing: false`",
        ),
    ],
    "02-unknown-key-inside": [
        ("02-unknown-key-inside.yaml:8:3", "list berlin has neither where nor static; give one of them"),
        ("02-unknown-key-inside.yaml:8:12", "unknown key 'were'; did you mean 'where'?"),
    ],
    "03-wrong-type": [
        ("03-wrong-type.yaml:18:33", "port must be a whole number, not 'twenty-five'"),
    ],
    "04-missing-secret": [
        (
            "04-missing-secret.yaml:2:36",
            "the environment variable HUBSPOT_TOKEN_OF_NOBODY is not set;"
            " set HUBSPOT_TOKEN_OF_NOBODY before starting the hub",
        ),
    ],
    "05-written-out-secret": [
        (
            "05-written-out-secret.yaml:2:36",
            'the secret token is written out; write "${NAME}" and set NAME, or use token_file',
        ),
    ],
    "06-unknown-connector": [
        ("06-unknown-connector.yaml:2:20", "there is no connector 'hubsport'; did you mean 'hubspot'?"),
    ],
    "07-unknown-list": [
        ("07-unknown-list.yaml:13:19", "there is no list 'berlni'; did you mean 'berlin'?"),
    ],
    "08-unknown-message": [
        ("08-unknown-message.yaml:15:15", "there is no message 'helo'; did you mean 'hello'?"),
    ],
    "09-rule-does-not-parse": [
        (
            "09-rule-does-not-parse.yaml:8:27",
            "not understood: something is missing after this; mend the rule here",
        ),
    ],
    "10-rule-unknown-field": [
        ("10-rule-unknown-field.yaml:8:20", "unknown field 'citi'; did you mean 'city'?"),
    ],
    "11-rule-wrong-type": [
        ("11-rule-wrong-type.yaml:8:27", "a text is compared with 5; write a text, e.g. 'text'"),
    ],
    "12-template-unknown-field": [
        (
            "templates/unknown-field.html:1:21",
            "the template uses the unknown field 'frist_name'; did you mean 'first_name'?",
        ),
    ],
    "13-template-does-not-parse": [
        (
            "templates/open-if.html:3:1",
            "the template does not parse: Unexpected end of template. Jinja was looking for the following tags:"
            " 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'.; mend it",
        ),
    ],
    "14-template-missing": [
        (
            "14-template-missing.yaml:10:37",
            "the template templates/helo.html cannot be read: No such file or directory;"
            " check the path; it is relative to hub.yaml",
        ),
    ],
    "15-lists-in-a-circle": [
        (
            "15-lists-in-a-circle.yaml:8:19",
            "lists build on each other in a circle: berlin -> vienna -> berlin; take one in_list(...) out",
        ),
    ],
    "48-lists-static": [
        ("48-lists-static.yaml:9:3", "list both has both where and static; give one of them"),
        (
            "48-lists-static.yaml:10:35",
            "lists build on each other in a circle: guests -> fair -> guests; take one in_list(...) out",
        ),
        ("48-lists-static.yaml:12:36", "there is no list 'guest'; did you mean 'guests'?"),
        ("48-lists-static.yaml:13:43", "unknown field 'amout' of a deal; did you mean 'amount'?"),
        ("48-lists-static.yaml:13:87", "unknown connection 'cmr'; did you mean 'crm'?"),
    ],
    "65-lists-mirrored": [
        ("65-lists-mirrored.yaml:10:19", "unknown field 'industri' of a company; did you mean 'industry'?"),
        (
            "65-lists-mirrored.yaml:10:63",
            "list berlin is kept as 'Mailyard Berlin', too; give each list a segment of its own",
        ),
        ("65-lists-mirrored.yaml:11:48", "there is no connection 'cmr'; did you mean 'crm'?"),
        (
            "65-lists-mirrored.yaml:11:54",
            "google_analytics has no segments that the hub could fill; take it out",
        ),
        ("65-lists-mirrored.yaml:12:43", "a number is compared with 'x'; write a number, e.g. 42"),
        ("65-lists-mirrored.yaml:12:64", "the segment has no name; e.g. Mailyard trial"),
        (
            "65-lists-mirrored.yaml:14:30",
            "the template uses the unknown field 'nmae' of the company; did you mean 'name'?",
        ),
    ],
    "16-mapping-to-no-field": [
        (
            "mappings/wrong.yaml:2:17",
            "the vendor has no contact field 'citty'; did you mean 'city'?, or say `custom: true` if it is your own",
        ),
        (
            "mappings/wrong.yaml:3:38",
            "type 'colour' is unknown; known are text, number, boolean, date, time, enum, list",
        ),
    ],
    "17-unknown-stream": [
        ("17-unknown-stream.yaml:4:27", "pull: 'contcats' is unknown; did you mean 'contacts'?"),
    ],
    "18-bad-duration": [
        (
            "18-bad-duration.yaml:16:15",
            "'two days' is no duration; write for example 90s, 5m, 2 hours, 3 days or 1 week",
        ),
    ],
    "19-unknown-purpose": [
        ("19-unknown-purpose.yaml:10:96", "there is no purpose 'newz'; did you mean 'news'?"),
    ],
    "20-duplicate-key": [
        ("20-duplicate-key.yaml:7:1", 'found duplicate key "sync": it is given twice; mend the YAML here'),
    ],
    "21-not-yaml": [
        ("21-not-yaml.yaml:9:1", "expected ',' or ']', but got '<scalar>'; mend the YAML here"),
    ],
    "22-unknown-step": [
        ("22-unknown-step.yaml:15:9", "unknown step 'sned'; did you mean 'send'?"),
    ],
    "23-subject-unknown-field": [
        (
            "23-subject-unknown-field.yaml:10:38",
            "the template uses the unknown field 'frist_name'; did you mean 'first_name'?",
        ),
    ],
    "25-mjml-does-not-parse": [
        (
            "25-mjml-does-not-parse.yaml:10:37",
            "templates/bad.mjml: the MJML cannot be read: unexpected end of stream in root template;"
            " check that every tag is closed and attributes are quoted",
        ),
    ],
    "26-plain-smtp-abroad": [
        (
            "26-plain-smtp-abroad.yaml:18:9",
            "tls: none is allowed for a relay on this machine only; write starttls or tls",
        ),
    ],
    "27-tabs": [
        ("27-tabs.yaml:8:1", "found character '\\t' that cannot start any token; mend the YAML here"),
    ],
    "28-several-at-once": [
        ("28-several-at-once.yaml:13:19", "there is no list 'nobody'; known are berlin"),
        ("28-several-at-once.yaml:15:15", "there is no message 'helo'; did you mean 'hello'?"),
        ("28-several-at-once.yaml:18:33", "port must be a whole number, not 'x'"),
        ("28-several-at-once.yaml:21:1", "unknown key 'wbe'; did you mean 'web'?"),
    ],
    "40-relay-serves": [
        ("40-relay-serves.yaml:22:25", "there is no purpose 'newz'; did you mean 'news'?"),
        (
            "40-relay-serves.yaml:22:48",
            "'UK' is no country; write its two letters of ISO 3166-1, e.g. DE; the United Kingdom is GB",
        ),
    ],
    "41-warm-up-goes-down": [
        (
            "41-warm-up-goes-down.yaml:22:50",
            "the warm-up plan goes down on day 3, from 100 to 80; let each day allow as many or more",
        ),
    ],
    "42-weights": [
        (
            "42-weights.yaml:18:66",
            "every relay of order 1 has the weight 0; give one of them a weight above 0",
        ),
    ],
    "43-no-way-out": [
        (
            "43-no-way-out.yaml:10:3",
            "no relay may carry message hello: none serves news from mailyard.example; see `serves` of the relays",
        ),
    ],
    "44-receivers": [
        ("44-receivers.yaml:24:7", "googlemail.com is the same receiver as gmail; keep one of them"),
        ("44-receivers.yaml:25:7", "'gmial' is no domain and no provider; did you mean 'gmail'?"),
    ],
    "45-limits": [
        ("45-limits.yaml:22:24", "per_hour input should be greater than 0, not 0; correct it"),
        ("45-limits.yaml:22:32", "day: 'local' is unknown; known are rolling, utc"),
        ("45-limits.yaml:23:22", "start must be a date such as 2026-11-25, not 'tomorrow'"),
        ("45-limits.yaml:23:38", "plan must not be empty"),
    ],
    "46-campaigns": [
        ("46-campaigns.yaml:23:17", "there is no list 'berlni'; did you mean 'berlin'?"),
        ("46-campaigns.yaml:23:34", "there is no message 'helo'; did you mean 'hello'?"),
        ("46-campaigns.yaml:23:58", "there is no list 'berln'; did you mean 'berlin'?"),
        (
            "46-campaigns.yaml:24:46",
            "whose clock shows this time is not said; add time_zone, e.g. Europe/Vienna, or recipient",
        ),
        (
            "46-campaigns.yaml:25:77",
            "who has no time zone of their own has none at all; add default_zone, e.g. Europe/Vienna",
        ),
        ("46-campaigns.yaml:26:55", "a time zone and no time; add at, e.g. 2026-12-01 09:00"),
        (
            "46-campaigns.yaml:26:84",
            "nobody needs a default zone: `time_zone` is not recipient; take it out, or write time_zone: recipient",
        ),
    ],
    "47-campaign-times": [
        (
            "47-campaign-times.yaml:22:28",
            "per_thousand input should be greater than or equal to 0, not -1; correct it",
        ),
        (
            "47-campaign-times.yaml:22:42",
            "currency string should match pattern '^[A-Z]{3}$', not 'euro'; correct it",
        ),
        (
            "47-campaign-times.yaml:24:45",
            "this is no date and time of day; write for example 2026-12-01 09:00",
        ),
        ("47-campaign-times.yaml:24:66", "'Vienna' is no time zone; write for example Europe/Vienna"),
        (
            "47-campaign-times.yaml:24:81",
            "'fast' is no speed; write for example 10 per second or 5000 per hour",
        ),
        (
            "47-campaign-times.yaml:24:93",
            "'ever' is no duration; write for example 90s, 5m, 2 hours, 3 days or 1 week",
        ),
        (
            "47-campaign-times.yaml:25:45",
            "this is no date and time of day; write for example 2026-12-01 09:00",
        ),
        (
            "47-campaign-times.yaml:25:107",
            "it stands in for recipients without a zone: write for example Europe/Vienna",
        ),
    ],
    "53-oauth-incomplete": [
        (
            "53-oauth-incomplete.yaml:21:5",
            "client_id is missing in relays.google.oauth; add `client_id: ...`",
        ),
        ("53-oauth-incomplete.yaml:22:18", "token_url is no https address; write https://..."),
        (
            "53-oauth-incomplete.yaml:23:22",
            'the secret refresh_token is written out; write "${NAME}" and set NAME, or use refresh_token_file',
        ),
        ("53-oauth-incomplete.yaml:24:7", "unknown key 'scopes'; did you mean 'scope'?"),
        (
            "53-oauth-incomplete.yaml:29:7",
            "oauth is incomplete; give refresh_token, or client_secret and scope for client credentials",
        ),
    ],
    "54-relay-events": [
        ("54-relay-events.yaml:22:20", "nothing reads events of 'sendgird'; did you mean 'sendgrid'?"),
        (
            "54-relay-events.yaml:27:42",
            "this is no public key; copy it from the webhook's security features",
        ),
        ("54-relay-events.yaml:27:48", "unknown key 'secrets'; known are public_key"),
        (
            "54-relay-events.yaml:32:42",
            'the secret signing_key is written out; write "${NAME}" and set NAME, or use signing_key_file',
        ),
    ],
    "60-links": [
        (
            "templates/links.html:1:13",
            "the link htps://example.com has the unknown scheme htps:; did you mean https:?",
        ),
        (
            "templates/links.html:1:48",
            "the link http:/example.com/x has no // after its scheme; write http://example.com/x",
        ),
        (
            "templates/links.html:3:26",
            "the link www.example.com/start has no scheme; write https://www.example.com/start",
        ),
        ("templates/links.html:4:10", "the link has no address; write one, or take the tag out"),
        (
            "templates/links.html:4:27",
            "the link https:///path names no host; a mail has no address of its own: write all of it, with https://",
        ),
        (
            "templates/links.html:4:57",
            "the link https://example.com/a b has blanks; take them out, or write %20",
        ),
        (
            "templates/links.html:5:10",
            "the link mailto:?subject=x names no address; write mailto:ann@example.com",
        ),
        (
            "templates/links.html:5:43",
            "the link javascript:void(0) is taken out by mail programs; lead to a page that does it",
        ),
        (
            "templates/links.html:5:77",
            "the link /start leads nowhere; a mail has no address of its own: write all of it, with https://",
        ),
        ("templates/links.html:5:100", "the link # leads nowhere; write where it leads"),
        (
            "templates/links.html:6:10",
            "the link https://example.com/...}} has braces without their counterpart; write {{ ... }}",
        ),
        (
            "templates/links.html:7:11",
            "the image logo.png leads nowhere; write its whole address, or carry it: see `images` of messages",
        ),
    ],
    "61-links-in-mjml": [
        ("templates/links.mjml:4:24", "the link example.com has no scheme; write https://example.com"),
        (
            "templates/links.mjml:5:22",
            "the image https:// names no host; a mail has no address of its own: write all of it, with https://",
        ),
        ("templates/links.mjml:5:38", "the link https://https://example.com has two schemes; take one out"),
    ],
    "62-links-in-place": [
        (
            "62-links-in-place.yaml:16:16",
            "the link ftp://example.com/... has the unknown scheme ftp:;"
            " mail programs know http, https, mailto, tel, sms, webcal, geo",
        ),
        (
            "62-links-in-place.yaml:18:11",
            "the link http:/example.com/ has no // after its scheme; write http://example.com/",
        ),
        ("62-links-in-place.yaml:20:28", "the link tel: names nobody and nothing; write tel:..."),
    ],
    "63-filters-and-tests": [
        ("63-filters-and-tests.yaml:11:39", "there is no filter 'captialize'; did you mean 'capitalize'?"),
        ("63-filters-and-tests.yaml:15:32", "there is no test 'empty'; see the tests of Jinja"),
        ("63-filters-and-tests.yaml:16:25", "there is no filter 'truncat'; did you mean 'truncate'?"),
        ("63-filters-and-tests.yaml:16:38", "there is no filter 'zzz'; see the filters of Jinja"),
        (
            "63-filters-and-tests.yaml:17:10",
            "a template cannot take in others: {% include %}; write here what it should hold",
        ),
    ],
    "64-set-what-is-only-pulled": [
        (
            "64-set-what-is-only-pulled.yaml:17:38",
            "the mapping of crm only pulls the field 'owner'; give it direction: both there",
        ),
        (
            "64-set-what-is-only-pulled.yaml:17:48",
            "the mapping of crm only pulls the field 'country'; give it direction: both there",
        ),
        (
            "64-set-what-is-only-pulled.yaml:18:21",
            "the mapping of web does not have the field 'city'; add it there with direction: push, or both",
        ),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_broken_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    found = [str(problem) for problem in check(Path(f"{name}.yaml"), ENVIRONMENT).problems]
    assert found == [f"{place}: {words}" for place, words in EXPECTED[name]]


def test_hints_are_told_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    assert [str(hint) for hint in check(Path("60-links.yaml"), ENVIRONMENT).hints] == [
        "templates/links.html:7:29: the image has no alt text: https://example.com/logo.png;"
        ' add alt="...": many read mails without images; alt="" where it is an ornament',
        "templates/links.html:8:1: default(...) leaves a blank city as it is; write {{ contact.city or '...' }}",
    ]


def test_a_sound_file_with_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = (FOLDER / "sound.yaml").read_text()
    (tmp_path / "hub.yaml").write_text(sound)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "hello.html").write_text(
        f'<p>{"x" * 102_001}</p>\n<img src="https://m.example/x.png">'
    )
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["check"], env=ENVIRONMENT)
    assert done.exit_code == 0
    first, second, last = done.output.splitlines()
    assert first.startswith("templates/hello.html:1:1: the HTML has 102,")
    assert first.endswith("may hold the unsubscribe link (a hint)")
    assert second.startswith("templates/hello.html:2:1: the image has no alt text")
    assert last == "hub.yaml: no mistakes found"
    as_json = json.loads(CliRunner().invoke(main, ["check", "--json"], env=ENVIRONMENT).output)
    assert [(row["line"], row["severity"]) for row in as_json] == [(1, "hint"), (2, "hint")]


def test_a_check_makes_no_folder_however_long_its_path_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("a folder deeper than a socket's name may be long" * 3)
    place.mkdir()
    (place / "hub.yaml").write_text((FOLDER / "sound.yaml").read_text())
    (place / "templates").mkdir()
    (place / "templates" / "hello.html").write_text("<p>Hello</p>")
    monkeypatch.chdir(place)
    done = CliRunner().invoke(main, ["check"], env=ENVIRONMENT)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "hub.yaml: no mistakes found")
    assert {each.name for each in place.iterdir()} == {"hub.yaml", "templates"}


def test_every_broken_file_has_its_expectation() -> None:
    assert {file.stem for file in FOLDER.glob("[0-9]*.yaml")} == set(EXPECTED)
    assert len(EXPECTED) >= 20


def test_a_sound_file_has_no_mistakes() -> None:
    assert check(FOLDER / "sound.yaml", ENVIRONMENT).problems == []


def test_the_starter_file_is_sound_once_its_secrets_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init"]).exit_code == 0
    first = (tmp_path / "hub.yaml").read_text()
    assert CliRunner().invoke(main, ["init"]).exit_code == 0  # keeps what is there
    assert (tmp_path / "hub.yaml").read_text() == first
    unset = check(tmp_path / "hub.yaml", {}).problems
    names = {p.what.split()[3] for p in unset if "environment variable" in p.what}
    assert len(unset) == len(names) > 0
    assert check(tmp_path / "hub.yaml", dict.fromkeys(names, "x")).problems == []


def test_the_command_prints_them_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    file = "28-several-at-once"
    done = CliRunner().invoke(main, ["--config", f"{file}.yaml", "check"], env=ENVIRONMENT)
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"{place}: {words}" for place, words in EXPECTED[file]]
    as_json = CliRunner().invoke(main, ["--config", f"{file}.yaml", "check", "--json"], env=ENVIRONMENT)
    assert as_json.exit_code == 1
    assert [(p["line"], p["column"]) for p in json.loads(as_json.output)] == [
        (13, 19),
        (15, 15),
        (18, 33),
        (21, 1),
    ]
    assert CliRunner().invoke(main, ["--config", "sound.yaml", "check"], env=ENVIRONMENT).exit_code == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    problems = check(tmp_path / "hub.yaml", {}).problems
    assert [p.what for p in problems] == ["cannot be read: No such file or directory"]
