"""A season of an arena with every modality: an image, a video and an audio competition, from open to pay.

The commands are the ones of the guides, the service is a process of its own, the models run in the sandbox. Media and
models are tiny: bright pictures and sharp recordings are real, and a detector is a mean.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from gas.chain.keys import ensure_wallet, load_hotkey
from gas.chain.local.founding import create_ledger, create_subnet, ensure_balance, ensure_registered
from gas.cli.main import main
from gas.cli.processes import spawn
from gas.clock import SystemClock, derive_rng
from gas.media.encode import encode_mp4
from gas.media.image import encode_png
from gas.sandbox.base import Tier
from gas.sandbox.probe import probe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(probe().tier is Tier.PLAIN, reason="this machine can isolate nothing: see gascli doctor"),
]

_RULES = """
competitions:
  - {name: photos, modality: image, share: 3, exam: {total: 16, size: 64}, round: {total: 24, size: 64, robustness: 2}}
  - {name: faces, modality: image, vertical: human, share: 1}
  - name: clips
    modality: video
    exam: {total: 8, size: 64, frames: 8}
    round: {total: 12, size: 64, frames: 8, robustness: 1}
  - {name: voices, modality: audio, exam: {total: 8, seconds: 1}, round: {total: 12, seconds: 1, robustness: 1}}
"""
_COMPETITIONS = {"image": "photos", "video": "clips", "audio": "voices"}
_COUNT = {"image": 16, "video": 8, "audio": 8}


def medium(modality: str, fake: bool, seed: int) -> bytes:
    """Noise: dark, or dull, when it is fake."""
    rng = derive_rng(seed, modality, int(fake))
    if modality == "audio":
        data = io.BytesIO()
        noise = rng.standard_normal(20_000)
        sound = np.convolve(noise, np.ones(8) / 8, "same") if fake else noise
        soundfile.write(data, 0.2 * sound.clip(-3, 3), 16_000, format="WAV")
        return data.getvalue()
    shape = (80, 80, 3) if modality == "image" else (10, 80, 80, 3)
    pixels = (rng.integers(0, 100, shape) + (0 if fake else 155)).astype(np.uint8)
    return encode_png(pixels) if modality == "image" else encode_mp4(list(pixels), 12.0)


def detector(modality: str, path: Path, certainty: float) -> Path:
    """An ONNX model that calls what is dark, or dull, fake; the surer one has the better score."""
    from onnx import TensorProto, helper, numpy_helper

    shape: dict[str, list[int | str]] = {
        "image": ["n", 3, 32, 32], "video": ["n", 4, 3, 32, 32], "audio": ["n", 16_000],
    }  # fmt: skip
    kind = TensorProto.FLOAT if modality == "audio" else TensorProto.UINT8
    middle, gain = (0.9, 8.0) if modality == "audio" else (127.0, 0.05)
    mean = {"axes": list(range(1, len(shape[modality]))), "keepdims": 0}
    steps = [
        helper.make_node("Cast", ["media"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["m"], **mean),
    ]
    if modality == "audio":
        # How much a sound changes from sample to sample, whatever its loudness.
        steps[1:] = [
            helper.make_node("Slice", ["x", "one", "end", "one"], ["after"]),
            helper.make_node("Slice", ["x", "zero", "last", "one"], ["before"]),
            helper.make_node("Sub", ["after", "before"], ["step"]),
            helper.make_node("Abs", ["step"], ["steps"]),
            helper.make_node("Abs", ["x"], ["sizes"]),
            helper.make_node("ReduceMean", ["steps"], ["change"], **mean),
            helper.make_node("ReduceMean", ["sizes"], ["size"], **mean),
            helper.make_node("Add", ["size", "little"], ["sized"]),
            helper.make_node("Div", ["change", "sized"], ["m"]),
        ]
    steps += [
        helper.make_node("Unsqueeze", ["m", "one"], ["c"]),
        helper.make_node("Sub", ["c", "middle"], ["d"]),
        helper.make_node("MatMul", ["d", "signs"], ["logits"]),
    ]
    values = {
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "last": np.array([-1], np.int64),
        "end": np.array([2**31], np.int64),
        "little": np.array([1e-6], np.float32),
        "middle": np.array([middle], np.float32),
        "signs": np.array([[gain * certainty, -gain * certainty]], np.float32),
    }
    graph = helper.make_graph(
        steps, path.stem,
        [helper.make_tensor_value_info("media", kind, shape[modality])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(v, name) for name, v in values.items() if any(name in step.input for step in steps)],
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path.parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network with two authors, and the rules of its arena."""
    for name in ("GAS_HOME", "GAS_CHAIN_ENDPOINT", "GAS_DATABASE_URL", "GAS_BLOBS_URL"):
        monkeypatch.delenv(name, raising=False)
    path, clock = tmp_path / "home", SystemClock()
    for name in ("owner", "validator", "alice", "bob"):
        ensure_wallet(path / "wallets", name)
    keys = {name: load_hotkey(path / "wallets", name) for name in ("owner", "validator", "alice", "bob")}
    root = keys["owner"]
    ledger = create_ledger(path / "chain.db", root=root.ss58_address, clock=clock, block_seconds=0.1)
    create_subnet(ledger, root, 1, owner=root.ss58_address, owner_hotkey=root.ss58_address)
    for name in ("validator", "alice", "bob"):
        ensure_balance(ledger, root, keys[name].ss58_address, 100 * 10**9)
        ensure_registered(ledger, keys[name], keys[name], 1)
    (path / "competitions.yaml").write_text(_RULES)
    return path


