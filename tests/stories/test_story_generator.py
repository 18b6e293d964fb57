"""An operator with an empty folder: a certificate, settings, a miner that is started, killed, watched and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "miners"))

from miner_ground import Webhook, found_home, noise_png, states, wait_for, write_env
from openai_peer import OpenAIPeer

from gas.cli.main import main
from gas.media.encode import encode_audio

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    tone = np.sin(np.linspace(0, 2000, 24_000, dtype=np.float32)) * np.float32(0.3)
    return {"image": noise_png(64), "audio": encode_audio(tone, 24_000, "mp3"), "video": b""}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GAS_HOME", "GAS_CHAIN_ENDPOINT", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    found_home(tmp_path / ".gas")
    shutil.rmtree(tmp_path / "authority")
    return tmp_path


@pytest.fixture
def gascli(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        try:
            main([str(word) for word in words])
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        assert status == code, out + err
        return out + err

    return run


@pytest.fixture
def stopped(folder: Path, gascli: Any) -> Iterator[None]:
    yield
    gascli("g", "stop")


def test_a_generator_from_an_empty_folder_to_its_pay(
    folder: Path, gascli: Any, media: dict[str, bytes], stopped: None
) -> None:
    assert "template" in gascli("g", "start", code=2)
    with OpenAIPeer(media) as peer, Webhook() as hook:
        port = free_port()
        write_env(
            folder / ".env.gen_miner",
            AUDIO_SERVICE="openai",
            OPENAI_API_KEY=peer.key,
            OPENAI_BASE_URL=peer.url,
            BT_AXON_PORT=port,
            MINER_SAVE_LOCALLY="true",
            MINER_OUTPUT_DIR="copies",
        )
        assert "g cert new" in gascli("g", "start", code=2)
        gascli("g", "cert", "new", "--name", "miner", "--organisation", "Lab")
        begun = json.loads(gascli("g", "start", "--json"))
        assert begun["state"] == "running"
        assert "already" in gascli("g", "start", code=2)
        url = f"http://127.0.0.1:{port}"
        asked = {hook.take(url, kind, f"{kind} number {n}"): kind for kind in ("image", "audio") for n in range(3)}
        wait_for(lambda: states(folder / "state") == dict.fromkeys(asked, "delivered"), "the deliveries")

        os.kill(begun["child_pid"], signal.SIGKILL)
        wait_for(lambda: json.loads(gascli("g", "status", "--json"))["restarts"] == 1, "the restart")
        hook.answer = {"status": "refused", "reasons": [{"code": "near_duplicate"}]}
        wait_for(lambda: _healthy(url), "the service")
        hook.take(url, "image", "the same again")
        wait_for(lambda: len(hook.deliveries) == 7 and set(states(folder / "state").values()) == {"delivered"}, "it")

        status = gascli("g", "status")
        assert "takes work" in status
        assert "7 delivered" in status
        assert json.loads(gascli("g", "restart", "--json"))["state"] == "running"
        found = json.loads(gascli("g", "perf", "--json"))
        assert found["all"]["pass_rate"] == pytest.approx(6 / 7)
        assert found["all"]["reasons"] == {"near_duplicate": 1}
        assert found["all"]["multipliers"]["image"] > 0
        assert found["pay"]["registered"]
        assert "86%" in gascli("g", "perf")
        about = gascli("g", "info")
        assert "openai" in about
        assert peer.key not in about + gascli("g", "logs", "-n", 500)
        assert "stopped" in gascli("g", "stop")
        gascli("g", "status", code=1)
        copies = sorted((folder / "copies").iterdir())
        assert len(copies) == 7
        for copy in copies:
            gascli("g", "verify-c2pa", copy, "--trust", folder / "authority" / "root.pem")
        assert "service" in gascli("g", "delete", "--tasks")
        assert states_are_gone(folder / "state")
        assert len(peer.submits) == 7


def states_are_gone(state: Path) -> bool:
    return not (state / "tasks.db").exists() and not (state / "outgoing").exists()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _pm2() -> str | None:
    own = ROOT / ".venv" / "node" / "node_modules" / ".bin" / "pm2"
    return str(own) if own.exists() else shutil.which("pm2")


@pytest.mark.skipif(_pm2() is None, reason="pm2 is not installed; ./install.sh --profile dev does so where npm is")
def test_pm2_starts_the_generator_by_its_configuration(folder: Path, gascli: Any, media: dict[str, bytes]) -> None:
    pm2 = str(_pm2())
    environment = {**os.environ, "PM2_HOME": str(folder / "pm2"), "PM2_DISABLE_VERSION_CHECK": "true"}

    def run(*words: str) -> str:
        done = subprocess.run([pm2, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shutil.copy(ROOT / "gen_miner.config.js", folder)
    shutil.copytree(ROOT / "neurons", folder / "neurons")
    (folder / ".venv").symlink_to(sys.prefix)
    gascli("g", "cert", "new", "--name", "miner")
    port = free_port()
    with OpenAIPeer(media) as peer, Webhook() as hook:
        write_env(folder / ".env.gen_miner", OPENAI_API_KEY=peer.key, OPENAI_BASE_URL=peer.url, BT_AXON_PORT=port)
        try:
            run("start", "gen_miner.config.js")
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _healthy(url), "the service")
            hook.take(url, "image", "a cat")
            wait_for(lambda: len(hook.deliveries) == 1, "the delivery")
            (about,) = json.loads(run("jlist"))
            assert (about["name"], about["pm2_env"]["status"]) == ("gas-generator", "online")
            second = [sys.executable, "-m", "gas.cli.main", "g", "start"]
            refused = subprocess.run(second, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
            assert refused.returncode == 2, refused.stdout
            assert "Another generator works" in refused.stderr
            run("delete", "gas-generator")
            assert not _healthy(url)
        finally:
            subprocess.run([pm2, "kill"], env=environment, capture_output=True, timeout=60, check=False)
