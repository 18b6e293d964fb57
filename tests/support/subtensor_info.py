"""What a Subtensor runtime's functions answer about a state, encoded by the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from scale_metadata import Reader
from subtensor_state import State

from gas.chain.keys import public_key
from gas.chain.local import views
from gas.chain.local.state import Subnet
from gas.errors import ChainRefused

__all__ = ["RuntimeCalls"]

_U16: Final = 65535


class RuntimeCalls:
    """The runtime's functions in one state."""

    def __init__(self, state: State) -> None:
        self.state = state

    def call(self, name: str, arguments: bytes) -> bytes | None:
        """A runtime call's answer; None when there is no such function."""
        found = self.state.metadata.apis.get(name)
        if found is None:
            return None
        inputs, output = found
        reader = Reader(arguments)
        values = [self.state.metadata.decode(ty, reader) for ty in inputs[:2]]
        match name.partition("_"):
            case ("AccountNonceApi", _, _):
                answer: Any = self.state.memory.nonces.get(values[0], 0)
            case ("SubnetInfoRuntimeApi", _, "get_metagraph"):
                answer = self._metagraph(values[0])
            case ("SubnetInfoRuntimeApi", _, "get_selective_metagraph"):
                answer = self._selective(values[0], values[1])
            case ("SubnetInfoRuntimeApi", _, "get_subnet_hyperparams"):
                answer = self._hyperparameters(values[0], 1)
            case ("SubnetInfoRuntimeApi", _, "get_subnet_hyperparams_v2"):
                answer = self._hyperparameters(values[0], 2)
            case ("TransactionPaymentApi", _, "query_info"):
                answer = {"weight": {"ref_time": 10**8, "proof_size": 4000}, "class": "Normal", "partial_fee": 0}
            case _:
                return None
        return self.state.metadata.encode(output, answer)

    def _subnet(self, netuid: int) -> Subnet | None:
        try:
            return self.state.tx.subnet(netuid)
        except ChainRefused:
            return None

    def _hyperparameters(self, netuid: int, version: int) -> dict[str, Any] | None:
        subnet = self._subnet(netuid)
        if subnet is None:
            return None
        rules = subnet.hyperparameters
        found: dict[str, Any] = {
            **self._common(subnet),
            "immunity_period": rules.immunity_period,
            "tempo": rules.tempo,
            "max_validators": rules.max_allowed_validators,
            "registration_allowed": True,
            "min_burn": subnet.economics.burn_floor,
            "max_burn": subnet.economics.burn_ceiling,
        }
        if version == 2:
            found |= {
                "yuma_version": 3 if rules.yuma3 else 2,
                "alpha_sigmoid_steepness": {"bits": rules.alpha_sigmoid_steepness << 32},
                "subnet_is_active": True,
            }
        return found

    def _common(self, subnet: Subnet) -> dict[str, Any]:
        rules = subnet.hyperparameters
        return {
            "rho": 10,
            "kappa": rules.kappa,
            "min_allowed_weights": rules.min_allowed_weights,
            "max_weights_limit": _U16,
            "weights_version": rules.weights_version,
            "weights_rate_limit": rules.weights_rate_limit,
            "activity_cutoff": rules.activity_cutoff,
            "commit_reveal_weights_enabled": rules.commit_reveal,
            "commit_reveal_period": rules.commit_reveal_period,
            "liquid_alpha_enabled": rules.liquid_alpha,
            "alpha_high": rules.alpha_high,
            "alpha_low": rules.alpha_low,
            "bonds_moving_avg": rules.bonds_moving_avg,
            "max_regs_per_block": 1,
        }

    def _metagraph(self, netuid: int) -> dict[str, Any] | None:
        subnet = self._subnet(netuid)
        if subnet is None:
            return None
        rules, neurons = subnet.hyperparameters, self.state.neurons(subnet)
        no_axon = {"ip": 0}
        return {
            **self._common(subnet),
            "netuid": netuid,
            "name": list(b"gas"),
            "symbol": list(b"g"),
            "owner_hotkey": public_key(subnet.owner_hotkey),
            "owner_coldkey": public_key(subnet.owner),
            "block": self.state.block,
            "tempo": rules.tempo,
            "last_step": subnet.last_epoch,
            "blocks_since_last_step": self.state.block - subnet.last_epoch,
            "max_validators": rules.max_allowed_validators,
            "num_uids": len(neurons),
            "max_uids": rules.max_allowed_uids,
            "burn": views.price(self.state.tx, netuid),
            "registration_allowed": True,
            "immunity_period": rules.immunity_period,
            "min_burn": subnet.economics.burn_floor,
            "max_burn": subnet.economics.burn_ceiling,
            "hotkeys": [public_key(n.hotkey) for n in neurons],
            "coldkeys": [public_key(n.coldkey) for n in neurons],
            "identities": [None for _ in neurons],
            "axons": [self.state.axon(netuid, n) or no_axon for n in neurons],
            "active": [n.active for n in neurons],
            "validator_permit": [n.permit for n in neurons],
            "pruning_score": [0 for _ in neurons],
            "last_update": [n.last_update for n in neurons],
            "emission": [n.emission for n in neurons],
            "dividends": [round(n.dividends * _U16) for n in neurons],
            "incentives": [round(n.incentive * _U16) for n in neurons],
            "consensus": [round(n.consensus * _U16) for n in neurons],
            "trust": [0 for _ in neurons],
            "rank": [0 for _ in neurons],
            "block_at_registration": [n.registered_at for n in neurons],
            "alpha_stake": [n.stake for n in neurons],
            "tao_stake": [0 for _ in neurons],
            "total_stake": [n.stake for n in neurons],
        }

    def _selective(self, netuid: int, indexes: Sequence[int]) -> dict[str, Any] | None:
        whole = self._metagraph(netuid)
        if whole is None:
            return None
        # The answer's fields are numbered in their order; those that nobody asked for are None.
        _, output = self.state.metadata.apis["SubnetInfoRuntimeApi_get_selective_metagraph"]
        inner = self.state.metadata.types[output][1][1][1][0][1]
        names = [name for name, _ in self.state.metadata.types[inner][1]]
        asked = {names[index] for index in indexes if index < len(names)}
        return {"netuid": netuid} | {name: value for name, value in whole.items() if name in asked}
