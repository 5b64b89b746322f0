"""The stage of a rehearsal: embedded servers, vendors' sandboxes, a relay with readers, and the hub itself.

Everything runs as processes of its own on loopback under one data folder, so that any of them can be killed.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import embedded
from hub.clock import SteppedClock
from hub.demo import script
from hub.errors import HubError
from hub.supervise import Child, Supervisor

MARK = "mailyard-demo"
SEED = 7


@dataclass
class Stage:
    """A running rehearsal. URLs are on loopback; `environment` is what a `hub` command needs to see the same hub."""

    folder: Path
    clock: SteppedClock
    servers: embedded.EmbeddedServers
    hubspot_url: str
    analytics_url: str
    relay: dict[str, str]
    environment: dict[str, str]
    web_url: str
    supervisor: Supervisor
    web: Child
    worker: Child

    @property
    def config(self) -> Path:
        return self.folder / "hub.yaml"

    def relay_status(self) -> dict[str, Any]:
        """What the relay and its readers saw, in counts."""
        return dict(get_json(f"{self.relay['status']}/status"))


def get_json(url: str, *, token: str = "", body: object = None) -> Any:
    """One plain HTTP call to a sandbox."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310  # loopback
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def clear(folder: Path) -> None:
    """Make the folder ready for a fresh rehearsal. Refuses a folder that holds something else."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise HubError(f"{folder} is not empty and no rehearsal's", "name an empty folder with --data")
        embedded.stop_leftovers(folder / "servers")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("a rehearsal of the hub lives here; it is wiped by the next one\n")


@contextmanager
def built(folder: Path, *, contacts: int) -> Iterator[Stage]:
    """Set everything up, yield the stage with the hub already running, take everything down again."""
    folder = folder.resolve()
    clear(folder)
    clock = SteppedClock(folder / "clock")
    clock.path.write_text("0")
    with ExitStack() as stack:
        servers = stack.enter_context(embedded.EmbeddedServers(folder / "servers"))
        hubspot = stack.enter_context(
            _process(folder, "contracts.hubspot.sandbox", "--demo", "--contacts", str(contacts), clock=clock)
        )
        analytics = stack.enter_context(_process(folder, "contracts.google_analytics.sandbox", clock=clock))
        maildir = folder / "bounces"
        relay = json.loads(
            stack.enter_context(
                _process(
                    folder,
                    "contracts.smtp.relay",
                    "--status-port",
                    "0",
                    "--maildir",
                    str(maildir),
                    "--seed",
                    str(SEED),
                )
            )
        )
        environment = {
            **script.secrets(),
            "HUB_DATABASE_URL": servers.urls.database,
            "HUB_REDIS_URL": servers.urls.redis,
            "HUB_CLOCK": f"stepped:{clock.path}",
            "HUB_SECRET_KEY": _key(folder),
        }
        web_url = f"http://127.0.0.1:{_free_port()}"
        script.write(
            folder, hubspot_url=hubspot, analytics_url=analytics, smtp=relay["smtp"], ca_file=relay["ca_file"],
            web_url=web_url, maildir=maildir,
        )  # fmt: skip
        _leave_command(folder, environment)
        supervisor = Supervisor(environment)
        stack.callback(supervisor.stop)
        _hub(environment, folder, "check")
        _hub(environment, folder, "migrate")
        _hub(environment, folder, "connections", "prepare")
        options = ("--config", str(folder / "hub.yaml"))
        web = supervisor.add("web", *options, "serve", log_file=folder / "web.log")
        worker = supervisor.add("worker", *options, "worker", log_file=folder / "worker.log")
        yield Stage(
            folder, clock, servers, hubspot, analytics, relay, environment, web_url, supervisor, web, worker
        )  # fmt: skip


def _leave_command(folder: Path, environment: dict[str, str]) -> None:
    """A script that runs `hub` on this stage from any shell."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    command = shlex.join([sys.executable, "-m", "hub", "--config", str(folder / "hub.yaml")])
    file = folder / "hub"
    file.touch(mode=0o700)
    file.write_text("\n".join(["#!/bin/sh", *lines, f'exec {command} "$@"', ""]))


def _hub(environment: dict[str, str], folder: Path, *arguments: str) -> None:
    """Run a hub command on the stage; its words are the error's when it fails."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "hub", "--config", str(folder / "hub.yaml"), *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise HubError(
            f"`hub {' '.join(arguments)}` failed: {(done.stdout + done.stderr).strip()[-2000:]}", "see above"
        )


@contextmanager
def _process(folder: Path, module: str, *arguments: str, clock: SteppedClock | None = None) -> Iterator[str]:
    """A stand-in as a process of its own; yields the first line that it prints."""
    timed = ("--clock", f"stepped:{clock.path}") if clock else ()
    with (folder / f"{module}.log").open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, "--port", "0", *arguments, *timed],
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise HubError(f"{module} did not start", f"read {folder / f'{module}.log'}")
            yield line
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _key(folder: Path) -> str:
    """A key for this rehearsal's tokens and links, in Fernet's form."""
    import base64

    file = folder / "key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
