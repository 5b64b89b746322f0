"""Nothing but RSA-2048 signatures of a SHA-256, by the library that the hub signs with: what DKIM costs at the least.

python -m scripts.benches.peers.rsa SECONDS
"""

from __future__ import annotations

import sys
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from scripts.benches.common import measured


def main() -> None:
    seconds = float(sys.argv[1])
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    key.sign(b"x", scheme, digest)
    measured.begin()
    count, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(50):
            key.sign(b"a header hash of some length, as DKIM signs it", scheme, digest)
        count += 50
    measured.end(count=count)


if __name__ == "__main__":
    main()
