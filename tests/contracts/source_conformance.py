"""What every source of media must do, whatever it lies on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from gas.datasets.sources.base import RemoteFile, Source
from gas.datasets.sources.transfer import sidecar_of
from gas.errors import GasError, IntegrityError, StorageError

FILES = {
    "data/a.bin": bytes(range(256)) * 300,
    "data/b b+c%20ü.bin": b"small",
    "data/deep/er/c.bin": b"\x00" * 5000,
    "empty.bin": b"",
}


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes while the block runs."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Stage(Protocol):
    """Where a source finds files."""

    def open(self, revision: str = "") -> Source:
        """A fresh source on the stage."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Change or add a file after the fact."""
        ...

    def go_away(self) -> None:
        """Make everything unreachable."""
        ...


class SourceConformance:
    """Inherit it, and provide the fixture ``stage`` on which :data:`FILES` lie."""

    files: Mapping[str, bytes] = FILES
    large = "data/a.bin"

    @pytest.fixture
    def source(self, stage: Stage) -> Iterator[Source]:
        source = stage.open()
        yield source
        source.close()

    def find(self, source: Source, path: str) -> RemoteFile:
        return next(file for file in source.files() if file.path == path)

    def test_it_lists_every_file_by_path_with_what_it_knows(self, source: Source) -> None:
        listing = source.files()
        assert [file.path for file in listing] == sorted(self.files)
        for file in listing:
            assert file.size in (None, len(self.files[file.path]))
            assert file.sha256 or file.version, "nothing says which version this is"

    def test_files_come_byte_for_byte_and_leave_nothing_beside_them(self, source: Source, tmp_path: Path) -> None:
        for file in source.files():
            part = tmp_path / "out" / "x.part"
            heard: list[int] = []
            source.fetch(file, part, heard.append)
            assert part.read_bytes() == self.files[file.path]
            assert sum(heard) == len(self.files[file.path])
            assert [path.name for path in part.parent.iterdir()] == ["x.part"]
            part.unlink()

    def test_a_stopped_transfer_goes_on_where_it_stopped(self, stage: Stage, source: Source, tmp_path: Path) -> None:
        file, part = self.find(source, self.large), tmp_path / "a.part"

        def stop(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            source.fetch(file, part, stop)
        content, rest = self.files[self.large], 1000
        assert content.startswith(part.read_bytes())
        part.write_bytes(content[:rest])

        again = stage.open()
        heard: list[int] = []
        again.fetch(self.find(again, self.large), part, heard.append)
        again.close()
        assert part.read_bytes() == content
        assert sum(heard) == len(content) - rest

    def test_bytes_of_another_version_are_not_gone_on_with(self, stage: Stage, source: Source, tmp_path: Path) -> None:
        file, part = self.find(source, self.large), tmp_path / "a.part"

        def stop(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            source.fetch(file, part, stop)
        part.write_bytes(self.files[self.large][:1000])
        stage.replace(self.large, b"another" * 5000)
        again = stage.open()
        again.fetch(self.find(again, self.large), part)
        again.close()
        assert part.read_bytes() == b"another" * 5000

    def test_bytes_that_nobody_vouches_for_are_not_gone_on_with(self, source: Source, tmp_path: Path) -> None:
        part = tmp_path / "a.part"
        part.write_bytes(b"from somewhere else")
        source.fetch(self.find(source, self.large), part)
        assert part.read_bytes() == self.files[self.large]

    def test_a_file_that_is_replaced_after_the_listing_is_never_taken_for_the_other(
        self, stage: Stage, source: Source, tmp_path: Path
    ) -> None:
        file, part = self.find(source, self.large), tmp_path / "a.part"
        stage.replace(self.large, b"another" * 5000)
        with pytest.raises(IntegrityError):
            source.fetch(file, part)
        assert not part.exists()
        assert not sidecar_of(part).exists()

    def test_the_revision_stays_as_long_as_the_files_do_and_can_be_pinned(self, stage: Stage) -> None:
        first, second = stage.open(), stage.open()
        revision = first.revision
        assert revision == second.revision
        assert len(revision) in (40, 64)
        pinned = stage.open(revision)
        assert [file.path for file in pinned.files()] == sorted(self.files)
        for source in (first, second, pinned):
            source.close()

    def test_several_threads_fetch_at_once(self, source: Source, tmp_path: Path) -> None:
        source.files()
        done: dict[str, bytes] = {}
        failed: list[GasError] = []

        def work(number: int, file: RemoteFile) -> None:
            part = tmp_path / f"{number}.part"
            try:
                source.fetch(file, part)
                done[f"{number}/{file.path}"] = part.read_bytes()
            except GasError as error:
                failed.append(error)

        threads = [
            threading.Thread(target=work, args=(number, file)) for number, file in enumerate([*source.files()] * 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(done) == len(threads)
        assert all(data == self.files[key.partition("/")[2]] for key, data in done.items())

    def test_a_path_that_leads_out_is_never_asked_for(self, source: Source, tmp_path: Path) -> None:
        for path in ("../secret", "/etc/passwd", "a/../../b"):
            with pytest.raises(GasError):
                source.fetch(RemoteFile(path, None, None, "1"), tmp_path / "x.part")

    def test_a_full_disk_is_a_storage_error(self, source: Source, tmp_path: Path) -> None:
        file = self.find(source, self.large)
        with small_disk(20_000), pytest.raises(StorageError):
            source.fetch(file, tmp_path / "x.part")

    def test_what_can_not_be_reached_is_a_typed_error(self, stage: Stage, tmp_path: Path) -> None:
        source = stage.open()
        file = self.find(source, self.large)
        source.close()
        stage.go_away()
        with pytest.raises(GasError):
            stage.open().files()
        with pytest.raises(GasError):
            source.fetch(file, tmp_path / "x.part")
