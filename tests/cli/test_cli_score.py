import json

import pytest
import typer
from typer.testing import CliRunner

from gas.cli.score import read_predictions, score
from gas.errors import ConfigurationError

KEYS = [
    "n",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "brier",
    "log_loss",
    "roc_auc",
    "average_precision",
    "eer",
    "ece",
    "tpr_at_fpr_01",
    "tpr_at_fpr_05",
    "sn34_score",
    "sn34_ci95",
]

app = typer.Typer()
app.command()(score)


def run(tmp_path, text, *options):
    file = tmp_path / "predictions.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CliRunner().invoke(app, [str(file), *options])


def test_json_has_every_metric_of_the_table_example(tmp_path):
    result = run(tmp_path, "label,p_fake\n1,.9\n1,.8\n0,.2\n0,.1\n", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == KEYS
    assert found["n"] == 4 and found["mcc"] == 1.0
    assert found["brier"] == pytest.approx(0.025) and found["sn34_score"] == pytest.approx(0.9095, abs=5e-5)


def test_words_are_labels_too_and_weights_count_as_copies(tmp_path):
    words = "p_fake,label,weight\n.9,synthetic,1\n.7,Semisynthetic,2\n.4,fake,1\n.3,real,1\n.6,real,3\n"
    copies = "label,p_fake\n1,.9\n2,.7\n2,.7\n1,.4\n0,.3\n0,.6\n0,.6\n0,.6\n"
    one, other = (json.loads(run(tmp_path, text, "--json").stdout) for text in (words, copies))
    for key in KEYS:
        if key not in ("n", "sn34_ci95"):
            assert one[key] == pytest.approx(other[key]), key


def test_sources_cluster_the_interval_and_the_seed_repeats_it(tmp_path):
    rows = "".join(f"{i % 2},{0.2 + 0.5 * (i % 2) + (i % 7) / 20},s{i // 6},public\n" for i in range(60))
    text = "label,p_fake,source,provenance\n" + rows
    first, again, other = (
        json.loads(run(tmp_path, text, "--json", "--seed", seed).stdout)["sn34_ci95"] for seed in ("1", "1", "2")
    )
    assert first == again and first != other and first[0] < first[1]


def test_one_class_is_unscored_with_the_reason_and_no_number(tmp_path):
    result = run(tmp_path, "label,p_fake\n1,.9\n1,.8\n", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["sn34_score"] is None and found["roc_auc"] is None and "real" in found["unscored"]


def test_a_file_without_rows_is_unscored(tmp_path):
    found = json.loads(run(tmp_path, "label,p_fake\n", "--json").stdout)
    assert found["n"] == 0 and found["unscored"] and found["accuracy"] is None


def test_people_get_a_table_with_the_weakest_group(tmp_path):
    text = "label,p_fake,source\n1,.9,a\n1,.2,b\n0,.2,c\n0,.1,c\n"
    result = run(tmp_path, text)
    assert result.exit_code == 0
    assert "sn34 score" in result.stdout and "Weakest: TPR 0.0000 on source 'b'" in result.stdout
    assert "Unscored" in run(tmp_path, "label,p_fake\n1,.9\n").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: there is no column 'label'"),
        ("label\n1\n", "line 1: there is no column 'p_fake'"),
        ("label,p_fake,colour\n", "line 1: there is no use for a column 'colour'"),
        ("label,p_fake,label\n", "line 1: two columns are named 'label'"),
        ("label,p_fake\n1,.5\nmaybe,.5\n", "line 3: 'maybe' is no label"),
        ("label,p_fake\n3,.5\n", "line 2: '3' is no label"),
        ("label,p_fake\n1,\n", "line 2: p_fake must be"),
        ("label,p_fake\n1,nan\n", "line 2: p_fake must be"),
        ("label,p_fake\n1,1.5\n", "line 2: p_fake must lie"),
        ("label,p_fake\n1,-.5\n", "line 2: p_fake must be"),
        ("label,p_fake,weight\n1,.5,inf\n", "line 2: weight must be"),
        ("label,p_fake,weight\n1,.5\n", "line 2: 2 values under 3 columns"),
        ("label,p_fake,provenance\n1,.5,secret\n", "line 2: 'secret' is no provenance"),
        ('label,p_fake\n1,"0.5\n', "no CSV"),
        (b"label,p_fake\n\xff\xfe,1\n", "no UTF-8"),
    ],
)
def test_wrong_line_is_named(tmp_path, text, message):
    result = run(tmp_path, text, "--json")
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)


def test_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_predictions(tmp_path)


def test_byte_order_mark_blank_lines_and_blanks_are_fine(tmp_path):
    file = tmp_path / "p.csv"
    file.write_bytes("\ufefflabel, p_fake\r\n\r\n1 , 0.5\r\n".encode())
    assert read_predictions(file).labels == [1]
