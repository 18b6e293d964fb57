"""What taking a package costs: ``python benchmarks/submissions.py [--megabytes 500] [--only checks]``.

Two figures. The static check of a large package against unpacking it and hashing it once, in turns in one run, for
weights that are stored in the zip, weights that are squeezed, and an ONNX file: the check reads the weights for two
hashes, a checksum and a sketch beside each other, so that it wants two free cores; the ratio of processor times is
printed beside that of the clock, and by how much the memory of the process grew. And how much the memory of a served
arena grows while a package comes in, by one request and in pieces; the service is the real one, and the kernel says
what it grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import save_file

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests" / part) for part in ("web", "support")]

from served_home import AUTHOR, CLOCK, Home, found_home, hand_in  # noqa: E402

from gas.arena.submissions import file_sha256  # noqa: E402
from gas.cli.processes import stop  # noqa: E402
from gas.clock import RandomIds  # noqa: E402
from gas.errors import GasError  # noqa: E402
from gas.protocol.client import SignedClient  # noqa: E402
from gas.protocol.epistula import sign_request  # noqa: E402
from gas.submissions import scaffold  # noqa: E402
from gas.submissions.archive import unpack  # noqa: E402
from gas.submissions.check import check  # noqa: E402
from gas.submissions.pack import pack  # noqa: E402
from gas.types import Modality  # noqa: E402

MIB = 2**20
_TURNS = 3
_CHECK_AIM = 1.5
_MEMORY_AIM = 64.0


def large_package(folder: Path, megabytes: int, form: str = "stored") -> Path:
    """A clean package with weights of this size in five tensors: ``stored``, ``deflated`` or ``onnx``."""
    source = folder / "source"
    rng = np.random.default_rng(0)
    rows = megabytes * 1_000_000 // (5 * 4 * 1000)
    if form == "onnx":
        source.mkdir()
        (source / "large.onnx").write_bytes(large_graph([rng.standard_normal((rows, 1000), dtype=np.float32)] * 5))
    else:
        scaffold.create(source, "large", Modality.IMAGE, "safetensors")
        tensors = {f"layer{i}": rng.standard_normal((rows, 1000), dtype=np.float32) for i in range(5)}
        save_file(tensors, source / "model.safetensors")
    pack(source, folder / "large.zip")
    shutil.rmtree(source)
    if form == "deflated":
        squeezed = folder / "squeezed.zip"
        with (
            zipfile.ZipFile(folder / "large.zip") as old,
            zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
        ):
            for name in old.namelist():
                with old.open(name) as given, new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as out:
                    shutil.copyfileobj(given, out, MIB)
        squeezed.replace(folder / "large.zip")
    return folder / "large.zip"


def large_graph(weights: list[np.ndarray]) -> bytes:
    """An ONNX model with these matrices among its initializers."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "head"], ["logits"]),
    ]
    held = [numpy_helper.from_array(array, f"layer{i}") for i, array in enumerate(weights)]
    held += [numpy_helper.from_array(np.ones((1, 2), np.float32), "head")]
    held += [numpy_helper.from_array(np.array([1], np.int64), "one")]
    image = helper.make_tensor_value_info("input", TensorProto.UINT8, ["N", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "g", [image], [logits], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def static_check(package: Path, folder: Path) -> tuple[float, float, float]:
    """Ratio of the check to unpacking and hashing once, by the clock and of processor time; growth of memory, MiB."""

    def once() -> None:
        unpack(package, folder / "unpacked")
        file_sha256(package)

    def ours() -> None:
        check(package, workdir=folder).require()

    ours()
    rows = []
    for _ in range(_TURNS):
        baseline = timed(once)
        shutil.rmtree(folder / "unpacked")
        rows.append((*timed(ours), *baseline))
    growth = Growth(os.getpid())
    ours()
    wall, cpu, base_wall, base_cpu = (statistics.median(column) for column in zip(*rows, strict=True))
    return wall / base_wall, cpu / base_cpu, growth.end()


class Growth:
    """How much more of its own memory a process held than at the start, at most; MiB."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._start = self._peak = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _now(self) -> int:
        # Pages of mapped files are the kernel's cache, and are given back when anybody wants them.
        lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) * 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._now())

    def end(self) -> float:
        """The figure; ends the watch."""
        self._stop.set()
        self._thread.join()
        return (self._peak - self._start) / MIB


async def whole_body(url: str, home: Home, path: Path, size: int) -> None:
    """Send a package by one request, read from the disk as it goes."""
    boundary = "benchmark"
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    head = f'{part}modality"\r\n\r\nimage\r\n{part}zip"; filename="m.zip"\r\n\r\n'.encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    digest = hashlib.sha256(head)
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    digest.update(tail)

    async def body() -> AsyncIterator[bytes]:
        yield head
        with path.open("rb") as file:
            while chunk := file.read(MIB):
                yield chunk
        yield tail

    headers = sign_request(
        AUTHOR, digest.hexdigest(), signed_for=home.validator.ss58_address,
        now_ms=int(CLOCK.time() * 1000), uuid=RandomIds().new(),
    )  # fmt: skip
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    headers["Content-Length"] = str(len(head) + size + len(tail))
    async with httpx.AsyncClient(timeout=300) as http:
        answer = await http.post(f"{url}/api/v1/submissions", content=body(), headers=headers)
    assert answer.status_code in (201, 422), answer.text


async def nothing(url: str, home: Home) -> None:
    """A first small request: what is imported only then is no part of an upload."""
    async with httpx.AsyncClient(timeout=60) as http:
        client = SignedClient(AUTHOR, http, CLOCK, RandomIds())
        for body in (b"no zip", b"no zip either"):
            try:
                await client.post_multipart(
                    f"{url}/api/v1/submissions", {"modality": "image"}, {"zip": ("m.zip", body, "application/zip")},
                    signed_for=home.validator.ss58_address,
                )  # fmt: skip
            except GasError:
                continue


def uploads(folder: Path, megabytes: int) -> list[tuple[str, float]]:
    """Growth of a served arena's memory, by how the package comes in."""
    home = found_home(folder / "home")
    server = home.serve("--no-worker")
    rows = []
    try:
        url = home.url(server)
        asyncio.run(nothing(url, home))
        noise = folder / "noise.zip"
        for label, size in (("a body of noise", megabytes), ("one of twice the size", 2 * megabytes)):
            with noise.open("wb") as file:
                for _ in range(size):
                    file.write(np.random.default_rng(size).bytes(1_000_000))
            growth = Growth(server.pid)
            asyncio.run(whole_body(url, home, noise, noise.stat().st_size))
            rows.append((label, growth.end()))
        noise.unlink()
        growth = Growth(server.pid)
        hand_in(home, url, large_package(folder, megabytes))
        rows.append(("a package in pieces, with its check", growth.end()))
    finally:
        stop(server)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the package that is checked")
    parser.add_argument("--upload-megabytes", type=int, default=150, help="size of the smaller upload")
    parser.add_argument("--only", choices=("checks", "uploads"), help="one half of the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gas-benchmark-") as name:
        folder = Path(name)
        if options.only != "uploads":
            print(f"static check against unpacking and hashing once (aim: at most {_CHECK_AIM} times by the clock)")
            for form, part in (("stored", 1), ("onnx", 2), ("deflated", 4)):
                size = options.megabytes // part
                wall, cpu, grown = static_check(large_package(folder, size, form), folder)
                print(
                    f"  {form:8} {size:4} MB: {wall:.2f} times by the clock, {cpu:.2f} times the processor time, "
                    f"memory grows by {grown:.1f} MiB",
                    flush=True,
                )
                (folder / "large.zip").unlink()
        if options.only != "checks":
            for label, grown in uploads(folder, options.upload_megabytes):
                print(f"upload, {label}: the service grows by {grown:.1f} MiB (aim: less than {_MEMORY_AIM:.0f})")


if __name__ == "__main__":
    main()
