"""The programs of others: found, or put into a cache folder outside the checkout with the package managers' own clients.

Nothing is installed into the system where it can be helped: Debian's package is unpacked, npm's go into a folder.
"""

# ruff: noqa: S603  # programs that the bench itself names
from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NODE_PACKAGES = {"nodemailer": "10.6.1", "handlebars": "4.7.10"}
SECONDS = 120

Say = Callable[[str], None]


class Missing(Exception):
    """A contender cannot be had here; the text says why."""


@dataclass(frozen=True)
class Postfix:
    """smtp-source and smtp-sink, and what they need in their environment."""

    source: str
    sink: str
    environ: dict[str, str]


def cache_folder() -> Path:
    """Where programs of others are kept between runs: HUB_BENCH_CACHE or ~/.cache/mailyard-bench."""
    given = os.environ.get("HUB_BENCH_CACHE")
    folder = (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailyard-bench"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def postfix(say: Say) -> Postfix:
    """Postfix's two test programs. Raises Missing."""
    folder = cache_folder() / "postfix"
    found = _postfix_in_system() or _postfix_in(folder)
    if found:
        return found
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Missing("smtp-source is not here, and this is no Debian: install Postfix")
    say("Postfix's smtp-source and smtp-sink are missing: unpacking Debian's package into the cache")
    folder.mkdir(exist_ok=True)
    for attempt in range(2):
        try:
            _run(["apt-get", "download", "-q", "postfix"], cwd=folder)
            break
        except Missing:
            if attempt or os.geteuid():
                raise
            _run(["apt-get", "update", "-q"], cwd=folder)
    for package in folder.glob("postfix_*.deb"):
        _run(["dpkg-deb", "-x", package.name, "."], cwd=folder)
        package.unlink()
    found = _postfix_in(folder)
    if not found and not os.geteuid():
        say("its libraries are missing: installing the package with apt-get")
        _run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", "postfix"],
            cwd=folder, environ={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        found = _postfix_in_system()
    if not found:
        raise Missing("smtp-source does not start: install Debian's postfix")
    return found


def _postfix_in_system() -> Postfix | None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    source, sink = shutil.which("smtp-source", path=path), shutil.which("smtp-sink", path=path)
    if not source or not sink:
        return None
    return Postfix(source, sink, {})


def _postfix_in(folder: Path) -> Postfix | None:
    source, sink = folder / "usr/sbin/smtp-source", folder / "usr/sbin/smtp-sink"
    if not source.exists():
        return None
    environ = {"LD_LIBRARY_PATH": str(folder / "usr/lib/postfix")}
    done = subprocess.run(
        [source, "-?"], capture_output=True, text=True, check=False, env={**os.environ, **environ}
    )
    if "usage" not in done.stderr:
        return None
    return Postfix(str(source), str(sink), environ)


def nodemailer(say: Say) -> Path:
    """A folder with nodemailer and handlebars in its node_modules. Raises Missing."""
    if not shutil.which("node"):
        raise Missing("node is not here")
    names = "-".join(f"{name}-{version}" for name, version in sorted(NODE_PACKAGES.items()))
    folder = cache_folder() / names
    if all(_node_version(folder, name) == version for name, version in NODE_PACKAGES.items()):
        return folder
    if not shutil.which("npm"):
        raise Missing("npm is not here")
    say("nodemailer and handlebars are missing: installing them into the cache with npm")
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": NODE_PACKAGES}))
    _run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"],
        cwd=folder,
    )
    return folder


def _node_version(folder: Path, package: str) -> str:
    file = folder / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else ""


def _run(command: Sequence[str], *, cwd: Path, environ: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SECONDS,
            env={**os.environ, **(environ or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{' '.join(command[:3])} did not work: {type(error).__name__}") from None
    if done.returncode:
        raise Missing(f"{' '.join(command[:3])} did not work: {(done.stderr or done.stdout).strip()[-200:]}")
