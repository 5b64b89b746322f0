"""The third party's package lies among these tests, not on the path of the hub: what breaks it here finds it so."""

from __future__ import annotations

import sys
from pathlib import Path

ACME = Path(__file__).resolve().parents[1] / "thirdparty" / "acme-crm"
sys.path[:0] = [str(ACME), str(ACME / "tests")]
