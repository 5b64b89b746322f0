"""The command line: `hub COMMAND`. Tables and bars in a terminal, one JSON document with `--json`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hub import __version__
from hub.cli import (
    ask,
    campaigns,
    consent,
    decide,
    deliver,
    duplicates,
    erasure,
    inbox,
    lists,
    mapping,
    operate,
    preview,
    relays,
    setup,
)
from hub.cli.place import Place
from hub.errors import HubError

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended before its end, as shells have it: 128 + SIGINT."""


class Group(click.Group):
    """Shows an error that the hub raised on purpose as its words, without a traceback; takes --json anywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--json" in args:
            args = ["--json", *(argument for argument in args if argument != "--json")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except HubError as error:
            click.echo(str(error), err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    envvar="HUB_CONFIG",
    default="hub.yaml",
    show_default=True,
)
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="HUB_DATA", default=None,
    help="folder of the embedded servers and keys; default: data/ beside hub.yaml",
)  # fmt: skip
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="print one JSON document instead of tables (may stand after the command, too)",
)
@click.version_option(__version__, prog_name="hub")
@click.pass_context
def main(ctx: click.Context, config: Path, data: Path | None, as_json: bool) -> None:
    """Mailyard: CRM contacts to dynamic lists to funnels to SMTP, and every result back to the CRM."""
    from hub import logs  # slow to import

    logs.configure()
    ctx.obj = Place(config, data or config.resolve().parent / "data", as_json)


for command in (
    *setup.COMMANDS,
    *operate.COMMANDS,
    *ask.COMMANDS,
    *lists.COMMANDS,
    *mapping.COMMANDS,
    *duplicates.COMMANDS,
    *inbox.COMMANDS,
    *preview.COMMANDS,
    *campaigns.COMMANDS,
    *consent.COMMANDS,
    *decide.COMMANDS,
    *erasure.COMMANDS,
    *deliver.COMMANDS,
    *relays.COMMANDS,
):
    main.add_command(command)
