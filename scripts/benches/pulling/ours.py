"""Our contender: a whole pull of contacts, as a worker does it: connector, quota, mapping, identity, lineage, cursor."""

from __future__ import annotations

from typing import Any

from hub.jobs import stages
from hub.jobs.runtime import Runtime
from scripts.benches.common import worker


async def connect(runtime: Runtime) -> None:
    """The others are connected before their time counts, too."""
    await (await runtime.connector("crm", pulling=True)).live_fields("contact")


async def pull(runtime: Runtime) -> dict[str, Any]:
    """Pull the contacts of the connection `crm`."""
    await stages.run(runtime, "pull", "crm/contacts")
    return {}


if __name__ == "__main__":
    worker.main(pull, connect)
