"""``gascli receipt get | verify`` and ``gascli bench replay``: whether what an arena signed holds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gas.arena.receipts import Receipt
    from gas.arena.replay import Replayed

__all__ = ["app", "bench_app"]

_MAX_BYTES = 16 * 2**20

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Signed receipts of runs: get, verify.")
bench_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Replay a run from its receipt.")

_File = Annotated[Path, typer.Argument(metavar="RECEIPT", help="The receipt's JSON file.")]
_Signer = Annotated[
    str | None, typer.Option("--signer", help="Address that must have signed: the arena's hotkey; any when left out.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@bench_app.callback()
def _group() -> None:
    """Replay a run from its receipt."""


@app.command("get")
def get_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run; the leaderboard names it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("receipt.json"),
    api_url: Annotated[str, typer.Option(help="The arena's address.")] = "http://127.0.0.1:8100",
) -> None:
    """Fetch the receipt of a run whose round is closed."""
    import httpx

    from gas.errors import RequestRefused
    from gas.protocol.client import PeerUnreachable

    _require_folder(out)
    try:
        with httpx.Client(timeout=60) as http, http.stream("GET", _address(api_url, run_id)) as answer:
            data = b""
            for part in answer.iter_bytes():
                data += part
                if len(data) > _MAX_BYTES:
                    raise PeerUnreachable("The arena's answer is too large for a receipt.", code="bad_answer")
    except httpx.HTTPError as error:
        raise PeerUnreachable("The arena does not answer.", hint="Check --api-url.") from error
    if answer.status_code != 200:
        raise RequestRefused(
            "The arena has no receipt of that run to show.",
            status=answer.status_code,
            code="unknown_receipt",
            hint="Receipts are public when their round is closed.",
        )
    receipt = _checked(data, None)
    out.write_bytes(data)
    print(f"{out}: {receipt.body['model']['name']} on round {receipt.body['round']['id']}, signed by {receipt.signer}")


@app.command("verify")
def verify_command(
    file: _File,
    signer: _Signer = None,
    records: Annotated[Path | None, typer.Option(help="The records' Parquet, to be compared with its hash.")] = None,
    package: Annotated[Path | None, typer.Option(help="The model's zip, to be compared with its hash.")] = None,
    round_folder: Annotated[
        Path | None, typer.Option("--round", help="The frozen round, to be compared with its hashes.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check a receipt's signature, and the hashes of whatever of its run is at hand.

    Exit status 0 when it holds, 1 when it does not.
    """
    from gas.arena.submissions import file_sha256

    receipt = _checked(_read(file), signer, None if records is None else file_sha256(records))
    checked = ["signature"] + (["signer"] if signer else []) + (["records"] if records else [])
    if package is not None:
        _same("package", file_sha256(package), receipt.body.get("model", {}).get("sha256"))
        checked.append("package")
    if round_folder is not None:
        from gas.datasets.plan import read_round

        round_ = read_round(round_folder)
        _same("round", round_.round_id, receipt.body.get("round", {}).get("id"))
        _same("data_hash", round_.data_hash, receipt.body.get("round", {}).get("data_hash"))
        checked.append("round")
    if as_json:
        print(json.dumps({"valid": True, "signer": receipt.signer, "checked": checked, "body": dict(receipt.body)}))
        return
    _show(receipt)
    print(f"Holds: {', '.join(checked)}.")
    if signer is None:
        print("Whoever signed it was not compared with anything: name the arena's hotkey with --signer.")


