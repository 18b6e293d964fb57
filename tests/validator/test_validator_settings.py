"""The operator's file: every value checked at start by its name, nothing secret shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gas.cli.main import main
from gas.errors import ConfigurationError
from gas.validator.ground import SERVICES
from gas.validator.settings import ValidatorSettings, read_settings

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / ".env.validator.template"
NAMES = {name.upper() for name in ValidatorSettings.model_fields}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine's own, and a folder of one's own."""
    for name in NAMES | {"BT_AXON_PORT"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def settings_of(text: str) -> ValidatorSettings:
    path = Path(".env.validator")
    path.write_text(text)
    return read_settings(path)


def test_the_template_names_every_setting_with_the_value_it_has_anyway() -> None:
    names = set(re.findall(r"^([A-Z0-9_]+)=", TEMPLATE.read_text(), re.MULTILINE))
    assert names == NAMES
    assert read_settings(TEMPLATE) == read_settings(None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("BT_WALLET_NAME=../../etc", "BT_WALLET_NAME"),
        ("BT_NETUID=70000", "BT_NETUID"),
        ("BT_CHAIN_ENDPOINT=http://secret-token@node", "BT_CHAIN_ENDPOINT"),
        ("CALLBACK_IP=everywhere", "CALLBACK_IP"),
        ("CALLBACK_PORT=http", "CALLBACK_PORT"),
        ("BT_AXON_PORT=http", "BT_AXON_PORT"),
        ("CALLBACK_URL=ftp://secret-token/", "CALLBACK_URL"),
        ("CHALLENGE_INTERVAL_BLOCKS=0", "CHALLENGE_INTERVAL_BLOCKS"),
        ("CHALLENGE_MODALITIES=image,smell", "CHALLENGE_MODALITIES"),
        ("TRUST_ANCHORS=secret-token.pem", "TRUST_ANCHORS"),
        ("EMISSION_PROFILE=mine", "EMISSION_PROFILE"),
        ("CHALENGE_TIMEOUT=3\nCHALLENGE_TIMEOUTS=3", "CHALLENGE_TIMEOUTS"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(line: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        settings_of(line)
    assert "secret-token" not in str(error.value) and error.value.error_code == "bad_setting"


def test_passwords_and_tokens_are_not_shown() -> None:
    settings = settings_of("GAS_DATABASE_URL=postgresql+psycopg://u:hunter2@h/gas\nHF_TOKEN=hf_hunter2")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    assert settings.database_url.endswith("hunter2@h/gas")


def test_miners_are_told_an_address_that_they_can_reach() -> None:
    with pytest.raises(ConfigurationError, match="EXTERNAL_CALLBACK_IP"):
        settings_of("").webhook_base(10525)
    assert settings_of("EXTERNAL_CALLBACK_IP=203.0.113.7").webhook_base(10525) == "http://203.0.113.7:10525"
    text = "EXTERNAL_CALLBACK_IP=2001:db8::7\nEXTERNAL_CALLBACK_PORT=80"
    assert settings_of(text).webhook_base(10525) == "http://[2001:db8::7]:80"
    assert settings_of("CALLBACK_URL=https://vali.example/").webhook_base(1) == "https://vali.example"
    assert settings_of("BT_AXON_PORT=7").callback_port == 7


def test_a_variable_of_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHALLENGE_SAMPLE_SIZE", "5")
    assert settings_of("CHALLENGE_SAMPLE_SIZE=9").challenge_sample_size == 5


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(["v", *words])
    except SystemExit as end:
        status = int(end.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_start_without_settings_or_with_wrong_ones_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, said = run(capsys, "start")
    assert status == 2 and ".env.validator.template" in said
    Path(".env.validator").write_text("BT_WALLET_NAME=nobody\n")
    status, _, said = run(capsys, "start")
    assert status == 2 and "nobody" in said
    status, _, said = run(capsys, "start", "--service", "sn34-something")
    assert status == 2 and "sn34-data" in said
    assert not Path(".gas/validators").exists()


def test_the_status_of_what_never_ran_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env.validator").write_text("")
    status, out, _ = run(capsys, "status", "--json")
    assert status == 1
    assert {name: one["state"] for name, one in json.loads(out)["services"].items()} == dict.fromkeys(
        SERVICES, "stopped"
    )
    status, out, _ = run(capsys, "stop")
    assert status == 0 and out.count("did not run") == 3


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_pm2_is_told_of_the_same_three_services() -> None:
    script = f"console.log(JSON.stringify(require({json.dumps(str(ROOT / 'validator.config.js'))}).apps))"
    told = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True, timeout=60)
    apps = json.loads(told.stdout)
    assert tuple(app["name"] for app in apps) == SERVICES
    for app in apps:
        assert app["args"][:4] == ["validator", "serve", "--service", app["name"]]
        assert app["args"][4:] == ["--env-file", str(ROOT / ".env.validator")]
        assert Path(app["script"]).name == "gascli" and app["stop_exit_codes"] == [2]
