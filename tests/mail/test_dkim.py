"""DKIM: signatures that dkimpy accepts, canonical forms as dkimpy has them, keys by reference, rotation."""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import dkim as dkimpy
import dkim.canonicalization
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.check import check
from hub.clock import ManualClock
from hub.config.loading import load
from hub.errors import ConfigError
from hub.mail import dkim as ours
from hub.mail.dkim import Key, Signer

# RFC 8463, appendix A.2.
SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

HEAD = b"""From: =?utf-8?q?Ann?= <ann@example.com>
To: bert@example.org
Reply-To:   help@example.com\t
Subject: Hello,
\tBert
 and others
Date: Wed, 25 Nov 2026 10:00:00 +0000
Message-ID: <1.abc@example.com>
Feedback-ID: welcome:news::mailyard
List-Id: <news.example.com>
List-Unsubscribe: <https://mail.example.com/u/abc>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
X-Not-Ours: anything
MIME-Version: 1.0
Content-Type: multipart/alternative;
 boundary="==1=="
""".replace(b"\n", b"\r\n")
BODY = b"--==1==\r\n\r\nHello =C3=A9  Bert,\t this is=\r\n it. \r\n\r\n--==1==--\r\n\r\n\r\n"
MESSAGE = HEAD + b"\r\n" + BODY


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text.decode()


RSA = Key.load("example.com", "s2026", pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
ED = Key.load("example.com", "ed1", SEED)


def signer(*keys: Key, threads: int | None = None) -> Signer:
    return Signer(keys or (RSA, ED), ManualClock(), threads=threads)


def accepted(message: bytes, *keys: Key) -> list[bool]:
    """dkimpy's verdict on each DKIM-Signature, where these keys are published."""
    records = {f"{key.name}.": key.record.encode() for key in keys or (RSA, ED)}
    verifier = dkimpy.DKIM(message)
    count = len(re.findall(rb"(?mi)^dkim-signature:", message))
    found = []
    for number in range(count):
        try:
            found.append(
                bool(verifier.verify(number, dnsfunc=lambda name, timeout=5: records.get(name.decode())))
            )
        except dkimpy.ValidationError:
            found.append(False)
    return found


def tags(message: bytes, number: int = 0) -> dict[str, str]:
    """A signature's tags without white space."""
    fields = re.findall(rb"(?m)^DKIM-Signature:((?:[^\r]|\r\n[ \t])*)", message)
    text = re.sub(r"\s", "", fields[number].decode())
    return dict(tag.partition("=")[::2] for tag in text.split(";"))


# --- signatures -------------------------------------------------------------------------------------------


def test_both_signatures_are_accepted_and_the_message_is_left_as_it_was() -> None:
    signed = signer().sign(MESSAGE)
    assert signed.endswith(MESSAGE)
    assert accepted(signed) == [True, True]
    assert [tags(signed, n)["a"] for n in (0, 1)] == ["rsa-sha256", "ed25519-sha256"]
    assert tags(signed)["d"] == "example.com" and tags(signed)["s"] == "s2026"
    assert int(tags(signed)["t"]) == int(ManualClock().wall().timestamp())


def test_what_is_covered() -> None:
    covered = tags(signer().sign(MESSAGE))["h"].split(":")
    assert covered.count("from") == 2
    assert sorted(set(covered)) == [
        "content-type", "date", "feedback-id", "from", "list-id", "list-unsubscribe", "list-unsubscribe-post",
        "message-id", "mime-version", "reply-to", "subject", "to",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"/u/abc>", b"/u/abd>"),
        (b"One-Click", b"One-Clack"),
        (b"Bert,", b"Bort,"),
        (b"Subject: Hello", b"Subject: Hallo"),
        (b"\r\nTo:", b"\r\nFrom: eve@example.net\r\nTo:"),
        (b"mailyard\r\n", b"mailyarn\r\n"),
    ],
)
def test_a_change_is_seen(old: bytes, new: bytes) -> None:
    signed = signer().sign(MESSAGE)
    assert signed.count(old) == 1
    assert accepted(signed.replace(old, new)) == [False, False]


