"""Whom to challenge, and with what: drawn so that every generator gets its share and none can foresee it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np

from gas.chain.base import Axon, Metagraph, Neuron
from gas.scoring.generators import TIERS, draw_tier
from gas.types import Hotkey, Modality

__all__ = ["Target", "axon_url", "candidates", "draw_wish", "sample"]


@dataclass(frozen=True, slots=True)
class Target:
    """A miner that may be challenged.

    Attributes:
        uid: Its slot.
        hotkey: Its key.
        url: Where it listens, e.g. ``http://203.0.113.7:8091``.
        permit: Whether it may be a validator that has not set weights yet.
    """

    uid: int
    hotkey: Hotkey
    url: str
    permit: bool = False


def axon_url(axon: Axon | None, *, local: bool) -> str | None:
    """The address behind an axon.

    Args:
        axon: As published; anybody may publish anything.
        local: Whether loop-back and private addresses will do. Where they don't, a miner can't make the validator
            send requests into its own network.

    Returns:
        None when it can't be asked.
    """
    if axon is None or not 0 < axon.port <= 65535:
        return None
    try:
        address = ip_address(axon.ip)
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast or not (local or address.is_global):
        return None
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{axon.port}"


def candidates(graph: Metagraph, validator: str, *, local: bool) -> list[Target]:
    """Neurons that have published an address and are no validators, in the order of their uids.

    Args:
        graph: The subnet.
        validator: Our hotkey.
        local: As in :func:`axon_url`.
    """
    found = []
    for neuron in graph.neurons:
        url = axon_url(neuron.axon, local=local)
        if url is not None and neuron.hotkey != validator and not _validates(neuron):
            found.append(Target(neuron.uid, neuron.hotkey, url, neuron.permit))
    return found


def sample(
    targets: Sequence[Target],
    opened: Mapping[str, int],
    recent: Mapping[str, int],
    count: int,
    max_open: int,
    rng: np.random.Generator,
) -> list[Target]:
    """Those who had the fewest challenges lately, drawn among equals.

    Args:
        targets: All.
        opened: Open challenges by hotkey; who has ``max_open`` is left alone.
        recent: Challenges of the last day by hotkey.
        count: At most so many.
        max_open: Most open challenges of one.
        rng: Decides among equals.
    """
    free = [target for target in targets if opened.get(target.hotkey, 0) < max_open]
    order = rng.permutation(len(free))
    shuffled = [free[at] for at in order]
    return sorted(shuffled, key=lambda target: recent.get(target.hotkey, 0))[:count]


def draw_wish(modalities: Sequence[Modality], rng: np.random.Generator) -> tuple[Modality, int, str]:
    """What to ask for: a modality with equal odds, and a tier with those of :func:`draw_tier`.

    Args:
        modalities: At least one.
        rng: Decides.

    Returns:
        Modality, index of the tier, name of the tier.
    """
    modality = modalities[int(rng.integers(len(modalities)))]
    tier = draw_tier(rng, modality)
    return modality, tier, TIERS[modality][tier]


def _validates(neuron: Neuron) -> bool:
    # A permit alone says little: pay raises a miner's own stake until it has one.
    return neuron.permit and (neuron.dividends > 0 or neuron.validator_trust > 0)
