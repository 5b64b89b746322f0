"""What a worker has put on the wire, kept where a kill -9 does not reach: so little is uncertain after a crash.

The ledger knows which mails a worker has claimed, hundreds at a time. Which of them were really offered, and what was
answered, the worker notes in a file that is mapped into its memory: two stores a mail, no call. The kernel
keeps the file when the process dies. Whoever recovers the ledger then knows: not noted - never offered, goes again;
noted with an answer - settled by it; noted without one - uncertain.

It is only believed if its writer is surely dead (the kernel let go of its lock) and the machine was not restarted
meanwhile (a file that was not written back would look like mails that were never offered). Else all is uncertain.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = b"mailyard journal 3"
SLOTS = 16_384
_HEADER = struct.Struct("<32s64s?")
_BOOT_BYTES = 64
_SLOT = struct.Struct(
    "<qqBBH100s200s"
)  # id, claim, which relay, state, code, the reply's text, the mail's subject
_SUBJECT_BYTES = 200
_STATE = struct.Struct("<BH100s")
_STATE_AT = 17
FREE, OFFERED, ANSWERED = 0, 1, 2
_RELAYS_AT, _FIRST = 128, 4_096
"""Between the two: the relays' names, each with a NUL behind it."""


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SYSCTL = "/usr/sbin/sysctl"
SYSCTLS = ("kern.bootsessionuuid", "kern.boottime")  # macOS; it and the BSDs


def boot_id() -> bytes:
    """What changes when the machine is started anew; empty where that is not to be known."""
    try:
        return BOOT_ID.read_bytes().strip()
    except OSError:
        return next(filter(None, map(_sysctl, SYSCTLS)), b"")


def _sysctl(name: str) -> bytes:
    """What a kernel without /proc says; empty where it does not know the name."""
    try:
        done = subprocess.run([SYSCTL, "-n", name], capture_output=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout.strip()[:_BOOT_BYTES] if done.returncode == 0 else b""


def folder(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """Where the workers of this machine keep their journals: HUB_JOURNAL, or a folder of this user's own."""
    given = environ.get("HUB_JOURNAL")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"mailyard-journal-{os.geteuid()}"


def _file(where: Path, worker: str) -> Path:
    return where / f"{hashlib.sha256(worker.encode()).hexdigest()[:32]}.journal"


class Journal:
    """One worker's own journal. Use it with `with`; it is removed at the end, when everything is settled."""

    def __init__(self, where: Path, worker: str) -> None:
        self.path = _file(where, worker)
        self._free: list[int] = []
        self._slots: dict[int, int] = {}
        self._relays: dict[str, int] = {}
        self._map: mmap.mmap | None = None
        self._file: int = -1

    def __enter__(self) -> Journal:
        boot = boot_id()
        if not boot:
            return self
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.parent.stat().st_uid != os.geteuid():
            return self  # somebody else's folder: nothing in it can be believed
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self._file, _FIRST + SLOTS * _SLOT.size)
        self._map = mmap.mmap(self._file, 0)
        _HEADER.pack_into(self._map, 0, MAGIC, boot, True)
        self._free = list(range(_FIRST, _FIRST + SLOTS * _SLOT.size, _SLOT.size))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._map is None:
            return
        if kind is None and not self._slots:
            self.path.unlink(missing_ok=True)
        self._map.close()
        os.close(self._file)
        self._map = None

    def offered(self, id: int, claim: int, relay: str, subject: str = "") -> None:
        """Note before the end of a mail goes out. Of a long subject the beginning is kept."""
        if self._map is None:
            return
        which = self._relays.get(relay)
        if which is None:
            which = self._named(relay)
        if not self._free or which < 0:
            _HEADER.pack_into(self._map, 0, MAGIC, b"", False)  # it knows not all: it is not to be believed
            return
        at = self._slots[id] = self._free.pop()
        words = subject.encode("utf-8", "replace")[:_SUBJECT_BYTES]
        _SLOT.pack_into(self._map, at, id, claim, which, OFFERED, 0, b"", words)

    def _named(self, relay: str) -> int:
        """The number of a relay, whose name is written down; negative where it has no room."""
        assert self._map is not None
        names = b"".join(name.encode() + b"\0" for name in [*self._relays, relay])
        if len(names) > _FIRST - _RELAYS_AT or len(self._relays) > 255:
            return -1
        self._map[_RELAYS_AT : _RELAYS_AT + len(names)] = names
        self._relays[relay] = len(self._relays)
        return self._relays[relay]

    def answered(self, id: int, code: int, text: str) -> None:
        """Note the relay's answer."""
        at = self._slots.get(id)
        if at is not None and self._map is not None:
            _STATE.pack_into(self._map, at + _STATE_AT, ANSWERED, code, text.encode()[:100])

    def forget(self, ids: Iterable[int]) -> None:
        """The ledger knows what became of these."""
        slots, free, map = self._slots, self._free, self._map
        for id in ids:
            at = slots.pop(id, None)
            if at is not None and map is not None:
                map[at + _STATE_AT] = FREE
                free.append(at)


@dataclass
class Left:
    """What a dead worker's journal knows: (id, claim) that were offered, the answers (relay, code, text) to some, and
    their subjects."""

    offered: set[tuple[int, int]] = field(default_factory=set)
    answers: dict[tuple[int, int], tuple[str, int, str]] = field(default_factory=dict)
    subjects: dict[tuple[int, int], str] = field(default_factory=dict)


def alive(where: Path, worker: str) -> bool:
    """Whether a worker of this machine lives, whatever the database thinks: a restarted one has lost all its locks."""
    try:
        file = os.open(_file(where, worker), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def read(where: Path, worker: str) -> Left | None:
    """A dead worker's journal; None when there is none, its writer lives, or it cannot be believed."""
    try:
        file = os.open(_file(where, worker), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(file).st_uid != os.geteuid():
            return None
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = os.pread(file, _FIRST + SLOTS * _SLOT.size, 0)
    except OSError:  # its writer holds it: alive, whatever the database thinks
        return None
    finally:
        os.close(file)
    if len(content) < _FIRST + SLOTS * _SLOT.size:
        return None
    magic, boot, whole = _HEADER.unpack_from(content, 0)
    if magic.rstrip(b"\0") != MAGIC or not whole or boot.rstrip(b"\0") != boot_id():
        return None
    left, relays = Left(), content[_RELAYS_AT:_FIRST].decode().split("\0")
    for id, claim, relay, state, code, text, subject in _SLOT.iter_unpack(content[_FIRST:]):
        if state != FREE:
            left.offered.add((id, claim))
        if state == ANSWERED:
            left.answers[id, claim] = (relays[relay], code, text.rstrip(b"\0").decode("utf-8", "replace"))
            left.subjects[id, claim] = subject.rstrip(b"\0").decode("utf-8", "ignore")
    return left


def remove(where: Path, worker: str) -> None:
    """Its word is in the ledger now."""
    _file(where, worker).unlink(missing_ok=True)