def test_what_relays_do_is_borne() -> None:
    signed = signer().sign(MESSAGE)
    relayed = b"Received: from a by b;\r\n now\r\n" + signed.replace(b"Reply-To:   help", b"REPLY-TO: help")
    relayed = relayed.replace(b"\r\nTo: ", b"\r\nTo:\r\n ").rstrip(b"\r\n") + b"\r\n"
    assert relayed != signed
    assert accepted(relayed) == [True, True]


def test_no_line_is_longer_than_78() -> None:
    long = Key.load("a-very-long-name-of-a-domain.of-some-company.example.com", "selector-of-2026-11", SEED)
    message = MESSAGE.replace(b"@example.com>\r\nTo", b"@" + long.domain.encode() + b">\r\nTo")
    for signed in (signer().sign(MESSAGE), signer(long).sign(message)):
        field = signed[: signed.index(b"From: ")]
        assert field.startswith(b"DKIM-Signature: v=1;") and field.endswith(b"\r\n")
        assert max(len(line) for line in field.split(b"\r\n")) <= 78
    assert accepted(signer(long).sign(message), long) == [True]


def test_signatures_expire_where_that_is_wished() -> None:
    key = Key.load("example.com", "ed1", SEED, expires_after=timedelta(days=7))
    found = tags(signer(key).sign(MESSAGE))
    assert int(found["x"]) - int(found["t"]) == 7 * 86_400
    assert "x" not in tags(signer().sign(MESSAGE))


def test_a_field_given_twice_is_covered_twice() -> None:
    message = MESSAGE.replace(b"Feedback-ID:", b"Feedback-ID: first\r\nFeedback-ID:")
    signed = signer().sign(message)
    assert tags(signed)["h"].split(":").count("feedback-id") == 2
    assert accepted(signed) == [True, True]


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \r\n\t\r\n", b"a\r\n", b"a \t\r\n\r\n"])
def test_bodies_at_the_edge(body: bytes) -> None:
    assert accepted(signer().sign(HEAD + b"\r\n" + body)) == [True, True]


pieces = st.sampled_from(
    [b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b"a", b"=\r\n", b"=20", b".", b"\xc3\xa9", b"\r", b"\n"]
)


@given(st.lists(pieces, max_size=40).map(b"".join))
def test_the_body_is_hashed_as_by_dkimpy(body: bytes) -> None:
    on_the_wire = body if body.endswith(b"\r\n") else body + b"\r\n"
    canonical = dkim.canonicalization.Simple.canonicalize_body(on_the_wire)
    assert ours.body_hash(HEAD + b"\r\n" + body, len(HEAD) + 2) == sha256(canonical).digest()


values = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"B", b":", b"<x@y>", b";", b"\xc3\xa9"]),
    max_size=12,
).map(b"".join)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"From", b"TO", b"Subject ", b"list-ID", b"X-Other"]), values), max_size=6
    )
)
def test_fields_are_made_canonical_as_by_dkimpy(fields: list[tuple[bytes, bytes]]) -> None:
    expected: dict[bytes, list[bytes]] = {}
    for name, value in dkim.canonicalization.Relaxed.canonicalize_headers(fields):
        if name in ours.COVERED:
            expected.setdefault(name, []).append(name + b":" + value.removesuffix(b"\r\n"))
    head = b"\r\n".join(name + b":" + value for name, value in fields)
    assert ours.canonical_fields(head) == expected


def test_only_spaces_and_tabs_are_white_space() -> None:
    head = b"Subject: a\x0bb \x0c\t c\r\nX: y"
    assert ours.canonical_fields(head) == {b"subject": [b"subject:a\x0bb \x0c c"]}


