"""``gascli d push``: check, upload, commit; an interrupted push is finished by the same command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gas.cli.endpoint import ChainEndpoint
from gas.types import Modality, Vertical

__all__ = ["homes_arena", "push", "push_lines", "run_scores", "status", "waiting_lines"]

_MODEL = "Package (zip, folder, or one .onnx file) of {} detector."


def push(
    image_model: Annotated[Path | None, typer.Option(help=_MODEL.format("an image"))] = None,
    video_model: Annotated[Path | None, typer.Option(help=_MODEL.format("a video"))] = None,
    audio_model: Annotated[Path | None, typer.Option(help=_MODEL.format("an audio"))] = None,
    wallet_name: Annotated[str, typer.Option(help="Wallet whose hotkey pushes.")] = "default",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the ledger and the wallets.")] = Path(".gas"),
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 1,
    chain_endpoint: ChainEndpoint = None,
    api_url: Annotated[str, typer.Option(help="The arena's address.")] = "http://127.0.0.1:8100",
    arena_hotkey: Annotated[str, typer.Option(help="The arena's hotkey; default: the validator's of the home.")] = "",
    vertical: Annotated[Vertical, typer.Option(help="Specialisation.")] = Vertical.GENERAL,
    retry_delay: Annotated[
        float, typer.Option(min=0.0, help="Seconds before the next try when the arena or the chain does not answer.")
    ] = 10.0,
    retries: Annotated[int, typer.Option(min=0, help="Further tries.")] = 3,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check, upload and commit one package a modality; the same command finishes what was interrupted.

    A large package travels in pieces, and goes on where it stopped. When the arena or the chain does not answer, or
    the chain says that it is too soon, the push is tried again after a pause.

    Exit status 0 when every package is handed in and committed, 1 when one is refused.
    """
    from gas.errors import ConfigurationError

    wanted = {Modality.IMAGE: image_model, Modality.VIDEO: video_model, Modality.AUDIO: audio_model}
    packages = {modality: path for modality, path in wanted.items() if path is not None}
    if not packages:
        raise ConfigurationError("There is nothing to push.", hint="Name a package, e.g. --image-model detector.zip.")
    for path in packages.values():
        if not path.exists():
            raise ConfigurationError(f"There is no {path}.")
    results = asyncio.run(
        _push(
            packages,
            wallet_name,
            wallet_hotkey,
            home,
            netuid,
            chain_endpoint,
            api_url,
            arena_hotkey,
            vertical,
            retry_delay=retry_delay,
            retries=retries,
            quiet=json_output,
        )
    )
    if json_output:
        print(json.dumps({"pushed": results}))


