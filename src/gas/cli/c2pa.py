"""``gascli g sign-c2pa`` and ``gascli g verify-c2pa``: content credentials of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from gas.verification.inspection import Inspection

__all__ = ["sign_command", "verify_command"]

_MOST_BYTES: Final = 256 * 1024 * 1024
_MEANS: Final = {
    "Trusted": "the credentials are right, and signed by somebody whom the anchors vouch for",
    "Valid": "the credentials are right, but nobody given vouches for the signer",
    "Invalid": "the credentials are damaged, or don't belong to this file",
    "None": "the file carries no content credentials",
}
_SOURCE_PREFIX: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def sign_command(
    file: Annotated[Path, typer.Argument(help="PNG, JPEG, WebP, GIF, MP4, WAV, MP3 or FLAC.")],
    certificate: Annotated[
        Path, typer.Option(help="The signer's certificate (chain) in PEM; its key lies beside it as .key, or is --key.")
    ] = Path("authority/miner.pem"),
    key: Annotated[Path | None, typer.Option(help="The certificate's private key in PEM.")] = None,
    model: Annotated[str, typer.Option(help="Name of the model that made the medium.")] = "unnamed model",
    title: Annotated[str, typer.Option(help="Title of the manifest; the file's name by default.")] = "",
    semisynthetic: Annotated[
        bool, typer.Option("--semisynthetic", help="Declare that a model changed a part of a real medium.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to; NAME.signed.EXT by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Embed content credentials (C2PA) that say "made by a trained model", signed by a certificate."""
    from gas.errors import ConfigurationError
    from gas.generation.signing import load_leaf_files, sign_medium
    from gas.types import MediaType
    from gas.verification.inspection import signed_type

    leaf = load_leaf_files(certificate, key or certificate.with_suffix(".key"))
    data = _read(file)
    mime = signed_type(data)
    target = out or file.with_name(f"{file.stem}.signed{file.suffix}")
    if target.exists() and target.resolve() == file.resolve():
        raise ConfigurationError("A file is not signed in its own place.", hint="Give another file with --out.")
    media_type = MediaType.SEMISYNTHETIC if semisynthetic else MediaType.SYNTHETIC
    signed = sign_medium(data, mime, leaf, title=title or file.name, model=model, media_type=media_type)
    aside = target.with_name(f"{target.name}.new")
    try:
        aside.write_bytes(signed)
        aside.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{target} could not be written ({error.strerror}).", code="not_written") from error
    if as_json:
        typer.echo(json.dumps({"file": str(target), "mime": mime, "bytes": len(signed), "issuer": leaf.organisation}))
        return
    typer.echo(f"{target}: {mime}, {len(signed):,} bytes, signed by {leaf.organisation!r} with {leaf.algorithm}.")


def verify_command(
    file: Annotated[Path, typer.Argument(help="The medium.")],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Certificates (PEM) whose signers to trust, e.g. authority/root.pem."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also the signer, and each check.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a file's content credentials (C2PA), without asking anybody.

    Exit status: 0 trusted, 1 not trusted (valid by somebody unknown, invalid, or none), 2 could not be checked.
    """
    from gas.errors import GasError
    from gas.verification.inspection import State, inspect_credentials

    try:
        found = inspect_credentials(_read(file), None if trust is None else _read(trust))
    except GasError as error:
        if as_json:
            typer.echo(json.dumps({"file": str(file), "error": error.as_dict()}))
        typer.echo(f"{file}: could not be checked. {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps({"file": str(file), **found.as_dict()}))
    else:
        _print(file, found, trust is not None, verbose)
    raise typer.Exit(0 if found.state is State.TRUSTED else 1)


def _print(file: Path, found: Inspection, has_anchors: bool, verbose: bool) -> None:
    typer.echo(f"{file}: {found.state.value} - {_MEANS[found.state.value]}.")
    declared = found.source_type.removeprefix(_SOURCE_PREFIX)
    rows = [("issuer", found.issuer), ("model", found.model), ("made", found.made_at), ("declared as", declared)]
    if verbose:
        rows += [
            ("type", found.mime),
            ("title", found.title),
            ("signer", found.signer),
            ("algorithm", found.algorithm),
            ("time stamp", found.stamped_at or "none: when it was made is the signer's word only"),
        ]
    if found.state.value != "None":
        for name, value in rows:
            typer.echo(f"  {name:12} {value or '-'}")
    for reason in found.reasons:
        typer.echo(f"  {'why':12} {reason}")
    if verbose:
        for code in found.checks:
            typer.echo(f"  {'passed':12} {code}")
    if found.state.value == "Valid" and not has_anchors:
        typer.echo("Name the certificates that you trust with --trust PEM.")


def _read(path: Path) -> bytes:
    from gas.errors import ConfigurationError

    try:
        if not path.is_file():
            raise ConfigurationError(f"There is no file {path}.", code="file_missing")
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB.", code="file_too_large")
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="file_unreadable") from error
