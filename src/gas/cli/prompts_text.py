"""What ``gascli validator prompts`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gas.generation.prompts.diversity import Diversity
    from gas.generation.prompts.quality import GateCounts
    from gas.validator.prompts import BankPrompt

__all__ = ["print_counts", "print_diversity", "print_prompt"]

_BAR: Final = 40


def print_counts(counts: GateCounts) -> None:
    """How many were taken, and what stopped the others."""
    typer.echo(f"{counts.taken:,} taken, {counts.refused.total():,} refused.")
    for code, count in counts.refused.most_common():
        typer.echo(f"  {count:>7,}  {code}")


def print_prompt(prompt: BankPrompt) -> None:
    """One line."""
    kind = f"{prompt.modality.value} {prompt.register.value} {prompt.length.value}"
    typer.echo(f"{prompt.id:>6}  {prompt.times_used:>3} x  {kind:32} {prompt.text}")


def print_diversity(found: Diversity) -> None:
    """The report for people."""
    typer.echo(f"{found.count:,} prompts, {found.words:,} words ({found.mean_words:.1f} each)")
    for title, counts in (
        ("modality", found.by_modality),
        ("length", found.by_length),
        ("register", found.by_register),
        ("source", found.by_source),
    ):
        _print_shares(title, counts, found.count)
    distinct = "  ".join(f"{n}: {share:.3f}" for n, share in found.distinct.items())
    opening = found.same_opening
    typer.echo("")
    typer.echo(f"different words       {found.vocabulary:,} (type-token ratio {found.type_token_ratio:.3f})")
    typer.echo(f"different n-grams     {distinct}")
    typer.echo(f"self-BLEU             {found.self_bleu:.3f} (1: all pieces are found in others)")
    typer.echo(f'most common opening   {opening["share"]:.1%} begin with "{opening["words"]}"')
    typer.echo(f"kinds covered         {found.cells} of {found.possible_cells} (modality, register, length)")
    typer.echo(f"evenness of registers {found.register_evenness:.3f}")
    typer.echo(f"mean cosine of pairs  {found.mean_similarity:.3f} ({found.embedder})")
    typer.echo(f"mean nearest cosine   {found.mean_nearest:.3f}")
    typer.echo(f"near repeats          {found.near_repeats:,} (cosine from {found.threshold:g})")
    typer.echo("\ncosine to the nearest other prompt")
    most = max([*found.nearest_histogram, 1])
    for at, count in enumerate(found.nearest_histogram):
        if count:
            bar = "#" * max(1, round(_BAR * count / most))
            typer.echo(f"  {at / 20:.2f}-{(at + 1) / 20:.2f}  {count:>6,}  {bar}")
    typer.echo("\nnearest pairs")
    for pair in found.nearest_pairs[:3]:
        typer.echo(f"  {float(str(pair['similarity'])):.3f}  {pair['one']}\n         {pair['other']}")


def _print_shares(title: str, counts: Mapping[str, int], total: int) -> None:
    typer.echo(f"\n{title}")
    for name, count in counts.items():
        typer.echo(f"  {name:22} {count:>6,}  {count / total:6.1%}")
