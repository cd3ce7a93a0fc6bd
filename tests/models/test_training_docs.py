"""``docs/training.md`` says what the code does: every key of a configuration, and commands and files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from models import eval as evaluation
from models import export, recommend, train
from models.losses import LOSSES
from models.nets import NETS
from models.training import config_file
from models.training.config_file import arch, data, detection, general, load_config, schedule
from models.training.config_file.fields import settings_of
from models.training.data.datasets import SOURCES
from models.training.data.operators import OPS
from models.training.data.samplers import SAMPLERS
from models.training.optimizer import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text("utf-8") for name in ("docs/training.md", "docs/detection.md", "README.md")}
GUIDE = PAGES["docs/training.md"]
REFERENCE = GUIDE.partition("## Every key")[2].partition("## Coming from")[0]
SECTIONS = [
    config_file._SECTIONS,
    config_file._GLOBAL,
    general._AMP,
    general._EMA,
    arch._ARCH,
    arch._WEIGHTS,
    arch._SIZES,
    arch._LOSS,
    schedule._OPTIMIZER,
    *schedule._OF_OPTIMIZER.values(),
    schedule._SCHEDULE,
    *schedule._OF_SCHEDULE.values(),
    schedule._STAGE,
    data._SOURCE,
    *data._OF_SOURCE.values(),
    data._SAMPLER,
    data._PK_SAMPLER,
    data._LOADER,
    data._THREADS,
    data._METRICS,
    *data._METRICS.values(),
    *(dict.fromkeys(keys) for _, keys in SOURCES.values()),
    *(dict.fromkeys(operator.keys) for operator in OPS.values()),
    *(settings_of(loss) for loss in LOSSES.values()),
    *(settings_of(net) for name, net in NETS.items() if name not in arch.DETECTORS),
]
OF_DETECTORS = PAGES["docs/detection.md"].partition("## Every key")[2].partition("## Limits")[0]
DETECTOR_SECTIONS = [
    detection._TRAIN,
    detection._LOSSES,
    detection._SOURCES,
    *(readers for _, readers, _ in detection._SOURCES.values()),
    *(settings_of(NETS[name], without=("first_block",)) for name in arch.DETECTORS),
    dict.fromkeys(("image_shape", "pretrained")),
]
NAMES = (*LOSSES, *OPTIMIZERS, *SCHEDULES, *SAMPLERS, *SOURCES, *OPS, *arch.NECKS, *arch.HEADS)
COMMANDS = {"train": train, "eval": evaluation, "export": export, "recommend": recommend}


@pytest.mark.parametrize("key", sorted({key for section in SECTIONS for key in section} - {"Train", "Eval"}))
def test_every_key_is_documented(key: str) -> None:
    assert re.search(rf"[`.*]{key}\b", REFERENCE), f"{key} is not in the reference"


@pytest.mark.parametrize("key", sorted({key for section in DETECTOR_SECTIONS for key in section}))
def test_every_key_of_a_detector_is_documented(key: str) -> None:
    assert re.search(rf"[`.]{key}\b", OF_DETECTORS), f"{key} is not in the reference"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented(name: str) -> None:
    assert f"`{name}`" in REFERENCE or f"{name} " in REFERENCE


@pytest.mark.parametrize("name", arch.BACKBONES)
def test_every_backbone_is_documented(name: str) -> None:
    assert f"`{name.removesuffix('_Tanh')}`" in REFERENCE  # each PPLCNet "also with `_Tanh`"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    folder = (ROOT / page).parent
    linked = re.findall(r"(?<!!)\[[^\]]*\]\((?!https?:|#)([^)#]+)", PAGES[page])
    named = re.findall(r"(?:models|benchmarks|docs)/[\w/]+\.(?:py|yaml|md)", PAGES[page])
    assert linked
    assert named
    missing = [name for name in linked if not (folder / name).exists()]
    assert not missing + [name for name in named if not (ROOT / name).is_file()]


def test_links_within_the_guide_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= anchors


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_shown_are_there(page: str) -> None:
    text = re.sub(r"\\\n\s*", " ", PAGES[page])
    shown = re.findall(r"-m models\.(train|eval|export|recommend)\b([^\n#&)]*)", text)
    assert shown
    for name, rest in shown:
        app = typer.Typer()
        app.command()(COMMANDS[name].main)
        described = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", rest):
            assert option in described, f"{name} {option}"


def test_the_overrides_of_the_quick_start_can_be_used() -> None:
    (array,) = re.findall(r"^tiny=\((.*?)\)$", GUIDE, re.MULTILINE | re.DOTALL)
    (path,) = re.findall(r"-c (\S+)", array)
    config = load_config(ROOT / path, re.findall(r"-o (\S+)", array))
    assert (config.stages[0].epochs, config.arch.pretrained) == (2, False)