@settings(max_examples=25, deadline=None)
@given(values, st.lists(pieces, max_size=12).map(b"".join))
def test_dkimpy_accepts_whatever_is_signed(subject: bytes, body: bytes) -> None:
    body = re.sub(rb"\r\n|\r|\n", b"\r\n", body) + b"\r\n"
    head = re.sub(rb"Subject:.*?\r\n(?=Date)", lambda _: b"Subject: x" + subject + b"x\r\n", HEAD, flags=re.S)
    assert accepted(signer().sign(head + b"\r\n" + body)) == [True, True]


# --- whose key --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "count"),
    [
        (b"ann@example.com", 2),
        (b"Ann <ann@EXAMPLE.com>", 2),
        (b"Ann <ann@news.example.com>", 2),
        (b"ann@example.net", 0),
        (b"ann@notexample.com", 0),
        (b"no address", 0),
    ],
)
def test_the_domain_of_from_decides(sender: bytes, count: int) -> None:
    signed = signer().sign(b"From: " + sender + b"\r\nTo: b@example.org\r\n\r\nHello\r\n")
    assert accepted(signed) == [True] * count


def test_a_domain_beyond_ascii() -> None:
    key = Key.load("Bücher.example", "ed1", SEED)
    assert key.domain == "xn--bcher-kva.example"
    for sender in ("ann@bücher.example", "ann@xn--bcher-kva.example"):
        assert len(signer(key).signing(sender.partition("@")[2])) == 1
    assert tags(signer(key).sign("From: ann@bücher.example\r\n\r\n".encode()))["d"] == key.domain


def test_a_message_without_from_is_refused() -> None:
    with pytest.raises(ValueError, match="without From"):
        signer().sign(b"To: a@example.com\r\n\r\nHello\r\n")


def test_the_first_key_of_each_algorithm_that_may_sign_does() -> None:
    new = Key.load(
        "example.com", "new", pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)), signs=False
    )
    for keys, selectors in (
        ((new, RSA, ED), ["s2026", "ed1"]),
        ((RSA, new), ["s2026"]),
        ((Key.load("example.com", "new", pem(new.private)), RSA), ["new"]),
        ((new,), []),
    ):
        signed = signer(*keys).sign(MESSAGE)
        assert [tags(signed, n)["s"] for n in range(signed.count(b"DKIM-Signature:"))] == selectors


# --- threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
async def test_many_are_signed_in_their_order(threads: int, count: int) -> None:
    messages = [MESSAGE.replace(b"1.abc", b"%d.abc" % n) for n in range(count)]
    one = signer(threads=threads)
    try:
        assert await one.sign_all(messages) == [one.sign(message) for message in messages]
    finally:
        one.close()


# --- keys -------------------------------------------------------------------------------------------------


def test_the_record_of_an_ed25519_key_is_that_of_the_rfc() -> None:
    assert ED.record == f"v=DKIM1; k=ed25519; p={PUBLIC}"
    assert ED.name == "ed1._domainkey.example.com"
    assert (
        Key.load("example.com", "x", pem(Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED)))).record
        == ED.record
    )


def test_a_key_may_come_with_its_line_breaks_written_out() -> None:
    assert Key.load("example.com", "x", pem(RSA.private).replace("\n", "\\n")).public == RSA.public


SHORT = """-----BEGIN RSA PRIVATE KEY-----
MIIBOQIBAAJBALYYFES8gkyONYcMyeTzAO176RtukD8FfSbyYG//zNgykARJmE/7
/J2XTuho+7hZFOOetMiez+GJJ0p68lc3VV0CAwEAAQJAUHWnTw/0ixszL69I7m8p
c8YSpFpgRliIilMCpbpjqws9P/Ko1IfOWQtjttZIadZzCX1ldV7uUeipSm1KybIU
QQIhAOZPJIElzNC3mboLnhTSayhkzvXwyCfiC2+k4wpWZ22FAiEAymgTPmNOI/PE
JcoxQznjRbIHZWy1DD2YUPuNW5dkQ/kCIFiJUDU9vND34+b7lFfY1E0BA/bUC34Z
jd/reUR+FuCpAiBrtxlOoVCLZ4XiSokO6radd5HiEwkCm6D8r/JZZObyGQIgde3Z
WGDSKLlA9QZ1/fBzPsV5LpvnM1x09ft2yMgD4LI=
-----END RSA PRIVATE KEY-----
"""
CURVE = pem(ec.generate_private_key(ec.SECP256R1()))
LOCKED = RSA.private.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
).decode()


