"""Commands that run a hub: up, serve, worker, sync, connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import Any

import click

from hub.cli.place import Place, key_in, print_table
from hub.errors import HubError


@click.command()
@click.pass_obj
def up(place: Place) -> None:
    """Run web and worker together, with embedded servers unless HUB_DATABASE_URL and HUB_REDIS_URL are set."""
    from hub import embedded
    from hub.check import check
    from hub.store.database import migrate
    from hub.supervise import Supervisor

    report = check(place.config, dict(os.environ))
    if report.problems:
        raise HubError("\n".join(str(p) for p in report.problems), "mend hub.yaml, then start again")
    stop = False

    def ask_to_stop(*_: Any) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    with embedded.running(place.data) as urls:
        if urls.embedded:
            migrate(urls.database)
        environment = {"HUB_DATABASE_URL": urls.database, "HUB_REDIS_URL": urls.redis}
        if "HUB_SECRET_KEY" not in os.environ:
            environment["HUB_SECRET_KEY"] = key_in(place.data)
        supervisor = Supervisor(environment)
        options = ("--config", str(place.config), "--data", str(place.data))
        supervisor.add("web", *options, "serve")
        supervisor.add("worker", *options, "worker")
        assert report.config is not None
        click.echo(f"the hub serves at {report.config.settings.web.public_url} (Ctrl-C stops it)")
        while not stop:
            supervisor.tend()
            time.sleep(0.3)
        click.echo("finishing what is begun")
        supervisor.stop()


@click.command()
@click.pass_obj
def serve(place: Place) -> None:
    """Run the web application: webhooks, tracking, unsubscription, status."""
    import uvicorn

    from hub.jobs import process
    from hub.supervise import orphaned
    from hub.web.app import application

    async def go() -> None:
        async with place.runtime() as runtime:
            web = runtime.settings.web
            config = uvicorn.Config(
                application(runtime), host=web.host, port=web.port, log_level="warning", access_log=False, lifespan="off",
                timeout_graceful_shutdown=10, server_header=False,
                proxy_headers=bool(web.proxies), forwarded_allow_ips=list(web.proxies),
            )  # fmt: skip
            server = uvicorn.Server(config)
            watching = asyncio.create_task(
                _stop_when_orphaned(lambda: setattr(server, "should_exit", True), orphaned)
            )
            await server.serve()
            watching.cancel()

    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when everything has ended
        process.run(go())


@click.command()
@click.pass_obj
def worker(place: Place) -> None:
    """Run a worker: pulls, lists, funnels, mails, results and pushes, woken by Redis and by a sweep of PostgreSQL."""
    from hub.jobs import process
    from hub.jobs import worker as jobs
    from hub.supervise import orphaned

    async def go() -> None:
        async with place.runtime() as runtime:
            watching = asyncio.create_task(_stop_when_orphaned(runtime.stopping.set, orphaned))
            await jobs.run(runtime)
            watching.cancel()

    process.run(go())


async def _stop_when_orphaned(stop: Any, orphaned: Any) -> None:
    while not orphaned():  # noqa: ASYNC110  # a parent's death sets no event
        await asyncio.sleep(1)
    stop()


@click.command()
@click.argument("connection", required=False)
@click.option("--full", is_flag=True, help="read from the beginning instead of from the cursor")
@click.option("--push/--no-push", default=True, help="also write what the outbox holds")
@click.pass_obj
def sync(place: Place, connection: str | None, full: bool, push: bool) -> None:
    """Pull every stream of one connection (or all) now, refresh the lists, and write the outbox."""
    from hub.cli.progress import bars
    from hub.jobs import stages

    async def go(runtime: Any) -> list[dict[str, Any]]:
        return await stages.sync_now(runtime, connection, full=full, push_too=push)

    with bars(quiet=place.as_json) as progress:
        runs = place.run(go, progress=progress)
    place.show(runs, lambda: _runs_table(runs))
    sys.exit(1 if any(run["state"] == "failed" for run in runs) else 0)


def _runs_table(runs: list[dict[str, Any]]) -> None:
    columns = {
        "run": "run", "connection": "connection", "stream": "stream", "state": "state", "counts": "counts",
        "reason": "reason",
    }  # fmt: skip
    print_table("Runs", columns, runs, empty="nothing to pull or push is configured")


@click.group()
def connections() -> None:
    """Test connections and prepare the vendors' side."""


@connections.command()
@click.argument("connection", required=False)
@click.pass_obj
def test(place: Place, connection: str | None) -> None:
    """Ask each vendor whether credentials, scopes and fields suffice."""

    async def go(runtime: Any) -> list[dict[str, Any]]:
        return [
            {"connection": name, "ok": finding.ok, "what": finding.what, "fix": finding.fix}
            for name in _chosen(runtime, connection)
            for finding in await (await runtime.connector(name)).test()
        ]

    found = place.run(go)
    columns = {"connection": "connection", "ok": "ok", "what": "what", "fix": "what to do"}
    place.show(found, lambda: print_table("Connections", columns, found))
    sys.exit(0 if all(row["ok"] for row in found) else 1)


@connections.command()
@click.argument("connection", required=False)
@click.option("--dry", is_flag=True, help="only say what would be made")
@click.pass_obj
def prepare(place: Place, connection: str | None, dry: bool) -> None:
    """Create what results need at the vendors (custom fields), and the segments that lists are mirrored into."""
    from hub.jobs.lists import prepared

    async def go(runtime: Any) -> list[dict[str, str]]:
        return [
            {"connection": name, "what": line}
            for name in _chosen(runtime, connection)
            for line in [
                *await (await runtime.connector(name)).prepare(dry=dry),
                *await prepared(runtime, name, dry=dry),
            ]
        ]

    made = place.run(go)
    columns = {"connection": "connection", "what": "what"}
    place.show(made, lambda: print_table("Prepared", columns, made, empty="everything is there already"))


def _chosen(runtime: Any, connection: str | None) -> list[str]:
    known = list(runtime.settings.connections)
    if connection is None:
        return known
    if connection not in known:
        raise HubError(f"there is no connection {connection!r}", f"hub.yaml has {', '.join(known) or 'none'}")
    return [connection]


COMMANDS = (up, serve, worker, sync, connections)
