"""The benches end with figures in one shape, and that of sending fails unless ledger and relay agree on every mail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
RATIOS = {
    "vs_nodemailer",
    "vs_smtp_source",
    "dkim_vs_nodemailer",
    "dkim_vs_rsa",
    "latency_vs_aiosmtplib",
    "peak_mb",
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HUB_BENCH_PYTHON": sys.executable}
    return subprocess.run(
        [ROOT / "scripts/bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=170,
    )


@pytest.fixture(scope="module")
def sent() -> dict[str, Any]:
    """A bench of few mails, with the contenders that need no program of others."""
    names = ("ours", "aiosmtplib", "ours-20ms", "aiosmtplib-20ms", "memory")
    done = bench(
        "send", "--quick", "--json", "--no-install", "--rounds", "1", "--messages", "300", "--only", *names
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_bench_of_sending_counts_every_mail_and_ends_with_one_object(sent: dict[str, Any]) -> None:
    assert sent["bench"] == "send"
    assert set(sent["ratios"]) == RATIOS
    rows = {row["name"]: row for row in sent["rows"]}
    assert set(rows) == {"ours", "aiosmtplib", "ours-20ms", "aiosmtplib-20ms", "memory"}
    assert rows["ours"]["messages"] == 300
    assert rows["ours"]["per_cpu_second"] > 0
    assert rows["ours"]["postgres_us"] > 0


def test_contenders_send_mails_of_one_size(sent: dict[str, Any]) -> None:
    sizes = {row["name"]: row["size_bytes"] for row in sent["rows"] if "size_bytes" in row}
    assert len(sizes) >= 3
    assert all(10_000 < size < 11_000 for size in sizes.values()), sizes


def test_ratios_follow_from_the_rows(sent: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in sent["rows"]}
    shown = rows["ours-20ms"]["per_second"] / rows["aiosmtplib-20ms"]["per_second"]
    assert sent["ratios"]["latency_vs_aiosmtplib"] == pytest.approx(shown, abs=0.001)
    assert sent["ratios"]["peak_mb"] == rows["memory"]["peak_mb"] > 0
    assert sent["ratios"]["vs_nodemailer"] is None


def test_a_bench_of_lists_holds_increments_against_the_whole_and_ends_with_one_object() -> None:
    done = bench("lists", "--quick", "--json", "--rounds", "1", "--contacts", "3000")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["bench"] == "lists"
    rows = {row["name"]: row for row in told["rows"]}
    assert {"small-select", "large-rebuild", "large-preview", "50-changed", "50-rebuild"} <= set(rows)
    assert rows["large-rebuild"]["members"] > rows["small-rebuild"]["members"] > 0
    assert all(row["ms"] > 0 for row in rows.values())
    shown = rows["50-changed"]["ms"] / rows["50-rebuild"]["ms"]
    assert told["ratios"]["incremental_vs_rebuild"] == pytest.approx(shown, abs=0.001)
    assert set(told["ratios"]) == {
        "small_rebuild_vs_select", "large_rebuild_vs_select", "incremental_vs_rebuild", "preview_vs_select",
    }  # fmt: skip


def test_a_bench_of_pulling_counts_every_contact_and_ends_with_one_object() -> None:
    names = ("ours", "ours-again", "limit", "sdk")
    done = bench("pull", "--quick", "--json", "--no-install", "--contacts", "300", "--only", *names)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["bench"] == "pull"
    rows = {row["name"]: row for row in told["rows"]}
    assert set(rows) == set(names)
    assert all(
        row["contacts"] == 300 and row["postgres_us"] >= 0 < row["per_cpu_second"] for row in rows.values()
    )
    assert set(told["ratios"]) == {"vs_dlt", "vs_limit", "vs_sdk"}
    assert told["ratios"]["vs_sdk"] == pytest.approx(
        rows["ours"]["per_cpu_second"] / rows["sdk"]["per_cpu_second"], abs=0.001
    )
    assert told["ratios"]["vs_dlt"] is None


def test_a_bench_of_events_counts_them_and_ends_with_one_object() -> None:
    done = bench("events", "--quick", "--json", "--posts", "8")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["bench"] == "events"
    rows = {row["name"]: row for row in told["rows"]}
    assert {name: row["events"] for name, row in rows.items()} == {
        "ours": 8_000, "ours, again": 8_000, "limit": 8_000, "naive": 2_000,
    }  # fmt: skip
    assert told["ratios"]["vs_limit"] == pytest.approx(
        rows["ours"]["per_cpu_second"] / rows["limit"]["per_cpu_second"], abs=0.001
    )
    assert {wait["name"] for wait in told["waits"]} == {"ours", "null"}
    assert all(0 < wait["p50_ms"] <= wait["p99_ms"] <= wait["worst_ms"] for wait in told["waits"])
    assert set(told["ratios"]) == {"vs_limit", "vs_naive", "replay_vs_new", "ack_p99_vs_null"}


def test_without_a_name_the_benches_are_listed_and_an_unknown_one_is_refused() -> None:
    listed = bench()
    assert listed.returncode == 0
    assert "send " in listed.stdout
    assert "pull " in listed.stdout
    assert bench("../env").returncode == 2


def test_a_bench_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    environ = {**os.environ, "HUB_BENCH_PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    command = [
        ROOT / "scripts/bench",
        "send",
        "--quick",
        "--no-install",
        "--only",
        "ours",
        "--messages",
        "50000",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ
    )
    assert process.stderr
    for line in process.stderr:
        if "ours" in line:
            break
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    running = [
        p
        for p in psutil.process_iter(["cmdline"])
        if any(str(tmp_path) in a for a in p.info["cmdline"] or [])
    ]
    assert running == []
