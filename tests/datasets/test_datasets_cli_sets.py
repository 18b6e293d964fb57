from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_helpers import picture

from gas.cli.main import main
from gas.datasets.store import open_store
from gas.storage.blobs import sha256_hex


class Terminal:
    """``gascli data`` with a home of its own."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["data", *words, "--home", str(self.home)])
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert (caught.value.code or 0) == code, captured
        return captured.out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, "--json", code=code))


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("GAS_MATERIAL", str(tmp_path / "material"))
    return Terminal(tmp_path / "home", capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "faces").mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(picture(number))
    (folder / "faces" / "9.jpg").write_bytes(picture(9))
    (folder / "faces" / "broken.jpg").write_bytes(picture(10)[:200])
    return folder


ADD = ("--source", "folder", "--modality", "image", "--media-type", "real", "--licence", "CC0-1.0")


def test_a_set_goes_from_its_folder_into_the_store_and_out_again(data: Terminal, photos: Path) -> None:
    assert "data fetch mine" in data("add", "mine", "--path", str(photos), *ADD)
    (row,) = (row for row in data.json("list")["datasets"] if row["name"] == "mine")
    assert (row["fetched"], row["files"], row["registry"], row["licence"]) == (False, 7, "yours", "CC0-1.0")
    (done,) = data.json("fetch", "mine")["sets"]
    assert (done["items"], done["rejected"]) == (6, 1)
    (row,) = data.json("list", "--here")["datasets"]
    assert (row["name"], row["items"], row["bytes"] > 0, row["changed"]) == ("mine", 6, True, False)
    assert "6 media" in data("list", "--here")
    assert "6 good" in data("verify")
    stats = data.json("stats", "mine")
    assert stats["sets"]["mine"]["counts"]["media_type"] == {"real": 6}
    assert stats["sets"]["mine"]["rejected"] == {"undecodable": 1}
    assert "fake" in stats["warnings"][0]
    assert data.json("remove", "mine", "--entry") == {
        "name": "mine",
        "freed": pytest.approx(done["bytes"], abs=20_000),
        "forgotten": True,
    }
    assert all(row["name"] != "mine" for row in data.json("list")["datasets"])


def test_a_folder_is_looked_at_again_by_the_next_fetch(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    first = data.json("fetch", "--all")["sets"][0]
    (photos / "new.jpg").write_bytes(picture(77))
    second = data.json("fetch", "--all")["sets"][0]
    assert second["items"] == first["items"] + 1
    assert data.json("fetch", "mine")["sets"][0] == second


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--modality", "imge"), "did you mean 'image'"),
        (("--media-type", "fake"), "real, synthetic, semisynthetic"),
        (("--generator", "gan"), "real media have no generator"),
        (("--licence", "do what you want!"), "licence"),
        (("--source", "web"), "source"),
        (("--releasable",), "holdout"),
        (("--path", "/there/is/no/such/folder"), "no folder"),
    ],
)
def test_a_wrong_set_is_refused_before_it_is_written(
    data: Terminal, photos: Path, words: tuple[str, ...], said: str
) -> None:
    data("add", "mine", "--path", str(photos), *ADD, *words, code=2)
    assert said in data.err
    assert not open_store(data.home).registry_path.exists()


def test_a_name_is_given_once_and_a_wrong_one_is_guessed(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("add", "mine", "--path", str(photos), *ADD, code=2)
    data("add", "coco-val2017", "--path", str(photos), *ADD, code=2)
    assert "public" in data.err
    data("fetch", "mime", code=2)
    assert "did you mean 'mine'" in data.err
    data("fetch", "--all", "--registry", str(photos / "0.jpg"), code=2)


def test_a_set_that_fails_does_not_keep_the_others_from_their_turn(
    data: Terminal, photos: Path, tmp_path: Path
) -> None:
    registry = tmp_path / "sets.yaml"
    line = "modality: image, media_type: real, source: folder, licence: MIT"
    registry.write_text(
        "version: 1\ndatasets:\n"
        f"  - {{name: gone, path: nowhere, {line}}}\n"
        f"  - {{name: none, path: photos, include: ['*.png'], {line}}}\n"
        f"  - {{name: good, path: photos, {line}}}\n"
    )
    rows = {row["name"]: row for row in data.json("fetch", "--all", "--registry", str(registry), code=1)["sets"]}
    assert rows["good"]["items"] == 6
    assert rows["none"]["error"]["code"] == "no_files"
    assert "error" in rows["gone"]
    out = data("fetch", "none", "good", "--registry", str(registry), code=1)
    assert "good: 6 media" in out
    assert "none:" in data.err


def test_damage_ends_with_one_and_can_be_mended(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("fetch", "mine")
    name = sha256_hex(picture(3))
    blob = data.home / "data" / "blobs" / name[:2] / name
    blob.write_bytes(b"rotten")
    found = data.json("verify", "mine", "--discard", code=1)
    assert found["sets"]["mine"]["damaged"] == ["3.jpg"]
    assert "1 missing" in data("verify", code=1)
    data("fetch", "mine", "--refresh")
    assert data.json("verify")["good"]


def test_pruning_keeps_what_a_plan_needs(data: Terminal, photos: Path, tmp_path: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("fetch", "mine")
    needed = sha256_hex(picture(2))
    plan = tmp_path / "plan.parquet"
    pq.write_table(pa.table({"sha256": [needed]}), plan)
    found = data.json("prune", "--max-disk", "0", "--keep", str(plan))
    assert (found["removed"], found["pinned"]) == (["mine"], 1)
    assert open_store(data.home).get(needed) == picture(2)
    data("prune", "--max-disk", "much", code=2)
    data("prune", "--max-disk", "1G", "--keep", str(photos / "0.jpg"), code=2)


def test_a_budget_is_kept_to(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    (row,) = data.json("fetch", "mine", "--max-disk", "2k", code=1)["sets"]
    assert row["error"]["code"] == "disk_budget"
    assert data.json("fetch", "mine", "--max-disk", "1M")["sets"][0]["items"] == 6


def test_the_page_of_the_stats_shows_the_set_and_runs_nothing(data: Terminal, photos: Path, tmp_path: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD, "--category", "scene", "--notes", "<script>")
    data("fetch", "mine")
    page = tmp_path / "deep" / "page.html"
    assert "Page:" in data("stats", "--html", str(page))
    text = page.read_text()
    assert text.count("<svg") >= 6
    assert "image/jpeg" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_holdout_is_released_once(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD, "--holdout", "--releasable")
    data("release", "mine", code=2)
    data("fetch", "mine")
    assert data.json("list", "--here")["datasets"][0]["provenance"] == "holdout"
    assert data.json("release", "mine")["released"]
    assert "already" in data("release", "mine")
    assert data.json("list", "--here")["datasets"][0]["provenance"] == "public"


def test_a_set_with_a_broken_manifest_is_listed_as_damaged(data: Terminal, photos: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("fetch", "mine")
    (data.home / "data" / "sets" / "mine" / "manifest.json").write_text("{")
    assert data.json("list", "--here")["datasets"][0]["damaged"]
    assert "damaged" in data("list", "--here")
    data("verify", code=1)
    assert "--refresh" in data.err
    data("fetch", "mine", "--refresh")
    data("verify")


def test_nothing_fetched_is_said(data: Terminal) -> None:
    for command in ("verify", "stats"):
        data(command, code=2)
        assert "data fetch" in data.err
    data("remove", "mine", code=2)
    data("fetch", "--all", code=2)


def test_what_a_set_lacks_is_named(data: Terminal, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    pq.write_table(pa.table({"image": [picture(1), picture(2)], "label": [0, 1]}), table / "data.parquet")
    filtered = ("--filter-column", "label", "--filter-value", "7")
    data("add", "none", "--path", str(table), *ADD, *filtered)
    (row,) = data.json("fetch", "none", code=1)["sets"]
    assert (row["error"]["code"], "no row has '7'" in row["error"]["message"]) == ("empty_set", True)
    empty = tmp_path / "empty"
    empty.mkdir()
    data("add", "empty", "--path", str(empty), *ADD)
    (row,) = data.json("fetch", "empty", code=1)["sets"]
    assert row["error"]["message"] == "The source of the data set empty is empty."


def test_a_registry_that_does_not_ship_is_guessed(data: Terminal) -> None:
    data("list", "--registry", "pubilc", code=2)
    assert "did you mean 'public'?" in data.err


def test_a_damaged_medium_says_how_it_is_mended(data: Terminal, photos: Path, tmp_path: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("fetch", "mine")
    store = open_store(data.home)
    path = store.blobs.root / store.item("mine", 0).sha256[:2] / store.item("mine", 0).sha256
    path.unlink()
    data("show", "mine:0", "-o", str(tmp_path / "x.png"), code=1)
    assert "gascli data verify" in data.err


def test_a_plan_of_a_set_that_is_not_here_says_so(data: Terminal, photos: Path, tmp_path: Path) -> None:
    data("add", "mine", "--path", str(photos), *ADD)
    data("fetch", "mine")
    data("plan", "--modality", "image", "--include", "mien", "-o", str(tmp_path / "p.parquet"), code=2)
    assert "No fetched data set is called 'mien'" in data.err


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_pair_says_when_it_can_not_be_written(
    data: Terminal, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    for maker in ("_sounds", "_videos"):
        monkeypatch.setattr(f"gas.cli.data_pair.{maker}", lambda count, seed: iter([("real", ".bin", b"x")]))
    with pytest.raises(SystemExit) as caught:
        main(["data", "pair", kind, "-o", str(tmp_path / "file" / "pair")])
    assert caught.value.code == 1
