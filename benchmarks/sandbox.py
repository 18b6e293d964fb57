"""What isolation costs: ``python benchmarks/sandbox.py [--batches 30]``.

Throughput: the same small convolutional network on the same batches, in this process and in the sandbox, in turns in
one run, with one thread and the same allocator settings. The first ratio is of wall clocks; on a busy machine the
second is the one to read: processor time of this process and of the sandbox's tree together.

Start: from the call to the loaded model, less the model's own load, which is what the same ``load_model`` takes in a
process that has imported torch; cold (a new tree), and warm (a spare was waiting). ``--processes 2`` starts that many
at once, as the engine does. ``--first`` prints what the first batches of a process cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gas.sandbox.runtime import child_environment

SETTINGS = {name: value for name, value in child_environment(1).items() if name.startswith(("MALLOC", "O", "MKL"))}
if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in SETTINGS.items()):
    # glibc and OpenMP read their settings once, when the process starts.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from gas.sandbox import Limits, ModelSpec, Tier, best_sandbox, probe  # noqa: E402
from gas.sandbox.base import Environment  # noqa: E402
from gas.sandbox.session import Session  # noqa: E402
from gas.sandbox.spares import Spares  # noqa: E402

_SHAPE = (3, 224, 224)
_BATCH = 8
_TURNS = 5
_TICK = os.sysconf("SC_CLK_TCK")

_CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        width = [3, 32, 64, 128, 256]
        layers = [torch.nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(width, width[1:])]
        self.body = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())])
        self.head = torch.nn.Linear(256, num_classes)

    def forward(self, batch):
        return self.head(self.body(batch.float() / 255).mean((2, 3)))

def load_model(weights_path, num_classes=2):
    torch.manual_seed(0)
    return Net(num_classes)
"""


def package(folder: Path) -> ModelSpec:
    """The network as a package; its weights are drawn from a seed, so that loading costs next to nothing."""
    (folder / "model.py").write_text(_CODE, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return ModelSpec(folder, "safetensors", "model.py", "model.safetensors", _SHAPE, "uint8", 2)


def in_process(folder: Path) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.float32]], float]:
    """The same network here, and the seconds of its load."""
    from gas.sandbox.inside import models

    models.import_libraries("safetensors", 1)
    config = {
        "model_folder": str(folder), "format": "safetensors", "entry": "model.py", "weights_file": "model.safetensors",
        "num_classes": 2, "dtype": "float32", "device": "cpu", "params": {}, "threads": 1, "batch_size": _BATCH,
        "input_shape": _SHAPE, "input_dtype": "uint8",
    }  # fmt: skip
    began = time.perf_counter()
    model = models.load(config)
    return model, time.perf_counter() - began


def tree_seconds(pid: int) -> float:
    """Processor seconds that a process and its descendants have used."""
    total, waiting = 0, [pid]
    while waiting:
        now = waiting.pop()
        fields = Path(f"/proc/{now}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
        for task in Path(f"/proc/{now}/task").iterdir():
            waiting += [int(word) for word in (task / "children").read_text(encoding="ascii").split()]
    return total / _TICK


def throughput(
    direct: Callable[[NDArray[np.uint8]], NDArray[np.float32]], session: Session, batches: int
) -> tuple[float, float]:
    """Sandboxed against in process: ratio of wall clocks, and of processor times; medians of turns."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (4, _BATCH, *_SHAPE), dtype=np.uint8)

    def ours() -> None:
        # As the engine asks: the next batch is handed over while this one is computed.
        session.submit(data[0])
        for number in range(1, batches):
            session.submit(data[number % 4])
            session.collect()
        session.collect()

    def theirs() -> None:
        for number in range(batches):
            direct(data[number % 4])

    assert np.allclose(session.infer(data[0]), direct(data[0]), atol=1e-5)
    rows = []
    for _ in range(_TURNS):
        wall, cpu = time.perf_counter(), time.process_time()
        theirs()
        base_wall, base_cpu = time.perf_counter() - wall, time.process_time() - cpu
        wall, cpu, tree = time.perf_counter(), time.process_time(), tree_seconds(session.pid)
        ours()
        used = time.process_time() - cpu + tree_seconds(session.pid) - tree
        rows.append(((time.perf_counter() - wall) / base_wall, used / base_cpu))
    walls, cpus = zip(*rows, strict=True)
    return statistics.median(walls), statistics.median(cpus)


def start_seconds(start: Callable[[], Session], processes: int) -> float:
    """Until the last of several models that are started at once is loaded."""
    with ThreadPoolExecutor(processes) as pool:
        began = time.perf_counter()
        sessions = list(pool.map(lambda _: start(), range(processes)))
        seconds = time.perf_counter() - began
        for session in sessions:
            session.close()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=30, help="batches of 8 pictures in a turn; 0 leaves them out")
    parser.add_argument("--starts", type=int, default=5, help="warm starts; cold ones are three at most")
    parser.add_argument("--processes", type=int, default=1, help="models that are started at once")
    parser.add_argument("--first", action="store_true", help="print what the first batches of a process cost")
    options = parser.parse_args()
    found = probe()
    sandbox = best_sandbox(Tier.PLAIN, found)
    limits = Limits()
    with (
        tempfile.TemporaryDirectory(prefix="gas-benchmark-") as name,
        Spares(sandbox, most=options.processes, refill=False) as spares,
    ):
        spec = package(Path(name))
        direct, own_load = in_process(spec.folder)

        def cold() -> Session:
            session = sandbox.start(spec, batch_size=_BATCH, limits=limits)
            assert isinstance(session, Session)
            return session

        def warm() -> Session:
            session = spares.start(spec, batch_size=_BATCH, limits=limits)
            assert isinstance(session, Session)
            return session

        colds = [start_seconds(cold, options.processes) for _ in range(min(3, options.starts))]
        warms = []
        for number in range(1, options.starts + 1):
            spares.prepare(Environment.of(spec, limits), options.processes)
            while spares.ready < options.processes:
                time.sleep(0.05)
            warms.append(start_seconds(warm, options.processes))
            assert spares.taken == number * options.processes
        print(f"{found.tier.name}, {options.processes} at once; the model's own load takes {own_load:.3f} s")
        print(f"cold start beyond it: {statistics.median(colds) - own_load:.2f} s")
        print(
            f"warm start beyond it: {statistics.median(warms) - own_load:.3f} s,"
            f" at most {max(warms) - own_load:.3f} s (aim: 0.2)"
        )
        spares.prepare(Environment.of(spec, limits))
        with warm() as session:
            if options.first:
                data = np.zeros((_BATCH, *_SHAPE), np.uint8)
                costs = []
                for _ in range(5):
                    tree = tree_seconds(session.pid)
                    session.infer(data)
                    costs.append(f"{tree_seconds(session.pid) - tree:.2f}")
                print(f"processor seconds of the first batches: {', '.join(costs)}")
            if options.batches:
                wall, cpu = throughput(direct, session, options.batches)
                print(f"throughput: {wall:.3f} times the wall clock, {cpu:.3f} times the processor time (aim: 1.05)")


if __name__ == "__main__":
    main()
