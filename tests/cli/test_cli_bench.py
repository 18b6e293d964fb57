"""``gascli d bench``: the options of ``gasbench run``, and ``--round`` for a frozen round."""

from __future__ import annotations

from pathlib import Path

import pytest

from gas.cli.main import main
from gas.submissions import scaffold
from gas.types import Modality


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--small", "--full"], "small or full, not both"),
        (["--audio-model", "x", "--debug", "--full"], "debug or full, not both"),
        (["--round", "nowhere"], "no complete round"),
    ],
)
def test_a_package_is_benchmarked_on_own_data_or_on_a_frozen_round(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaffold.create(tmp_path / "mine", "mine", Modality.AUDIO)
    with pytest.raises(SystemExit):
        main(["d", "bench", str(tmp_path / "mine"), *words])
    assert said in capsys.readouterr().err