def status(
    model_id: Annotated[str, typer.Argument(help="Id of the model, as the push printed it.")],
    wallet_name: Annotated[str, typer.Option(help="Wallet whose hotkey pushed it.")] = "default",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the wallets.")] = Path(".gas"),
    api_url: Annotated[str, typer.Option(help="The arena's address.")] = "http://127.0.0.1:8100",
    arena_hotkey: Annotated[str, typer.Option(help="The arena's hotkey; default: the validator's of the home.")] = "",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Where a pushed model stands: its state, its runs, and what to fix."""
    found = asyncio.run(_status(model_id, wallet_name, wallet_hotkey, home, api_url, arena_hotkey))
    if json_output:
        print(json.dumps(found))
        return
    print(f"{found.get('name') or model_id} is {found['state']}")
    for reason in found.get("reasons") or ():
        where = f"{reason['file']}:{reason['line']}: " if reason.get("file") and reason.get("line") else ""
        print(f"  {where}{reason['message']} [{reason['code']}]")
    for line in (*waiting_lines(found), *push_lines(found)):
        print(f"  {line}")
    for run in found.get("runs") or ():
        print(f"  {run['kind']}: {run['state']}{run_scores(run.get('metrics') or {})}")


def waiting_lines(found: Mapping[str, Any]) -> list[str]:
    """For what a model waits that has not been examined yet; nothing for any other."""
    if found.get("state") != "scanning":
        return []
    if found.get("committed_block") is None:
        return ["waits until a worker of the arena has read the commitment on the chain; the same push commits again"]
    return [f"committed in block {found['committed_block']}; waits for its turn, or for a round to be opened"]


def push_lines(found: Mapping[str, Any]) -> list[str]:
    """What there is to say of the push that a model belongs to; nothing for one that was pushed alone."""
    push = found.get("push")
    if not isinstance(push, dict) or "exams" not in push:
        return []
    exams = ", ".join(f"{modality} {accuracy:.1%}" for modality, accuracy in push["exams"].items()) or "none yet"
    if push.get("waiting_for"):
        return [f"pushed with others; exams so far: {exams}; waiting for {', '.join(push['waiting_for'])}"]
    if push.get("accuracy") is None:
        return []
    return [f"exams of the push: {exams}; on average {push['accuracy']:.1%}, {push['needed']:.0%} needed"]


def run_scores(metrics: Mapping[str, Any]) -> str:
    """Accuracy and scores of a run with their interval, after a comma; nothing for a run that has none yet."""
    parts = []
    if (accuracy := metrics.get("accuracy")) is not None:
        parts.append(f"accuracy {accuracy:.1%}")
    if (score := metrics.get("sn34_score")) is not None:
        interval = (metrics.get("base") or {}).get("sn34_ci95")
        between = f" (95 % between {interval[0]:.4f} and {interval[1]:.4f})" if interval else ""
        parts.append(f"sn34 {score:.4f}{between}")
    robust, base = metrics.get("robust") or {}, metrics.get("base") or {}
    if robust.get("sn34_score") is not None and base.get("sn34_score") is not None:
        parts.append(f"as it is {base['sn34_score']:.4f}, after sharing {robust['sn34_score']:.4f}")
    return f", {', '.join(parts)}" if parts else ""


async def _status(model_id: str, wallet: str, hotkey: str, home: Path, url: str, arena_hotkey: str) -> dict[str, Any]:
    import httpx

    from gas.arena.push import submission_status
    from gas.chain.keys import load_hotkey
    from gas.cli.arena_link import arena_at
    from gas.clock import RandomIds, SystemClock
    from gas.config import HomeSettings
    from gas.protocol.client import SignedClient

    wallets = HomeSettings(home=home).wallets_path
    signer = load_hotkey(wallets, wallet, hotkey)
    arena = arena_hotkey or homes_arena(wallets)
    async with httpx.AsyncClient(timeout=60) as http:
        client = SignedClient(signer, http, SystemClock(), RandomIds())
        with arena_at(url):
            return dict(await submission_status(client, url.rstrip("/"), arena, model_id))


def homes_arena(wallets: Path) -> str:
    """Hotkey of the arena of this home: its validator's.

    Raises:
        ConfigurationError: The home has none.
    """
    from gas.chain.keys import view_wallet
    from gas.errors import ConfigurationError

    try:
        return view_wallet(wallets, "validator").hotkeys["default"]
    except (ConfigurationError, KeyError) as error:
        raise ConfigurationError(
            "The home has no validator's wallet, so the arena's hotkey is not known.",
            hint="Name it with --arena-hotkey; the arena's owner tells it.",
        ) from error


def _zipped(path: Path, work: Path) -> Path:
    """The zip of a package."""
    from gas.bench.local import packed

    work.mkdir()
    return packed(path, work)


@contextmanager
def _upload_bar(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes that appears with the first piece."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Elsewhere than in a terminal a bar that never showed would still leave an empty line.
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


async def _push(
    packages: dict[Modality, Path],
    wallet: str,
    hotkey: str,
    home: Path,
    netuid: int,
    endpoint: str | None,
    url: str,
    arena_hotkey: str,
    vertical: Vertical,
    *,
    retry_delay: float,
    retries: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    import tempfile

    import httpx

    from gas.arena.push import commitment_seen, label_push, submission_status
    from gas.arena.push import push as push_package
    from gas.chain.keys import load_hotkey
    from gas.cli.arena_link import arena_at
    from gas.cli.endpoint import home_settings, open_chain
    from gas.clock import RandomIds, SystemClock
    from gas.errors import ChainUnreachable, RateLimited
    from gas.protocol.client import PeerUnreachable, SignedClient
    from gas.submissions.check import check

    settings, clock = home_settings(home, chain_endpoint=endpoint), SystemClock()
    signer = load_hotkey(settings.wallets_path, wallet, hotkey)
    arena = arena_hotkey or homes_arena(settings.wallets_path)
    chain = await open_chain(settings, signer, clock)
    results = []
    try:
        with tempfile.TemporaryDirectory(prefix="gas-push-") as scratch:
            async with httpx.AsyncClient(timeout=600) as http:
                client = SignedClient(signer, http, clock, RandomIds())
                zips = {kind: _zipped(path, Path(scratch) / kind) for kind, path in packages.items()}
                for modality, file in zips.items():
                    # All are checked before the first is handed in: one that is refused would let the others wait.
                    if not quiet:
                        print(f"{modality}: checking the package")
                    check(file, modality=modality).require()
                label = None
                for modality, file in zips.items():

                    def say(step: str, modality: Modality = modality) -> None:
                        if not quiet:
                            print(f"{modality}: {step}")

                    with _upload_bar(not quiet) as report:
                        for attempt in range(retries + 1):
                            try:
                                with arena_at(url):
                                    if label is None:
                                        label = await label_push(
                                            zips, vertical, url=url.rstrip("/"), arena_hotkey=arena, client=client
                                        )
                                    own = label if label is not None and modality in label.modalities else None
                                    pushed = await push_package(
                                        file,
                                        modality,
                                        vertical,
                                        url=url.rstrip("/"),
                                        arena_hotkey=arena,
                                        hotkey=signer.ss58_address,
                                        netuid=netuid,
                                        client=client,
                                        chain=chain,
                                        label=own,
                                        checked=True,
                                        on_step=say,
                                        on_upload=report,
                                    )
                                break
                            except (PeerUnreachable, ChainUnreachable, RateLimited) as error:
                                if attempt == retries:
                                    raise
                                say(f"{error} Trying again in {retry_delay:g} s.")
                                await asyncio.sleep(retry_delay)
                    model_id = pushed.receipt.model_id
                    if not pushed.created:
                        say("the arena has this package already")
                    say("waiting for the arena to read the commitment")
                    seen = await commitment_seen(client, url.rstrip("/"), arena, model_id)
                    if not seen and modality != list(zips)[-1]:
                        raise PeerUnreachable(
                            "The arena has not read the commitment in a minute, and the next one would replace it.",
                            code="commitment_unread",
                            hint="Is a worker at work there? Push again later: the same command goes on from here.",
                        )
                    if not seen:
                        say("the arena has not read it yet; it does when a worker is at work there")
                    found = await submission_status(client, url.rstrip("/"), arena, model_id)
                    say(f"committed in block {pushed.block}; model {model_id} is {found['state']}")
                    if found.get("reasons"):
                        say(f"gascli d status {model_id} tells why")
                    results.append(
                        {
                            "modality": modality.value,
                            "model_id": model_id,
                            "state": found["state"],
                            "key": pushed.receipt.key,
                            "sha256": pushed.receipt.sha256,
                            "created": pushed.created,
                            "push_id": own.push_id if own is not None else None,
                            "block": pushed.block,
                        }
                    )
    finally:
        await chain.close()
    return results
