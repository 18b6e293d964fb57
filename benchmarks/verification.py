"""Verification of signed pictures of 1024 x 1024 without alignment: ``python benchmarks/verification.py``.

Pictures with the spectrum of photographs, all different, signed, judged one after the other against an index on disk,
decoded in the child process. Prints images a second and core (processor time of this process and its child) and by
the clock, and the share of each step. The SHA-256 of a delivery is computed when it is taken and again when it is read,
which is its blob's name; verification is given it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from decode import natural  # noqa: E402

from gas.clock import SystemClock  # noqa: E402
from gas.generation.signing import TestAuthority, sign_medium  # noqa: E402
from gas.media.image import encode_jpeg, encode_png, encode_webp  # noqa: E402
from gas.types import Modality  # noqa: E402
from gas.verification.base import Asked  # noqa: E402
from gas.verification.duplicates import MediaIndex  # noqa: E402
from gas.verification.pipeline import Verifier  # noqa: E402
from gas.verification.steps import digest  # noqa: E402


def processor_seconds(child: int) -> float:
    """Of this process and of one child, whose seconds come in hundredths where the kernel tells no better."""
    with suppress(OSError):
        return time.process_time() + int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children() -> list[int]:
    """Processes that this one has started and that run."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def main() -> None:
    """Make, sign, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=("jpeg", "webp", "png"), default=["jpeg", "webp", "png"])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clock = SystemClock()
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        authority = TestAuthority(Path(folder) / "authority", clock)
        leaf = authority.leaf("operator", "Operator")
        base = [natural(1024, 1024, seed) for seed in range(4)]
        encoders = {"jpeg": lambda rgb: encode_jpeg(rgb, 90), "webp": encode_webp, "png": encode_png}
        for kind in options.kinds:
            encode, signed = encoders[kind], []
            for at in range(options.pictures + 3):
                # Another picture each time: a part of one, and a part of another, laid over each other.
                rng = np.random.default_rng(at)
                one, two = (np.roll(base[i], rng.integers(0, 1024, 2), (0, 1)) for i in rng.choice(4, 2, replace=False))
                grain = rng.normal(0, 1.5, one.shape)
                rgb = np.clip(one * 0.6 + two * 0.4 + grain, 0, 255).astype(np.uint8)
                signed.append(sign_medium(encode(rgb), f"image/{kind}", leaf, title=str(at), model="m"))
            names = [digest(medium) for medium in signed]
            index = MediaIndex(Path(folder) / kind)
            now = clock.time()
            with Verifier(index, authority.anchors_pem) as verifier:
                asked = [
                    Asked(Modality.IMAGE, now, now + 100, now + 1, "a prompt", {}, str(at)) for at in range(len(signed))
                ]
                for at in range(3):
                    verifier.judge(signed[at], asked[at], names[at])
                (child,) = children()
                steps: Counter[str] = Counter()
                verified = 0
                cpu, wall = processor_seconds(child), time.perf_counter()
                for data, wish, name in zip(signed[3:], asked[3:], names[3:], strict=True):
                    verdict = verifier.judge(data, wish, name)
                    verified += verdict.verified
                    steps.update(verdict.facts["timings"])
                cpu, wall = processor_seconds(child) - cpu, time.perf_counter() - wall
            index.close()
            size = sum(map(len, signed)) / len(signed) / 1024
            print(
                f"{kind}: {size:.0f} KiB each, {verified} of {options.pictures} verified, "
                f"{options.pictures / cpu:.1f} images a second and core ({1000 * cpu / options.pictures:.1f} ms), "
                f"{options.pictures / wall:.1f} by the clock"
            )
            total = sum(steps.values())
            print(
                "   " + "  ".join(f"{step} {100 * ms / total:.0f} %" for step, ms in steps.most_common(5)), flush=True
            )


if __name__ == "__main__":
    main()
