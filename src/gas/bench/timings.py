"""How fast a run was, and how fast this machine could have been."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Timings", "own_cpu_seconds", "tree_cpu_seconds"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Figures of one run; kept beside the records, never in them.

    Attributes:
        wall_seconds: From the first start of a model process to the end of the last one.
        start_seconds: The part of it before the first model was ready.
        cpu_seconds: Processor time of decoding, handing over and the models' answers; starting them is left out.
            A model process that died takes its share to the grave.
        start_cpu_seconds: Processor time of starting the model processes.
        showings: Answers that were asked for.
        cores: Cores that this process may use.
        ahead_cpu_seconds: Processor time of decoding before the first model was ready; part of ``cpu_seconds``.
    """

    wall_seconds: float
    start_seconds: float
    cpu_seconds: float
    start_cpu_seconds: float
    showings: int
    cores: int
    ahead_cpu_seconds: float = 0.0

    @property
    def samples_per_second(self) -> float:
        """What the run reached once a model was ready."""
        seconds = self.wall_seconds - self.start_seconds
        return self.showings / seconds if seconds > 0 else 0.0

    @property
    def limit_samples_per_second(self) -> float:
        """What it would reach with all cores busy: cores / (processor seconds a sample)."""
        return self.cores * self.showings / self.cpu_seconds if self.cpu_seconds > 0 else 0.0

    def as_dict(self) -> dict[str, float | int]:
        """JSON form."""
        return {
            "wall_seconds": self.wall_seconds,
            "start_seconds": self.start_seconds,
            "cpu_seconds": self.cpu_seconds,
            "start_cpu_seconds": self.start_cpu_seconds,
            "showings": self.showings,
            "cores": self.cores,
            "ahead_cpu_seconds": self.ahead_cpu_seconds,
            "samples_per_second": self.samples_per_second,
            "limit_samples_per_second": self.limit_samples_per_second,
        }


def own_cpu_seconds() -> float:
    """Processor time of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process and all that live below it; 0 for what has gone meanwhile.

    The kernel's own sum over children doesn't do: it forgets processes that are killed with their name space.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        threads = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return 0.0
    # The second field is the program's name in parentheses and may hold anything; utime and stime are 14 and 15.
    fields = stat.rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    for thread in threads:
        try:
            below = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii").split()
        except OSError:
            continue
        seconds += sum(tree_cpu_seconds(int(child)) for child in below)
    return seconds
