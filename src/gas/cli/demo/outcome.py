"""What came of the demo: one JSON object, three tables, and the report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sqlalchemy import select

from gas.arena.rounds import load_round
from gas.bench.metrics import compute_metrics
from gas.bench.records import SampleRecord, from_parquet
from gas.bench.report.data import (
    DetectorRow,
    Fact,
    GeneratorRow,
    Pay,
    PhotoSource,
    ReportData,
    Split,
)
from gas.bench.report.render import write_report
from gas.bench.summary import detector_scores, worst_pictures
from gas.cli.demo.cast import DETECTORS, GENERATORS, NETUID
from gas.cli.demo.home import DemoHome
from gas.cli.demo.media import PIPELINES
from gas.cli.demo.pay import PAID_EPOCHS, PROFILE
from gas.cli.demo.rounds import FAKES_OF
from gas.datasets.plan import Round
from gas.media.image import RGB, decode_image
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database
from gas.storage.tables import RoundRow, RunRow, SubmissionRow
from gas.types import RAO_PER_TAO, MediaType, Provenance

__all__ = ["conclude", "print_tables"]


@dataclass(frozen=True, slots=True)
class _Pushed:
    """A submission with its runs, as the database has them."""

    name: str
    member: dict[str, Any]
    row: SubmissionRow | None
    exam: RunRow | None
    full: RunRow | None


def conclude(home: DemoHome, database: Database, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Write the report and return the demo's result.

    Args:
        home: The demo, everything else done.
        database: Submissions, runs and the round.
        report: Told how many of how many parts are ready.

    Returns:
        The object of ``--json``.
    """
    report(0, 3)
    blobs = FolderBlobs(home.settings.blobs_path)
    pushed = _pushed(home, database)
    with database.read() as session:
        plan = session.get_one(RoundRow, home.results["round"]["id"]).plan_blob
    round_ = load_round(blobs, plan)
    records = {p.name: from_parquet(blobs.get(p.full.records_blob)) for p in pushed if p.full and p.full.records_blob}
    report(1, 3)
    result = _result(home, pushed)
    data = _report(home, pushed, round_, records, lambda name: decode_image(blobs.get(name)), result)
    report(2, 3)
    path = home.path / "report.html"
    write_report(path, data)
    report(3, 3)
    return {**result, "report": str(path)}


def _pushed(home: DemoHome, database: Database) -> list[_Pushed]:
    out = []
    with database.read() as session:
        for member in DETECTORS:
            known = home.results["found"]["members"][member.name]
            row = session.scalar(
                select(SubmissionRow)
                .where(SubmissionRow.hotkey == known["hotkey"])
                .order_by(SubmissionRow.created_at.desc())
                .limit(1)
            )
            runs = {
                run.kind: run
                for run in session.scalars(select(RunRow).where(RunRow.submission_id == (row.id if row else "")))
            }
            out.append(_Pushed(member.name, known, row, runs.get("exam"), runs.get("full")))
    return out


def _result(home: DemoHome, pushed: list[_Pushed]) -> dict[str, Any]:
    pay, members = home.results["pay"], home.results["found"]["members"]
    generators = []
    for member in GENERATORS:
        found = pay["generators"][member.name]
        generators.append(
            {
                "name": member.name,
                "hotkey": members[member.name]["hotkey"],
                "verified": found["verified"],
                "refused": found["refused"],
                "reasons": home.results["media"]["generators"][member.name]["reasons"],
                "fool_rate": found["fool_rate"],
                "reward": found["reward"],
            }
        )
    round_ = home.results["round"]
    return {
        "detectors": [_detector(p) for p in pushed],
        "generators": generators,
        "weights": pay["weights"],
        "emission": {hotkey: paid["total"] for hotkey, paid in pay["emission"].items()},
        "round": {"id": round_["id"], "samples": round_["samples"], "seed": round_["seed"], "sizes": round_["sizes"]},
        "members": {name: {"hotkey": m["hotkey"], "uid": m["uid"], "role": m["role"]} for name, m in members.items()},
        "why": pay["reasons"],
    }


