"""The chain's conformance suite on the node that ``GAS_CHAIN_URL`` names; without the variable there are no tests here.

The node has to be a development node of the network's own software ("localnet"), on which ``//Alice`` is funded and
the sudo key: ``tests/support/live_network.py`` founds two subnets there with the keys ``//Alice`` and ``//Bob`` and
gives every test fresh keys. Never name a public network: the suite spends what its keys hold and changes rules.
With blocks of 0.25 s it takes some minutes, with blocks of 12 s hours.

    GAS_CHAIN_URL=ws://127.0.0.1:9944 python -m pytest tests/contracts/test_chain_live.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from chain_conformance import ChainConformance

URL = os.environ.get("GAS_CHAIN_URL", "")

if URL:
    from live_network import LiveNetwork

    @pytest.fixture(scope="module")
    def founded() -> Iterator[LiveNetwork]:
        network = LiveNetwork(URL)
        yield network
        network.close()

    @pytest.fixture
    def network(founded: LiveNetwork) -> LiveNetwork:
        founded.renew()
        return founded

    @pytest.mark.timeout(3600)
    class TestLiveChain(ChainConformance):
        pass
