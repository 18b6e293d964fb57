"""What ``gascli doctor`` says about the sandbox."""

from __future__ import annotations

__all__ = ["sandbox_report"]


def sandbox_report() -> list[dict[str, object]]:
    """Probe the ladder of isolation.

    Returns:
        One entry for the rung in force and one for each rung above it, strongest first: ``name`` (of the rung),
        ``ok`` (whether it holds), ``detail`` (one sentence) and ``hint`` (what to do; may be empty).
    """
    from gas.sandbox.base import Tier
    from gas.sandbox.probe import probe

    found = probe()
    report: list[dict[str, object]] = [
        {
            "name": tier.name,
            "ok": False,
            "detail": found.reasons.get(tier, "Not tried."),
            "hint": found.remedies.get(tier, ""),
        }
        for tier in sorted(Tier, reverse=True)
        if tier > found.tier
    ]
    detail = {
        Tier.PLAIN: "Models run as ordinary processes; only your own may run here (--trust-model).",
        Tier.NAMESPACES: "Strangers' models run in name spaces of our own making.",
        Tier.NAMESPACES_CGROUP: "Strangers' models run in name spaces of our own making and control groups.",
        Tier.BUBBLEWRAP: f"Strangers' models run in bubblewrap ({found.executable}).",
        Tier.BUBBLEWRAP_CGROUP: f"Strangers' models run in bubblewrap ({found.executable}) and control groups.",
    }[found.tier]
    report.append({"name": found.tier.name, "ok": found.tier > Tier.PLAIN, "detail": detail, "hint": ""})
    return report
