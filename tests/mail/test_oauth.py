"""A relay that wants access tokens, in a whole hub: they are kept sealed, under a name that no connection has."""

from __future__ import annotations

from pathlib import Path

from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.smtp.tokens import CLIENT_ID, CLIENT_SECRET, TokenSandbox
from hub.clock import ManualClock
from tests.contracts import smtp_case
from tests.support.rig import HUB_YAML, opened

USER = "news@mailyard.example"


async def test_mails_go_out_by_tokens_that_the_hub_gets(
    tmp_path: Path, clock: ManualClock, hubspot: HubSpotSandbox, database_url: str, redis_url: str
) -> None:
    issuer = TokenSandbox(USER, rotates=True, clock=clock)
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    (tmp_path / "refresh").write_text(issuer.refresh)
    with issuer.serve(), smtp_case.relay(tmp_path, bearer=issuer.takes, require_tls=True) as relay:
        oauth = (
            f"{{{{token_url: {issuer.url}/token, client_id: {CLIENT_ID}, client_secret_file: secret,"
            f" refresh_token_file: refresh}}}}"
        )
        yaml = HUB_YAML.replace("{relay_ca}", f"{{relay_ca}}, username: {USER}, oauth: {oauth}")
        for hour in range(2):
            async with opened(
                tmp_path,
                clock,
                hubspot,
                database_url=database_url,
                redis_url=redis_url,
                relay=relay,
                yaml=yaml,
            ) as rig:
                hubspot.create("contacts", {"email": f"p{hour}@example.com", "city": "Berlin"})
                await rig.run("pull:contacts", "lists", "funnels", "mail")
                states = await rig.rows("SELECT state, count(*) FROM delivery GROUP BY 1")
                assert states == [("accepted", hour + 1)]
                ((name, sealed),) = await rig.rows("SELECT connection, sealed FROM token")
            clock.advance(hours=1)
    assert name.startswith("relay main ")
    assert b"refresh" not in bytes(sealed)
    assert issuer.grants == ["refresh_token", "refresh_token"]
