"""Where a command runs: which hub.yaml, which data folder, which servers; and how it prints."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hub.jobs.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """The context object of every command."""

    config: Path
    data: Path
    as_json: bool

    @asynccontextmanager
    async def runtime(self, **options: Any) -> AsyncIterator[Runtime]:
        """An opened hub. Starts the embedded servers for the time of the command unless they run or URLs are set."""
        from hub import embedded
        from hub.jobs import runtime
        from hub.store.database import migrate

        with embedded.running(self.data) as urls:
            environment = {**os.environ, "HUB_DATABASE_URL": urls.database, "HUB_REDIS_URL": urls.redis}
            if urls.embedded:
                await asyncio.to_thread(migrate, urls.database)
            environment.setdefault("HUB_SECRET_KEY", key_in(self.data))
            async with runtime.opened(self.config, environment, **options) as opened:
                yield opened

    def run(self, work: Callable[[Runtime], Awaitable[T]], **options: Any) -> T:
        """Run a coroutine function on an opened hub."""

        async def go() -> T:
            async with self.runtime(**options) as runtime:
                return await work(runtime)

        return asyncio.run(go())

    def show(self, document: object, table: Callable[[], None]) -> None:
        """Print `document` as JSON, or call `table`."""
        if self.as_json:
            click.echo(json.dumps(document, default=plain, ensure_ascii=False, indent=2))
        else:
            table()


def key_in(data: Path) -> str:
    """The key that seals tokens and signs links, made once for a data folder (mode 0600)."""
    from cryptography.fernet import Fernet

    data.mkdir(parents=True, exist_ok=True)
    file = data / "secret.key"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(descriptor, "w") as stream:
        stream.write(Fernet.generate_key().decode())
    return file.read_text().strip()


def plain(value: object) -> object:
    """What JSON has no type for."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, Path):
        return str(value)
    return str(value)


def print_table(
    title: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], *, empty: str = "nothing"
) -> None:
    """A table of `rows`: `columns` is key -> heading. `empty` is said instead when there is no row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Cells are Text, since vendors' words may hold brackets that rich would read as markup.
    table = Table(title=Text(title), title_justify="left")
    for heading in columns.values():
        table.add_column(Text(heading))
    for row in rows:
        table.add_row(*(Text(_cell(row[key])) for key in columns))
    if table.row_count:
        Console().print(table)
    else:
        click.echo(f"{title}: {empty}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(v) for v in value)
    return str(value)
