"""What extrinsics do on a Subtensor node, carried out on a ledger of ours."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from scale_metadata import Call, Metadata
from substrate_extrinsics import Extrinsic, invalid
from subtensor_state import Memory, TimelockedCommit, address

from gas.chain.keys import Signer, public_key
from gas.chain.local.calls import JsonValue
from gas.chain.local.ledger import Ledger
from gas.chain.weights import weights_hash
from gas.errors import GasError

__all__ = ["Dispatcher", "Failure"]

_MODULE_ERRORS: Final = {
    "unknown_subnet": "SubnetNotExists",
    "commit_reveal_required": "CommitRevealEnabled",
    "commit_reveal_disabled": "CommitRevealDisabled",
    "length_mismatch": "WeightVecNotEqualSize",
    "not_registered": "HotKeyNotRegisteredInSubNet",
    "stake_below_minimum": "NotEnoughStakeToSetWeights",
    "stale_version": "IncorrectWeightVersionKey",
    "rate_limited": "SettingWeightsTooFast",
    "no_permit": "NeuronNoValidatorPermit",
    "duplicate_uids": "DuplicateUids",
    "unknown_uids": "UidVecContainInvalidOne",
    "too_few_weights": "WeightVecLengthIsLow",
    "already_registered": "HotKeyAlreadyRegisteredInSubNet",
    "insufficient_balance": "NotEnoughBalanceToStake",
    "insufficient_stake": "NotEnoughStakeToWithdraw",
    "not_owner": "NonAssociatedColdKey",
    "subnet_full": "NoNeuronIdAvailable",
    "bad_axon": "InvalidIpAddress",
    "reveal_too_early": "RevealTooEarly",
    "commit_expired": "ExpiredWeightCommit",
    "too_many_commits": "TooManyUnrevealedCommits",
    "malformed_call": "UidsLengthExceedUidsInSubNet",
}

# The network's own numbers for what its transaction pool refuses.
_STAKE_TOO_LOW, _NOT_REGISTERED, _BAD_IP, _SERVED_TOO_OFTEN, _BAD_PORT = 1, 10, 11, 12, 13
_BAD_ROUND, _NO_COMMIT, _NOT_IN_RANGE = 15, 16, 17


class Failure(Exception):
    """A call that was included and failed.

    Args:
        pallet: Whose error.
        name: The error's name, as the metadata spells it.
    """

    def __init__(self, pallet: str, name: str) -> None:
        super().__init__(name)
        self.pallet, self.name = pallet, name


class Dispatcher:
    """Carries calls out on a ledger, signed once more by the same keys in the ledger's own way.

    Args:
        metadata: Of the runtime.
        ledger: A manual one.
        keyring: Address -> signer of everybody who may call; the peer holds its users' keys, because a ledger's call
            and an extrinsic are signed over different bytes.
        root: May use ``Sudo``, and founds networks.
    """

    def __init__(self, metadata: Metadata, ledger: Ledger, keyring: MutableMapping[str, Signer], root: Signer) -> None:
        self.metadata, self.ledger, self.root = metadata, ledger, root
        self.keyring = ChainMap({root.ss58_address: root}, keyring)

    def pool(self, extrinsic: Extrinsic, memory: Memory) -> None:
        """What the runtime's transaction extension refuses before a call gets into a block.

        Raises:
            Refusal: ``Custom error: N``.
        """
        name, args, who = extrinsic.call.name, extrinsic.call.args, address(extrinsic.signer)
        if extrinsic.call.pallet != "SubtensorModule":
            return
        with self.ledger.read() as tx:
            seats = tx.sql.execute(
                "SELECT 1 FROM neurons WHERE netuid = ? AND hotkey = ?", (args.get("netuid"), who)
            ).fetchall()
            if name == "serve_axon":
                if not seats:
                    raise invalid(f"Custom error: {_NOT_REGISTERED}")
                if _ip(args) is None:
                    raise invalid(f"Custom error: {_BAD_IP}")
                if args["port"] == 0:
                    raise invalid(f"Custom error: {_BAD_PORT}")
                served = memory.axon_blocks.get((args["netuid"], who))
                if served is not None and tx.block - served < memory.serving_rate_limit:
                    raise invalid(f"Custom error: {_SERVED_TOO_OFTEN}")
            if "weights" in name and seats:
                subnet = tx.subnet(args["netuid"])
                if tx.stake(subnet.netuid, who) < subnet.hyperparameters.min_stake:
                    raise invalid(f"Custom error: {_STAKE_TOO_LOW}")
            if name.startswith("commit_timelocked") and args["reveal_round"] < memory.drand_round:
                raise invalid(f"Custom error: {_BAD_ROUND}")
            if name.startswith("reveal_") and seats:
                rows = tx.sql.execute(
                    "SELECT hash, epoch FROM weight_commits WHERE netuid = ? AND hotkey = ?", (subnet.netuid, who)
                ).fetchall()
                due = {bytes(row["hash"]): row["epoch"] + subnet.hyperparameters.commit_reveal_period for row in rows}
                digest = weights_hash(
                    who, args["netuid"], args["uids"], args["values"], args["salt"], args["version_key"]
                )
                if digest not in due:
                    raise invalid(f"Custom error: {_NO_COMMIT}")
                if due[digest] != subnet.epochs:
                    raise invalid(f"Custom error: {_NOT_IN_RANGE}")

    def dispatch(self, extrinsic: Extrinsic, memory: Memory, block: int) -> list[tuple[str, Any]]:
        """Carry a call out.

        Returns:
            The runtime's events, as ``(pallet, (name, fields))``.

        Raises:
            Failure: A rule forbids it; nothing has changed.
        """
        call, who = extrinsic.call, address(extrinsic.signer)
        if call.pallet == "Sudo" and call.name == "sudo":
            if who != self.root.ss58_address:
                raise Failure("Sudo", "RequireSudo")
            self._sudo(*call.args["call"])
            return [("Sudo", ("Sudid", {"sudo_result": ("Ok", ())}))]
        handler = getattr(self, f"_{call.pallet}_{call.name.replace('_mechanism', '')}", None)
        if handler is None or (call.args.get("mecid") or 0) != 0:
            raise Failure(*(("System", "CallFiltered") if handler is None else (call.pallet, "MechanismDoesNotExist")))
        try:
            events: list[tuple[str, Any]] = handler(who, call.args, memory, block) or []
        except GasError as error:
            raise self._failure(call, error) from error
        return events

    def _failure(self, call: Call, error: GasError) -> Failure:
        code = error.error_code
        if call.pallet == "Commitments":
            name = {"not_registered": "AccountNotAllowedCommit", "unknown_subnet": "AccountNotAllowedCommit"}
            return Failure("Commitments", name.get(code, "SpaceLimitExceeded"))
        if code == "insufficient_balance" and call.pallet == "Balances":
            return Failure("Balances", "InsufficientBalance")
        if code == "rate_limited" and call.name.startswith("commit"):
            return Failure("SubtensorModule", "CommittingWeightsTooFast")
        if code == "not_registered" and call.name in ("serve_axon", "add_stake", "remove_stake"):
            absent = "HotKeyNotRegisteredInNetwork" if call.name == "serve_axon" else "HotKeyAccountNotExists"
            return Failure("SubtensorModule", absent)
        if code == "malformed_call" and "stake" in call.name:
            return Failure("SubtensorModule", "AmountTooLow")
        if code == "no_such_commit":
            return Failure("SubtensorModule", "InvalidRevealCommitHashNotMatch")
        if code not in _MODULE_ERRORS:
            raise error
        return Failure("SubtensorModule", _MODULE_ERRORS[code])

    def _call(self, who: str, kind: str, params: dict[str, JsonValue], cosigner: str = "") -> int | None:
        second = self.keyring[cosigner] if cosigner else None
        return self.ledger.call(self.keyring[who], kind, params, cosigner=second)

    def _SubtensorModule_burned_register(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        hotkey = address(args["hotkey"])
        uid = self._call(who, "register", {"netuid": args["netuid"], "hotkey": hotkey}, hotkey)
        return [("SubtensorModule", ("NeuronRegistered", (args["netuid"], uid, args["hotkey"])))]

    def _SubtensorModule_serve_axon(
        self, who: str, args: dict[str, Any], memory: Memory, block: int
    ) -> list[tuple[str, Any]]:
        ip = _ip(args)
        params: dict[str, JsonValue] = {"netuid": args["netuid"], "ip": str(ip), "port": args["port"]}
        self._call(who, "serve_axon", {**params, "protocol": args["protocol"]})
        memory.axon_blocks[args["netuid"], who] = block
        return [("SubtensorModule", ("AxonServed", (args["netuid"], public_key(who))))]

    def _SubtensorModule_set_weights(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        self._call(
            who,
            "set_weights",
            {
                "netuid": args["netuid"],
                "uids": args["dests"],
                "weights": args["weights"],
                "version_key": args["version_key"],
            },
        )
        with self.ledger.read() as tx:
            uid = int(tx.neuron(args["netuid"], who)["uid"])
        return [("SubtensorModule", ("WeightsSet", (args["netuid"], uid)))]

    def _SubtensorModule_commit_weights(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        self._call(who, "commit_weights", {"netuid": args["netuid"], "hash": args["commit_hash"].hex()})
        fields = (public_key(who), args["netuid"], args["commit_hash"])
        return [("SubtensorModule", ("WeightsCommitted", fields))]

    def _SubtensorModule_reveal_weights(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        self._call(
            who,
            "reveal_weights",
            {
                "netuid": args["netuid"],
                "uids": args["uids"],
                "weights": args["values"],
                "salt": args["salt"],
                "version_key": args["version_key"],
            },
        )
        return []

    def _SubtensorModule_commit_timelocked_weights(
        self, who: str, args: dict[str, Any], memory: Memory, block: int
    ) -> list[tuple[str, Any]]:
        """Keep the ciphertext as the network does; nobody here knows the beacon's future signature to open it."""
        netuid, account = args["netuid"], public_key(who)
        with self.ledger.read() as tx:
            subnet = tx.subnet(netuid)
            rules = subnet.hyperparameters
            if not rules.commit_reveal:
                raise Failure("SubtensorModule", "CommitRevealDisabled")
            if args["commit_reveal_version"] != memory.commit_reveal_version:
                raise Failure("SubtensorModule", "IncorrectCommitRevealVersion")
            neuron = tx.neuron(netuid, who)
            mine = [c for c in memory.timelocked if (c.netuid, c.account) == (netuid, account)]
            newest = max([int(neuron["last_update"]), *(c.block for c in mine)])
            if block - newest < rules.weights_rate_limit:
                raise Failure("SubtensorModule", "CommittingWeightsTooFast")
            if len([c for c in mine if c.epoch == subnet.epochs]) >= 10:
                raise Failure("SubtensorModule", "TooManyUnrevealedCommits")
        ciphertext, due = args["commit"], args["reveal_round"]
        memory.timelocked.append(TimelockedCommit(netuid, subnet.epochs, account, block, ciphertext, due))
        digest = hashlib.blake2b(ciphertext, digest_size=32).digest()
        return [("SubtensorModule", ("TimelockedWeightsCommitted", (account, netuid, digest, due)))]

    def _SubtensorModule_add_stake(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        params = {"netuid": args["netuid"], "hotkey": address(args["hotkey"]), "amount": args["amount_staked"]}
        self._call(who, "add_stake", params)
        return []

    def _SubtensorModule_remove_stake(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        params = {"netuid": args["netuid"], "hotkey": address(args["hotkey"]), "amount": args["amount_unstaked"]}
        self._call(who, "remove_stake", params)
        return []

    def _Commitments_set_commitment(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        fields = args["info"]["fields"]
        data = b"".join(value for name, value in fields if name.startswith("Raw"))
        self._call(who, "set_commitment", {"netuid": args["netuid"], "data": data.decode()})
        return [("Commitments", ("Commitment", {"netuid": args["netuid"], "who": public_key(who)}))]

    def _Balances_transfer_keep_alive(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        to, amount = args["dest"][1], args["value"]
        self._call(who, "transfer", {"address": address(to), "amount": amount})
        return [("Balances", ("Transfer", {"from": public_key(who), "to": to, "amount": amount}))]

    def _SubtensorModule_register_network(self, who: str, args: dict[str, Any], *_: Any) -> list[tuple[str, Any]]:
        with self.ledger.read() as tx:
            netuid = 1 + int(tx.sql.execute("SELECT COALESCE(MAX(netuid), 0) FROM subnets").fetchone()[0])
        params: dict[str, JsonValue] = {"netuid": netuid, "owner": who, "owner_hotkey": address(args["hotkey"])}
        self._call(self.root.ss58_address, "create_subnet", {**params, "hyperparameters": {}, "economics": {}})
        return [("SubtensorModule", ("NetworkAdded", (netuid, 0)))]

    def _System_remark(self, *_: Any) -> None:
        """Says nothing to anybody."""

    def _SubtensorModule_start_call(self, *_: Any) -> None:
        """A subnet of the ledger needs no start."""

    def _sudo(self, pallet: str, inner: tuple[str, dict[str, Any]]) -> None:
        """A rule of a subnet, set by root in the name of its owner; what the ledger doesn't have is let pass."""
        name, args = inner
        parameter = _SUDO.get(name)
        if pallet != "AdminUtils" or parameter is None:
            return
        value = next(value for key, value in args.items() if key != "netuid")
        with self.ledger.read() as tx:
            owner = tx.subnet(args["netuid"]).owner
        self._call(owner, "set_hyperparameters", {"netuid": args["netuid"], "changes": {parameter: value}})


_SUDO: Final = {
    "sudo_set_tempo": "tempo",
    "sudo_set_weights_set_rate_limit": "weights_rate_limit",
    "sudo_set_weights_version_key": "weights_version",
    "sudo_set_commit_reveal_weights_enabled": "commit_reveal",
    "sudo_set_max_allowed_validators": "max_allowed_validators",
    "sudo_set_min_allowed_weights": "min_allowed_weights",
}


def _ip(args: Mapping[str, Any]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        known = ipaddress.IPv4Address if args["ip_type"] == 4 else ipaddress.IPv6Address
        ip = known(args["ip"])
    except ValueError:
        return None
    return None if ip.is_unspecified or ip.is_multicast else ip
