"""`hub duplicates`: contacts who may be one person, merged and told apart again."""

from __future__ import annotations

import click

from hub.cli.place import Place, print_table


@click.group("duplicates", invoke_without_command=True)
@click.option("--limit", default=50, show_default=True, help="how many to show at most")
@click.option("--merged", is_flag=True, help="show the merges that stand instead")
@click.option(
    "--parted", is_flag=True, help="show whom a system parted after it had made one of them instead"
)
@click.pass_context
def duplicates_(ctx: click.Context, limit: int, merged: bool, parted: bool) -> None:
    """Pairs of contacts who look like one person, and what speaks for it."""
    if ctx.invoked_subcommand is not None:
        return
    from hub.jobs import people

    place: Place = ctx.obj
    if parted:
        found = place.run(lambda runtime: people.parted(runtime, limit))
        columns = {
            "contact": "contact", "other": "was one with", "record": "has a record again", "at": "at",
            "restored": "has its past again",
        }  # fmt: skip
        place.show(found, lambda: print_table("Parted", columns, found, empty="nobody"))
        return
    if merged:
        found = place.run(lambda runtime: people.merged(runtime, limit))
        columns = {
            "contact": "contact", "into": "went into", "at": "at", "source": "by the word of", "can_be_undone": "can be undone",
        }  # fmt: skip
        place.show(found, lambda: print_table("Merged", columns, found, empty="nobody"))
        return
    found = place.run(lambda runtime: people.suspected(runtime, limit))
    columns = {
        "one": "contact", "one_email": "address", "one_known": "known as", "other": "and", "other_email": "address ",
        "other_known": "known as ", "because": "the same",
    }  # fmt: skip
    apart = place.run(lambda runtime: people.parted(runtime, limit))

    def tables() -> None:
        print_table("Suspected duplicates", columns, found, empty="none")
        if apart:
            click.echo(
                f"parted again by a system that had made one person of two: {len(apart)}; see --parted"
            )

    place.show(found, tables)


@duplicates_.command()
@click.argument("contact", type=int)
@click.argument("into", type=int)
@click.pass_obj
def merge(place: Place, contact: int, into: int) -> None:
    """Make one person of CONTACT and INTO, who keeps their number. Everything goes along, and can come back."""
    from hub.jobs import people

    done = place.run(lambda runtime: people.merge(runtime, contact, into))
    place.show(done, lambda: click.echo(f"contact {contact} is contact {into} now"))


@duplicates_.command()
@click.argument("contact", type=int)
@click.pass_obj
def unmerge(place: Place, contact: int) -> None:
    """Take the merge of CONTACT back: both have their records, values, mails and places in funnels again."""
    from hub.jobs import people

    done = place.run(lambda runtime: people.unmerge(runtime, contact))
    place.show(done, lambda: click.echo(f"contacts {contact} and {done['other']} are two again"))


@duplicates_.command()
@click.argument("one", type=int)
@click.argument("other", type=int)
@click.pass_obj
def apart(place: Place, one: int, other: int) -> None:
    """Say that ONE and OTHER are two people: they are not suspected again."""
    from hub.jobs import people

    done = place.run(lambda runtime: people.apart(runtime, one, other))
    place.show(done, lambda: click.echo(f"contacts {done['one']} and {done['other']} are two people"))


COMMANDS = (duplicates_,)
