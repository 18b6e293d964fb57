"""Indexes of prompts for the commands: made of files or of a hub's data sets, opened, and closed again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gas.generation.prompts.index import PromptIndex

__all__ = ["hub_index", "index_files", "is_index", "opened_index"]


def index_files(origins: list[str]) -> list[str]:
    """The files that are meant by files and folders.

    Raises:
        typer.BadParameter: A folder holds none.
    """
    found = []
    for origin in origins:
        path = Path(origin)
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".txt")) if path.is_dir() else [path]
        if not inside:
            raise typer.BadParameter(f"{origin} has no .parquet and no .txt file.")
        found += [str(one.absolute()) for one in inside]
    return found


@contextmanager
def hub_index(
    names: list[str],
    revision: str,
    folder: str,
    column: str,
    out: Path,
    on_progress: Callable[[str, int], None] | None = None,
) -> Iterator[PromptIndex]:
    """Index data sets of a hub; connections to it stay open while the block runs.

    Args:
        names: Each ``owner/name``.
        revision: Branch, tag or commit; the main one when empty.
        folder: Only files whose path begins so.
        column: Of the texts; found by its name when empty.
        out: Where the index goes.
        on_progress: Told each file and the rows so far.

    Raises:
        ConfigurationError: There is no such data set, or nothing that can be indexed in it.
        gas.errors.SourceUnreachable: The hub does not answer.
    """
    from gas.datasets.sources.transfer import Patience
    from gas.generation.prompts.hub import WebPieces, hub_files
    from gas.generation.prompts.index import build_index

    addresses = [
        address for name in names for address in hub_files(name, Patience(), os.environ, revision, folder).addresses
    ]
    pieces = WebPieces(Patience(), os.environ)
    try:
        yield build_index(addresses, out, column=column, pieces=pieces, on_progress=on_progress)
    finally:
        pieces.close()


@contextmanager
def opened_index(origin: str, column: str, revision: str, folder: str, home: Path) -> Iterator[PromptIndex]:
    """An index that is there already, or a passing one of a file or a hub.

    Args:
        origin: An index, a file, or ``hub:OWNER/NAME``.
        column: As for :func:`hub_index`.
        revision: As for :func:`hub_index`.
        folder: As for :func:`hub_index`.
        home: Where a passing index is kept while the block runs.

    Raises:
        ConfigurationError: It can't be read, or can't be indexed.
        gas.errors.SourceUnreachable: The hub does not answer.
    """
    from gas.datasets.sources.transfer import Patience
    from gas.generation.prompts.hub import WebPieces
    from gas.generation.prompts.index import PromptIndex, build_index

    if not origin.startswith("hub:") and is_index(Path(origin)):
        index = PromptIndex(Path(origin))
        if not (index.files and index.files[0].path.startswith(("http://", "https://"))):
            yield index
            return
        pieces = WebPieces(Patience(), os.environ)
        try:
            yield PromptIndex(Path(origin), pieces)
        finally:
            pieces.close()
        return
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prompts-", dir=home) as scratch:
        target = Path(scratch, "index")
        if origin.startswith("hub:"):
            with hub_index([origin.removeprefix("hub:")], revision, folder, column, target) as index:
                yield index
        else:
            yield build_index(index_files([origin]), target, column=column)


def is_index(path: Path) -> bool:
    """Whether a file is an index of prompts.

    Raises:
        ConfigurationError: ``file_missing``.
    """
    from gas.errors import ConfigurationError

    try:
        with path.open("rb") as raw:
            return raw.read(8) == b"GASPRIX1"
    except IsADirectoryError:
        return False
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="file_missing") from error
