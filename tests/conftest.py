"""What tests of several packages use: the reference data beside the project, and official graphs with parameters."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FILL_GRAPH = Path(__file__).parent / "models" / "fill_graph.py"


@pytest.fixture(scope="session", autouse=True)
def heed_ctrl_c() -> Iterator[None]:
    """Let the processes that tests start end at Ctrl-C, which all ignore that run in the background of a shell."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the project; the test skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("the reference data (../shared) is not here")
    return folder


@pytest.fixture(scope="session")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of an official PP-ShiTu export, by a part of its name, with deterministic parameters filled in."""
    base = tmp_path_factory.mktemp("official")

    def fill(part: str) -> Path:
        (graph,) = (shared / "data" / "official_graphs").glob(f"*{part}*/inference.pdmodel")
        target = base / graph.parent.name
        if not target.exists():
            subprocess.run([sys.executable, "-W", "ignore", FILL_GRAPH, graph, target], check=True, capture_output=True)
            for extra in graph.parent.glob("*.yml"):
                shutil.copy(extra, target)
        return target

    return fill


@pytest.fixture(scope="session")
def export_detector(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Write a Paddle layer of (image, im_shape, scale_factor) as a detector under PP-ShiTu's export contract."""

    def export(network: Any) -> Path:
        import paddle

        folder = tmp_path_factory.mktemp("models") / "detector"
        shapes = {"image": [None, 3, 640, 640], "im_shape": [None, 2], "scale_factor": [None, 2]}
        spec = [paddle.static.InputSpec(shape, "float32", name) for name, shape in shapes.items()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Paddle warns about its own defaults
            paddle.jit.save(paddle.jit.to_static(network, input_spec=spec, full_graph=True), str(folder / "inference"))
        return folder

    return export


@pytest.fixture(scope="session")
def constant_detector(export_detector: Callable[[Any], Path]) -> Callable[[np.ndarray], Path]:
    """A detector that puts out the same array for every picture, whatever its shape and dtype."""

    def export(output: np.ndarray) -> Path:
        import paddle

        paddle.disable_static()  # dynamic mode is a thread's own; a server's thread may have imported Paddle first

        class Constant(paddle.nn.Layer):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                shape = [max(1, side) for side in output.shape]
                self.rows = self.create_parameter(shape, dtype=str(output.dtype))
                self.present = self.create_parameter(shape[:1])  # Paddle cannot slice a constant down to nothing
                self.present.set_value(np.full(shape[0], float(output.size > 0), np.float32))
                if output.size:
                    self.rows.set_value(output)

            def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
                # Exports keep only used inputs. (No means: Paddle tells standard output about each.)
                nothing = 0 * (image[0, 0, 0, 0] + im_shape[0, 0] + scale_factor[0, 0])
                rows = self.rows + nothing.astype(self.rows.dtype)
                present = paddle.nonzero(self.present > nothing).reshape([-1])
                return paddle.gather(rows, present), paddle.full([1], len(output), "int32")

        return export_detector(Constant())

    return export
