"""What compose mounts and passes on names settings and metrics that the service has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from service.settings import Settings

ROOT = Path(__file__).parents[2]
SETTINGS = {f"SHITU_{name.upper()}" for name in Settings.model_fields} | {"SHITU_CONFIG"}
_METRIC = re.compile(r"\b(?:shitu|process|python)_[a-z0-9_]+\b")
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",), "info": ("_info",)}


def compose() -> dict[str, dict[str, object]]:
    services: dict[str, dict[str, object]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))[
        "services"
    ]
    return services


def queries() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/shitu.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    alerts = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text("utf-8"))
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Every name that the service exports, whether or not anything has been counted."""
    families = text_string_to_metric_families(Metrics().render().decode())
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


@pytest.mark.parametrize(("place", "query"), list(queries()))
def test_every_query_of_dashboard_and_alerts_asks_for_exported_names(
    place: str, query: str, exported: set[str]
) -> None:
    names = set(_METRIC.findall(query)) - {"process"}
    assert names or "up{" in query
    assert names - exported == set()


@pytest.mark.parametrize("service", ["shitu", "shitu-gpu"])
def test_compose_passes_on_settings_that_exist(service: str) -> None:
    environment = compose()[service]["environment"]
    assert isinstance(environment, dict)
    assert set(environment) - SETTINGS == set()


def test_compose_unsets_nothing_that_the_image_sets() -> None:
    """A variable without a value in the compose file takes the image's away."""
    environment = compose()["shitu"]["environment"]
    assert isinstance(environment, dict)
    passed_on = {name for name, value in environment.items() if value is None}
    text = "".join((ROOT / "docker" / name).read_text("utf-8") for name in ("Dockerfile", "Dockerfile.gpu"))
    assert passed_on & set(re.findall(r"\b(SHITU_\w+)=", text)) == set()


def test_compose_has_no_variable_of_its_own_that_looks_like_a_setting() -> None:
    """The service refuses a SHITU_* variable that it does not know, also where it is exported for compose."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert set(re.findall(r"\$\{(SHITU_\w+)", text)) - SETTINGS == set()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_images_set_settings_that_exist(name: str) -> None:
    text = (ROOT / "docker" / name).read_text("utf-8")
    assert set(re.findall(r"\b(SHITU_\w+)=", text)) - SETTINGS == set()


def test_both_images_are_built_and_run_alike() -> None:
    """They part in how Python and Paddle come in, and in the device."""
    tails = []
    for name in ("Dockerfile", "Dockerfile.gpu"):
        text = (ROOT / "docker" / name).read_text("utf-8")
        tail = text[text.index(" && groupadd") if name == "Dockerfile" else text.index("groupadd") - 4 :]
        tails.append(tail[tail.index("groupadd") :].replace(" \\\n    SHITU_DEVICE=gpu", ""))
    assert re.sub("start-period=\\d+s", "", tails[0]) == re.sub("start-period=\\d+s", "", tails[1])
