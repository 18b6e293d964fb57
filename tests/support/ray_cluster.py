"""A real Ray cluster of several machines on this one; any but the first can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",
}
_STORE_BYTES = 100 * 2**20
_QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


@dataclass
class Machine:
    """One of them.

    Attributes:
        home: Its own ``GAS_HOME``, so that its files can be told from those of the other.
        node: Ray's.
    """

    home: Path
    node: Any

    def kill(self) -> None:
        """As if its plug were pulled."""
        for info in self.node.all_processes["raylet"]:
            os.kill(info.process.pid, signal.SIGKILL)
            info.process.wait()


@dataclass
class RayCluster:
    """The cluster; its first machine holds its head and lives to the end.

    Attributes:
        address: ``host:port``.
        cluster: Ray's.
        machines: Those that were started, in order.
        folder: Of everything that they write.
    """

    address: str
    cluster: Any
    machines: list[Machine]
    folder: Path

    def add(self, cpus: int = 1, **env: str) -> Machine:
        """One more machine."""
        home = self.folder / f"home{len(self.machines)}"
        node = self.cluster.add_node(
            num_cpus=cpus,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            env_vars={"GAS_HOME": str(home), **env},
            # A cluster's first machine is its head.
            **({} if self.machines else {"_system_config": _QUICK, "temp_dir": str(self.folder / "ray")}),
        )
        self.machines.append(Machine(home, node))
        return self.machines[-1]


@contextmanager
def ray_cluster(*cpus: int, **env: str) -> Iterator[RayCluster]:
    """A cluster of machines of so many processors; nothing of it is left afterwards."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    # Left here by a library that this process has imported; no machine would have it.
    os.environ.pop("LD_LIBRARY_PATH", None)
    # Names of sockets may have a hundred letters: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="gr-"))
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        made = RayCluster("", cluster, [], folder)
        for number in cpus:
            made.add(number, **env)
        made.address = cluster.address
        yield made
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
