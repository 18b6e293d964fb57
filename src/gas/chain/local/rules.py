"""Rules of a subnet of the local ledger, and the registration price's decay in integers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

from gas.chain.base import Hyperparameters
from gas.chain.local.calls import JsonValue
from gas.errors import ChainRefused
from gas.types import RAO_PER_TAO

__all__ = [
    "HALF_LIFE_BLOCKS",
    "MAX_ISSUANCE",
    "Economics",
    "changed_rules",
    "decayed_price",
    "raised_price",
    "read_rules",
    "write_rules",
]

HALF_LIFE_BLOCKS: Final = 360
"""Blocks after which an untouched registration price has halved."""

MAX_ISSUANCE: Final = 21_000_000 * RAO_PER_TAO
"""Rao that a ledger ever issues."""

_ONE: Final = 1 << 64
_DECAY: Final = 18411260720637835119
"""floor(2**64 * 2**(-1/360)): one block's decay in 0.64 fixed point, so that every machine computes the same price."""


@dataclass(frozen=True, slots=True)
class Economics:
    """What money does on one subnet; only the ledger's root key may change it.

    Attributes:
        emission_per_block: Rao minted for the subnet each block.
        owner_share_ppm: The owner's part of it, in millionths.
        burn_floor: Lowest registration price in rao.
        burn_ceiling: Highest.
    """

    emission_per_block: int = RAO_PER_TAO
    owner_share_ppm: int = 180_000
    burn_floor: int = 500_000
    burn_ceiling: int = 100 * RAO_PER_TAO


_Rules = TypeVar("_Rules", Hyperparameters, Economics)

# Inclusive bounds of every number that an owner (or root) may set.
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "tempo": (1, 65535),
    "max_allowed_uids": (1, 4096),
    "max_allowed_validators": (1, 4096),
    "min_allowed_weights": (0, 4096),
    "weights_rate_limit": (0, 2**32),
    "weights_version": (0, 2**63 - 1),
    "activity_cutoff": (1, 2**32),
    "immunity_period": (0, 2**32),
    "kappa": (0, 65535),
    "bonds_moving_avg": (0, 1_000_000),
    "bonds_penalty": (0, 65535),
    "alpha_low": (0, 65535),
    "alpha_high": (0, 65535),
    "alpha_sigmoid_steepness": (-32768, 32767),
    "commit_reveal_period": (1, 100),
    "min_stake": (0, MAX_ISSUANCE),
    "emission_per_block": (0, 1000 * RAO_PER_TAO),
    "owner_share_ppm": (0, 1_000_000),
    "burn_floor": (0, MAX_ISSUANCE),
    "burn_ceiling": (0, MAX_ISSUANCE),
}


def read_rules(kind: type[_Rules], text: str) -> _Rules:
    """Read rules that :func:`write_rules` wrote."""
    return kind(**json.loads(text))


def write_rules(rules: Hyperparameters | Economics) -> str:
    """The stored form of rules."""
    return json.dumps(asdict(rules), sort_keys=True)


def changed_rules(rules: _Rules, changes: Mapping[str, JsonValue]) -> _Rules:
    """Rules with some values changed.

    Raises:
        ChainRefused: ``unknown_parameter`` or ``bad_parameter``.
    """
    types = {f.name: type(getattr(rules, f.name)) for f in fields(rules)}
    for name, value in changes.items():
        if name not in types:
            raise ChainRefused(f"There is no parameter {name[:40]!r}.", code="unknown_parameter")
        low, high = _BOUNDS.get(name, (0, 1))
        if type(value) is not types[name] or (isinstance(value, int) and not low <= value <= high):
            raise ChainRefused(f"Parameter {name} is out of range.", code="bad_parameter")
    values: dict[str, Any] = {**asdict(rules), **changes}
    new = type(rules)(**values)
    if isinstance(new, Economics) and new.burn_floor > new.burn_ceiling:
        raise ChainRefused("The price's floor is above its ceiling.", code="bad_parameter")
    if isinstance(new, Hyperparameters) and new.alpha_low > new.alpha_high:
        raise ChainRefused("alpha_low is above alpha_high.", code="bad_parameter")
    return new


def decayed_price(price: int, blocks: int, economics: Economics) -> int:
    """The registration price after ``blocks`` blocks without a registration, in rao, between floor and ceiling."""
    factor, step, left = _ONE, _DECAY, blocks
    while left and factor:
        if left & 1:
            factor = factor * step >> 64
        step = step * step >> 64
        left >>= 1
    return min(max(price * factor >> 64, economics.burn_floor), economics.burn_ceiling)


def raised_price(price: int, economics: Economics) -> int:
    """The price right after a registration at ``price``: x1.26, between floor and ceiling."""
    return min(max(price * 126 // 100, economics.burn_floor), economics.burn_ceiling)
