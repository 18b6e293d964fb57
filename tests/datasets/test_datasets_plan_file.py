from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gas.bench.metrics import compute_metrics
from gas.chain.keys import signer_from_seed
from gas.datasets.items import Item, items_to_table
from gas.datasets.plan import read_round, write_round
from gas.datasets.plan_diff import diff_plans
from gas.datasets.plan_draw import draw_plan
from gas.datasets.plan_file import Plan, PlanSignature, plan_data_hash, read_plan, sign_plan, verify_plan, write_plan
from gas.datasets.plan_spec import PlanMode, PlanSpec
from gas.errors import ConfigurationError, IntegrityError, StorageError
from gas.types import MediaType, Modality, Provenance

ANNA, BERT = signer_from_seed(b"a" * 32), signer_from_seed(b"b" * 32)


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def made(count: int = 40, seed: int = 3, **changes: object) -> Plan:
    items = []
    for i in range(count):
        fake = i % 2 == 1
        items.append(
            Item(
                sha256=digest(i),
                dataset=f"set-{i % 4}",
                modality=Modality.IMAGE,
                media_type=MediaType.SEMISYNTHETIC if fake else MediaType.REAL,
                mime="image/png",
                size=10,
                path=f"bücher/{i}.png",
                source="ü",
                origin=digest(i),
                generator="gan" if fake else "",
                mask_sha256=digest(f"mask{i}") if fake else None,
                hotkey=str(ANNA.ss58_address) if fake else None,
            )
        )
    flags = {"set-2": Provenance.HOLDOUT, "set-3": Provenance.ARENA}
    spec = PlanSpec(Modality.IMAGE, PlanMode.FULL, seed, flags, **changes)  # type: ignore[arg-type]
    return draw_plan(items_to_table(items), spec)


def test_a_plan_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    plan = made()
    write_plan(plan, tmp_path / "new" / "p.parquet")
    assert read_plan(tmp_path / "new" / "p.parquet") == plan
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.parquet"]
    assert plan.spec["arena_factor"] == 5
    assert len(plan) == 40


def test_a_signed_plan_says_who_vouches_for_it(tmp_path: Path) -> None:
    plan = sign_plan(made(), ANNA)
    write_plan(plan, tmp_path / "p.parquet")
    back = read_plan(tmp_path / "p.parquet")
    assert verify_plan(back) == verify_plan(back, ANNA.ss58_address) == ANNA.ss58_address
    assert back.plan_id == made().plan_id, "a signature is no part of what it signs"
    with pytest.raises(IntegrityError) as caught:
        verify_plan(back, BERT.ss58_address)
    assert caught.value.error_code == "other_signer"
    with pytest.raises(IntegrityError) as caught:
        verify_plan(made())
    assert caught.value.error_code == "unsigned"
    for signature in (made(seed=4), dataclasses.replace(made(), code_version="0")):
        moved = dataclasses.replace(signature, signature=plan.signature)
        with pytest.raises(IntegrityError) as caught:
            verify_plan(moved)
        assert caught.value.error_code == "bad_signature"
    garbled = dataclasses.replace(plan, signature=PlanSignature(ANNA.ss58_address, "xyz"))
    with pytest.raises(IntegrityError):
        verify_plan(garbled)


def test_the_hash_is_of_the_content_and_not_of_its_encoding(tmp_path: Path) -> None:
    plan = made()
    write_plan(plan, tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    pq.write_table(table, tmp_path / "q.parquet", compression="none", row_group_size=7, use_dictionary=False)
    again = read_plan(tmp_path / "q.parquet")
    assert again == plan
    assert (tmp_path / "p.parquet").read_bytes() != (tmp_path / "q.parquet").read_bytes()
    assert plan_data_hash(pa.concat_tables([table[:3], table[3:30], table[30:]])) == plan.data_hash
    text = plan.table["source"].to_pylist()
    shifted = ["üü", "", *text[2:]]
    assert plan_data_hash(put(plan.table, "source", shifted)) != plan.data_hash
    empty = put(plan.table, "generator_hotkey", [value or "" for value in plan.table["generator_hotkey"].to_pylist()])
    assert plan_data_hash(empty) != plan.data_hash, "a missing value is not an empty one"


def put(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))


def first_changed(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, name, [value, *table[name].to_pylist()[1:]])


