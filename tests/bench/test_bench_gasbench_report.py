"""The page of one run: what it shows, and what it refuses to be talked into."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from gas.bench.batches import Pass
from gas.bench.metrics import compute_metrics
from gas.bench.records import SampleRecord
from gas.bench.report.detail import det_chart, histogram_chart, rate_chart, wilson_interval
from gas.bench.report.single import render_single_report, view_of, worst_errors
from gas.datasets.plan import freeze_round
from gas.errors import MediaRejected, StorageError
from gas.media.encode import encode_mp4, encode_wav
from gas.media.image import encode_png
from gas.types import MediaType, Modality, Provenance, Sample, SampleStatus


def test_the_interval_of_a_share_is_wilson_s():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)
    narrow = wilson_interval(800, 1000)
    assert 0.77 < narrow[0] < 0.8 < narrow[1] < 0.83


def test_charts_are_sound_xml_and_escape_what_strangers_wrote():
    hostile = '<script>alert("x")</script> & more'
    charts = [
        rate_chart([(hostile, 3, 4, 0), ("fine", 0, 1, 1)]),
        histogram_chart([(hostile, [3, 0, 1]), ("empty", [0, 0, 0])]),
        det_chart([(0.0, 0.0), (0.2, 0.9), (1.0, 1.0)]),
    ]
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "<script" not in chart


def test_a_better_detector_lies_lower_left_on_the_det_chart():
    def middle(tpr):
        points = re.search(r'points="([^"]+)"', det_chart([(0, 0), (0.1, tpr), (1, 1)]))[1]
        return [float(value) for value in points.split()[1].split(",")]

    good, bad = middle(0.95), middle(0.6)
    assert good[0] == bad[0]
    assert good[1] > bad[1], "the ordinate of SVG grows downwards"


@pytest.mark.parametrize("modality", list(Modality))
def test_every_kind_of_medium_has_a_picture(modality):
    frames = [np.full((60, 80, 3), 40 * k, np.uint8) for k in range(5)]
    data = {
        Modality.IMAGE: lambda: encode_png(frames[2]),
        Modality.VIDEO: lambda: encode_mp4(frames, 10.0),
        Modality.AUDIO: lambda: encode_wav(np.sin(np.arange(8000) / 9).astype(np.float32), 16_000),
    }[modality]()
    picture = view_of(data, modality)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    if modality is Modality.VIDEO:
        assert picture.shape[1] > 3 * picture.shape[0], "a strip of frames is wide"
    with pytest.raises(MediaRejected):
        view_of(b"nothing of the kind", modality)


def test_the_worst_errors_come_first_and_a_medium_that_cannot_be_read_is_left_out():
    samples, records = [], []
    for k in range(8):
        kind = MediaType.SYNTHETIC if k % 2 else MediaType.REAL
        name = f"{k:064x}"
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, "set", f"source-{k}", name))
        p = 0.1 * k / 8
        records.append(SampleRecord(name, Pass.BASE, SampleStatus.OK, p, 0, False, (0.0, 0.0)))
    failed = SampleRecord(samples[7].sample_id, Pass.BASE, SampleStatus.MODEL_ERROR, 0.0, 0, False, None, "crashed")
    records[7] = failed
    round_ = freeze_round(samples, 1, {}, code_version="test")

    def media(name):
        if name == samples[1].sample_id:
            raise StorageError("gone", code="blob_missing")
        if name == samples[3].sample_id:
            return b"broken"
        return encode_png(np.zeros((20, 20, 3), np.uint8))

    shown = worst_errors(records, round_, media, Modality.IMAGE, fake=True)
    assert [picture.source for picture in shown] == ["source-5"]
    assert shown[0].p_fake == (("p_fake", pytest.approx(0.0625)),)
    assert worst_errors(records, round_, media, Modality.IMAGE, fake=False) == ()


def test_the_whole_page_is_sound_and_no_name_of_a_stranger_becomes_markup():
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)>&'
    samples, records = [], []
    for k in range(12):
        kind = MediaType.SYNTHETIC if k % 2 else MediaType.REAL
        name = f"{k:064x}"
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, hostile, f"{hostile}{k % 6}", name))
        fake = (k % 2 == 1) != (k in (2, 3))
        records.append(SampleRecord(name, Pass.BASE, SampleStatus.OK, 0.9 if fake else 0.1, 0, fake, (0.0, 0.0)))
    round_ = freeze_round(samples, 1, {}, code_version="test")
    point = {"name": hostile, "level": None, "count": 4, "correct": 2, "tpr": 0.5, "tnr": 0.5}
    point |= {"sn34": 0.1, "low": 0.0, "high": 0.3}
    curves = {"samples": 4, "levels": [{**point, "level": k} for k in range(4)], "groups": [point]}
    figures = dict.fromkeys(("accuracy", "binary_mcc", "binary_brier", "roc_auc", "eer", "avg_inference_time_ms"), 0.5)
    figures |= {"sn34_ci95": [0.1, 0.2], "sn34_ci95_clusters": 6, "sn34_ci95_by": "source", "unscored": None}
    figures |= {"model_errors": 0, "media_errors": 0, "correct_predictions": 10, "total_samples": 12}
    figures |= {"records_sha256": hostile, "robustness_curves": {**curves, "model_errors": 1, "version": hostile}}
    row = {"provenance": hostile, "total": 12, "accuracy": 0.8, "tpr": None, "tnr": 0.7, "model_errors": 0}
    results = {
        "metadata": {"modality": "image", "versions": {hostile: hostile}}
        | dict.fromkeys(("mode", "timestamp", "run_id", "model_path"), hostile),
        "overall_score": 0.5,
        "validation": {"package": {"name": hostile}},
        "results": figures,
        "per_dataset_results": {hostile: row},
        "errors": {"model": {hostile: 2}, "media": []},
        "dataset_info": {"plan_id": hostile, "data_hash": hostile, "seed": 1, "datasets": {hostile: {"set_aside": 1}}},
        "sandbox": {"tier": hostile, "restarts": 0, "executor": hostile, "timings": {"samples_per_second": 3.0}}
        | {"gave_up": True},
    }
    page = render_single_report(
        results,
        records,
        compute_metrics(records, round_),
        round_,
        lambda _: encode_png(np.zeros((20, 20, 3), np.uint8)),
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "the model died too often" in page
    assert page.count("data:image/jpeg") == 2
    assert "script&gt;alert" in page, "the names are shown, as text"
    assert "http:" not in page.replace("http://www.w3.org", "")
    assert "https:" not in page
