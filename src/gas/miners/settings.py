"""Settings of a generator: the operator's ``.env.gen_miner``, every value checked at start.

The names are those that operators of such subnets know; a variable of the process's environment goes before the file,
and an option of the command before both. The keys of the providers are not here but in
:class:`gas.generation.services.ServiceSettings`, which reads the same file.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gas.errors import ConfigurationError
from gas.operators import EnvFile, IpText, WalletWord, read_env_file
from gas.types import Modality

__all__ = ["ENV_FILE", "NO_SERVICE", "GeneratorSettings", "ServiceName", "read_settings"]

ENV_FILE: Final = ".env.gen_miner"
"""Where the settings are looked for, in the working folder."""

NO_SERVICE: Final = "none"
"""A modality that this miner doesn't make."""

ServiceName = Literal["openai", "openrouter", "stabilityai", "runway", "local", "none"]

_FILE: Final = EnvFile(
    "generator",
    ENV_FILE,
    re.compile(r"(BT|MINER)_[A-Z0-9_]+|(IMAGE|VIDEO|AUDIO)_[A-Z0-9_]*(SERVICE|PIPELINE)[A-Z0-9_]*"),
)


class GeneratorSettings(BaseSettings):
    """What the operator of a generator may set; each field is a variable of the same name in capitals.

    Attributes:
        image_service: Who makes pictures.
        video_service: Who makes clips.
        audio_service: Who makes speech.
        image_pipeline: For ``local``: a name that :func:`gas.generation.local.load_pipeline` knows.
        image_edit_pipeline: As above, for ``/mod_image``; empty when pictures are not changed.
        video_pipeline: As above.
        audio_pipeline: As above.
        gas_home: Folder of the wallets, and of the ledger where the chain is the home's own.
        bt_wallet_name: Whose hotkey serves.
        bt_wallet_hotkey: Name of the hotkey.
        bt_wallet_path: Folder of wallets; in the home when left out.
        bt_netuid: The subnet.
        bt_chain_endpoint: ``local``, ``ws://HOST:PORT``, ``wss://HOST``, ``finney`` or ``test``.
        bt_axon_ip: Address to listen on.
        bt_axon_port: Port to listen on; 0 takes a free one.
        bt_axon_external_ip: Address that is published for validators; the one listened on when left out.
        bt_axon_external_port: Port that is published; the one listened on when left out.
        miner_max_concurrent_tasks: Media in the making at a time.
        miner_queue_size: Tasks that may be open at a time; more are answered 503.
        miner_task_timeout: Seconds after which a task is given up.
        miner_state_dir: Folder of tasks and undelivered media; in the home when left out.
        miner_save_locally: Whether to keep a copy of every medium that was made.
        miner_output_dir: Where those copies go.
        miner_keep_days: After how many days an ended task is forgotten.
        miner_min_free_mb: Free disk below which no work is taken, MiB.
        miner_device: What local pipelines compute on: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        miner_downloads: Whether models may be fetched from the hub at start.
        miner_threads: Threads that local pipelines compute with.
        miner_library: Folder of source photos, for pipelines that start from one.
        miner_c2pa_dir: Folder of the C2PA credential.
        miner_c2pa_name: Its name there; the wallet's when left out.
        miner_force_vpermit: Serve only validators with a permit.
        miner_min_stake: TAO that a caller must have staked.
        miner_allow_local_webhooks: Deliver to private and loop-back addresses too.
        miner_publish_axon: Whether to tell the chain where validators reach this miner.
    """

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    image_service: ServiceName = "none"
    video_service: ServiceName = "none"
    audio_service: ServiceName = "none"
    image_pipeline: str = "diffusion"
    image_edit_pipeline: str = ""
    video_pipeline: str = "video"
    audio_pipeline: str = "speech"
    gas_home: Path = Path(".gas")
    bt_wallet_name: WalletWord = "default"
    bt_wallet_hotkey: WalletWord = "default"
    bt_wallet_path: Path | None = None
    bt_netuid: int = Field(default=1, ge=0, le=65535)
    bt_chain_endpoint: str = "local"
    bt_axon_ip: IpText = "127.0.0.1"
    bt_axon_port: int = Field(default=8091, ge=0, le=65535)
    bt_axon_external_ip: IpText = ""
    bt_axon_external_port: int | None = Field(default=None, ge=1, le=65535)
    miner_max_concurrent_tasks: int = Field(default=5, ge=1, le=256)
    miner_queue_size: int = Field(default=64, ge=1, le=10_000)
    miner_task_timeout: float = Field(default=600.0, ge=5.0, le=86_400.0)
    miner_state_dir: Path | None = None
    miner_save_locally: bool = False
    miner_output_dir: Path = Path("generated")
    miner_keep_days: float = Field(default=14.0, gt=0.0, le=3650.0)
    miner_min_free_mb: int = Field(default=256, ge=0)
    miner_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    miner_downloads: bool = False
    miner_threads: int = Field(default=1, ge=1, le=256)
    miner_library: Path | None = None
    miner_c2pa_dir: Path = Path("authority")
    miner_c2pa_name: str = ""
    miner_force_vpermit: bool = True
    miner_min_stake: float = Field(default=0.0, ge=0.0, le=1e9)
    miner_allow_local_webhooks: bool = False
    miner_publish_axon: bool = True

    @field_validator("bt_chain_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        from gas.chain.connect import check_endpoint

        try:
            return check_endpoint(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _something(self) -> GeneratorSettings:
        if not self.services():
            raise ValueError("IMAGE_SERVICE, VIDEO_SERVICE or AUDIO_SERVICE must name a service")
        return self

    def services(self) -> dict[Modality, ServiceName]:
        """Who makes each modality; without those that nobody makes."""
        named: dict[Modality, ServiceName] = {
            Modality.IMAGE: self.image_service,
            Modality.VIDEO: self.video_service,
            Modality.AUDIO: self.audio_service,
        }
        return {modality: name for modality, name in named.items() if name != NO_SERVICE}

    def pipeline(self, modality: Modality) -> str:
        """Name of the local pipeline of a modality."""
        return {
            Modality.IMAGE: self.image_pipeline,
            Modality.VIDEO: self.video_pipeline,
            Modality.AUDIO: self.audio_pipeline,
        }[modality]

    @property
    def wallets_path(self) -> Path:
        """Folder of wallets in force."""
        return self.bt_wallet_path or self.gas_home / "wallets"

    @property
    def state_path(self) -> Path:
        """Folder of tasks in force."""
        return self.miner_state_dir or self.gas_home / "miners" / self.bt_wallet_name

    @property
    def axon(self) -> tuple[str, int | None]:
        """The address to publish, and its port when that is another one than the one listened on.

        Raises:
            ConfigurationError: ``no_external_ip``: it listens everywhere, which is no address.
        """
        ip = self.bt_axon_external_ip or self.bt_axon_ip
        if ip_address(ip).is_unspecified:
            raise ConfigurationError(
                f"BT_AXON_IP={ip} is no address that validators can reach.",
                code="no_external_ip",
                hint="Set BT_AXON_EXTERNAL_IP to this machine's public address.",
            )
        return ip, self.bt_axon_external_port

    @property
    def credential_name(self) -> str:
        """Name of the C2PA credential in force."""
        return self.miner_c2pa_name or self.bt_wallet_name


def read_settings(env_file: Path | None, **options: Any) -> GeneratorSettings:
    """The settings in force; raises as :func:`gas.operators.read_env_file`.

    Args:
        env_file: The operator's file; None reads only the environment.
        options: Fields that the command line sets; None leaves one to the file.
    """
    return read_env_file(GeneratorSettings, env_file, options, _FILE)
