"""The vendors' side: keys and signatures as they make them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from tests.support.rig import SECRETS

SECRET = SECRETS["HUBSPOT_APP_SECRET"]
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY = base64.b64encode(
    EC_KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
).decode()
TOPIC = "arn:aws:sns:eu-west-1:123456789012:mails"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0abc.pem"
Call = tuple[bytes, dict[str, str]]
SETTINGS: dict[str, dict[str, Any]] = {
    "sendgrid": {"public_key": PUBLIC_KEY}, "mailgun": {"signing_key": SECRET},
    "postmark": {"username": "hub", "password": SECRET}, "brevo": {"token": SECRET}, "amazon_ses": {"topic": TOPIC},
    "signed": {"secret": SECRET},
}  # fmt: skip


def sendgrid(rows: list[dict[str, Any]], now: datetime) -> Call:
    stamp, body = str(int(now.timestamp())), json.dumps(rows).encode() + b"\r\n"
    signature = EC_KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return body, {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
    }


def mailgun(rows: list[dict[str, Any]], now: datetime, token: str = "") -> Call:
    (row,) = rows
    stamp, token = (
        str(int(now.timestamp())),
        token or hashlib.sha256(json.dumps(row).encode()).hexdigest()[:50],
    )
    signature = hmac.new(SECRET.encode(), (stamp + token).encode(), "sha256").hexdigest()
    return json.dumps(
        {"signature": {"timestamp": stamp, "token": token, "signature": signature}, "event-data": row}
    ).encode(), {}


def postmark(rows: list[dict[str, Any]], now: datetime) -> Call:
    (row,) = rows
    return json.dumps(row).encode(), {
        "Authorization": "Basic " + base64.b64encode(f"hub:{SECRET}".encode()).decode()
    }


def brevo(rows: list[dict[str, Any]], now: datetime) -> Call:
    return json.dumps(rows if len(rows) > 1 else rows[0]).encode(), {"Authorization": f"Bearer {SECRET}"}


def signed(rows: list[dict[str, Any]], now: datetime) -> Call:
    stamp, body = str(int(now.timestamp())), json.dumps({"events": rows}).encode()
    made = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()
    return body, {"X-Mailyard-Timestamp": stamp, "X-Mailyard-Signature": f"sha256={made}"}


def amazon_ses(rows: list[dict[str, Any]], now: datetime, version: str = "2", **more: str) -> Call:
    """`more` replaces fields of the envelope before it is signed."""
    message = json.dumps(rows[0]) if rows else "You have chosen to subscribe"
    envelope: dict[str, str] = {
        "Type": "Notification", "MessageId": hashlib.sha256(message.encode()).hexdigest()[:36], "TopicArn": TOPIC,
        "Message": message, "Timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL, **more,
    }  # fmt: skip
    names = sorted(envelope.keys() - {"SignatureVersion", "SigningCertURL"})
    text = "".join(f"{name}\n{envelope[name]}\n" for name in names).encode()
    signature = RSA_KEY.sign(text, padding.PKCS1v15(), hashes.SHA256() if version == "2" else hashes.SHA1())
    envelope["Signature"] = base64.b64encode(signature).decode()
    return json.dumps(envelope).encode(), {"Content-Type": "text/plain; charset=UTF-8"}


def certificate(*, until: datetime = datetime(2027, 6, 1, tzinfo=UTC)) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(RSA_KEY.public_key()).serial_number(1)
        .not_valid_before(until - timedelta(days=400)).not_valid_after(until).sign(RSA_KEY, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM)
