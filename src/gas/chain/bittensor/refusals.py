"""What the runtime and its transaction pool say against a call, as the errors of the chain's seam.

A call is refused twice over: by the pool, before any block (a JSON-RPC error with a number or a sentence), or inside
its block (a dispatch error, which the metadata names). Both are brought to the runtime's own name for the error
first, and the name to our error; the codes are those of the local ledger.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gas.chain.bittensor.rpc import RpcError
from gas.errors import (
    ChainError,
    ChainRefused,
    ChainUnreachable,
    CommitRevealRequired,
    NoPermit,
    NotRegistered,
    RateLimited,
    StaleVersion,
)

__all__ = ["RATE_LIMITS", "Refusal", "dispatch_error_name", "is_stale", "pool_error_name", "typed_error"]


class Refusal(Exception):
    """A call was refused under the runtime's own name for it.

    Args:
        name: E.g. ``SettingWeightsTooFast``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


# InvalidTransaction::Custom(n) of the runtime's transaction extension, by the name of the module error that says the
# same, or the nearest.
_CUSTOM: Final = {
    0: "ColdkeySwapAnnounced",
    1: "NotEnoughStakeToSetWeights",
    2: "NotEnoughBalanceToStake",
    3: "SubnetNotExists",
    4: "HotKeyAccountNotExists",
    5: "NotEnoughStakeToWithdraw",
    6: "SettingWeightsTooFast",
    7: "InsufficientLiquidity",
    8: "SlippageTooHigh",
    9: "TransferDisallowed",
    10: "HotKeyNotRegisteredInNetwork",
    11: "InvalidIpAddress",
    12: "ServingRateLimitExceeded",
    13: "InvalidPort",
    14: "ZeroMaxAmount",
    15: "InvalidRevealRound",
    16: "NoWeightsCommitFound",
    17: "RevealTooEarly",
    18: "InputLengthsUnequal",
    19: "HotKeyNotRegisteredInSubNet",
    20: "EvmKeyAssociateRateLimitExceeded",
    21: "ColdkeySwapDisputed",
    25: "NonAssociatedColdKey",
}

# What the pool says in words, by a part of it in lower case.
_SENTENCES: Final = (
    ("inability to pay some fees", "Payment"),
    ("will be valid in the future", "Future"),
    ("transaction is outdated", "Stale"),
    ("bad signature", "BadProof"),
    ("ancient birth block", "AncientBirthBlock"),
    ("priority is too low", "PriorityTooLow"),
    ("already imported", "AlreadyImported"),
    ("temporarily banned", "Banned"),
    ("exhaust the block limits", "ExhaustsResources"),
    ("exhaust the resources", "ExhaustsResources"),
    ("immediately dropped", "ImmediatelyDropped"),
)
_STALE: Final = frozenset({"Stale", "Future", "BadProof", "AncientBirthBlock", "PriorityTooLow", "Usurped"})
_CUSTOM_NUMBER: Final = re.compile(r"custom error:? *(\d{1,3})", re.IGNORECASE)

RATE_LIMITS: Final = {
    "SettingWeightsTooFast": "weights",
    "CommittingWeightsTooFast": "weights",
    "ServingRateLimitExceeded": "axon",
    "SpaceLimitExceeded": "commitment",
    "TooManyRegistrationsThisInterval": "registration",
    "TooManyRegistrationsThisBlock": "block",
    "StakingRateLimitExceeded": "block",
}
"""Runtime errors that only time heals, by what has to be waited for."""

_NOT_REGISTERED: Final = frozenset(
    {
        "HotKeyNotRegisteredInSubNet",
        "HotKeyNotRegisteredInNetwork",
        "HotKeyAccountNotExists",
        "AccountNotAllowedCommit",
    }
)

