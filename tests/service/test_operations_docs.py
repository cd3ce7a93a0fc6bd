"""``docs/operations.md`` says what the service does: its metrics, the fields of its log."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
_SUFFIXES = {"counter": "_total", "info": "_info"}


def test_the_metrics_are_those_that_are_exported() -> None:
    families = text_string_to_metric_families(Metrics().render().decode())
    exported = {
        family.name + ("" if family.name.endswith("_info") else _SUFFIXES.get(family.type, ""))
        for family in families
        if family.name.startswith("shitu_") and not family.name.endswith("_created")
    }
    documented = re.findall(r"^\| `(shitu_\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(exported)


def test_the_fields_of_the_example_are_explained() -> None:
    (example,) = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(re.findall(r'"(\w+)": ', example)) <= explained
