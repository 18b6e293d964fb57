"""``gascli g cert``: a certificate authority for tests and networks of one's own, and credentials under it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "new_command", "show_command"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Certificates to sign media with: new, show.")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("new")
def new_command(
    folder: Annotated[Path, typer.Argument(help="Folder for the certificates and keys.")] = Path("authority"),
    name: Annotated[str, typer.Option(help="File name of the signer's credential; a miner's is its wallet.")] = "miner",
    organisation: Annotated[str, typer.Option(help="Whom the credential names: media show it as their issuer.")] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the credential is valid.")] = 365,
    renew: Annotated[bool, typer.Option("--renew", help="Replace a credential of that name, with a new key.")] = False,
    as_json: _Json = False,
) -> None:
    """Make a test authority and a signing credential under it.

    A folder that holds an authority already is given one more credential; nothing is overwritten without --renew.
    Validators trust root.pem; real networks take certificates of real authorities instead.
    """
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError
    from gas.generation.signing import TestAuthority

    if not renew and (folder / f"{name}.pem").exists():
        raise ConfigurationError(
            f"There is a credential {name} in {folder} already.",
            code="certificate_exists",
            hint="Choose another --name, or replace it with --renew.",
        )
    fresh = not (folder / "root.pem").exists()
    authority = TestAuthority(folder, SystemClock())
    leaf = authority.leaf(name, organisation or name, days=days, renew=renew)
    files = {
        "anchor": str(folder / "root.pem"),
        "certificate": str(folder / f"{name}.pem"),
        "key": str(folder / f"{name}.key"),
    }
    until = _day(leaf.expires_at)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    **files,
                    "organisation": leaf.organisation,
                    "valid_until": until,
                    "new_authority": fresh,
                }
            )
        )
        return
    typer.echo(
        f"{'A new' if fresh else 'The'} test authority in {folder} issued {name} for {leaf.organisation!r}, "
        f"valid until {until}."
    )
    typer.echo(f"  validators trust   {files['anchor']}")
    typer.echo(f"  the signer needs   {files['certificate']} and {files['key']} (keep the key to yourself)")
    typer.echo(f"Sign a file with: gascli g sign-c2pa FILE --certificate {files['certificate']}")


@app.command("show")
def show_command(
    certificate: Annotated[Path, typer.Argument(help="A credential's .pem; its .key lies beside it.")],
    as_json: _Json = False,
) -> None:
    """Check a credential: dates, purpose, and whether the key belongs to it."""
    from gas.generation.signing import load_leaf_files

    leaf = load_leaf_files(certificate, certificate.with_suffix(".key"))
    until = _day(leaf.expires_at)
    if as_json:
        typer.echo(json.dumps({"organisation": leaf.organisation, "algorithm": leaf.algorithm, "valid_until": until}))
        return
    typer.echo(f"{certificate}: fit to sign media, for {leaf.organisation!r}, {leaf.algorithm}, valid until {until}.")


def _day(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC):%Y-%m-%d}"
