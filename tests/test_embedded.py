"""The embedded servers: started once, shared, healed after kill -9, gone when the last user leaves."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from hub import embedded
from hub.embedded import EmbeddedServers

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys
from pathlib import Path
from hub.embedded import EmbeddedServers

servers = EmbeddedServers(Path(sys.argv[1]))
servers.start()
print(servers.urls.database, flush=True)
if sys.argv[2] == "stay":
    sys.stdin.read()
servers.leave()
"""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def home() -> Iterator[Path]:
    """A short folder outside pytest's own, whose mode pytest resets under the feet of a server's user."""
    folder = Path(tempfile.mkdtemp(prefix="hub-test-", dir="/tmp"))
    yield folder
    while STARTED:
        STARTED.pop().kill()
    for data in folder.rglob("pg"):
        if (data / "PG_VERSION").exists():
            embedded.stop_leftovers(data.parent)
    shutil.rmtree(folder)


def ask(servers: EmbeddedServers, query: str) -> object:
    with psycopg.connect(servers.urls.database, autocommit=True) as conn:
        cursor = conn.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def valkey(servers: EmbeddedServers) -> redis.Redis:
    return redis.Redis.from_url(servers.urls.redis, decode_responses=True)


def until(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    """Whether the process has ended (waiting for it, should it be our own child)."""
    with contextlib.suppress(ChildProcessError):  # another's child: the next lines tell
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def starter(home: Path, *, stay: bool) -> subprocess.Popen[str]:
    """A hub process of its own on the same folder; prints the database's URL once it has the servers."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(home), "stay" if stay else "leave"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    STARTED.append(process)
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def another_process(home: Path, *, stay: bool) -> subprocess.Popen[str]:
    process = starter(home, stay=stay)
    assert first_line(process).startswith("postgresql://")
    return process


def test_both_servers_answer_and_leave_no_process_behind(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        pids = servers.pids()
        assert set(pids) == {"postgres", "valkey"}
        assert str(ask(servers, "SHOW server_version")).startswith("18")
        assert valkey(servers).ping()
    for pid in pids.values():
        assert until(lambda pid=pid: gone(pid))


def test_nothing_listens_beyond_the_sockets(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        assert ask(servers, "SHOW listen_addresses") == ""
        assert valkey(servers).config_get("port") == {"port": "0"}


def test_the_database_keeps_what_was_written(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        ask(servers, "CREATE TABLE fact (n int)")
        ask(servers, "INSERT INTO fact VALUES (1)")
    with EmbeddedServers(home) as servers:
        assert ask(servers, "SELECT count(*) FROM fact") == 1


def test_a_second_process_uses_the_same_servers_and_leaves_them_to_the_first(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        pids = servers.pids()
        second = another_process(home, stay=False)
        assert second.wait(30) == 0
        assert servers.pids() == pids
        assert ask(servers, "SELECT 1") == 1


def test_the_last_to_leave_stops_the_servers(home: Path) -> None:
    servers = EmbeddedServers(home)
    servers.start()
    pids = servers.pids()
    second = another_process(home, stay=True)
    servers.leave()
    assert servers.pids() == pids
    second.communicate("")
    for pid in pids.values():
        assert until(lambda pid=pid: gone(pid))


def test_two_starters_at_once_start_one_pair(home: Path) -> None:
    starters = [starter(home, stay=True) for _ in range(2)]
    urls = [first_line(process) for process in starters]
    assert urls[0] == urls[1] != ""
    assert [process.communicate("")[0] for process in starters] == ["", ""]
    assert [process.returncode for process in starters] == [0, 0]


@pytest.mark.parametrize("victims", [("postgres",), ("valkey",), ("postgres", "valkey")])
def test_killed_servers_come_back_with_every_committed_row(home: Path, victims: tuple[str, ...]) -> None:
    with EmbeddedServers(home) as servers:
        ask(servers, "CREATE TABLE fact (n int)")
        ask(servers, "INSERT INTO fact VALUES (1)")
        before = servers.pids()
        for victim in victims:
            os.kill(before[victim], signal.SIGKILL)
            assert until(lambda victim=victim: gone(before[victim]))
        servers.start()
        after = servers.pids()
        assert {name for name in before if before[name] != after[name]} == set(victims)
        assert ask(servers, "SELECT count(*) FROM fact") == 1
        assert valkey(servers).ping()


def test_kill_9_of_the_owner_and_of_both_servers_loses_no_committed_row(home: Path) -> None:
    owner = another_process(home, stay=True)
    watcher = EmbeddedServers(home)
    pids = watcher.pids()
    ask(watcher, "CREATE TABLE fact (n int)")
    ask(watcher, "INSERT INTO fact VALUES (1)")
    for pid in (owner.pid, *pids.values()):
        os.kill(pid, signal.SIGKILL)
    owner.wait(30)
    with EmbeddedServers(home) as servers:
        assert ask(servers, "SELECT count(*) FROM fact") == 1
        new = servers.pids()
        assert set(new) == {"postgres", "valkey"}
        assert new != pids
    for pid in new.values():
        assert until(lambda pid=pid: gone(pid))


def test_servers_of_a_killed_owner_are_used_again_and_then_stopped(home: Path) -> None:
    owner = another_process(home, stay=True)
    pids = EmbeddedServers(home).pids()
    owner.kill()
    owner.wait(30)
    with EmbeddedServers(home) as servers:
        assert servers.pids() == pids
        assert ask(servers, "SELECT 1") == 1
    for pid in pids.values():
        assert until(lambda pid=pid: gone(pid))


def test_postgres_restarted_by_an_admin_keeps_its_rows(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        ask(servers, "CREATE TABLE fact (n int)")
        before = servers.pids()["postgres"]
        servers.restart_postgres()
        assert servers.pids()["postgres"] != before
        assert ask(servers, "SELECT count(*) FROM fact") == 0


def test_a_data_folder_with_a_long_path_gets_short_sockets(home: Path) -> None:
    long = home / ("a-folder-with-a-name-that-is-too-long-for-sockets" * 3)
    with EmbeddedServers(long) as servers:
        assert len(servers.urls.redis.removeprefix("unix://")) < 104
        assert ask(servers, "SELECT 1") == 1
        assert valkey(servers).ping()
        sockets = Path(servers.urls.redis.removeprefix("unix://")).parent
    assert not sockets.exists()


def test_urls_in_the_environment_are_used_instead(home: Path) -> None:
    environ = {
        "HUB_DATABASE_URL": "postgresql://db.example/hub",
        "HUB_REDIS_URL": "redis://cache.example",
    }
    with embedded.running(home, environ) as urls:
        assert urls == embedded.Urls(*environ.values(), embedded=False)
    assert list(home.iterdir()) == []


def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        for pid in servers.pids().values():
            assert os.getsid(pid) != os.getsid(0)
            assert os.getpgid(pid) != os.getpgid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can become another user")
def test_an_ordinary_user_can_run_them_too(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    try:
        seen = subprocess.run(
            [sys.executable, "-c", "import hub.embedded, psycopg"],
            env=environ,
            capture_output=True,
            **options,
        )
    except PermissionError:
        pytest.skip(f"an ordinary user may not run {sys.executable}")
    if seen.returncode:
        pytest.skip("an ordinary user may not read this checkout or its environment")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home), "leave"],
        env=environ,
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stderr
    assert (home / "pg").stat().st_uid == nobody.pw_uid