@pytest.mark.parametrize(
    "change",
    [
        first_changed("media_type", "synthetic"),
        first_changed("media_type", "fake"),
        first_changed("provenance", "holdouts"),
        first_changed("weight", 2.0),
        first_changed("weight", float("nan")),
        first_changed("weight", -1.0),
        first_changed("seed", 1),
        first_changed("modality", "video"),
        first_changed("sample_id", "0" * 63),
        first_changed("origin", "../etc"),
        first_changed("mask_sha256", "x"),
        first_changed("mime", "image/gif"),
        lambda table: table[1:],
        lambda table: table[:0],
        lambda table: table.take(list(range(len(table)))[::-1]),
        lambda table: table.drop_columns(["weight"]),
        lambda table: put(table.drop_columns(["seed"]).append_column("seed", pa.array(["x"] * 40)), "mime", ["a"] * 40),
        lambda table: table.replace_schema_metadata({}),
    ],
)
def test_a_changed_row_is_found_out(change: Callable[[pa.Table], pa.Table], tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_plan(made(), path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(StorageError) as caught:
        read_plan(path)
    assert caught.value.error_code == "plan_damaged"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "4"),
        ("seed", "-1"),
        ("seed", "x"),
        ("mode", "small"),
        ("mode", "large"),
        ("modality", "video"),
        ("spec", "{}"),
        ("spec", "[]"),
        ("spec", '{"shares": {}}'),
        ("spec", "[" * 100_000),
        ("code_version", "9"),
        ("data_hash", "0" * 64),
        ("plan_id", "0" * 16),
        ("format", "2"),
        ("signature", "00" * 64),
        ("signer", str(BERT.ss58_address)),
    ],
)
def test_a_changed_description_is_found_out(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_plan(sign_plan(made(), ANNA), path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, f"gas.plan.{key}".encode(): value}), path)
    with pytest.raises(StorageError) as caught:
        read_plan(path)
    assert caught.value.error_code == "plan_damaged"


def test_what_is_no_plan_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_plan(tmp_path / "none.parquet")
    assert caught.value.error_code == "plan_missing"
    path = tmp_path / "p.parquet"
    write_plan(made(), path)
    whole = path.read_bytes()
    for broken in (b"", b"PAR1", whole[:-10], whole[: len(whole) // 2], b"x" * 500):
        path.write_bytes(broken)
        with pytest.raises(StorageError) as caught:
            read_plan(path)
        assert caught.value.error_code == "plan_damaged"


def test_a_plan_that_cannot_be_written_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        write_plan(made(), tmp_path / "file" / "p.parquet")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(StorageError):
        write_plan(made(), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_plan_becomes_a_round_that_the_benchmark_takes(tmp_path: Path) -> None:
    plan = made()
    frozen = plan.to_round({"robust_weight": 0.1})
    write_round(frozen, tmp_path)
    assert read_round(tmp_path) == frozen
    assert frozen.samples == plan.samples()
    assert frozen.parameters["plan"] == plan.plan_id
    assert frozen.parameters["robust_weight"] == 0.1
    with pytest.raises(ConfigurationError, match="record"):
        compute_metrics([], frozen)
    some = {s.sample_id: digest("n" + s.sample_id) for s in plan.samples()[:10]}
    replaced = plan.to_round(media=some)
    assert {s.sample_id for s in replaced.samples} == set(some.values())
    assert {s.origin for s in replaced.samples} == {s.origin for s in plan.samples()[:10]}


def test_plans_are_compared_sample_by_sample() -> None:
    plan = made()
    assert diff_plans(plan, made()).equal
    assert diff_plans(plan, sign_plan(plan, ANNA)).equal
    other = diff_plans(plan, made(seed=4))
    assert not other.equal
    assert other.parameters == {"seed": (3, 4)}
    assert not other.changes, "the samples' own seeds follow from the plan's"
    fewer = diff_plans(plan, made(30, total=30))
    assert fewer.parameters == {"spec.total": (55_000, 30)}
    assert len(fewer.only_first) == 10
    assert not fewer.only_second
    assert {c.name for c in fewer.changes} <= {"weight"}
    assert sum(counts["only_first"] for counts in fewer.datasets.values()) == 10
    relabelled = dataclasses.replace(plan, table=first_changed("media_type", "synthetic")(plan.table))
    (change,) = diff_plans(plan, relabelled).changes
    assert (change.sample_id, change.name, change.second) == (plan.samples()[0].sample_id, "media_type", "synthetic")
    found = diff_plans(plan, relabelled).as_dict()
    assert found["equal"] is False
    assert found["datasets"] == {change.dataset: {"only_first": 0, "only_second": 0, "changed": 1}}


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[Path]]:
    """Two folders, on two file systems where the machine has a second one."""
    memory = Path("/dev/shm")
    second = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield [tmp_path, second]
    shutil.rmtree(second)


def test_the_same_media_fetched_in_another_order_on_another_file_system_give_the_same_plan(folders: list[Path]) -> None:
    media = {f"{kind}/{i}.bin": f"{kind}{i}".encode() for kind in ("real", "fake") for i in range(50)}
    hashes = []
    for number, folder in enumerate(folders):
        names = sorted(media)
        random.Random(number).shuffle(names)
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(media[name])
        items = []
        for path in folder.rglob("*.bin"):
            content = digest(path.read_bytes())
            fake = path.parent.name == "fake"
            items.append(
                Item(
                    sha256=content,
                    dataset=path.parent.name,
                    modality=Modality.AUDIO,
                    media_type=MediaType.SYNTHETIC if fake else MediaType.REAL,
                    mime="audio/wav",
                    size=path.stat().st_size,
                    path=str(path.relative_to(folder)),
                    source=path.parent.name,
                    origin=content,
                )
            )
        plan = draw_plan(items_to_table(items), PlanSpec(Modality.AUDIO, PlanMode.FULL, 5, total=60))
        hashes.append((plan.data_hash, plan.plan_id, plan.datasets["fake/synthetic"]))
    assert hashes[0] == hashes[1]
    assert hashes[0][2] == 30
