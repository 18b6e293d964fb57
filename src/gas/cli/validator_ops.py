"""``gascli validator``: serve, start, stop, restart, status and logs, without a service manager."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from gas.cli.supervise import Supervised, SupervisedStatus
    from gas.validator.settings import ValidatorSettings

__all__ = ["logs", "restart", "serve", "start", "status", "stop"]

_READY_SECONDS: Final = 60.0
_ALIVE_SECONDS: Final = 45.0
_LEDGER_WAIT: Final = 0.1
_EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Settings; .env.validator in this folder by default.")
]
_Service = Annotated[
    str | None, typer.Option("--service", help="sn34-validator, sn34-generator or sn34-data; all three by default.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def serve(
    service: Annotated[str, typer.Option("--service", help="sn34-validator, sn34-generator or sn34-data.")],
    env_file: _EnvFile = None,
) -> None:
    """Run one service in the foreground until SIGTERM or Ctrl-C."""
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent
    from gas.cli.validator_service import run

    _names(service)
    die_with_parent()
    configure_logs()
    asyncio.run(run(service, _settings(env_file)[0]))


def start(
    env_file: _EnvFile = None,
    service: _Service = None,
    wait: Annotated[bool, typer.Option(help="Wait until each says that it lives.")] = True,
    json_output: _Json = False,
) -> None:
    """Start the services of .env.validator in the background; each is started again when it ends by itself."""
    _begin("start", env_file, service, wait, json_output)


def restart(
    env_file: _EnvFile = None,
    service: _Service = None,
    wait: Annotated[bool, typer.Option(help="Wait until each says that it lives.")] = True,
    json_output: _Json = False,
) -> None:
    """Stop services where they run, and start them with the settings of now; nothing is lost."""
    _begin("restart", env_file, service, wait, json_output)


def stop(env_file: _EnvFile = None, service: _Service = None, json_output: _Json = False) -> None:
    """Stop services; what they were at is in the database."""
    from concurrent.futures import ThreadPoolExecutor

    settings, file = _settings(env_file)
    names = _names(service)
    with ThreadPoolExecutor(len(names)) as pool:
        # Side by side: each has some seconds to end what it is at.
        stopped = dict(zip(names, pool.map(lambda name: _supervised(name, settings, file).stop(), names), strict=True))
    _print(
        {"stopped": stopped},
        [f"{name:15}{'stopped' if did else 'did not run'}" for name, did in stopped.items()],
        json_output,
    )


def status(env_file: _EnvFile = None, service: _Service = None, json_output: _Json = False) -> None:
    """Whether the services run and live, and how the last day went; exit status 1 when one does not run."""
    from gas.clock import SystemClock

    settings, file = _settings(env_file)
    found = {name: _supervised(name, settings, file).status() for name in _names(service)}
    now = SystemClock().time()
    facts = _facts(settings, now)
    beats = facts.pop("heartbeats", {})
    elsewhere = {name for name, one in found.items() if _lives_elsewhere(one, beats.get(name), now)}
    told = {
        name: {**asdict(one), "elsewhere": name in elsewhere, "heartbeat": beats.get(name)}
        for name, one in found.items()
    }
    lines = []
    for name, one in found.items():
        beat = beats.get(name)
        said = ", ".join(f"{key} {value}" for key, value in (beat or {}).get("facts", {}).items())
        life = f"lived {beat['seconds_ago']:.0f} s ago" + (f" ({said})" if said else "") if beat else "no heartbeat yet"
        state = "run by another manager" if name in elsewhere else one.sentence()
        lines.append(f"{name:15}{state}; {life}")
    lines += [f"{name:15}{_row(value)}" for name, value in facts.items()]
    _print({"services": told, **facts}, lines, json_output)
    if not all(one.running or name in elsewhere for name, one in found.items()):
        raise SystemExit(1)


def logs(
    env_file: _EnvFile = None,
    service: _Service = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=100_000, help="How many lines of each.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
) -> None:
    """The last lines of the services' logs, each with its service's name when there are several."""
    from gas.errors import ConfigurationError

    settings, file = _settings(env_file)
    names = _names(service)
    if follow and len(names) > 1:
        raise ConfigurationError("Only one log can be followed.", hint="Name one with --service.")
    for name in names:
        for line in _supervised(name, settings, file).logs(lines):
            print(line if len(names) == 1 else f"{name}: {line}")
    if follow:
        sys.stdout.flush()
        for line in _supervised(names[0], settings, file).follow():
            print(line, flush=True)


def _settings(env_file: Path | None) -> tuple[ValidatorSettings, Path]:
    from gas.validator.settings import ENV_FILE, read_settings

    file = env_file or Path(ENV_FILE)
    return read_settings(file), file


def _names(service: str | None) -> tuple[str, ...]:
    from gas.errors import ConfigurationError
    from gas.validator.ground import SERVICES

    if service is None:
        return SERVICES
    if service not in SERVICES:
        raise ConfigurationError(f"There is no service {service[:60]!r}.", hint=f"Known are {', '.join(SERVICES)}.")
    return (service,)


def _supervised(name: str, settings: ValidatorSettings, file: Path) -> Supervised:
    from gas.cli.supervise import Supervised

    command = [
        *(sys.executable, "-m", "gas.cli.main", "validator", "serve"),
        *("--service", name, "--env-file", str(file.resolve())),
    ]
    return Supervised(name, command, settings.state_path / "services")


def _begin(act: str, env_file: Path | None, service: str | None, wait: bool, as_json: bool) -> None:
    from gas.cli.validator_service import check
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError, InfrastructureError

    settings, file = _settings(env_file)
    names = _names(service)
    hotkey = check(settings)
    clock = SystemClock()
    began, begun = clock.time(), {}
    for name in names:
        one = _supervised(name, settings, file)
        begun[name] = one.restart() if act == "restart" else one.start()
    if wait:
        for name in names:
            one = _supervised(name, settings, file)
            begun[name] = _await_beat(name, one, settings, began)
            if begun[name].state == "failed":
                raise ConfigurationError(
                    f"{name} did not start: " + (_last_error(one) or f"see {one.log_path}."), code="not_started"
                )
            if not _beaten(name, settings, began):
                raise InfrastructureError(
                    f"{name} gives no sign of life yet; it is tried again and again.",
                    code="not_ready",
                    hint=f"See gascli v logs --service {name}.",
                )
    lines = [f"{name:15}{one.sentence()}" for name, one in begun.items()]
    told = {name: asdict(one) for name, one in begun.items()}
    _print({"hotkey": hotkey, "services": told}, [*lines, f"{'hotkey':15}{hotkey}"], as_json)


def _await_beat(name: str, one: Supervised, settings: ValidatorSettings, since: float) -> SupervisedStatus:
    end = time.monotonic() + _READY_SECONDS
    while True:
        found = one.status()
        if found.state in ("failed", "stopped", "waiting") or time.monotonic() > end:
            return found
        if _beaten(name, settings, since):
            return found
        time.sleep(_LEDGER_WAIT)


def _beaten(name: str, settings: ValidatorSettings, since: float) -> bool:
    from gas.storage.database import open_database
    from gas.validator.ground import ServiceState

    database = open_database(settings.database_url, migrate=False)
    try:
        at, _facts = ServiceState.heartbeats(database).get(name, (0.0, {}))
    finally:
        database.close()
    return at >= since


def _facts(settings: ValidatorSettings, now: float) -> dict[str, Any]:
    """What the database says; nothing when there is none yet."""
    from gas.chain.keys import load_hotkey
    from gas.storage.database import open_database
    from gas.validator.metrics import read_facts

    if not settings.gas_database_url.get_secret_value() and not (settings.gas_home / "gas.db").exists():
        return {}
    hotkey = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey).ss58_address
    database = open_database(settings.database_url)
    try:
        found = read_facts(database, hotkey, now)
    finally:
        database.close()
    beats = {name: {"seconds_ago": round(age, 1), "facts": said} for name, (age, said) in found.heartbeats.items()}
    media = {f"{source} {state}": count for (source, state), count in found.media.items()}
    backlog = {"deliveries": found.backlog, "oldest_seconds": round(found.oldest_seconds, 1)}
    return {"challenges": found.challenges, "backlog": backlog, "media": media, "heartbeats": beats}


def _lives_elsewhere(one: SupervisedStatus, beat: dict[str, Any] | None, now: float) -> bool:
    """Whether a service that was not started here, or was stopped here, has lived since: under pm2, say."""
    if one.running or beat is None or beat["seconds_ago"] > _ALIVE_SECONDS:
        return False
    return bool(now - beat["seconds_ago"] > (one.since or 0.0))


def _row(values: dict[str, Any]) -> str:
    return ", ".join(f"{value} {key}" for key, value in values.items()) or "none"


def _last_error(one: Supervised) -> str | None:
    said = (line for line in reversed(one.logs(50)) if line.startswith("gascli: "))
    return next((line.removeprefix("gascli: ") for line in said), None)


def _print(data: dict[str, Any], lines: list[str], as_json: bool) -> None:
    print(json.dumps(data) if as_json else "\n".join(lines))
