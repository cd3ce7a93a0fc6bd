"""``docs/settings.md`` says what the code does: every setting with its default, every key of PP-ShiTu."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.inference import STARTER_DETECTOR
from service import config_file
from service.settings import _FILE_ONLY, Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
FIELDS = {name: field for name, field in Settings.model_fields.items() if name not in _FILE_ONLY}


def documented_settings() -> dict[str, tuple[str, str]]:
    """Default and meaning by variable, out of the table."""
    rows = [
        re.split(r"\s*(?<!\\)\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| `SHITU_")
    ]
    return {variable.strip("`"): (default, meaning) for variable, default, meaning in rows}


def shown(name: str) -> str:
    """A default as the table writes it."""
    value: Any = STARTER_DETECTOR if name == "detector_dir" else FIELDS[name].default
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(ROOT)
    return "`" + str(value).replace("\t", "\\t") + "`"


def test_no_setting_is_documented_that_is_not_there() -> None:
    assert set(documented_settings()) == {"SHITU_CONFIG", *(f"SHITU_{name.upper()}" for name in FIELDS)}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    default, meaning = documented_settings()[f"SHITU_{name.upper()}"]
    assert default == shown(name)
    assert (FIELDS[name].description or "?") in meaning


def keys_of_ppshitu() -> list[str]:
    sections = {
        "Global": config_file._GLOBAL,
        "RecPostProcess": config_file._REC_POSTPROCESS,
        "IndexProcess": config_file._INDEX,
    }
    dotted = [f"{section}.{key}" for section, keys in sections.items() for key in keys]
    return [*dotted, *(section for section in config_file._SECTIONS if section not in sections)]


@pytest.mark.parametrize("key", keys_of_ppshitu())
def test_every_key_of_ppshitu_is_documented(key: str) -> None:
    assert re.search(rf"^\|.*`{re.escape(key)}(\.transform_ops)?`.*\|.*\|$", PAGE, re.MULTILINE)


def test_no_key_is_documented_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    for section, key in re.findall(r"`(Global|IndexProcess|RecPostProcess)\.(\w+)`", PAGE):
        path.write_text(f"{section}:\n  {key}: []\n", encoding="utf-8")
        problems = config_file.read_config(path, frozenset()).problems
        assert not any("is not a key" in problem for problem in problems), problems


def test_the_example_can_be_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "shitu.yaml"
    path.write_text(example, encoding="utf-8")
    settings = Settings.load(path)
    assert (settings.port, settings.keep_images, settings.binarize) == (9000, True, "round")
    monkeypatch.setenv("SHITU_PORT", "9001")
    assert Settings.load(path).port == 9001
    assert Settings.load(path, port=9002).port == 9002
