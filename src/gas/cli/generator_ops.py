"""``gascli generator``: start, stop, restart, status, logs, info and delete, without a service manager."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gas.cli.generator import EnvFile, settings_file

if TYPE_CHECKING:
    from gas.cli.supervise import Supervised, SupervisedStatus
    from gas.miners.settings import GeneratorSettings

__all__ = ["delete", "info", "logs", "restart", "start", "status", "stop"]

_NAME: Final = "generator"
_READY_SECONDS: Final = 60.0
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def start(
    env_file: EnvFile = None,
    wait: Annotated[bool, typer.Option(help="Wait until it takes work.")] = True,
    json_output: _Json = False,
) -> None:
    """Start the generator of .env.gen_miner in the background; it is started again when it ends by itself."""
    from gas.miners.copies import sole_owner

    service, settings = _service(env_file)
    _look_before(settings)
    if not service.status().running:
        # Another one, of pm2 say, would answer on the port, and be taken for the one that is started.
        with sole_owner(settings.state_path):
            pass
    _begin(service.start, service, settings, wait, json_output)


def restart(
    env_file: EnvFile = None,
    wait: Annotated[bool, typer.Option(help="Wait until it takes work.")] = True,
    json_output: _Json = False,
) -> None:
    """Stop the generator when it runs, and start it with the settings of now; tasks go on where they were."""
    service, settings = _service(env_file)
    _look_before(settings)
    _begin(service.restart, service, settings, wait, json_output)


def stop(env_file: EnvFile = None, json_output: _Json = False) -> None:
    """Stop the generator; paid calls under way are waited for, tasks are kept."""
    service, _settings = _service(env_file)
    stopped = service.stop()
    _print({"stopped": stopped}, "stopped" if stopped else "it did not run", json_output)


def status(env_file: EnvFile = None, json_output: _Json = False) -> None:
    """Whether the generator runs and takes work, and its tasks; exit status 1 when it does not run."""
    service, settings = _service(env_file)
    found = service.status()
    health = _health(settings) if found.state == "running" else None
    told = {**asdict(found), "health": health, "tasks": _tasks(settings)}
    if json_output:
        print(json.dumps(told))
    else:
        print(f"state     {found.sentence()}")
        print(f"health    {_health_line(health)}")
        counts = ", ".join(f"{count} {state}" for state, count in told["tasks"].items())
        print(f"tasks     {counts or 'none yet'}")
        print(f"log       {service.log_path}")
    if not found.running:
        raise SystemExit(1)


def logs(
    env_file: EnvFile = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=100_000, help="How many lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
) -> None:
    """The last lines of the generator's log."""
    service, _settings = _service(env_file)
    for line in service.logs(lines):
        print(line)
    if follow:
        sys.stdout.flush()
        for line in service.follow():
            print(line, flush=True)


def info(env_file: EnvFile = None, json_output: _Json = False) -> None:
    """The settings in force; keys are never shown."""
    from gas.chain.keys import load_hotkey
    from gas.errors import GasError

    service, settings = _service(env_file)
    told: dict[str, Any] = {name.upper(): _shown(value) for name, value in settings.model_dump().items()}
    hotkey: str
    try:
        hotkey = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey).ss58_address
    except GasError as error:
        hotkey = f"({error.message})"
    told = {"hotkey": hotkey, "log": str(service.log_path), "state": str(settings.state_path), **told}
    if json_output:
        print(json.dumps(told))
        return
    width = max(map(len, told)) + 2
    for name, value in told.items():
        print(f"{name:{width}}{'–' if value in (None, '') else value}")