@bench_app.command("replay")
def replay_command(
    file: _File,
    package: Annotated[Path, typer.Option(help="The model's zip, as it was pushed.")],
    home: Annotated[
        Path, typer.Option(envvar="GAS_HOME", help="Home whose blobs hold the round and its media.")
    ] = Path(".gas"),
    round_folder: Annotated[
        Path | None, typer.Option("--round", help="The frozen round with blobs/ beside it, instead of a home's.")
    ] = None,
    signer: _Signer = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the replay's own receipt here.")] = None,
    wallet_name: Annotated[str, typer.Option(help="Wallet that signs the replay's receipt.")] = "validator",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of its hotkey.")] = "default",
    processes: Annotated[int | None, typer.Option(min=1, help="Model processes; as many as cores by default.")] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help="Go on where nothing isolates.")] = False,
    as_json: _Json = False,
) -> None:
    """Run what a receipt attests again and compare every metric.

    Exit status 0 when they are all the same, 1 when one differs.
    """
    from gas.chain.keys import load_hotkey
    from gas.config import HomeSettings

    receipt = _checked(_read(file), signer)
    if out is not None:
        _require_folder(out)
    # Before the work: a replay that can't be signed in the end would be a pity.
    key = load_hotkey(HomeSettings(home=home).wallets_path, wallet_name, wallet_hotkey) if out else None
    replayed = _replay(receipt, package, home, round_folder, processes, trust_model)
    if out is not None and key is not None:
        from gas.arena.receipts import sign_receipt

        out.write_text(json.dumps(sign_receipt(replayed.body, key), indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".records.parquet").write_bytes(replayed.records)
    differences = [{"metric": d.metric, "signed": d.signed, "found": d.found} for d in replayed.differences]
    if as_json:
        found = {"same_metrics": not differences, "same_records": replayed.same_records, "differences": differences}
        print(json.dumps({**found, "metrics": replayed.body["metrics"]}))
    else:
        _show(receipt)
        for one in replayed.differences[:20]:
            print(f"  {one.metric}: signed {one.signed}, found {one.found}")
        largest = max((d.size for d in replayed.differences), default=0.0)
        same = "every metric is the same" if not differences else f"{len(differences)} differ, by {largest:.3g} at most"
        print(f"Replayed: {same}; the answers are {'' if replayed.same_records else 'not '}the same bytes.")
    if differences:
        raise typer.Exit(1)


def _replay(
    receipt: Receipt, package: Path, home: Path, round_folder: Path | None, processes: int | None, trust: bool
) -> Replayed:
    from gas.arena.evaluation import BenchEvaluator
    from gas.arena.packages import PackageDesk
    from gas.arena.replay import replay
    from gas.arena.rounds import store_round
    from gas.bench.engine import RunConfig
    from gas.clock import SystemClock
    from gas.config import HomeSettings
    from gas.datasets.plan import read_round
    from gas.sandbox import Tier, best_sandbox
    from gas.storage.blobs import FolderBlobs, open_blobs
    from gas.submissions.limits import Limits

    weakest = Tier.PLAIN if trust else Tier.NAMESPACES
    # An arena may take larger zips than others do; that this is the one of the receipt is told by its hash.
    size = max(Limits().packed_bytes, package.stat().st_size if package.is_file() else 0)
    with tempfile.TemporaryDirectory(prefix="gas-replay-") as name:
        work = Path(name)
        if round_folder is not None:
            blobs: Any = FolderBlobs(round_folder / "blobs", rehash=True)
            store_round(blobs, read_round(round_folder))
        else:
            blobs = open_blobs(HomeSettings(home=home).resolved_blobs_url)
        evaluator = BenchEvaluator(
            blobs=blobs,
            sandbox=best_sandbox(weakest),
            prepare=PackageDesk(Limits(packed_bytes=size)).prepare,
            config=RunConfig(nonce="0" * 16, processes=processes, min_tier=weakest),
            work=work / "runs",
            cache=work / "pixels",
            clock=SystemClock(),
        )
        return replay(receipt, package, evaluator)


def _require_folder(out: Path) -> None:
    """Refuse a place where nothing can be written, before anything is done."""
    from gas.errors import ConfigurationError

    if not out.parent.is_dir() or out.is_dir():
        raise ConfigurationError(f"{out} can't be written.", hint="Name a file in a folder that exists.")


def _address(api_url: str, run_id: str) -> str:
    from urllib.parse import quote

    return f"{api_url.rstrip('/')}/api/v1/runs/{quote(run_id, safe='')}/receipt"


def _read(file: Path) -> bytes:
    from gas.errors import ConfigurationError

    try:
        with file.open("rb") as source:
            data = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read ({error.strerror}).") from error
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{file} is too large for a receipt.")
    return data


def _checked(data: bytes, signer: str | None, records_sha256: str | None = None) -> Receipt:
    from gas.arena.receipts import BadReceipt, verify_receipt

    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadReceipt("This is no receipt: it is no JSON.", code="format") from error
    return verify_receipt(tree, signer=signer, records_sha256=records_sha256)


def _same(what: str, found: object, signed: object) -> None:
    from gas.arena.receipts import BadReceipt

    if found != signed:
        raise BadReceipt(f"The {what.replace('_', ' ')} is not the one of this receipt.", code=what)


def _show(receipt: Receipt) -> None:
    body = receipt.body
    model, round_, metrics = body.get("model", {}), body.get("round", {}), body.get("metrics") or {}
    print(f"{model.get('name')} of {model.get('hotkey')}, committed in block {model.get('committed_block')}")
    print(f"  round {round_.get('id')} ({round_.get('modality')}), data {str(round_.get('data_hash'))[:16]}")
    print(f"  sn34 {metrics.get('sn34_score')}, accuracy {metrics.get('accuracy')}, tier {body.get('sandbox_tier')}")
    engine = body.get("engine")
    if isinstance(engine, dict) and isinstance(limits := engine.get("limits"), dict):
        print(f"  limits {', '.join(f'{name} {value}' for name, value in limits.items())}")
    print(f"  signed by {receipt.signer}")
