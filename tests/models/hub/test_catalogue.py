"""The catalogue says what the real graphs say, and the guide says what the catalogue does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models.hub import CATALOGUE, PublishedModel
from models.hub.record import differences

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
PINNED = [model for model in CATALOGUE.values() if model.files]


def by_name(model: PublishedModel) -> str:
    return model.name


@pytest.mark.parametrize("model", PINNED, ids=by_name)
def test_what_is_known_is_so_of_the_real_graph_with_parameters(
    official: Callable[[str], Path], model: PublishedModel
) -> None:
    """The graphs are the publisher's; that parameters of their shapes take so many bytes is Paddle's doing."""
    folder = official(model.folder)
    assert set(model.files) == {"inference.pdmodel", "inference.pdiparams"}
    assert differences(folder, model.files) == []


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=by_name)
def test_addresses_are_https_and_end_in_the_folder_of_the_archive(model: PublishedModel) -> None:
    parts = urlsplit(model.url)
    assert (parts.scheme, parts.netloc) == ("https", "paddle-imagenet-models-name.bj.bcebos.com")
    assert parts.path.rpartition("/")[2] == f"{model.folder}.tar"
    assert model.at("http://mirror:8000/store/") == f"http://mirror:8000/store{parts.path}"


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=by_name)
def test_the_guide_has_each_model(model: PublishedModel) -> None:
    (row,) = re.findall(rf"^\| `{model.name}` \|(.*)\|$", PAGE, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    output = "boxes" if model.features is None else f"{model.features} features"
    size = "" if model.size_bytes is None else f"{model.size_bytes / 1e6:.1f} MB"
    assert cells == [model.title, f"{model.input_side} x {model.input_side}", output, size, model.licence]


def test_the_guide_has_no_other_model() -> None:
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE))
    assert named == {*CATALOGUE, "starter-hasher", "starter-detector"}