# The rest: our code, a sentence, and what to do.
_REFUSED: Final[dict[str, tuple[str, str, str | None]]] = {
    "SubnetNotExists": ("unknown_subnet", "There is no such subnet.", "Check --netuid."),
    "MechanismDoesNotExist": ("unknown_subnet", "There is no such subnet.", "Check --netuid."),
    "HotKeyAlreadyRegisteredInSubNet": ("already_registered", "The hotkey is registered already.", None),
    "CommitRevealDisabled": ("commit_reveal_disabled", "The subnet takes plain weights.", "Set them directly."),
    "WeightVecNotEqualSize": ("length_mismatch", "There must be one weight for each uid.", None),
    "InputLengthsUnequal": ("length_mismatch", "There must be one weight for each uid.", None),
    "DuplicateUids": ("duplicate_uids", "A uid is named twice.", None),
    "UidVecContainInvalidOne": ("unknown_uids", "A uid is not taken.", "Read the metagraph again."),
    "UidsLengthExceedUidsInSubNet": ("unknown_uids", "There are more weights than uids.", "Read the metagraph again."),
    "WeightVecLengthIsLow": ("too_few_weights", "The subnet asks for more weights.", "See min_allowed_weights."),
    "MaxWeightExceeded": ("weight_too_large", "A weight is above the subnet's limit.", "Spread the weights."),
    "NotEnoughStakeToSetWeights": ("stake_below_minimum", "The hotkey's stake is below the minimum.", "Stake more."),
    "NotEnoughStake": ("stake_below_minimum", "The hotkey's stake is below the minimum.", "Stake more."),
    "AmountTooLow": ("amount_too_low", "The amount is below the network's minimum.", None),
    "NotEnoughBalanceToStake": ("insufficient_balance", "The account holds too little.", None),
    "BalanceWithdrawalError": ("insufficient_balance", "The account holds too little.", None),
    "ZeroBalanceAfterWithdrawn": ("insufficient_balance", "The account would be left empty.", None),
    "InsufficientBalance": ("insufficient_balance", "The account holds too little.", None),
    "InsufficientTaoBalance": ("insufficient_balance", "The account holds too little.", None),
    "FundsUnavailable": ("insufficient_balance", "The account holds too little.", None),
    "NotExpendable": ("insufficient_balance", "The account would be left empty.", None),
    "Payment": ("insufficient_balance", "The account can't pay the call's fee.", "Send it some tao."),
    "NotEnoughStakeToWithdraw": ("insufficient_stake", "The hotkey holds less stake.", None),
    "InsufficientAlphaBalance": ("insufficient_stake", "The hotkey holds less stake.", None),
    "NonAssociatedColdKey": ("not_owner", "The hotkey belongs to another coldkey.", None),
    "RevealTooEarly": ("reveal_too_early", "The reveal is not due yet.", "Reveal one period after the commit."),
    "NoWeightsCommitFound": ("no_such_commit", "No open commit has this hash.", None),
    "InvalidRevealCommitHashNotMatch": ("no_such_commit", "No open commit has this hash.", None),
    "ExpiredWeightCommit": ("commit_expired", "The commit has expired.", "Commit again."),
    "TooManyUnrevealedCommits": ("too_many_commits", "There are too many unrevealed commits.", "Reveal one first."),
    "InvalidIpAddress": ("bad_axon", "Nobody can reach the axon's ip.", "Publish the address that others see."),
    "InvalidIpType": ("bad_axon", "Nobody can reach the axon's ip.", "Publish the address that others see."),
    "InvalidPort": ("bad_axon", "Nobody can listen on the axon's port.", None),
    "NoNeuronIdAvailable": ("subnet_full", "No slot of the subnet can be taken now.", "Try again later."),
    "SubNetRegistrationDisabled": ("registration_disabled", "The subnet takes no registrations now.", None),
    "BadProof": ("bad_signature", "The call's signature isn't its signer's.", "Check the key and the endpoint."),
    "TooManyFieldsInCommitmentInfo": ("commitment_too_long", "The commitment has too many fields.", None),
}


def pool_error_name(error: RpcError) -> str:
    """The runtime's name for what the node's transaction pool has against a call; "" when it has none."""
    words = f"{error.message} {error.data}"
    if match := _CUSTOM_NUMBER.search(words):
        return _CUSTOM.get(int(match[1]), f"CustomError{match[1]}")
    low = words.lower()
    return next((name for part, name in _SENTENCES if part in low), "")


def dispatch_error_name(error: Any, module_error: Callable[[int, int], str]) -> str:
    """The name of a decoded ``DispatchError``.

    Args:
        error: E.g. ``{"Module": {"index": 7, "error": "0x04000000"}}``, ``{"Token": "FundsUnavailable"}`` or
            ``"BadOrigin"``.
        module_error: Gives the name for a pallet's index and its error's index.
    """
    if isinstance(error, str):
        return error
    if not isinstance(error, dict) or len(error) != 1:
        return "Other"
    kind, detail = next(iter(error.items()))
    if kind != "Module":
        return detail if isinstance(detail, str) else str(kind)
    if not isinstance(detail, dict):
        return "Module"
    index, number = detail.get("index"), detail.get("error")
    if isinstance(number, str):
        # Four bytes, of which the first is the error's index in its pallet.
        number = int(number.removeprefix("0x")[:2] or "0", 16)
    elif isinstance(number, list | tuple) and number:
        number = number[0]
    if not isinstance(index, int) or not isinstance(number, int):
        return "Module"
    return module_error(index, number) or f"Module{index}Error{number}"


def is_stale(name: str) -> bool:
    """Whether the same call, composed and signed anew, may pass: its nonce or its birth block was out of date."""
    return name in _STALE


async def typed_error(name: str, blocks_to_wait: Callable[[str], Awaitable[int]]) -> ChainError:
    """Our error for the runtime's.

    Args:
        name: The runtime's name for it.
        blocks_to_wait: Gives the blocks to wait for a value of :data:`RATE_LIMITS`; only asked for a rate limit.
    """
    if name in RATE_LIMITS:
        return RateLimited("The call came too short a time after the last one.", blocks=await blocks_to_wait(name))
    if name in _NOT_REGISTERED:
        return NotRegistered("The hotkey is not registered on the subnet.", hint="Register it first.")
    if name == "NeuronNoValidatorPermit":
        return NoPermit("The hotkey has no validator permit.", hint="Permits go to the largest stakes at each epoch.")
    if name == "IncorrectWeightVersionKey":
        return StaleVersion(
            "The version key is below the subnet's.",
            hint="The subnet's owner says what it stands for; --version-key names yours.",
        )
    if name == "CommitRevealEnabled":
        return CommitRevealRequired(
            "The subnet takes weights by commit and reveal only.", hint="Commit, and reveal one period later."
        )
    if name in _REFUSED:
        code, sentence, hint = _REFUSED[name]
        return ChainRefused(sentence, code=code, hint=hint)
    if name in _STALE or name in ("Banned", "ImmediatelyDropped", "ExhaustsResources", "Dropped", "Invalid"):
        return ChainUnreachable(f"The node's pool dropped the call ({name}).", hint="Try again in a few blocks.")
    return ChainRefused(f"The network refuses the call: {name}.", code=_snake(name))


def _snake(name: str) -> str:
    """``SlippageTooHigh`` as ``slippage_too_high``: a stable code for an error without one of our own."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()[:60] or "refused"
