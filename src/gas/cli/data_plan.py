"""``gascli data plan | diff``, and where ``audit`` is registered: which media a round takes, how two plans differ."""

from __future__ import annotations

import json
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gas.cli.data_audit import audit_command
from gas.cli.data_text import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from gas.chain.keys import Signer
    from gas.datasets.plan_diff import PlanDiff
    from gas.datasets.plan_file import Plan
    from gas.datasets.plan_round import FrozenPlan, NormalOptions
    from gas.datasets.plan_spec import PlanMode
    from gas.datasets.store import DataStore
    from gas.types import Modality

__all__ = ["diff_command", "plan_command", "register"]

_Home = Annotated[
    Path | None, typer.Option("--home", envvar="GAS_HOME", help="Home whose data these are; .gas by default.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command("plan")(plan_command)
    app.command("diff")(diff_command)
    app.command("audit")(audit_command)


def plan_command(
    modality: Annotated[str, typer.Option(help="image, video or audio.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan's file, e.g. plan.parquet.")],
    mode: Annotated[str, typer.Option(help="debug (some of every class), small (exam) or full (round).")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    include: Annotated[list[str] | None, typer.Option(help="Glob of data set names; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob of data set names to leave out.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only media of this category; may be repeated.")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Only fakes of this generator family; real media stay. May be repeated.")
    ] = None,
    holdout_only: Annotated[bool, typer.Option("--holdout-only", help="Only held-out sets.")] = False,
    arena_only: Annotated[bool, typer.Option("--arena-only", help="Only fakes from the arena.")] = False,
    total: Annotated[int | None, typer.Option(min=1, help="Samples at most; by modality and mode by default.")] = None,
    per_set: Annotated[int | None, typer.Option(min=1, help="Samples of one data set, about.")] = None,
    round_folder: Annotated[
        Path | None, typer.Option("--round", help="Also normalise the media and freeze a round to this folder.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the round's pictures and frames, pixels.")] = 256,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the round's clips.")] = 24,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the round's sounds.")] = 2.0,
    sign_with: Annotated[
        str | None,
        typer.Option("--sign-with", metavar="WALLET", help="Sign with a wallet's hotkey: NAME or NAME/HOTKEY."),
    ] = None,
    wallets: Annotated[Path | None, typer.Option(help="Folder of wallets; the home's by default.")] = None,
    home: _Home = None,
    as_json: _Json = False,
) -> None:
    """Draw a plan from the sets that are here: by content and seed only, so that everybody draws the same."""
    import pyarrow as pa

    from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
    from gas.datasets.plan_file import sign_plan, write_plan
    from gas.datasets.plan_round import NormalOptions, poorest_rate
    from gas.datasets.plan_spec import PlanSpec
    from gas.datasets.store import open_store
    from gas.errors import ConfigurationError

    store = open_store(home)
    spec = PlanSpec(
        modality=_modality(modality),
        mode=_mode(mode),
        seed=seed,
        provenances=store.provenances(),
        total=total,
        per_set=per_set,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        categories=tuple(category or ()),
        families=tuple(family or ()),
        holdout_only=holdout_only,
        arena_only=arena_only,
    )
    names = _names(store)
    for glob in include or ():
        if not any(fnmatchcase(name, glob) for name in names):
            raise ConfigurationError(
                f"No fetched data set is called {glob[:100]!r}.",
                code="set_unknown",
                hint="`gascli data list --here` names them.",
            )
    with progress_bar(not as_json) as report:
        parts = []
        for done, name in enumerate(names, start=1):
            parts.append(slim(store.table(name, CANDIDATE_COLUMNS, use=False)))
            if report:
                report("reading tables", done, len(names))
        plan = draw_plan(pa.concat_tables(parts), spec)
        store.touch(sorted(set(plan.table["dataset"].to_pylist())))
        if sign_with:
            plan = sign_plan(plan, _signer(sign_with, home, wallets))
        write_plan(plan, out)
        frozen = None
        if round_folder is not None:
            options = NormalOptions(size - size % 2, frames, seconds, poorest_rate(plan, store))
            frozen = _freeze(plan, store, round_folder, options, report)
    if as_json:
        typer.echo(json.dumps(_described(plan, out, frozen)))
    else:
        _show(plan, out, frozen)


def diff_command(
    first: Annotated[Path, typer.Argument(help="A plan.")],
    second: Annotated[Path, typer.Argument(help="Another plan.")],
    as_json: _Json = False,
) -> None:
    """Compare two plans: exit status 0 when they say the same, 1 when they differ, 2 when one can't be read."""
    from gas.datasets.plan_diff import diff_plans
    from gas.datasets.plan_file import read_plan
    from gas.errors import ConfigurationError, StorageError

    try:
        plans = read_plan(first), read_plan(second)
    except StorageError as error:
        # For the user it is a wrong argument, and 1 already means that the plans differ.
        raise ConfigurationError(error.message, code=error.error_code) from error
    found = diff_plans(*plans)
    signers = [plan.signature.address if plan.signature else None for plan in plans]
    if as_json:
        typer.echo(json.dumps({**found.as_dict(), "plans": [plan.plan_id for plan in plans], "signers": signers}))
    else:
        for path, plan, signer in zip((first, second), plans, signers, strict=True):
            typer.echo(f"{path}: plan {plan.plan_id}, " + (f"signed by {signer}" if signer else "not signed"))
        _show_diff(found)
    raise typer.Exit(0 if found.equal else 1)


def _modality(text: str) -> Modality:
    from gas.types import Modality

    try:
        return Modality(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(Modality)}.") from None


def _mode(text: str) -> PlanMode:
    from gas.datasets.plan_spec import PlanMode

    try:
        return PlanMode(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(PlanMode)}.") from None


def _names(store: DataStore) -> tuple[str, ...]:
    from gas.errors import ConfigurationError

    names = store.names()
    if not names:
        raise ConfigurationError(
            "There is no data set here to draw from.", code="empty_round", hint="Fetch some: gascli data fetch NAME."
        )
    return names


def _signer(wallet: str, home: Path | None, wallets: Path | None) -> Signer:
    from gas.chain.keys import load_hotkey
    from gas.config import HomeSettings

    name, _, hotkey = wallet.partition("/")
    settings = HomeSettings() if home is None else HomeSettings(home=home)
    return load_hotkey(wallets or settings.wallets_path, name, hotkey or "default")


def _freeze(
    plan: Plan,
    store: DataStore,
    folder: Path,
    options: NormalOptions,
    report: Callable[[str, int, int], None] | None,
) -> FrozenPlan:
    from gas.datasets.plan import write_round
    from gas.datasets.plan_round import freeze_plan
    from gas.storage.blobs import FolderBlobs

    frozen = freeze_plan(plan, store.get, FolderBlobs(folder / "blobs").put, options=options, on_progress=report)
    write_round(frozen.round, folder)
    return frozen


def _described(plan: Plan, out: Path, frozen: FrozenPlan | None) -> dict[str, object]:
    found: dict[str, object] = {
        "plan": plan.plan_id,
        "path": str(out),
        "modality": str(plan.modality),
        "mode": str(plan.mode),
        "seed": plan.seed,
        "samples": len(plan),
        "sizes": plan.sizes,
        "datasets": plan.datasets,
        "dropped": dict(plan.dropped),
        "data_hash": plan.data_hash,
        "signer": plan.signature.address if plan.signature else None,
        "note": _note(plan),
    }
    if frozen is not None:
        found["round"] = {
            "id": frozen.round.round_id,
            "samples": len(frozen.round.samples),
            "sizes": frozen.round.sizes,
            "rejected": dict(Counter(frozen.rejected.values())),
        }
    return found


def _note(plan: Plan) -> str | None:
    """What an owner should know about the balance of the classes."""
    real = sum(count for name, count in plan.sizes.items() if name.endswith("/real"))
    fake = len(plan) - real
    if min(real, fake) >= 0.8 * max(real, fake):
        return None
    return f"{real:,} real to {fake:,} fake media: there are too few {'real' if real < fake else 'fake'} ones."


def _show(plan: Plan, out: Path, frozen: FrozenPlan | None) -> None:
    typer.echo(f"Plan {plan.plan_id}: {len(plan):,} samples, {plan.modality}, {plan.mode}, seed {plan.seed}")
    for name, count in plan.sizes.items():
        typer.echo(f"  {name:28} {count:7,}")
    typer.echo("By data set:")
    for name, count in plan.datasets.items():
        typer.echo(f"  {name:48} {count:7,}")
    if plan.dropped:
        typer.echo("Left out: " + ", ".join(f"{count:,} {reason}" for reason, count in plan.dropped.items()))
    if frozen is not None:
        rejected = ", ".join(f"{count} {code}" for code, count in sorted(Counter(frozen.rejected.values()).items()))
        typer.echo(
            f"Round {frozen.round.round_id}: {len(frozen.round.samples):,} samples" + (f"; {rejected}" * bool(rejected))
        )
    if note := _note(plan):
        typer.echo(f"Note: {note}")
    signed = f", signed by {plan.signature.address}" if plan.signature else ""
    typer.echo(f"Data hash {plan.data_hash}{signed}")
    typer.echo(f"Written to {out}")


def _show_diff(found: PlanDiff) -> None:
    if found.equal:
        typer.echo("The plans say the same.")
        return
    for name, (first, second) in found.parameters.items():
        typer.echo(f"{name}: {json.dumps(first)} -> {json.dumps(second)}")
    if found.datasets:
        typer.echo(f"{'data set':40} {'only first':>11} {'only second':>12} {'changed':>8}")
        for name, counts in found.datasets.items():
            typer.echo(f"{name:40} {counts['only_first']:11,} {counts['only_second']:12,} {counts['changed']:8,}")
    for change in found.changes[:_SHOWN]:
        typer.echo(f"  {change.sample_id[:16]} {change.name}: {change.first} -> {change.second}")
    if len(found.changes) > _SHOWN:
        typer.echo(f"  ... and {len(found.changes) - _SHOWN:,} more changes; --json has them all.")
