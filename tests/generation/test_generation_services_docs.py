"""The guide to hosted services: its example runs, and the service that it shows passes the suite as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gas.generation import services
from gas.generation.services.openai import OpenAISettings
from gas.generation.services.openrouter import OpenRouterSettings
from gas.generation.services.runway import RunwaySettings
from gas.generation.services.stabilityai import StabilitySettings

GUIDE = Path(__file__).parents[2] / "docs" / "services.md"
TEXT = GUIDE.read_text(encoding="utf-8")
TRY, SERVICE, TEST = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

_shown: dict[str, Any] = {"__name__": "shown_in_the_guide"}
exec(compile(TEST, str(GUIDE), "exec"), _shown)


class TestTheServiceOfTheGuide(_shown["TestAcme"]):  # type: ignore[misc]
    @pytest.fixture(autouse=True)
    def _put_it_into_its_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        folder = tmp_path / "services"
        folder.mkdir()
        (folder / "acme.py").write_text(SERVICE, encoding="utf-8")
        monkeypatch.setattr(services, "__path__", [*services.__path__, str(folder)])
        yield
        sys.modules.pop("gas.generation.services.acme", None)


def test_the_example_prints_what_the_guide_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GUIDE.parents[1])
    exec(compile(TRY, str(GUIDE), "exec"), {"__name__": "example"})
    said = re.search(r"^It prints `(.+)`\.$", TEXT, re.MULTILINE)
    assert said is not None
    assert capsys.readouterr().out.splitlines()[-1] == said[1]


@pytest.mark.parametrize("model", [OpenAISettings, OpenRouterSettings, StabilitySettings, RunwaySettings])
def test_every_variable_is_in_the_guide_with_its_default(model: Any) -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", TEXT, re.MULTILINE))
    for name, info in model.model_fields.items():
        assert name.upper() in rows
        default = info.default
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, float):
            default = f"{default:g}"
        if isinstance(default, str) and default:
            assert rows[name.upper()] == f"`{default}`", name


def test_every_service_is_in_the_guide() -> None:
    listed = re.findall(r"^\| `([a-z]+)` \| yes", TEXT, re.MULTILINE)
    assert sorted(listed) == list(services.service_names())
