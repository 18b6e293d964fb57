"""Load on a validator's callback server: ``python benchmarks/callbacks.py [--quick] [--json]``.

The real service ``sn34-validator`` runs in a process of its own, on a ledger with 128 registered miners, SQLite and a
folder of blobs. This process sends signed deliveries of different bytes at a fixed rate over kept connections, whether
or not earlier ones have been answered; a delivery's time runs from the moment at which it was due. In the end the
rows and the blobs are compared with what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import numpy as np
from ledger_network import key
from sqlalchemy import select
from validator_network import ValidatorNetwork

from gas.clock import RandomIds
from gas.protocol.epistula import sign_request
from gas.storage.blobs import FolderBlobs
from gas.storage.tables import ChallengeRow
from gas.validator.callbacks import CALLBACK_PATH

MINERS = 128
CONNECTIONS = 48
_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: ``count`` deliveries of ``size`` bytes, ``rate`` a second."""

    count: int
    size: int
    rate: float


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process and all below it, and the peak of the process itself; MiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    now, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        below, _ = memory(int(child))
        now += below
    return now, peak


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def add_tasks(network: ValidatorNetwork, load: Load) -> list[tuple[int, str]]:
    """Challenges that wait for their deliveries: (miner, task id), in the order of the load."""
    tasks = [(at % MINERS, f"load-{at:06d}") for at in range(load.count)]
    now = time.time()
    database = network.database()
    try:
        with database.write() as session:
            session.add_all(
                ChallengeRow(
                    validator=key("validator").ss58_address,
                    miner=network.actors[miner].signer.ss58_address,
                    task_id=task,
                    modality="image",
                    prompt="a load",
                    parameters={},
                    state="accepted",
                    created_at=now,
                    deadline=now + 3600,
                    reasons=[],
                    tier=0,
                )
                for miner, task in tasks
            )
    finally:
        database.close()
    return tasks