def delete(
    env_file: EnvFile = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Also remove its tasks and undelivered media.")] = False,
    json_output: _Json = False,
) -> None:
    """Stop the generator and remove its supervision and logs; with --tasks its tasks too."""
    import shutil

    service, settings = _service(env_file)
    found = service.delete()
    removed = [str(service.state_dir)] if found else []
    if tasks:
        from gas.miners.copies import sole_owner

        with sole_owner(settings.state_path):
            for path in (*settings.state_path.glob("tasks.db*"), *settings.state_path.glob("incoming-*")):
                path.unlink(missing_ok=True)
                removed.append(str(path))
            for folder in (settings.state_path / "outgoing", settings.state_path / "sources"):
                if folder.is_dir():
                    shutil.rmtree(folder)
                    removed.append(str(folder))
    _print({"deleted": removed}, f"removed {', '.join(removed)}" if removed else "there was nothing", json_output)


def _service(env_file: Path | None) -> tuple[Supervised, GeneratorSettings]:
    from gas.cli.supervise import Supervised
    from gas.miners.settings import ENV_FILE, read_settings

    # These commands are for the operator's file; without one they would manage a service nobody has set up.
    file = settings_file(env_file) or Path(ENV_FILE)
    settings = read_settings(file)
    command = [sys.executable, "-m", "gas.cli.main", "generator", "serve", "--env-file", str(file.resolve())]
    return Supervised(_NAME, command, settings.state_path / "service"), settings


def _look_before(settings: GeneratorSettings) -> None:
    """Find what is wrong here and now, before a process is started (or a running one is stopped) for it."""
    from gas.chain.keys import load_hotkey
    from gas.clock import SystemClock
    from gas.miners.seal import CertificateSeal

    _ip, _port = settings.axon
    load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey)
    CertificateSeal(settings.miner_c2pa_dir, settings.credential_name, settings.bt_wallet_name, SystemClock())


def _begin(
    act: Callable[[], SupervisedStatus], service: Supervised, settings: GeneratorSettings, wait: bool, as_json: bool
) -> None:
    from gas.errors import ConfigurationError, InfrastructureError

    begun = act()
    if wait:
        found = _await_health(service, settings)
        if found.state == "failed":
            raise ConfigurationError(
                "The generator did not start: " + (_last_error(service) or f"see {service.log_path}."),
                code="not_started",
            )
        if not _health(settings):
            raise InfrastructureError(
                "The generator does not answer yet; it is tried again and again.",
                code="not_ready",
                hint=f"See gascli g logs, or {service.log_path}.",
            )
        begun = found
    _print(
        {**asdict(begun), "port": settings.bt_axon_port, "log": str(service.log_path)},
        f"{begun.sentence()}; listening on {settings.bt_axon_ip}:{settings.bt_axon_port}, log {service.log_path}",
        as_json,
    )


def _await_health(service: Supervised, settings: GeneratorSettings) -> SupervisedStatus:
    end = time.monotonic() + _READY_SECONDS
    while True:
        found = service.status()
        if found.state in ("failed", "stopped", "waiting") or time.monotonic() > end:
            return found
        if _health(settings) is not None:
            return found
        time.sleep(0.1)


def _health(settings: GeneratorSettings) -> dict[str, Any] | None:
    """What ``/health`` answers, with its HTTP status; None when nobody answers."""
    import http.client
    from ipaddress import ip_address

    if not settings.bt_axon_port:
        return {}
    host = settings.bt_axon_ip
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    connection = http.client.HTTPConnection(host, settings.bt_axon_port, timeout=5)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = json.loads(answer.read(65_536))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return {"http": answer.status, **body} if isinstance(body, dict) else None


def _tasks(settings: GeneratorSettings) -> dict[str, int]:
    from gas.miners.history import task_counts

    return task_counts(settings.state_path)


def _health_line(health: dict[str, Any] | None) -> str:
    if health is None:
        return "no answer"
    if health.get("http") == 200:
        return "takes work"
    error = health.get("error")
    return f"takes no work: {error.get('message')}" if isinstance(error, dict) else "unknown"


def _last_error(service: Supervised) -> str | None:
    said = (line for line in reversed(service.logs(50)) if line.startswith("gascli: "))
    return next((line.removeprefix("gascli: ") for line in said), None)


def _shown(value: object) -> Any:
    return str(value) if isinstance(value, Path) else value


def _print(data: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(data) if as_json else text)
