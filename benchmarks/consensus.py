"""How long one epoch takes, and how that grows: ``python benchmarks/consensus.py``."""

from __future__ import annotations

import time

import numpy as np

from gas.scoring.consensus import EpochInputs, SparseRows, run_epoch

SIZES = ((64, 256), (256, 1024), (256, 4096))
MODES = {"yuma2": (False, False), "yuma3": (True, False), "liquid": (True, True)}


def full_epoch(validators: int, neurons: int, *, yuma3: bool, liquid_alpha: bool, seed: int = 0) -> EpochInputs:
    """The worst case: every validator has weights and bonds on every neuron."""
    rng = np.random.default_rng(seed)
    shape = (validators, neurons)
    stake = np.zeros(neurons, dtype=np.int64)
    stake[:validators] = rng.integers(10**9, 10**13, validators)
    return EpochInputs(
        n=neurons,
        stake_raw=stake,
        min_stake=1000,
        weights=SparseRows.from_dense(rng.integers(1, 65536, shape)),
        bonds=SparseRows.from_dense(rng.integers(1, 65536, shape)),
        last_update=np.full(neurons, 990),
        block_at_registration=np.zeros(neurons, dtype=np.int64),
        permit=np.arange(neurons) < validators,
        block=1000,
        tempo=360,
        activity_cutoff=5000,
        kappa=32767,
        bonds_moving_avg=900_000,
        bonds_penalty=30_000,
        max_allowed_validators=validators,
        owner_uid=0,
        yuma3=yuma3,
        liquid_alpha=liquid_alpha,
        alpha_values=(45875, 58982),
        alpha_sigmoid_steepness=1000,
    )


def seconds(inputs: EpochInputs, repeats: int = 5) -> float:
    """Best of several runs, in CPU seconds of one core."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        run_epoch(inputs)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """Print one line a size and rule, with the growth from the size before."""
    print(f"{'rule':8}{'validators':>11}{'neurons':>9}{'ms':>9}{'pairs x':>9}{'time x':>8}")
    for name, (yuma3, liquid_alpha) in MODES.items():
        before: tuple[int, float] | None = None
        for validators, neurons in SIZES:
            took = seconds(full_epoch(validators, neurons, yuma3=yuma3, liquid_alpha=liquid_alpha))
            growth = f"{validators * neurons / before[0]:9.1f}{took / before[1]:8.1f}" if before else ""
            print(f"{name:8}{validators:11}{neurons:9}{took * 1000:9.1f}{growth}")
            before = validators * neurons, took


if __name__ == "__main__":
    main()