def _detector(pushed: _Pushed) -> dict[str, Any]:
    metrics = (pushed.full.metrics if pushed.full else None) or {}
    base = metrics.get("base") or {}
    exam = (pushed.exam.metrics if pushed.exam else None) or {}
    return {
        "name": pushed.name,
        "hotkey": pushed.member["hotkey"],
        "state": pushed.row.state if pushed.row else "not pushed",
        "reasons": list(pushed.row.reasons) if pushed.row else [],
        "sn34_score": metrics.get("sn34_score"),
        "sn34_ci95": base.get("sn34_ci95"),
        "mcc": base.get("mcc"),
        "brier": base.get("brier"),
        "accuracy": base.get("accuracy"),
        "exam_accuracy": exam.get("accuracy"),
        "exam_sn34_score": exam.get("sn34_score"),
        "sandbox_tier": next((run.tier for run in (pushed.full, pushed.exam) if run is not None), None),
    }


def _sentence(reason: Mapping[str, Any]) -> str:
    where = reason.get("file") or ""
    if where and reason.get("line"):
        where = f"{where}:{reason['line']}"
    return f"{where}: {reason['message']}" if where else str(reason["message"])


def _report(
    home: DemoHome,
    pushed: list[_Pushed],
    round_: Round,
    records: dict[str, tuple[SampleRecord, ...]],
    pixels: Callable[[str], RGB],
    result: Mapping[str, Any],
) -> ReportData:
    rows = [_row(home, p, round_, records) for p in pushed]
    paid = sum(result["emission"].values())
    winner = next((row for row in rows if row.winner), None)
    tiers = sorted({str(d["sandbox_tier"]) for d in result["detectors"] if d["sandbox_tier"]})
    sizes = round_.sizes
    real = sum(n for name, n in sizes.items() if name.endswith("/real"))
    verified = sum(g["verified"] for g in result["generators"])
    refused = sum(g["refused"] for g in result["generators"])
    best, best_note, verdict = "–", "", "Nobody won."
    if winner is not None and winner.scores is not None and winner.scores.sn34 is not None:
        best, best_note = f"{winner.scores.sn34:.3f}", winner.name
        verdict = f"{winner.name} won with sn34 {best} and takes the whole image share."
    return ReportData(
        title="One adversarial round",
        subtitle=f"Round {round_.round_id}, seed {round_.seed}: played whole on one machine",
        summary=(
            f"Two generators delivered {verified} verified pictures ({refused} challenges came to nothing). Together "
            f"with photos and the owner's own fakes they make a frozen round of {len(round_.samples)} samples: "
            f"{real} real, {len(round_.samples) - real} fake.",
            f"Four detectors were pushed. {verdict} What a detector is scored on, it was not trained on: the photos "
            "were split before anybody saw them, and the held-out part has fakes of a network that no author knew.",
        ),
        facts=(
            Fact("Samples", str(len(round_.samples)), f"{real} real, {len(round_.samples) - real} fake"),
            Fact("Verified media", str(verified), f"{refused} refused, failed or late"),
            Fact("Best sn34", best, best_note),
            Fact("Emission paid", f"{paid / RAO_PER_TAO:.2f} τ", f"{PAID_EPOCHS} epochs"),
            Fact("Sandbox", ", ".join(tiers) or "–", "tier of the runs"),
        ),
        detectors=tuple(rows),
        fooled_most=worst_pictures(records, round_, pixels, fake=True),
        accused_most=worst_pictures(records, round_, pixels, fake=False),
        generators=tuple(_generator(home, m.name, result) for m in GENERATORS),
        pay=_pay(home),
        splits=_splits(home, round_),
        photo_sources=tuple(
            PhotoSource(name, count, home.results["photos"]["licences"][name])
            for name, count in home.results["photos"]["packages"].items()
        ),
        technical=_technical(home, round_),
        next_steps=(
            ("Score predictions of your own (columns label, p_fake).", "gascli score predictions.csv"),
            ("Check a package before you push it.", "gascli d check my-detector.zip"),
            ("See what this machine can isolate.", "gascli doctor"),
            ("Look at the ledger.", f"gascli chain status --home {home.path}"),
            ("Play another round with other draws.", f"gascli demo --home {home.path} --fresh --seed {home.seed + 1}"),
        ),
    )


