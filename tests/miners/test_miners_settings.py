"""The operator's settings: wrong values are named, keys are never shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import found_home, write_env

from gas.clock import SystemClock
from gas.errors import ConfigurationError
from gas.generation.services import ServiceSettings
from gas.miners.copies import LocalCopies, sole_owner
from gas.miners.services import open_services
from gas.miners.settings import GeneratorSettings, read_settings
from gas.types import Modality

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / ".env.gen_miner.template"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GAS_HOME", "BT_WALLET_NAME", "IMAGE_SERVICE"):
        monkeypatch.delenv(name, raising=False)


def test_the_template_is_read_and_names_every_setting(tmp_path: Path) -> None:
    settings = read_settings(TEMPLATE)
    assert settings.services() == {Modality.IMAGE: "local"}
    named = {line.partition("=")[0] for line in TEMPLATE.read_text().splitlines() if re.match(r"[A-Z]", line)}
    keys = {name for name in named if name.endswith(("_KEY", "_SECRET"))}
    assert named - keys == {name.upper() for name in GeneratorSettings.model_fields}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMAGE_SERVICE", "midjourney"), ("BT_NETUID", "70000"), ("BT_NETUID", "one"), ("BT_AXON_PORT", "99999"),
        ("BT_AXON_IP", "my.host"), ("BT_AXON_EXTERNAL_IP", "300.1.1.1"), ("BT_CHAIN_ENDPOINT", "http://x"),
        ("BT_WALLET_NAME", "../../etc"), ("BT_WALLET_HOTKEY", "a/b"), ("MINER_MAX_CONCURRENT_TASKS", "0"),
        ("MINER_TASK_TIMEOUT", "nan"), ("MINER_TASK_TIMEOUT", "1"), ("MINER_SAVE_LOCALLY", "perhaps"),
        ("MINER_DEVICE", "tpu"), ("MINER_MIN_STAKE", "-1"), ("MINER_QUEUE_SIZE", "-5"), ("MINER_KEEP_DAYS", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_under_its_name(tmp_path: Path, name: str, value: str) -> None:
    env = write_env(tmp_path / ".env.gen_miner", **{name: value})
    with pytest.raises(ConfigurationError) as refusal:
        read_settings(env)
    assert refusal.value.error_code == "bad_setting"
    assert name in refusal.value.message


def test_a_misspelt_name_is_refused_and_other_peoples_names_are_not(tmp_path: Path) -> None:
    env = write_env(tmp_path / ".env.gen_miner", MINER_MAX_CONCURENT_TASKS=3, WANDB_API_KEY="x")
    with pytest.raises(ConfigurationError, match="MINER_MAX_CONCURENT_TASKS") as refusal:
        read_settings(env)
    assert "WANDB" not in str(refusal.value)


def test_a_miner_that_makes_nothing_or_has_no_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="IMAGE_SERVICE, VIDEO_SERVICE or AUDIO_SERVICE"):
        read_settings(write_env(tmp_path / ".env.gen_miner", IMAGE_SERVICE="none"))
    with pytest.raises(ConfigurationError, match="template"):
        read_settings(tmp_path / "nothing")


def test_the_environment_goes_before_the_file_and_an_option_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = write_env(tmp_path / ".env.gen_miner", BT_AXON_PORT=1001, BT_NETUID=5)
    monkeypatch.setenv("BT_AXON_PORT", "1002")
    assert read_settings(env).bt_axon_port == 1002
    assert read_settings(env, bt_axon_port=1003, bt_netuid=None).bt_axon_port == 1003
    assert read_settings(env).bt_netuid == 5


def test_an_address_that_nobody_reaches_is_not_published(tmp_path: Path) -> None:
    env = write_env(tmp_path / ".env.gen_miner", BT_AXON_IP="0.0.0.0")
    with pytest.raises(ConfigurationError, match="BT_AXON_EXTERNAL_IP"):
        _ = read_settings(env).axon
    assert read_settings(env, bt_axon_external_ip="203.0.113.7").axon == ("203.0.113.7", None)


def test_a_missing_key_is_named_and_a_service_makes_what_it_is_named_for(tmp_path: Path) -> None:
    env = write_env(tmp_path / ".env.gen_miner")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        open_services(read_settings(env), env, SystemClock())
    env = write_env(
        tmp_path / ".env.gen_miner", IMAGE_SERVICE="none", VIDEO_SERVICE="openai", OPENAI_API_KEY="sk-secret"
    )
    with pytest.raises(ConfigurationError, match="VIDEO_SERVICE=openai") as refusal:
        open_services(read_settings(env), env, SystemClock())
    assert "sk-secret" not in str(refusal.value)
    assert "sk-secret" not in repr(read_settings(env)) + repr(ServiceSettings(_env_file=env))


def test_a_provider_of_two_modalities_is_opened_once(tmp_path: Path) -> None:
    env = write_env(tmp_path / ".env.gen_miner", AUDIO_SERVICE="openai", OPENAI_API_KEY="sk-x")
    table = open_services(read_settings(env), env, SystemClock())
    assert table[Modality.IMAGE] is table[Modality.AUDIO]
    assert set(table) == {Modality.IMAGE, Modality.AUDIO}


def test_two_miners_do_not_share_a_state_folder(tmp_path: Path) -> None:
    with sole_owner(tmp_path / "state"):
        with pytest.raises(ConfigurationError) as refusal, sole_owner(tmp_path / "state"):
            pass
        assert refusal.value.error_code == "state_in_use"
    with sole_owner(tmp_path / "state"):
        pass


def test_copies_are_whole_or_not_there_and_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "out")
    copies.keep("task-1", b"data", "image/png")
    copies.keep("task-2", b"data", "audio/wav")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["task-1.png", "task-2.wav"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="MINER_OUTPUT_DIR"):
        LocalCopies(tmp_path / "file")


def test_a_home_without_its_certificate_or_with_an_old_one_does_not_serve(tmp_path: Path) -> None:
    from gas.clock import ManualClock
    from gas.generation.signing import TestAuthority
    from gas.miners.seal import CertificateSeal

    found_home(tmp_path / ".gas")
    with pytest.raises(ConfigurationError) as refusal:
        CertificateSeal(tmp_path / "authority", "nobody", "t", SystemClock())
    assert refusal.value.error_code == "no_certificate"
    old = ManualClock(SystemClock().time() - 3 * 365 * 86_400)
    TestAuthority(tmp_path / "old", old).leaf("miner", "Lab")
    with pytest.raises(ConfigurationError) as refusal:
        CertificateSeal(tmp_path / "old", "miner", "t", SystemClock())
    assert refusal.value.error_code == "certificate_expired"
