"""The pixels of a round, decoded once for all its models.

Decoding is the most expensive step of a benchmark that isn't the model's own. The first model that asks for a
sample pays for it; every later one, in this process or after a restart, reads the decoded pixels from a file.
A medium that can't be decoded is our fault: it is recorded once and left out for every model alike.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected, StorageError
from gas.media.image import RGB, decode_image, preprocess_image
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.transforms import sharing_chain
from gas.storage.blobs import BlobStore
from gas.types import Modality, Sample

__all__ = ["RoundCache"]

_Progress = Callable[[str, int, int], None]
_LOCKS: Final = 64


class RoundCache:
    """Decoded media of one round's image samples; safe for several threads, and processes may share a folder.

    Args:
        samples: The round's samples; those of other modalities are left aside.
        blobs: Where the encoded media lie.
        folder: Where the pixels go, one ``.npy`` a sample; made when missing, may be kept between runs.
        max_bytes: Size that the decoded pixels may reach on disk.
        limits: What one medium may cost.

    Attributes:
        decodes: How many blobs this object has decoded.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        blobs: BlobStore,
        folder: Path,
        *,
        max_bytes: int = 8 * 1024**3,
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> None:
        self._known = {sample.sample_id for sample in samples if sample.modality is Modality.IMAGE}
        self._blobs = blobs
        self._folder = folder
        self._max_bytes = max_bytes
        self._limits = limits
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._count = threading.Lock()
        self._errors: dict[str, MediaRejected] = {}
        self.decodes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):
                if not _is_alive(left.name.split("-")[0]):
                    left.unlink(missing_ok=True)
            self._bytes = sum(path.stat().st_size for path in folder.glob("*.npy"))
            for path in folder.glob("*.error.json"):
                stored = json.loads(path.read_text(encoding="utf-8"))
                self._errors[path.name.split(".")[0]] = MediaRejected(stored["message"], code=stored["code"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError("The round's cache can't be opened.", hint="Remove its folder.") from error

    @property
    def errors(self) -> Mapping[str, MediaRejected]:
        """Samples found undecodable so far, with the reason; complete after :meth:`prepare`."""
        return dict(self._errors)

    def prepare(
        self, sample_ids: Sequence[str] | None = None, *, workers: int = 2, on_progress: _Progress | None = None
    ) -> tuple[str, ...]:
        """Decode what isn't decoded yet, in threads.

        Args:
            sample_ids: All image samples of the round when left out.
            workers: Threads; the decoders release the interpreter's lock.
            on_progress: Told the step, how many samples are done and how many there are.

        Returns:
            The samples that can be used, in the order given (of their ids by default).

        Raises:
            StorageError: A blob is missing, or the cache is full.
        """
        wanted = sorted(self._known) if sample_ids is None else list(sample_ids)
        usable = []
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for done, (sample_id, good) in enumerate(zip(wanted, pool.map(self._is_usable, wanted), strict=True), 1):
                if good:
                    usable.append(sample_id)
                if on_progress:
                    on_progress("decoding the round", done, len(wanted))
        return tuple(usable)

    def pixels(self, sample_id: str, *, robust: bool = False) -> RGB:
        """Decoded pixels of one sample: uint8, (h, w, 3), read-only.

        Args:
            sample_id: Of the round.
            robust: After the sharing chain of the robustness pass.

        Raises:
            MediaRejected: The medium can't be decoded.
            StorageError: The sample is not an image of the round, its blob is missing, or the cache is full.
        """
        if sample_id not in self._known:
            raise StorageError("The sample is not an image of this round.", code="sample_unknown")
        path = self._path(sample_id, robust)
        with self._locks[int(sample_id[:8], 16) % _LOCKS]:
            known = self._errors.get(sample_id)
            if known is not None:
                raise MediaRejected(known.message, code=known.error_code)
            if not path.exists():
                base = self._base(sample_id)
                if robust:
                    self._store(path, sharing_chain(base))
            return self._load(path)

    def preprocessed(
        self, sample_ids: Sequence[str], target: tuple[int, int], *, robust: bool = False
    ) -> NDArray[np.uint8]:
        """A batch as a model sees it.

        Args:
            sample_ids: Usable samples, in the order in which the batch shall have them.
            target: Height and width that the model asks for.
            robust: After the sharing chain.

        Returns:
            uint8, (n, 3, H, W), RGB.

        Raises:
            MediaRejected: One of them can't be decoded.
            StorageError: As in :meth:`pixels`.
        """
        out = np.empty((len(sample_ids), 3, *target), np.uint8)
        for index, sample_id in enumerate(sample_ids):
            out[index] = preprocess_image(self.pixels(sample_id, robust=robust), target)
        return out

    def _is_usable(self, sample_id: str) -> bool:
        try:
            self.pixels(sample_id)
        except MediaRejected:
            return False
        return True

    def _base(self, sample_id: str) -> RGB:
        path = self._path(sample_id, robust=False)
        if path.exists():
            return self._load(path)
        data = self._blobs.get(sample_id)
        with self._count:
            self.decodes += 1
        try:
            rgb = decode_image(data, self._limits)
        except MediaRejected as error:
            self._errors[sample_id] = error
            text = json.dumps({"code": error.error_code, "message": error.message})
            self._write(self._folder / f"{sample_id}.error.json", text.encode())
            raise
        self._store(path, rgb)
        return rgb

    def _path(self, sample_id: str, robust: bool) -> Path:
        return self._folder / f"{sample_id}{'.robust' if robust else ''}.npy"

    def _store(self, path: Path, rgb: RGB) -> None:
        with self._count:
            if self._bytes + rgb.nbytes > self._max_bytes:
                raise StorageError(
                    f"The round's cache would exceed {self._max_bytes:,} bytes.",
                    code="cache_full",
                    hint="Raise its limit, or draw fewer samples.",
                )
            self._bytes += rgb.nbytes
        self._write(path, rgb)

    def _write(self, path: Path, content: bytes | RGB) -> None:
        """Write aside and rename: a killed writer leaves no half file under a name that counts."""
        try:
            fd, aside = tempfile.mkstemp(dir=self._folder, prefix=f"{os.getpid()}-", suffix=".part")
            with os.fdopen(fd, "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    np.save(file, content, allow_pickle=False)
            Path(aside).replace(path)
        except OSError as error:
            raise StorageError(f"The round's cache can't be written ({error.strerror}).") from error

    def _load(self, path: Path) -> RGB:
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StorageError("The round's cache is damaged.", hint="Remove its folder.") from error
        return np.asarray(pixels, dtype=np.uint8)


def _is_alive(pid: str) -> bool:
    """Whether the writer of a half-written file still runs."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
