"""One HTML file that shows a whole round: scores, curves, pictures, pay, data."""

from gas.bench.report.data import (
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
)
from gas.bench.report.render import render_report, write_report
from gas.bench.report.thumbnails import thumbnail

__all__ = [
    "CalibrationBin",
    "DetectorRow",
    "DetectorScores",
    "Fact",
    "GeneratorRow",
    "Pay",
    "PhotoSource",
    "Picture",
    "ReportData",
    "SourceRate",
    "Split",
    "render_report",
    "thumbnail",
    "write_report",
]