class Sender:
    """Sends the load over a fixed number of kept connections."""

    def __init__(self, network: ValidatorNetwork, load: Load, tasks: list[tuple[int, str]]) -> None:
        self._network, self._load, self._tasks = network, load, tasks
        self._ids, self._receiver = RandomIds(), key("validator").ss58_address
        self._noise = np.random.default_rng(1).bytes(load.size)
        self._due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        self.seconds: list[float] = []
        self.answers: Counter[int] = Counter()
        self.digests: dict[str, str] = {}
        self.first_error = ""

    def body(self, at: int) -> bytes:
        """Bytes that no other delivery has."""
        mark = at.to_bytes(8, "big") + os.urandom(8)
        return _HEAD + mark + self._noise[: self._load.size - len(_HEAD) - len(mark)]

    async def run(self, pid: int) -> dict[str, Any]:
        """Send everything; what was measured."""
        connections = [await self._connect() for _ in range(CONNECTIONS)]
        workers = [asyncio.create_task(self._work(*one)) for one in connections]
        at_start, _ = memory(pid)
        samples = [at_start]
        processor, own, begin = cpu_seconds(pid), time.process_time(), time.perf_counter()
        for at in range(self._load.count):
            due = begin + at / self._load.rate
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            self._due.put_nowait((at, due))
            if at % max(1, self._load.count // 40) == 0:
                samples.append(memory(pid)[0])
        for _ in workers:
            self._due.put_nowait(None)
        await asyncio.gather(*workers)
        wall = time.perf_counter() - begin
        at_end, peak = memory(pid)
        half = len(samples) // 2
        return {
            "sent": self._load.count,
            "bytes_each": self._load.size,
            "asked_rate": self._load.rate,
            "rate": self._load.count / wall,
            "p50_ms": 1000 * float(np.quantile(self.seconds, 0.5)),
            "p99_ms": 1000 * float(np.quantile(self.seconds, 0.99)),
            "max_ms": 1000 * max(self.seconds),
            "answers": {str(status): count for status, count in sorted(self.answers.items())},
            "server_cpu_ms_each": 1000 * (cpu_seconds(pid) - processor) / self._load.count,
            "sender_cpu_ms_each": 1000 * (time.process_time() - own) / self._load.count,
            "memory_start_mib": at_start,
            "memory_half_mib": samples[half],
            "memory_most_mib": max(samples),
            "memory_end_mib": at_end,
            "memory_peak_mib": peak,
            "first_error": self.first_error,
        }

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._network.port, limit=2**20)

    async def _work(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (found := await self._due.get()) is not None:
            at, due = found
            miner, task = self._tasks[at]
            body = self.body(at)
            digest = hashlib.sha256(body).hexdigest()
            signed = sign_request(
                self._network.actors[miner].signer,
                digest,
                signed_for=self._receiver,
                now_ms=int(time.time() * 1000),
                uuid=self._ids.new(),
            )
            headers = {
                **signed,
                "Host": "127.0.0.1",
                "Content-Type": "image/jpeg",
                "Content-Length": str(len(body)),
                "task-id": task,
            }
            head = f"POST {CALLBACK_PATH} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items())
            writer.write(head.encode() + b"\r\n")
            writer.write(body)
            status, answer = await self._answer(reader)
            self.seconds.append(time.perf_counter() - due)
            self.answers[status] += 1
            if status == 202:
                self.digests[task] = digest
            elif not self.first_error:
                self.first_error = f"{status} {answer[:300]!r}"
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        return int(lines[0].split()[1]), await reader.readexactly(length)


def lost(network: ValidatorNetwork, sent: dict[str, str]) -> int:
    """Deliveries that were answered with 202 and whose row or bytes are not there."""
    blobs, database = FolderBlobs(network.home / "blobs"), network.database()
    try:
        with database.read() as session:
            query = select(ChallengeRow.task_id, ChallengeRow.blob_sha256).where(ChallengeRow.state == "delivered")
            found = dict(session.execute(query).all())
    finally:
        database.close()
    missing = sum(found.get(task) != digest or not blobs.exists(digest) for task, digest in sent.items())
    # Reading all again would take as long as the load; a damaged blob raises.
    for digest in list(sent.values())[:: max(1, len(sent) // 200)]:
        blobs.get(digest)
    return missing + len(found.keys() - sent.keys())


def measure(load: Load, folder: Path) -> dict[str, Any]:
    """Found, load, compare."""
    network = ValidatorNetwork.found(folder, [(f"miner-{at}", "silent") for at in range(MINERS)], CALLBACK_MAX_MB=64)
    # Opening the database brings its schema up to date.
    tasks = add_tasks(network, load)
    try:
        network.start("sn34-validator")
        pid = network.processes["sn34-validator"].pid
        warm = Load(CONNECTIONS, load.size, load.rate)
        sender = Sender(network, warm, tasks[: warm.count])
        asyncio.run(sender.run(pid))
        sent = dict(sender.digests)
        sender = Sender(network, Load(load.count - warm.count, load.size, load.rate), tasks[warm.count :])
        found = asyncio.run(sender.run(pid))
        sent |= sender.digests
        return {**found, "lost": lost(network, sent), "load_average": os.getloadavg()[0], "cores": os.cpu_count()}
    except AssertionError as error:
        raise SystemExit(f"{error}\n{network.last_words()}") from error
    finally:
        network.stop()


def main() -> None:
    """Measure and print; ends with 1 when something was lost or refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="How long the load lasts.")
    parser.add_argument("--rate", type=float, default=200.0, help="Deliveries a second.")
    parser.add_argument("--kib", type=int, default=256, help="KiB of one delivery.")
    parser.add_argument("--quick", action="store_true", help="Five seconds.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    options = parser.parse_args()
    seconds = 5.0 if options.quick else options.seconds
    load = Load(CONNECTIONS + round(seconds * options.rate), options.kib * 1024, options.rate)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(load, Path(folder))
    if options.json:
        print(json.dumps(found))
    else:
        print(f"load of the machine: {found['load_average']:.1f} on {found['cores']} cores (both processes included)")
        print(f"{found['sent']} deliveries of {options.kib} KiB, {found['asked_rate']:g} a second asked for:")
        print(
            f"  {found['rate']:.1f} a second, p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
            f"longest {found['max_ms']:.0f} ms; {found['server_cpu_ms_each']:.2f} ms of the server's processor each, "
            f"{found['sender_cpu_ms_each']:.2f} of the sender's"
        )
        print(f"  answers {found['answers']}, lost {found['lost']} {found['first_error']}")
        print(
            f"  memory of the server: start {found['memory_start_mib']:.0f} MiB, half way "
            f"{found['memory_half_mib']:.0f}, end {found['memory_end_mib']:.0f}, most {found['memory_peak_mib']:.0f}"
        )
    if found["lost"] or set(found["answers"]) != {"202"}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
