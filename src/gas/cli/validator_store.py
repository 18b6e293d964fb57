"""``gascli validator publish``, ``prune`` and ``store``: what becomes of verified media.

Exit statuses: 0 fine, 1 a target or a store fails, 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gas.storage.blobs import BlobStore
    from gas.storage.database import Database
    from gas.validator.publishing import WeekResult
    from gas.validator.settings import ValidatorSettings

__all__ = ["app", "prune", "publish"]

app = typer.Typer(help="The media store: stats.", no_args_is_help=True)

_Home = Annotated[
    Path | None, typer.Option("--home", help="Home with the database and the media; GAS_HOME or .gas by default.")
]
_EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Settings; .env.validator of this folder when it is there.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.callback()
def store_group() -> None:
    """The media store."""


def publish(
    target: Annotated[
        str | None,
        typer.Option("--target", help="A folder, s3://bucket/prefix or hf://OWNER/NAME; PUBLISH_TARGET by default."),
    ] = None,
    week: Annotated[
        str | None, typer.Option("--week", help="An ISO week that is over, e.g. 2026-W47; all that are due by default.")
    ] = None,
    dry_run: _Dry = False,
    home: _Home = None,
    env_file: _EnvFile = None,
    as_json: _Json = False,
) -> None:
    """Publish verified media in weekly shards; run it again to go on with what was interrupted.

    Every medium is published once. Keys come from the environment: HF_TOKEN, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
    """
    from gas.cli.logs import configure_logs
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError
    from gas.validator.publishing import Publisher
    from gas.validator.service_data import publish_env
    from gas.validator.shards import week_end
    from gas.validator.targets import check_target, open_target

    configure_logs(logging.WARNING)
    with _opened(home, env_file) as place:
        named = target or place.settings.publish_target
        if not named and not dry_run:
            raise ConfigurationError(
                "There is no address to publish to.",
                code="publish_address",
                hint="Give --target, or PUBLISH_TARGET in .env.validator.",
            )
        address = check_target(named) if named else ""
        opened = None if dry_run else open_target(address, publish_env(place.settings, os.environ))
        try:
            publisher = Publisher(
                place.database,
                place.blobs,
                opened,
                SystemClock(),
                shard_bytes=place.settings.publish_shard_mb << 20,
                scratch=place.settings.state_path / "publishing",
            )
            results: list[WeekResult] = []
            for one in [week] if week else publisher.due(0.0):
                if dry_run:
                    results.append(publisher.plan(one, since=week_end(results[-1].week) if results else 0.0))
                else:
                    results.append(publisher.publish(one, _shard_line(as_json)))
                if not as_json:
                    _print_week(results[-1])
        finally:
            if opened is not None:
                opened.close()
    if as_json:
        typer.echo(json.dumps({"target": address, "dry_run": dry_run, "weeks": [one.as_dict() for one in results]}))
    elif not results:
        typer.echo("Nothing is due: no medium of a week that is over waits.")


def prune(
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", help="Bytes that each source's media may take, e.g. 50G; the settings' by default."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all that may go, whatever the limits.")] = False,
    dry_run: _Dry = False,
    home: _Home = None,
    env_file: _EnvFile = None,
    as_json: _Json = False,
) -> None:
    """Remove published media, oldest first, until each source is within its limit.

    What an open round, an unpaid reward or an unpublished shard needs stays, and so do all rows.
    """
    from gas.cli.data_text import bytes_of, size_text
    from gas.cli.logs import configure_logs
    from gas.clock import SystemClock
    from gas.validator.pruning import Pruner
    from gas.validator.service_data import limits_of
    from gas.validator.store import MediumSource, SourceLimits

    configure_logs(logging.WARNING)
    with _opened(home, env_file) as place:
        limits = limits_of(place.settings)
        if max_size is not None:
            limits = {source.value: SourceLimits(bytes_of(max_size)) for source in MediumSource}
        keep = place.settings.media_keep_days
        report = Pruner(place.database, place.blobs, SystemClock(), limits, keep_days=keep).prune(
            dry=dry_run, everything=everything
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
        return
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{report.media:,} published media {verb}, {size_text(report.bytes)}.")
    if report.leftovers:
        typer.echo(f"{report.leftovers:,} refused deliveries {verb}.")
    said = {
        "open_round": "an open round needs them",
        "recent": f"younger than {max(keep, 7.0):g} days",
        "reward": "no weights were set since they were verified",
    }
    for name, count in report.kept.items():
        typer.echo(f"{count:,} published media stay: {said[name]}.")
    for source, beyond in report.over.items():
        typer.echo(f"{source}: still {size_text(beyond)} over its limit; the rest is not published yet, or needed.")


@app.command("stats")
def stats_command(home: _Home = None, env_file: _EnvFile = None, as_json: _Json = False) -> None:
    """What the media store holds, and what was published."""
    from sqlalchemy import select

    from gas.cli.data_text import size_text
    from gas.clock import SystemClock
    from gas.storage.tables import ShardRow
    from gas.validator.service_data import limits_of
    from gas.validator.store import MediaStore, MediumSource

    with _opened(home, env_file) as place:
        store = MediaStore(place.database, place.blobs, SystemClock(), limits_of(place.settings))
        stats = store.stats()
        room = {source.value: store.room(source) for source in MediumSource}
        with place.database.read() as session:
            shards = list(session.scalars(select(ShardRow).order_by(ShardRow.name)))
    weeks: dict[str, dict[str, Any]] = {}
    for shard in shards:
        one = weeks.setdefault(
            shard.week, {"shards": 0, "media": 0, "bytes": 0, "published": True, "target": shard.target}
        )
        one["shards"] += 1
        one["media"] += shard.rows
        one["bytes"] += shard.size or 0
        one["published"] &= shard.state == "published"
    if as_json:
        free = {name: {"bytes": left.bytes, "media": left.media} for name, left in room.items()}
        typer.echo(json.dumps({**stats.as_dict(), "room": free, "weeks": weeks}))
        return
    if not stats.media:
        typer.echo("The store holds no media yet.")
    for name, count in stats.media.items():
        typer.echo(f"{name:40} {count:>9,}  {size_text(stats.bytes[name]):>9}")
    if stats.oldest is not None and stats.newest is not None:
        typer.echo(f"verified from {_day(stats.oldest)} to {_day(stats.newest)}; {stats.generators:,} generators, "
                   f"{stats.masks:,} masks")  # fmt: skip
    for name, left in room.items():
        if left.bytes is not None:
            typer.echo(f"room for {name}: {size_text(max(0, left.bytes))}")
    for week, one in weeks.items():
        state = "published at" if one["published"] else "under way to"
        typer.echo(f"{week}: {one['media']:,} media in {one['shards']} shards, {size_text(one['bytes'])}, "
                   f"{state} {one['target']}")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    settings: ValidatorSettings
    database: Database
    blobs: BlobStore


@contextmanager
def _opened(home: Path | None, env_file: Path | None) -> Iterator[_Place]:
    """The stores of a home.

    Raises:
        ConfigurationError: A setting is wrong, or there is no such home.
    """
    from gas.errors import ConfigurationError
    from gas.storage.blobs import open_blobs
    from gas.storage.database import open_database
    from gas.validator.settings import ENV_FILE, read_settings

    file = env_file or (Path(ENV_FILE) if Path(ENV_FILE).is_file() else None)
    settings = read_settings(file, gas_home=home)
    if not settings.gas_database_url.get_secret_value() and not (settings.gas_home / "gas.db").exists():
        raise ConfigurationError(
            f"There is no media store in {settings.gas_home}.",
            code="no_home",
            hint="Name its home with --home, or start the validator first.",
        )
    database = open_database(settings.database_url)
    try:
        yield _Place(settings, database, open_blobs(settings.blobs_url))
    finally:
        database.close()


def _shard_line(quiet: bool) -> Any:
    if quiet:
        return None
    return lambda name, done, count: typer.echo(f"{name} ({done} of {count})")


def _print_week(found: WeekResult) -> None:
    from gas.cli.data_text import size_text

    if found.state == "nothing":
        typer.echo(f"{found.week}: no medium waits.")
        return
    what = f"{found.media:,} media in {found.shards} shards, {size_text(found.bytes)}"
    if found.state == "planned":
        typer.echo(f"{found.week}: would publish {what}")
        return
    news = f"{found.sent} files sent" if found.sent else "nothing had to be sent"
    typer.echo(f"{found.week}: {what}, at {found.target} ({news})")
    if found.lost:
        typer.echo(f"{found.week}: {len(found.lost)} media are left out: their bytes are missing or damaged", err=True)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
