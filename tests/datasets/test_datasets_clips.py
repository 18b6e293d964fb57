from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gas.datasets.clips import count_windows, encode_avi, windows
from gas.errors import MediaRejected


@pytest.mark.parametrize(("frames", "there"), [(11, 2), (10, 2), (9, 1), (4, 0)])
def test_as_many_windows_are_counted_as_can_be_cut(frames: int, there: int) -> None:
    clip = encode_avi([np.full((32, 48, 3), 8 * k, np.uint8) for k in range(frames)], Fraction(10), quality=4)
    assert count_windows(clip, "avi", frames=5) == there
    assert len(list(windows(clip, "avi", frames=5, most=9))) == there


def test_a_broken_recording_has_no_windows() -> None:
    with pytest.raises(MediaRejected):
        count_windows(b"RIFF....AVI nothing", "avi", frames=5)
