"""Settings of a validator's three services: the operator's ``.env.validator``, every value checked at start.

The names are those that operators of such subnets know; a variable of the process's environment goes before the file,
and an option of the command before both.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gas.errors import ConfigurationError
from gas.operators import EnvFile, IpText, WalletWord, read_env_file
from gas.types import Modality

__all__ = ["ENV_FILE", "ValidatorSettings", "read_settings"]

ENV_FILE: Final = ".env.validator"
"""Where the settings are looked for, in the working folder."""

_FILE: Final = EnvFile(
    "validator",
    ENV_FILE,
    re.compile(
        r"(BT|CALLBACK|EXTERNAL_CALLBACK|CHALLENGE|PUBLISH|MEDIA|DATA|LOCAL_MEDIA|PROMPTS|VERIFY|METRICS|GAS)_[A-Z0-9_]+"
    ),
    # Names of other parts of GAS that may stand in the same file, and the second name of the port.
    frozenset({"GAS_NETUID", "GAS_CHAIN_ENDPOINT", "GAS_CHAIN_URL", "BT_AXON_PORT"}),
    {"callback_port": "CALLBACK_PORT (or BT_AXON_PORT)"},
)


class ValidatorSettings(BaseSettings):
    """What the operator of a validator may set; each field is a variable of the same name in capitals.

    Attributes:
        gas_home: Folder of the wallets, the embedded database and blobs, and the ledger of a chain of one's own.
        gas_database_url: SQLAlchemy URL; SQLite in the home when left out.
        gas_blobs_url: ``s3://bucket/prefix?endpoint=...`` or a folder; a folder of the home when left out.
        bt_wallet_name: Whose hotkey validates.
        bt_wallet_hotkey: Name of the hotkey.
        bt_wallet_path: Folder of wallets; in the home when left out.
        bt_netuid: The subnet.
        bt_chain_endpoint: ``local``, ``ws://HOST:PORT``, ``wss://HOST``, ``finney`` or ``test``.
        callback_ip: Address that the callback server listens on.
        callback_port: Its port (``BT_AXON_PORT`` is understood too); 0 takes a free one.
        callback_url: Base of the address that miners deliver to, for a server behind a proxy, e.g.
            ``https://validator.example``; made of the next two when left out.
        callback_prints_seconds: After so many seconds other validators may see the prints of what was accepted, and
            theirs are looked at ten times as often, so that no medium is sold to two; 0 takes no part in that.
        external_callback_ip: Public address of this machine; the one listened on when left out.
        external_callback_port: Public port; the one listened on when left out.
        callback_max_mb: Largest delivery, MiB.
        callback_uploads: Deliveries that are received at a time; each holds at most 1 MiB of memory.
        callback_seconds: Wall clock of one delivery.
        callback_min_free_mb: Free disk below which no delivery is taken, MiB.
        challenge_interval_blocks: Every so many blocks generators are challenged.
        challenge_sample_size: How many of them at a time.
        challenge_modalities: Which of ``image,video,audio`` are asked for.
        challenge_semisynthetic_share: Of the challenges for pictures to miners that change pictures, how many send a
            real photo to be changed; nobody is sent one while the validator has no photos that may be changed.
        challenge_image_seconds: Time for the delivery of a picture.
        challenge_video_seconds: Of a clip.
        challenge_audio_seconds: Of a sound.
        challenge_timeout: Seconds in which a generator must answer a request.
        challenge_at_once: Requests that are out at a time.
        challenge_max_open: Open tasks of one generator at a time.
        challenge_max_backlog: Deliveries waiting for verification from which on nobody is challenged.
        challenge_local_addresses: Whether axons at loop-back and private addresses are challenged.
        emission_profile: ``gas``, ``live``, ``serving`` or ``full``.
        competitions: YAML file of the competitions whose winners are paid; when left out the home's
            ``competitions.yaml``, and where there is none one competition a modality.
        version_key: Of the weights.
        metrics_ip: Address that health and metrics of the services are served on.
        metrics_port: Its port; 0 serves none.
        trust_anchors: PEM file with the certificate authorities whose content credentials count.
        alignment: Models that judge whether a picture shows its prompt; empty for none.
        embedding: The model whose embeddings find copies that were bent: ``auto`` (MobileNet, where its weights are
            installed), ``none``, or the folder of a CLIP model.
        verify_at_once: Threads that verify.
        prompts_min: Unused prompts of each modality below which new ones are composed.
        local_media_registry: YAML file of local models; none are run when left out.
        local_media_per_hour: How many media the validator makes itself.
        local_media_device: What they compute on: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        publish_target: Where verified media are published: a folder, ``s3://bucket/prefix`` or ``hf://OWNER/NAME``;
            nowhere when left out.
        publish_shard_mb: Media of one shard, MiB.
        hf_token: Token of the Hugging Face hub.
        data_registries: Whose data sets are fetched: ``yours`` (what ``gascli data add`` wrote), names of registries
            that ship, and files, with commas between them.
        data_sets: Which of them: globs of names, with commas between them.
        data_refresh_hours: How often each data set is asked for news.
        data_max_gb: That the data sets may take, GB; sets unused longest go first.
        media_max_gb: Miners' media that are kept, GB; beyond it published ones go, oldest first.
        local_media_max_gb: The validator's own media that are kept, GB; beyond it none are made.
        media_keep_days: Published media younger than this stay in any case; at least 7 days.
    """

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, populate_by_name=True
    )

    gas_home: Path = Path(".gas")
    gas_database_url: SecretStr = SecretStr("")
    gas_blobs_url: str = ""
    bt_wallet_name: WalletWord = "validator"
    bt_wallet_hotkey: WalletWord = "default"
    bt_wallet_path: Path | None = None
    bt_netuid: int = Field(default=1, ge=0, le=65535)
    bt_chain_endpoint: str = "local"

    callback_ip: IpText = "0.0.0.0"  # noqa: S104  (miners are elsewhere)
    callback_port: int = Field(
        default=10525, ge=0, le=65535, validation_alias=AliasChoices("callback_port", "bt_axon_port")
    )
    callback_url: str = ""
    callback_prints_seconds: float = Field(default=600.0, ge=0.0, le=3600.0)
    external_callback_ip: IpText = ""
    external_callback_port: int | None = Field(default=None, ge=1, le=65535)
    callback_max_mb: int = Field(default=64, ge=1, le=4096)
    callback_uploads: int = Field(default=64, ge=1, le=1024)
    callback_seconds: float = Field(default=60.0, ge=1.0, le=3600.0)
    callback_min_free_mb: int = Field(default=1024, ge=0)

    challenge_interval_blocks: int = Field(default=25, ge=1, le=100_000)
    challenge_sample_size: int = Field(default=32, ge=1, le=65_536)
    challenge_modalities: str = "image,video,audio"
    challenge_semisynthetic_share: float = Field(default=0.1, ge=0.0, le=1.0)
    challenge_image_seconds: float = Field(default=180.0, ge=1.0, le=86_400.0)
    challenge_video_seconds: float = Field(default=600.0, ge=1.0, le=86_400.0)
    challenge_audio_seconds: float = Field(default=180.0, ge=1.0, le=86_400.0)
    challenge_timeout: float = Field(default=10.0, ge=0.1, le=120.0)
    challenge_at_once: int = Field(default=32, ge=1, le=1024)
    challenge_max_open: int = Field(default=4, ge=1, le=100)
    challenge_max_backlog: int = Field(default=1000, ge=1)
    challenge_local_addresses: bool = False

    emission_profile: str = "gas"
    competitions: Path | None = None
    version_key: int = Field(default=0, ge=0)
    metrics_ip: IpText = "127.0.0.1"
    metrics_port: int = Field(default=9110, ge=0, le=65535)

    trust_anchors: Path | None = None
    alignment: str = ""
    embedding: str = "auto"
    verify_at_once: int = Field(default=1, ge=1, le=64)
    prompts_min: int = Field(default=200, ge=0)
    local_media_registry: Path | None = None
    local_media_per_hour: float = Field(default=0.0, ge=0.0)
    local_media_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    publish_target: str = ""
    publish_shard_mb: int = Field(default=256, ge=1, le=4096)
    hf_token: SecretStr = SecretStr("")
    data_registries: str = "yours"
    data_sets: str = "*"
    data_refresh_hours: float = Field(default=24.0, gt=0.0)
    data_max_gb: float = Field(default=500.0, gt=0.0)
    media_max_gb: float = Field(default=200.0, gt=0.0)
    local_media_max_gb: float = Field(default=50.0, gt=0.0)
    media_keep_days: float = Field(default=30.0, gt=0.0)

    @field_validator("bt_chain_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        from gas.chain.connect import check_endpoint

        try:
            return check_endpoint(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    @field_validator("callback_url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            fine = fine and not (parts.query or parts.fragment or "@" in parts.netloc)
        except ValueError:
            fine = False
        if value and not fine:
            raise ValueError("this is no http:// or https:// address")
        return value.rstrip("/")

    @field_validator("challenge_modalities")
    @classmethod
    def _modalities(cls, value: str) -> str:
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not words or not set(words) <= {modality.value for modality in Modality}:
            raise ValueError("name image, video or audio, with commas between them")
        return ",".join(words)

    @field_validator("emission_profile")
    @classmethod
    def _profile(cls, value: str) -> str:
        from gas.scoring.weights import EMISSION_PROFILES

        if value not in EMISSION_PROFILES:
            raise ValueError(f"known are {', '.join(EMISSION_PROFILES)}")
        return value

    @field_validator("trust_anchors", "local_media_registry", "competitions")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What generators are asked for."""
        return tuple(Modality(word) for word in self.challenge_modalities.split(","))

    def seconds_for(self, modality: Modality) -> float:
        """Time for the delivery of one medium."""
        return {
            Modality.IMAGE: self.challenge_image_seconds,
            Modality.VIDEO: self.challenge_video_seconds,
            Modality.AUDIO: self.challenge_audio_seconds,
        }[modality]

    @property
    def home(self) -> Path:
        """The home; with the next two, what the chain's receipts are kept by."""
        return self.gas_home

    @property
    def netuid(self) -> int:
        """The subnet."""
        return self.bt_netuid

    @property
    def chain_endpoint(self) -> str:
        """The chain."""
        return self.bt_chain_endpoint

    @property
    def wallets_path(self) -> Path:
        """Folder of wallets in force."""
        return self.bt_wallet_path or self.gas_home / "wallets"

    @property
    def state_path(self) -> Path:
        """Folder of the services' logs and files under way."""
        return self.gas_home / "validators" / self.bt_wallet_name

    @property
    def database_url(self) -> str:
        """The database's URL in force; may hold a password."""
        return self.gas_database_url.get_secret_value() or f"sqlite:///{self.gas_home / 'gas.db'}"

    @property
    def blobs_url(self) -> str:
        """The blobs' address in force, for :func:`gas.storage.blobs.open_blobs`."""
        return self.gas_blobs_url or str(self.gas_home / "blobs")

    def webhook_base(self, port: int) -> str:
        """Base of the address that miners deliver to.

        Args:
            port: The one that is listened on.

        Raises:
            ConfigurationError: ``no_external_ip``: it listens everywhere, which is no address.
        """
        if self.callback_url:
            return self.callback_url
        address = ip_address(self.external_callback_ip or self.callback_ip)
        if address.is_unspecified:
            raise ConfigurationError(
                f"CALLBACK_IP={address} is no address that miners can reach.",
                code="no_external_ip",
                hint="Set EXTERNAL_CALLBACK_IP to this machine's public address, or CALLBACK_URL.",
            )
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"http://{host}:{self.external_callback_port or port}"


def read_settings(env_file: Path | None, **options: Any) -> ValidatorSettings:
    """The settings in force; raises as :func:`gas.operators.read_env_file`.

    Args:
        env_file: The operator's file; None reads only the environment.
        options: Fields that the command line sets; None leaves one to the file.
    """
    return read_env_file(ValidatorSettings, env_file, options, _FILE)