@pytest.mark.parametrize(
    ("domain", "selector", "text", "words"),
    [
        ("example.com", "s", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "this is no private key in PEM"),
        ("example.com", "s", "swordfish", "neither a private key in PEM nor an Ed25519 seed"),
        ("example.com", "s", "c3dvcmRmaXNo", "neither a private key in PEM nor an Ed25519 seed"),
        ("example.com", "s", CURVE, "RSA and Ed25519 keys only"),
        ("example.com", "s", LOCKED, "is encrypted"),
        ("example.com", "s", SHORT, "512 bits"),
        ("exa mple.com", "s", SEED, "'exa mple.com' is no domain"),
        ("example.com", "s;", SEED, "'s;' is no selector"),
    ],
)  # fmt: skip
def test_what_is_no_key(domain: str, selector: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as told:
        Key.load(domain, selector, text)
    assert told.value.fix


def test_a_key_does_not_show_itself() -> None:
    assert "private" not in repr(RSA).lower()


# --- hub.yaml ---------------------------------------------------------------------------------------------


def test_keys_by_reference(tmp_path: Path) -> None:
    (tmp_path / "s2026.pem").write_text(pem(RSA.private))
    (tmp_path / "hub.yaml").write_text(
        "dkim:\n"
        "  example.com:\n"
        "    - {selector: s2026, private_key_file: s2026.pem, expires_after: 7 days}\n"
        '    - {selector: ed1, private_key: "${DKIM_ED}", sign: false}\n'
    )
    config = load(tmp_path / "hub.yaml", {"DKIM_ED": SEED})
    assert SEED not in repr(config.settings)
    found = ours.keys(config.settings.dkim)
    assert [(k.selector, k.algorithm, k.signs, k.expires_after) for k in found] == [
        ("s2026", "rsa-sha256", True, timedelta(days=7)),
        ("ed1", "ed25519-sha256", False, None),
    ]
    assert found[0].public == RSA.public


def test_what_is_wrong_with_keys_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pem").write_text("swordfish")
    (tmp_path / "hub.yaml").write_text(
        "dkim:\n"
        "  example.com:\n"
        "    - {selector: a, private_key_file: none.pem}\n"
        "    - {selector: b, private_key_file: bad.pem}\n"
        f"    - {{selector: c, private_key: {SEED}}}\n"
        '    - {selector: d, private_key: "${NOT_SET}"}\n'
        '    - {selector: e, private_key: "${SET}"}\n'
    )
    found = [str(problem) for problem in check(Path("hub.yaml"), {"SET": "x"}).problems]
    assert found == [
        "hub.yaml:3:39: the file none.pem does not exist; check the path; it is relative to hub.yaml",
        "hub.yaml:4:39: this is neither a private key in PEM nor an Ed25519 seed; use 32 bytes in base64, or PEM",
        'hub.yaml:5:34: the secret private_key is written out; write "${NAME}" and set NAME, or use private_key_file',
        "hub.yaml:6:34: the environment variable NOT_SET is not set; set NOT_SET before starting the hub",
        "hub.yaml:7:34: this is neither a private key in PEM nor an Ed25519 seed; use 32 bytes in base64, or PEM",
    ]


def test_a_key_without_its_private_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub.yaml").write_text("dkim:\n  example.com:\n    - {selector: a}\n")
    assert [str(p) for p in check(Path("hub.yaml"), {}).problems] == [
        "hub.yaml:3:7: private_key is missing in dkim.example.com.0; add `private_key: ...`"
    ]
