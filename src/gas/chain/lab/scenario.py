"""What a laboratory plays: a YAML file, checked whole."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gas.errors import ConfigurationError

__all__ = ["Event", "MinerGroup", "Rules", "Scenario", "ValidatorGroup", "load_scenario", "shipped_scenarios"]

_STRICT: Final = ConfigDict(extra="forbid", frozen=True)
_MAX_BYTES: Final = 256 * 1024
_MAX_NEURONS: Final = 512

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]


class Rules(BaseModel):
    """The subnet's hyperparameters; names and units are the network's own (see ``Hyperparameters``)."""

    model_config = _STRICT

    tempo: Annotated[int, Field(ge=1, le=100_000)] = 360
    activity_cutoff: Annotated[int, Field(ge=1, le=10**9)] = 5000
    kappa: Annotated[int, Field(ge=0, le=65535)] = 32767
    bonds_moving_avg: Annotated[int, Field(ge=0, le=10**6)] = 900_000
    bonds_penalty: Annotated[int, Field(ge=0, le=65535)] = 65535
    max_allowed_validators: Annotated[int, Field(ge=1, le=512)] = 64
    yuma3: bool = False
    liquid_alpha: bool = False
    alpha_low: Annotated[int, Field(ge=0, le=65535)] = 45875
    alpha_high: Annotated[int, Field(ge=0, le=65535)] = 58982
    alpha_sigmoid_steepness: Annotated[int, Field(ge=-32768, le=32767)] = 1000


class MinerGroup(BaseModel):
    """Miners that are alike.

    Attributes:
        name: Of the group; unique among all groups.
        count: Miners.
        quality: What an honest validator measures on average, 0..1.
        spread: Standard deviation of the miners' own qualities around it, drawn once.
        copies_of: Name of a group whose answers these miners hand in as their own (sybils): they have its quality,
            and a validator that looks for duplicates gives the originals' part to all copies together.
    """

    model_config = _STRICT

    name: Name
    count: Annotated[int, Field(ge=1, le=_MAX_NEURONS)] = 1
    quality: Share = 0.5
    spread: Share = 0.0
    copies_of: str = ""


class ValidatorGroup(BaseModel):
    """Validators that are alike.

    Attributes:
        name: Of the group; unique among all groups.
        count: Validators.
        stake: Of each, tao.
        strategy: ``honest`` (measures), ``lazy`` (measures once in ``every`` epochs and repeats itself in between),
            ``copy`` (repeats the consensus of what others have revealed), ``self-vote`` (all weight on ``favours``,
            a miner of its own) or ``collude`` (honest, with ``boost`` of the weight put on ``favours``).
        noise: Standard deviation of what it measures.
        sharpness: Weights are measured qualities to this power; the higher, the more goes to the best.
        every: For ``lazy``: epochs between two measurements.
        favours: For ``self-vote`` and ``collude``: group of miners.
        boost: For ``collude``: share of the weight that the favoured get.
        finds_copies: Whether identical answers share one miner's weight.
    """

    model_config = _STRICT

    name: Name
    count: Annotated[int, Field(ge=1, le=_MAX_NEURONS)] = 1
    stake: Annotated[float, Field(gt=0, le=10**7)] = 1000.0
    strategy: Literal["honest", "lazy", "copy", "self-vote", "collude"] = "honest"
    noise: Share = 0.02
    sharpness: Annotated[float, Field(gt=0, le=100)] = 1.0
    every: Annotated[int, Field(ge=1, le=10_000)] = 10
    favours: str = ""
    boost: Share = 1.0
    finds_copies: bool = False


class Event(BaseModel):
    """Something that changes at the beginning of an epoch.

    Attributes:
        epoch: From 1.
        group: Whose.
        quality: New quality of a group of miners.
        stake: New stake of each validator of a group, tao.
    """

    model_config = _STRICT

    epoch: Annotated[int, Field(ge=1)]
    group: str
    quality: Share | None = None
    stake: Annotated[float, Field(ge=0, le=10**7)] | None = None


class Scenario(BaseModel):
    """A subnet and what happens on it.

    Attributes:
        title: One line.
        teaches: What an owner learns from it, a few sentences.
        epochs: How many to play.
        seed: Every draw is derived from it.
        emission: Tao that an epoch pays to miners and validators together.
        compound: Whether dividends are added to the validators' stake.
        reveal_after: Epochs that weights stay hidden from those who copy (commit and reveal); 0: none.
        rules: Hyperparameters.
        miners: At least one group.
        validators: At least one group.
        events: In any order.
    """

    model_config = _STRICT

    title: str
    teaches: str
    epochs: Annotated[int, Field(ge=1, le=5000)] = 60
    seed: Annotated[int, Field(ge=0)] = 0
    emission: Annotated[float, Field(ge=0, le=10**6)] = 100.0
    compound: bool = False
    reveal_after: Annotated[int, Field(ge=0, le=1000)] = 0
    rules: Rules = Rules()
    miners: Annotated[tuple[MinerGroup, ...], Field(min_length=1)]
    validators: Annotated[tuple[ValidatorGroup, ...], Field(min_length=1)]
    events: tuple[Event, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        miners, validators = {g.name for g in self.miners}, {g.name for g in self.validators}
        if len(miners) + len(validators) != len(self.miners) + len(self.validators) or miners & validators:
            raise ValueError("two groups have the same name")
        if sum(g.count for g in self.miners) + sum(g.count for g in self.validators) > _MAX_NEURONS:
            raise ValueError(f"more than {_MAX_NEURONS} neurons")
        for group in self.miners:
            if group.copies_of and (group.copies_of not in miners or group.copies_of == group.name):
                raise ValueError(f"{group.name} copies {group.copies_of}, which is no other group of miners")
        for validator in self.validators:
            needs = validator.strategy in ("self-vote", "collude")
            if needs != bool(validator.favours) or (needs and validator.favours not in miners):
                raise ValueError(f"{validator.name}: {validator.strategy} and favours {validator.favours!r} don't fit")
        for event in self.events:
            right = miners if event.quality is not None else validators
            if (event.quality is None) == (event.stake is None) or event.group not in right:
                raise ValueError(
                    f"the event of epoch {event.epoch} needs quality and a group of miners, or stake and validators"
                )
        return self


def shipped_scenarios() -> dict[str, str]:
    """Names and titles of the scenarios that come with the project, in the order of their names."""
    folder = resources.files("gas.chain.lab").joinpath("scenarios")
    names = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    return {name: _parse(folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name).title for name in names}


def load_scenario(name_or_path: str) -> Scenario:
    """Read and check a scenario.

    Args:
        name_or_path: One that ships, by name; or a YAML file.

    Raises:
        ConfigurationError: It is missing, too large, not YAML, or says something that can't be.
    """
    shipped = resources.files("gas.chain.lab").joinpath("scenarios", f"{name_or_path}.yaml")
    if name_or_path.replace("-", "").isalnum() and shipped.is_file():
        return _parse(shipped.read_text(encoding="utf-8"), name_or_path)
    path = Path(name_or_path)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ConfigurationError(f"The scenario {path.name} is larger than {_MAX_BYTES:,} bytes.")
        return _parse(raw.decode(), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"There is no scenario {name_or_path}.",
            hint="Name a YAML file, or one that `gascli chain simulate --list` shows.",
        ) from error


def _parse(text: str, name: str) -> Scenario:
    try:
        return Scenario.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"The scenario {name} is wrong at {where or 'its top'}: {first['msg']}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Dates that are none and lists that are too deep are not YAML's own errors.
        raise ConfigurationError(f"The scenario {name} is not valid YAML.") from error
