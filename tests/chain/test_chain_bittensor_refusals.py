"""What the network says against a call arrives as the same errors, with the same codes, as the local ledger's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gas.chain.bittensor.refusals import RATE_LIMITS, dispatch_error_name, is_stale, pool_error_name, typed_error
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


def our(name: str) -> ChainError:
    async def blocks(_: str) -> int:
        return 42

    async def work() -> ChainError:
        return await typed_error(name, blocks)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HotKeyNotRegisteredInSubNet", NotRegistered),
        ("HotKeyNotRegisteredInNetwork", NotRegistered),
        ("AccountNotAllowedCommit", NotRegistered),
        ("NeuronNoValidatorPermit", NoPermit),
        ("IncorrectWeightVersionKey", StaleVersion),
        ("CommitRevealEnabled", CommitRevealRequired),
        ("Stale", ChainUnreachable),
        ("Dropped", ChainUnreachable),
    ],
)
def test_a_refusal_has_its_own_type(name: str, kind: type[ChainError]) -> None:
    assert type(our(name)) is kind


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SubnetNotExists", "unknown_subnet"),
        ("MechanismDoesNotExist", "unknown_subnet"),
        ("HotKeyAlreadyRegisteredInSubNet", "already_registered"),
        ("CommitRevealDisabled", "commit_reveal_disabled"),
        ("WeightVecNotEqualSize", "length_mismatch"),
        ("InputLengthsUnequal", "length_mismatch"),
        ("DuplicateUids", "duplicate_uids"),
        ("UidVecContainInvalidOne", "unknown_uids"),
        ("WeightVecLengthIsLow", "too_few_weights"),
        ("NotEnoughStakeToSetWeights", "stake_below_minimum"),
        ("NotEnoughBalanceToStake", "insufficient_balance"),
        ("NotEnoughStakeToWithdraw", "insufficient_stake"),
        ("NonAssociatedColdKey", "not_owner"),
        ("RevealTooEarly", "reveal_too_early"),
        ("NoWeightsCommitFound", "no_such_commit"),
        ("InvalidRevealCommitHashNotMatch", "no_such_commit"),
        ("ExpiredWeightCommit", "commit_expired"),
        ("TooManyUnrevealedCommits", "too_many_commits"),
        ("InvalidPort", "bad_axon"),
        ("NoNeuronIdAvailable", "subnet_full"),
        ("BadProof", "bad_signature"),
        ("SlippageTooHigh", "slippage_too_high"),
        ("EVMKeyLost", "evmkey_lost"),
    ],
)
def test_a_refusal_has_the_local_ledgers_code(name: str, code: str) -> None:
    error = our(name)
    assert type(error) is ChainRefused
    assert error.error_code == code


@pytest.mark.parametrize("name", RATE_LIMITS)
def test_a_rate_limit_says_how_long_to_wait(name: str) -> None:
    error = our(name)
    assert isinstance(error, RateLimited)
    assert error.blocks == 42


@pytest.mark.parametrize(
    ("message", "data", "name"),
    [
        ("Invalid Transaction", "Custom error: 6", "SettingWeightsTooFast"),
        ("Invalid Transaction", "Custom error: 1", "NotEnoughStakeToSetWeights"),
        ("Invalid Transaction", "Custom error: 10", "HotKeyNotRegisteredInNetwork"),
        ("Invalid transaction with custom error: 16", "", "NoWeightsCommitFound"),
        ("Invalid Transaction", "Custom error: 200", "CustomError200"),
        ("Invalid Transaction", "Inability to pay some fees (e.g. account balance too low)", "Payment"),
        ("Invalid Transaction", "Transaction is outdated", "Stale"),
        ("Invalid Transaction", "Transaction has a bad signature", "BadProof"),
        ("Priority is too low: (10 vs 10)", "The transaction has too low priority", "PriorityTooLow"),
        ("Invalid Transaction", "Transaction would exhaust the block limits", "ExhaustsResources"),
        ("Transaction is temporarily banned", "", "Banned"),
        ("Already Imported", "", "AlreadyImported"),
        ("Internal error", "", ""),
    ],
)
def test_the_pools_words_are_brought_to_the_runtimes_name(message: str, data: str, name: str) -> None:
    assert pool_error_name(RpcError(1010, message, data)) == name


def test_only_an_outdated_call_is_worth_composing_anew() -> None:
    assert is_stale("Stale")
    assert is_stale("PriorityTooLow")
    assert not is_stale("SettingWeightsTooFast")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"Module": {"index": 7, "error": "0x0f000000"}}, "E7.15"),
        ({"Module": {"index": 7, "error": 3}}, "E7.3"),
        ({"Module": {"index": 7, "error": [4, 0, 0, 0]}}, "E7.4"),
        ({"Module": {"index": 9, "error": "0x01000000"}}, "Module9Error1"),
        ({"Module": "x"}, "Module"),
        ({"Token": "FundsUnavailable"}, "FundsUnavailable"),
        ({"Arithmetic": {"Overflow": None}}, "Arithmetic"),
        ("BadOrigin", "BadOrigin"),
        (None, "Other"),
        ({}, "Other"),
    ],
)
def test_a_dispatch_error_has_a_name(error: Any, name: str) -> None:
    assert dispatch_error_name(error, lambda index, number: f"E{index}.{number}" if index == 7 else "") == name
