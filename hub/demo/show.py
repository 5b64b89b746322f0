"""What a person sees of a rehearsal: bars while it goes, a table at the end."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from hub.demo.stage import Stage
from hub.demo.sums import Sums


class Show:
    """Progress goes to standard error, so that standard output keeps its last line for `--json`."""

    def __init__(self, *, contacts: int, to_terminal: bool, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.out = Console(quiet=quiet or not to_terminal)
        self.progress = Progress(
            TextColumn("{task.description:<28}"), BarColumn(bar_width=36), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self.console, disable=quiet or not self.console.is_terminal,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        self.said: dict[str, int] = {}
        self.contacts = contacts
        self.progress.start()

    def say(self, words: str) -> None:
        self.console.print(words, highlight=False)

    def where_to_look(self, stage: Stage) -> None:
        self.say(f"  the hub's numbers   {stage.web_url}/")
        self.say(f"  HubSpot (sandbox)   {stage.hubspot_url}")
        self.say(f"  Analytics (sandbox) {stage.analytics_url}")
        self.say(f"  relay and readers   {stage.relay['status']}/status")
        self.say(f"  files and logs      {stage.folder}")
        self.say(f"  ask the hub         {stage.folder / 'hub'} lists")

    def numbers(self, found: dict[str, Any]) -> None:
        """Move the bars (in a terminal) or say each new milestone (elsewhere)."""
        deliveries = found["deliveries"]
        sent = sum(
            n
            for state, n in deliveries.items()
            if state in ("accepted", "rejected", "uncertain", "excluded", "held")
        )
        self._bar("contacts pulled", found["contacts"], self.contacts)
        self._bar("on lists", sum(found["lists"].values()), None)
        self._bar("mails handled", sent, sum(deliveries.values()))
        self._bar("bounced", found["results"].get("bounced", 0), None)
        self._bar("opened", found["results"].get("opened", 0), None)
        self._bar("unsubscribed", found["results"].get("unsubscribed", 0), None)
        for connection, states in found["outbox"].items():
            self._bar(f"written to {connection}", states.get("done", 0), sum(states.values()))

    def _bar(self, name: str, done: int, total: int | None) -> None:
        if name not in self.tasks:
            if not done:
                return
            self.tasks[name] = self.progress.add_task(name, total=total)
        self.progress.update(self.tasks[name], completed=done, total=total if total is not None else done)
        if self.progress.disable and done >= 2 * self.said.get(name, 0) and done > self.said.get(name, 0):
            self.said[name] = done
            self.say(f"  {name}: {done}" + (f" of {total}" if total else ""))

    def result(self, found: Sums) -> None:
        self.progress.stop()
        table = Table(title="What happened", title_justify="left")
        table.add_column("what")
        table.add_column("count", justify="right")
        rows = {"contacts": found.contacts, "deals": found.deals}
        rows |= {f"list {name}": size for name, size in found.lists.items()}
        rows |= {f"mails {state}": n for state, n in found.deliveries.items()} | {
            f"results: {k}": n for k, n in found.results.items()
        }
        for connection, n in found.pushed.items():
            rows[f"written to {connection}"] = n
            rows[f"read back from {connection}"] = found.read_back.get(connection, 0)
        rows |= {"duplicates at the relay": found.duplicates}
        for name, value in rows.items():
            table.add_row(name, f"{value:,}")
        self.out.print(table)
        for line in found.disagreements:
            self.console.print(f"DISAGREE  {line}", style="bold red", highlight=False)
        if not found.disagreements:
            self.say(f"All sums agree, after {found.seconds} s.")

    def close(self) -> None:
        self.progress.stop()
