"""What authors and owners are told when something stands between them and the arena."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gas.arena.competitions import read_competitions
from gas.arena.ports import ArenaConfig
from gas.cli.arena_link import arena_at
from gas.cli.arena_rules import require_rules
from gas.cli.main import main
from gas.cli.push import waiting_lines
from gas.errors import ConfigurationError, RequestRefused
from gas.protocol.client import PeerUnreachable
from gas.storage.database import open_database
from gas.storage.tables import RoundRow
from gas.submissions.scaffold import create
from gas.types import Modality


@pytest.fixture
def gascli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_an_arena_that_is_silent_is_named_without_the_secrets_of_its_address() -> None:
    address = "http://user:secret@127.0.0.1:9/path?key=secret"
    with pytest.raises(PeerUnreachable, match=r"No arena answers at http://127") as silent, arena_at(address):
        raise PeerUnreachable("The peer can't be reached (ConnectError).")
    assert "secret" not in str(silent.value)
    with pytest.raises(PeerUnreachable, match="status 500"), arena_at("http://[half"):
        raise PeerUnreachable("The peer answers with status 500.", code="peer_failed")
    with pytest.raises(PeerUnreachable, match="that address"), arena_at("http://[half"):
        raise PeerUnreachable("The peer can't be reached (ConnectError).")


def test_an_unknown_hotkey_is_told_to_register() -> None:
    with pytest.raises(RequestRefused, match="gascli chain register") as refused, arena_at("http://arena"):
        raise RequestRefused("The signer isn't registered.", status=401, code="unknown_signer")
    assert refused.value.status == 401
    with pytest.raises(RequestRefused, match="no slot"), arena_at("http://arena"):
        raise RequestRefused("There is no slot.", status=429, code="no_slot")


def test_a_model_that_is_not_examined_yet_says_for_what_it_waits() -> None:
    assert "commitment" in waiting_lines({"state": "scanning", "committed_block": None})[0]
    assert "block 7" in waiting_lines({"state": "scanning", "committed_block": 7})[0]
    assert waiting_lines({"state": "examining", "committed_block": 7}) == []


def test_who_was_given_other_rules_than_the_open_round_has_does_not_begin(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/gas.db")
    file = tmp_path / "competitions.yaml"
    file.write_text("competitions: [{name: photos, modality: image}]\n")
    config = ArenaConfig(competitions=read_competitions(file))
    with database.write() as session:
        session.add(
            RoundRow(
                id="r1", modality="image", seed="7", state="open", plan_blob="1" * 64, data_hash="3" * 64,
                parameters={"competition": "photos"}, code_version="0", opened_at=1.0,
            )
        )  # fmt: skip
    require_rules(database, config)
    with pytest.raises(ConfigurationError, match="competition photos") as other:
        require_rules(database, ArenaConfig())
    assert other.value.error_code == "other_rules"
    with database.write() as session:
        session.get_one(RoundRow, "r1").state = "closed"
    require_rules(database, ArenaConfig())
    database.close()


def test_a_bare_onnx_file_is_checked_like_its_folder(
    tmp_path: Path, gascli: Callable[..., tuple[int, str, str]]
) -> None:
    create(tmp_path / "mine", "mine", Modality.IMAGE, format="onnx", seed=1)
    whole = json.loads(gascli("d", "check", tmp_path / "mine", "--json")[1])
    status, bare, _ = gascli("d", "check", tmp_path / "mine" / "mine.onnx", "--json")
    found = json.loads(bare)
    assert (status, found["state"], found["package"]) == (0, "clean", whole["package"])
    assert found["hashes"]["weights_sha256"] == whole["hashes"]["weights_sha256"]
    (tmp_path / "text.onnx").write_text("no model")
    assert gascli("d", "check", tmp_path / "text.onnx")[0] == 1
    assert gascli("d", "check", tmp_path / "none.onnx")[0] == 2


def test_each_reason_of_a_refused_package_has_a_line_of_its_own(
    tmp_path: Path, gascli: Callable[..., tuple[int, str, str]]
) -> None:
    create(tmp_path / "mine", "mine", Modality.IMAGE, format="safetensors", seed=1)
    with (tmp_path / "mine" / "model.py").open("a") as code:
        code.write("\nimport os\nx = eval('1')\n")
    status, _, err = gascli("d", "export", tmp_path / "mine", "--out", tmp_path / "mine.zip")
    assert status == 1
    assert [line.split(":")[0] for line in err.splitlines()] == ["gascli", "gascli"]
    assert not (tmp_path / "mine.zip").exists()


def test_a_receipt_needs_a_place_before_anybody_is_asked(
    tmp_path: Path, gascli: Callable[..., tuple[int, str, str]]
) -> None:
    status, _, err = gascli("receipt", "get", "r1", "--out", tmp_path / "none" / "r.json", "--api-url", "http://[")
    assert status == 2
    assert "can't be written" in err
