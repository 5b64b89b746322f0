"""Bars for long pulls and pushes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hub.store.runs import Counts
from hub.sync.pull import Progress


@contextmanager
def bars(*, quiet: bool) -> Iterator[Progress]:
    """A progress callback that shows one line per stream on standard error."""
    from rich.console import Console
    from rich.progress import Progress as Rich
    from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    lines: dict[tuple[str, str], TaskID] = {}
    with Rich(
        SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[counts]}"), TimeElapsedColumn(),
        console=console, disable=quiet or not console.is_terminal,
    ) as rich:  # fmt: skip

        def tell(connection: str, stream: str, counts: Counts) -> None:
            text = ", ".join(f"{name} {value}" for name, value in counts.as_dict().items() if name != "calls")
            key = (connection, stream)
            if key not in lines:
                lines[key] = rich.add_task(f"{connection} {stream}", total=None, counts="")
            rich.update(lines[key], counts=text)

        yield tell