def _row(
    home: DemoHome, pushed: _Pushed, round_: Round, records: Mapping[str, tuple[SampleRecord, ...]]
) -> DetectorRow:
    scores = None
    if pushed.name in records and pushed.full is not None:
        found = records[pushed.name]
        inconsistent = int((pushed.full.metrics or {}).get("inconsistent", 0))
        scores = detector_scores(compute_metrics(found, round_), found, round_, inconsistent=inconsistent)
    exam = (pushed.exam.metrics if pushed.exam else None) or {}
    formats = home.results["detectors"]["formats"]
    return DetectorRow(
        name=pushed.name,
        hotkey=pushed.member["hotkey"],
        state=pushed.row.state if pushed.row else "not pushed",
        reasons=tuple(_sentence(reason) for reason in (pushed.row.reasons if pushed.row else ())),
        format=formats.get(pushed.name, ""),
        exam_accuracy=exam.get("accuracy"),
        scores=scores,
        winner=home.results["pay"]["winner"] == pushed.member["uid"],
    )


def _generator(home: DemoHome, name: str, result: Mapping[str, Any]) -> GeneratorRow:
    found = home.results["pay"]["generators"][name]
    row = next(g for g in result["generators"] if g["name"] == name)
    judged = found["fooled"] + found["not_fooled"]
    return GeneratorRow(
        name=name,
        hotkey=row["hotkey"],
        pipeline=PIPELINES[name],
        verified=found["verified"],
        refused=tuple(sorted(row["reasons"].items())),
        fooled=found["fooled"],
        judged=judged,
        reward=found["reward"],
        parts=(
            ("base: pass rate × volume × price", f"{found['base']['image']:.3f}"),
            ("fool rate", "–" if found["fool_rate"] is None else f"{found['fool_rate']:.1%} of {judged} judgements"),
            ("bonus", f"{found['bonus']:.3f}"),
        ),
    )


def _pay(home: DemoHome) -> tuple[Pay, ...]:
    pay, members = home.results["pay"], home.results["found"]["members"]
    out = []
    for name, member in members.items():
        got = pay["emission"].get(member["hotkey"])
        why = " ".join(pay["reasons"].get(str(member["uid"]), []))
        if member["role"] == "validator":
            why = "Dividends: its weights are the consensus, and its stake carries them."
        elif member["role"] == "subnet owner":
            why = ("The owner's share of the emission (18 %), and dividends of its stake. " + why).strip()
        elif not why:
            why = "Not scored: no pay."
        role = {"subnet owner": "owner", "detector author": "detector"}.get(member["role"], member["role"])
        out.append(Pay(name, role, member["uid"], got["total"] if got else 0, why))
    return tuple(sorted(out, key=lambda p: -p.rao))


def _splits(home: DemoHome, round_: Round) -> tuple[Split, ...]:
    photos = home.results["photos"]["photos"]
    exam = home.results["round"]["exam_sizes"]

    def part(name: str, provenance: Provenance, who: str) -> Split:
        samples = [s for s in round_.samples if s.provenance is provenance]
        real = sum(s.media_type is MediaType.REAL for s in samples)
        origins = len({s.origin for s in samples}) if provenance is not Provenance.ARENA else 0
        return Split(name, real, len(samples) - real, origins, who)

    exam_real, exam_fake = (sum(n for k, n in exam.items() if k.endswith("/real") is real) for real in (True, False))
    return (
        Split("training", len(photos["train"]), 0, len(photos["train"]), "authors of detectors and of the diffusion"),
        Split("generators' libraries", len(photos["library"]), 0, len(photos["library"]), "operators of generators"),
        Split("exam", exam_real, exam_fake, exam_real + exam_fake, "the arena; public"),
        part("round: public", Provenance.PUBLIC, "the arena; public after the round"),
        part("round: held out", Provenance.HOLDOUT, "the arena alone"),
        part("round: arena", Provenance.ARENA, "made by the generators for this round"),
    )


