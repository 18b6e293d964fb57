"""`gascli v weights --explain` and `gascli v miner-stats` as an operator calls them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gas.chain.keys import load_hotkey
from gas.cli.main import main
from gas.storage.database import open_database
from gas.storage.tables import ChallengeRow, MediumRow


def _call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = 0
    try:
        main([*words])
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAS_HOME", str(tmp_path))
    names = ("owner", "validator", "miner")
    for name in names:
        assert _call(capsys, "wallet", "new", name, "--no-password")[0] == 0
    assert _call(capsys, "chain", "found", "--root", "owner", "--manual")[0] == 0
    for name in ("validator", "miner"):
        assert _call(capsys, "chain", "faucet", "100", "--to", name, "--root", "owner")[0] == 0
        assert _call(capsys, "chain", "register", "--wallet", name)[0] == 0
    hotkeys = {name: load_hotkey(tmp_path / "wallets", name, "default").ss58_address for name in names}
    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    now = time.time()
    with database.write() as session:
        for number in range(8):
            good = number < 6
            sha = f"{number:064x}"
            session.add(
                ChallengeRow(
                    validator=hotkeys["validator"], miner=hotkeys["miner"], task_id=str(number), modality="image",
                    prompt="p", parameters={}, state="verified" if good else "refused", created_at=now - 600,
                    deadline=now, delivered_at=now - 600 + number, tier=1, uid=2, settled_at=now - 500,
                    reasons=[] if good else [{"code": "near_duplicate", "message": "x"}],
                    media_sha256=sha if good else None,
                )
            )  # fmt: skip
            if good:
                session.add(
                    MediumRow(
                        sha256=sha, validator=hotkeys["validator"], generator=hotkeys["miner"], task_id=str(number),
                        modality="image", media_type="synthetic", width=1024, height=1024, mime="image/png",
                        verified_at=now - 500,
                    )
                )  # fmt: skip
    database.close()
    return tmp_path


def test_an_operator_sees_why_a_miner_gets_its_weight_and_how_it_does(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = _call(capsys, "v", "weights", "--explain", "2", "--json")
    assert status == 0
    (part,) = json.loads(out)["explained"]["parts"]
    image = part["modalities"]["image"]
    assert (image["pass_rate"], image["volume"], image["price"]) == (0.75, 6.0, pytest.approx(0.6))
    assert (image["tiers_requested"], image["tiers_delivered"]) == ([0, 6, 0], [6, 0, 0])
    assert json.loads(out)["weights"] == {"0": pytest.approx(0.84), "2": pytest.approx(0.16)}
    status, out, _ = _call(capsys, "v", "weights", "--explain", "2")
    assert "base = p 0.7500 * v 6.0000 * price 0.6000 = 2.7000" in out
    assert _call(capsys, "v", "weights", "--explain", "99")[0] == 2
    assert _call(capsys, "v", "weights", "--logged", "--explain", "2")[0] == 2

    status, out, _ = _call(capsys, "v", "miner-stats", "--json", "--uid", "2")
    (miner,) = json.loads(out)["miners"]
    assert (miner["states"], miner["pass_rate"]) == ({"refused": 2, "verified": 6}, 0.75)
    assert (miner["reasons"], miner["latency"]["count"]) == ({"near_duplicate": 2}, 8)
    assert miner["tiers"]["image"] == {"requested": {"2K": 6}, "delivered": {"1K": 6}}
    assert "pass rate   75.0%" in _call(capsys, "v", "miner-stats")[1]
    assert _call(capsys, "v", "miner-stats", "--uid", "77")[0] == 2

    # Weights that are set are an epoch, which is logged with all its factors.
    assert _call(capsys, "chain", "advance", "200")[0] == 0
    status, out, err = _call(capsys, "v", "weights", "--set", "--json")
    said = json.loads(out)
    assert status == 0 or said["error"]["code"] == "no_permit", err
    status, out, _ = _call(capsys, "v", "weights", "--logged", "--explain", "2", "--json")
    assert json.loads(out)["explained"]["parts"][0]["score"] == pytest.approx(0.02 * 2.7 * 0.40 / 0.84)
