"""`hub demo`: set the stage, show the journey as it goes, take the sums, keep serving or end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hub.demo import journey, stage, sums
from hub.demo.show import Show
from hub.jobs import runtime as runtimes
from hub.store import outbox


def play(folder: Path | None, *, contacts: int, once: bool, as_json: bool, quiet: bool = False) -> int:
    """Run the rehearsal. Returns the exit status: 0 when all sums agree, 1 when any do not.

    Without a folder a temporary one is used and removed afterwards. With `once` it ends by itself, else it
    serves until interrupted.
    """
    home = folder or Path(tempfile.mkdtemp(prefix="mailyard-"))
    _end_on_terminate()
    started = time.monotonic()
    show = Show(contacts=contacts, to_terminal=not as_json, quiet=quiet)
    try:
        show.say(
            "Setting the stage: PostgreSQL, Valkey, HubSpot and Google Analytics sandboxes, an SMTP relay with readers"
        )
        with stage.built(home, contacts=contacts) as built:
            show.where_to_look(built)
            found = _journey(built, show, started)
            show.result(found)
            if as_json:
                print(json.dumps(found.as_dict()), flush=True)
            if not once:
                show.say("Serving until interrupted (Ctrl-C)")
                _serve(built)
        return 1 if found.disagreements else 0
    except KeyboardInterrupt:
        return 130
    finally:
        show.close()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def _journey(built: stage.Stage, show: Show, started: float) -> sums.Sums:
    import asyncio

    async def go() -> sums.Sums:
        os.environ.update(built.environment)
        async with runtimes.opened(built.config, built.environment) as runtime:
            numbers = await journey.Journey(built, runtime, show.numbers).play()
            async with runtime.db.connection() as conn:
                pushed = await outbox.confirmed_results(conn)
        return await asyncio.to_thread(
            sums.taken, built, numbers, pushed=pushed, seconds=time.monotonic() - started
        )

    return asyncio.run(go())


def _serve(built: stage.Stage) -> None:
    while True:
        built.supervisor.tend()
        time.sleep(0.5)


def _end_on_terminate() -> None:
    """SIGTERM ends the rehearsal as Ctrl-C does, so that everything is taken down."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
