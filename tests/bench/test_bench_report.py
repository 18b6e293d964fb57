"""The report: everything is in it, nothing leaves it, and a hostile name stays a name."""

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from gas.bench.report import (
    CalibrationBin,
    DetectorRow,
    DetectorScores,
    Fact,
    GeneratorRow,
    Pay,
    PhotoSource,
    Picture,
    ReportData,
    SourceRate,
    Split,
    render_report,
    thumbnail,
    write_report,
)
from gas.errors import StorageError

EVIL = "<script>alert(1)</script>"
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def picture(kind: str) -> Picture:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Picture(thumbnail(pixels), "a package", kind, (("good", 0.25), (EVIL, 0.75)))


def report(name: str = EVIL) -> ReportData:
    scores = DetectorScores(
        sn34=0.741,
        sn34_base=0.75,
        sn34_robust=0.705,
        ci95=(0.70, 0.80),
        mcc=0.8,
        brier=0.09,
        accuracy=0.9,
        roc_auc=0.96,
        ece=0.03,
        count=200,
        model_errors=3,
        roc=((0.0, 0.0), (0.1, 0.9), (1.0, 1.0)),
        calibration=(CalibrationBin(0.1, 0.12, 100), CalibrationBin(0.9, 0.85, 100)),
        rates=(SourceRate(name, "real", 40, 50), SourceRate("gen", "synthetic", 9, 10)),
    )
    return ReportData(
        title=f"Round {name}",
        subtitle=name,
        summary=(name, "All went well."),
        facts=(Fact("Winner", name, name),),
        detectors=(
            DetectorRow("good", "5Good", "scored", (), "onnx", 0.95, scores, winner=True),
            DetectorRow(name, name, "scored", (name,), name, 0.9, scores),
            DetectorRow("hostile", "5Bad", "rejected", ("model.py:3: Import of 'socket' is not allowed.",)),
        ),
        fooled_most=(picture("synthetic"),),
        accused_most=(picture("real"),),
        generators=(GeneratorRow(name, name, name, 10, ((name, 2),), 3, 20, 1.5, ((name, name),)),),
        pay=(Pay("good", "detector", 4, 1_500_000_000, name), Pay(name, "burn", None, 500_000_000, "Nobody else.")),
        splits=(Split(name, 10, 10, 5, name),),
        photo_sources=(PhotoSource(name, 5, name, name),),
        technical=(Fact("Seed", "7"), Fact(name, name)),
        next_steps=((name, name), ("Try again.", "gascli demo")),
    )


class Elements(HTMLParser):
    """Collects tags, links and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.links, self.handlers, self.text = set(), [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in {"src", "href", "action", "data", "srcset"}]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def test_a_hostile_name_stays_text_wherever_it_appears():
    page = Elements(render_report(report()))
    assert not page.tags & {"script", "iframe", "object", "embed", "form"}
    assert page.handlers == []
    assert sum(EVIL in text for text in page.text) >= 15


@pytest.mark.parametrize(
    "name",
    ['"><img src=x onerror=alert(1)>', "'; } * { display: none } /*", "{{ 7 * 7 }}", "</title></style>", "\ud800\x00"],
)
def test_names_cannot_leave_their_place(name):
    html = render_report(report(name))
    page = Elements(html)
    assert page.handlers == []
    assert all(link.startswith("data:") for link in page.links)
    assert sum(name in text for text in page.text) >= 10 or "\ud800" in name


def test_the_page_asks_for_nothing_outside_itself():
    html = render_report(report("plain"))
    page = Elements(html)
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_the_figures_and_reasons_are_on_the_page():
    text = " ".join(Elements(render_report(report("plain"))).text)
    for part in (
        "0.741",
        "[0.70, 0.80]",
        "3 model errors, counted as wrong",
        "model.py:3: Import of 'socket' is not allowed.",
        "False positive rate",
        "Observed share of fakes",
        "80.0 %",
        "15.0 %",
        "1.5000 TAO",
        "75.0 %",
        "gascli demo",
    ):
        assert part in text, part


def test_a_round_without_a_scored_detector_still_makes_a_page():
    data = ReportData("Empty", "", ("Nothing was scored.",), detectors=(DetectorRow("a", "5A", "exam_failed"),))
    text = " ".join(Elements(render_report(data)).text)
    assert "exam failed" in text
    assert "ROC-AUC" in text
    assert "Calibration" not in text


def test_a_detector_without_a_score_shows_a_dash_and_not_a_zero():
    data = report("plain")
    unscored = dataclasses.replace(data.detectors[0].scores, sn34=None, ci95=None, mcc=None, roc_auc=float("nan"))
    html = render_report(dataclasses.replace(data, detectors=(DetectorRow("a", "5A", "scored", scores=unscored),)))
    assert not re.search(r"\bnan\b", " ".join(Elements(html).text).lower())
    assert "0.000" not in html
    assert "unscored" in html


def test_the_same_data_give_the_same_page():
    assert render_report(report()) == render_report(report())


def test_the_file_is_written_whole(tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_report(path, report())
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_report(tmp_path / "file" / "report.html", report())


def test_thumbnails_are_small_jpegs_of_either_layout():
    pixels = np.zeros((600, 300, 3), dtype=np.uint8)
    from io import BytesIO

    from PIL import Image

    for array in (pixels, np.moveaxis(pixels, 2, 0)):
        image = Image.open(BytesIO(thumbnail(array, side=100)))
        assert (image.format, image.size) == ("JPEG", (50, 100))
    with pytest.raises(ValueError, match="shape"):
        thumbnail(np.zeros((10, 10), dtype=np.uint8))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_chromium_opens_the_page_without_a_word_in_its_console(tmp_path):
    def open_page(name: str, html: str) -> tuple[str, str]:
        path = tmp_path / f"{name}.html"
        path.write_text(html, encoding="utf-8", errors="replace")
        done = subprocess.run(
            [
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--dump-dom"),
                f"--user-data-dir={tmp_path / ('profile-' + name)}",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout, done.stderr

    _, loud = open_page("control", "<script>console.error('seen')</script>")
    assert "CONSOLE" in loud, "the control page's error must show, or the next assertion proves nothing"
    dom, log = open_page("report", render_report(report()))
    assert "CONSOLE" not in log
    assert "Who was paid, and why" in dom
    assert "<script" not in dom
