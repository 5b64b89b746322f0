"""Bad values on their way through a whole pull: the row is told, and nobody else's is lost."""

from __future__ import annotations

from tests.support.rig import Rig


async def test_a_nul_in_a_value_costs_that_value_only(rig: Rig) -> None:
    rig.hubspot.create("contacts", {"email": "ann@example.com", "firstname": "A\x00nn", "city": "Berlin"})
    rig.hubspot.create("contacts", {"email": "bob@example.com", "firstname": "Bob", "city": "Wien"})
    await rig.run("pull:contacts")
    assert await rig.rows("SELECT email, first_name, city FROM contact ORDER BY email") == [
        ("ann@example.com", None, "Berlin"),
        ("bob@example.com", "Bob", "Wien"),
    ]
    assert await rig.rows("SELECT DISTINCT code, message, row FROM run_reject") == [
        ("BAD_VALUE", "firstname holds a NUL character", {"first_name": "A\ufffdnn"})
    ]