def _technical(home: DemoHome, round_: Round) -> tuple[Fact, ...]:
    audits = {k: v for k, v in home.results["round"]["audit"].items() if v is not None}
    facts = [
        Fact("Seed of the demo", str(home.seed)),
        Fact("Seed of the round", str(round_.seed)),
        Fact("Hash of the round's data", round_.data_hash),
        Fact("Normalisation", str(round_.parameters["normalisation"]), "the same for real and fake"),
        Fact("Networks of the owner's fakes", ", ".join(f"{k}: {v}" for k, v in FAKES_OF.items())),
        Fact("Emission profile", ", ".join(f"{c.value} {share:.0%}" for c, share in PROFILE.shares.items() if share)),
        Fact("Subnet", f"{NETUID}, block {home.results['pay']['block']}"),
    ]
    facts += [
        Fact(f"Leak audit: {pair}", f"{value['balanced_accuracy']:.1%}", "balanced accuracy of a classifier that sees everything but the picture; 50 % is a coin")  # noqa: E501
        for pair, value in audits.items()
    ]  # fmt: skip
    packages = ("gas", "torch", "onnxruntime", "numpy", "ncnn", "c2pa-python")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])
    return (*facts, Fact("Versions", versions))


def print_tables(result: Mapping[str, Any]) -> None:
    """The result as three tables and a hint."""
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def figure(value: float | None, digits: int = 3) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    detectors = Table(title="Detectors", title_justify="left")
    for column in ("name", "state", "exam", "sn34", "MCC", "Brier", "accuracy"):
        detectors.add_column(column, justify="left" if column in ("name", "state") else "right")
    for d in result["detectors"]:
        detectors.add_row(
            d["name"], d["state"], figure(d["exam_accuracy"]), figure(d["sn34_score"], 4), figure(d["mcc"]),
            figure(d["brier"]), figure(d["accuracy"]),
        )  # fmt: skip
    generators = Table(title="Generators", title_justify="left")
    for column in ("name", "verified", "refused", "fool rate", "reward"):
        generators.add_column(column, justify="left" if column == "name" else "right")
    for g in result["generators"]:
        generators.add_row(
            g["name"], str(g["verified"]), str(g["refused"]), figure(g["fool_rate"]), figure(g["reward"])
        )
    pay = Table(title="Pay", title_justify="left")
    for column in ("uid", "name", "role", "weight", "emission (τ)"):
        pay.add_column(column, justify="left" if column in ("name", "role") else "right")
    for name, member in result["members"].items():
        rao = result["emission"].get(member["hotkey"], 0)
        weight = result["weights"].get(str(member["uid"]))
        pay.add_row(str(member["uid"]), name, member["role"], figure(weight), f"{rao / RAO_PER_TAO:.3f}")

    def why(who: str, sentences: list[str]) -> None:
        for sentence in sentences:
            console.print(f"  {who}: {sentence}", highlight=False, markup=False)

    console.print(detectors)
    for d in result["detectors"]:
        why(d["name"], [_sentence(reason) for reason in d["reasons"]])
    console.print()
    console.print(generators)
    for g in result["generators"]:
        why(g["name"], [f"{count} x {code}" for code, count in sorted(g["reasons"].items())])
    console.print()
    console.print(pay)
    for name, member in result["members"].items():
        why(name, result["why"].get(str(member["uid"]), []))
    console.print()
    console.print(f"Report: {result['report']}", highlight=False, soft_wrap=True)
    console.print(
        "Next: open the report; `gascli d check`, `gascli score` and `gascli doctor` are for your own things."
    )