@pytest.fixture
def gascli(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*words: object, here: bool = True, shown: bool = True) -> Any:
        capsys.readouterr()
        status = 0
        try:
            more = (*(("--home", home) if here else ()), *(("--json",) if shown else ()))
            main([str(word) for word in (*words, *more)])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        assert status == 0, out + err
        return json.loads(out) if shown else None

    return run


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    log = home / "arena.log"
    command = ["arena", "serve", "--home", str(home), "--port", "0", "--processes", "1", "--batch-size", "8"]
    service = spawn(command, {}, log)
    try:
        deadline = time.monotonic() + 90.0
        while b'"serving"' not in log.read_bytes():
            assert service.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        line = next(one for one in log.read_text().splitlines() if one.startswith('{"event": "serving"'))
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
    finally:
        service.terminate()
        try:
            service.wait(20.0)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()


def test_a_season_of_three_modalities(home: Path, tmp_path: Path, gascli: Callable[..., Any], url: str) -> None:
    for modality, count in _COUNT.items():
        for part, flags in (("open", ()), ("secret", ("--holdout", "--releasable"))):
            for fake in (False, True):
                name = f"{modality}-{part}-{'fake' if fake else 'real'}"
                folder = tmp_path / "media" / name
                folder.mkdir(parents=True)
                suffix = {"image": "png", "video": "mp4", "audio": "wav"}[modality]
                for number in range(count):
                    seed = 2 * number + (part == "open")
                    (folder / f"{part}-{number}.{suffix}").write_bytes(medium(modality, fake, seed))
                gascli(
                    *("data", "add", name, "--source", "folder", "--path", folder, "--modality", modality),
                    *("--media-type", "synthetic" if fake else "real", *(("--generator", "dark") if fake else ())),
                    *flags,
                )
                gascli("data", "fetch", name)
    rounds = {m: gascli("arena", "round", "open", name, "--seed", 7) for m, name in _COMPETITIONS.items()}
    assert {m: r["samples"] for m, r in rounds.items()} == {"image": 24, "video": 12, "audio": 12}

    models: dict[str, dict[str, str]] = {}
    for author, certainty in (("alice", 1.0), ("bob", 0.2)):
        packages = {m: detector(m, tmp_path / author / m / f"{author}.onnx", certainty) for m in _COMPETITIONS}
        words = [word for m, folder in packages.items() for word in (f"--{m}-model", folder)]
        pushed = gascli("d", "push", *words, "--wallet-name", author, "--api-url", url)["pushed"]
        assert len({one["push_id"] for one in pushed}) == 1
        again = gascli("d", "push", *words, "--wallet-name", author, "--api-url", url)["pushed"]
        assert [(one["model_id"], one["created"]) for one in again] == [(one["model_id"], False) for one in pushed]
        models[author] = {one["modality"]: one["model_id"] for one in pushed}

    def seen(author: str) -> dict[str, dict[str, Any]]:
        found = gascli("d", "perf", "--wallet-name", author, "--api-url", url)["models"]
        return {one["modality"]: one for one in found}

    deadline = time.monotonic() + 240.0
    ended = {"scored", "failed", "blocked", "exam_failed", "rejected"}
    while not all(one["state"] in ended for author in models for one in seen(author).values()):
        assert time.monotonic() < deadline, (home / "arena.log").read_text()
        time.sleep(0.5)
    for author in models:
        for modality, one in seen(author).items():
            assert (one["state"], one["reasons"], one["error"]) == ("scored", [], None)
            assert one["push"]["exams"] == {"audio": 1.0, "image": 1.0, "video": 1.0}
            assert one["push"]["accuracy"] == 1.0
            assert f"{modality}-open" in json.dumps(one)
            assert "secret" not in json.dumps(one)
            weak = one["runs"][0]["weak"]
            assert (weak["distorted_media"], len(weak["sn34_by_strength"])) == (_COUNT[modality], 4)
            assert [share["name"] for share in weak["generators"]] == [f"{modality}-open-fake"]
            assert weak["distortions"][0] == {"name": "as it is", "right": _COUNT[modality], "count": _COUNT[modality]}
            assert "robustness_curves" not in one["runs"][1]["metrics"]

    for modality, name in _COMPETITIONS.items():
        running = httpx.get(f"{url}/api/v1/leaderboard/{modality}").json()
        assert (running["standings"], len(running["open_round"]["submissions"])) == ([], 2)
        closed = gascli("arena", "round", "close", name)
        assert closed["winner"]["submission_id"] == models["alice"][modality]
        assert closed["released"] == [f"{modality}-secret-fake", f"{modality}-secret-real"]
        places = httpx.get(f"{url}/api/v1/leaderboard/{modality}").json()["standings"]
        assert [place["name"] for place in places] == ["alice", "bob"]
        assert places[0]["score"] > places[1]["score"]
        assert "secret" not in json.dumps(places)

        receipt = tmp_path / f"{modality}.json"
        gascli(
            "receipt", "get", closed["winner"]["run_id"], "--api-url", url, "--out", receipt, here=False, shown=False
        )
        package = tmp_path / f"{modality}.zip"
        gascli("d", "export", tmp_path / "alice" / modality, "--out", package, here=False)
        verified = gascli("receipt", "verify", receipt, "--package", package, here=False)
        assert verified["signer"] == load_hotkey(home / "wallets", "validator").ss58_address
        if modality != "image":
            replayed = gascli("bench", "replay", receipt, "--package", package)
            assert (replayed["differences"], replayed["same_records"]) == ([], True)

    gascli("arena", "round", "open", "voices", "--seed", 8)
    rows = {row["name"]: row for row in gascli("data", "list")["datasets"]}
    assert rows["audio-secret-real"]["provenance"] == "public"

    weights = gascli("v", "weights")["weights"]
    # Three quarters of the pictures' 0.40, all of the clips' 0.40 and the voices' 0.04; what nobody won is burnt.
    assert sorted(weights.values()) == pytest.approx([0.1 + 0.16, 0.3 + 0.4 + 0.04])
