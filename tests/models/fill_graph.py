"""Give an official graph deterministic parameters: ``python fill_graph.py inference.pdmodel TARGET_FOLDER``.

A script of its own, because the legacy graph format needs Paddle's old IR, chosen by a flag before the import.
Run twice it writes the same bytes.
"""

import os
import sys
import zlib
from pathlib import Path

os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112 (the name is Paddle's)

import numpy as np
import paddle
from paddle.static.io import _serialize_persistables


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He-normal weights, batch norms that do nothing, no biases."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if len(shape) == 2:
        return rng.standard_normal(shape) / np.sqrt(shape[0])
    return np.zeros(shape) if name.endswith(("_mean", "_1", "b_0")) else np.ones(shape)


def main(graph: Path, target: Path) -> None:
    """Write ``inference.pdmodel`` and ``inference.pdiparams``."""
    paddle.enable_static()
    program = paddle.static.deserialize_program(graph.read_bytes())
    scope = paddle.static.global_scope()
    for variable in program.list_vars():
        if variable.persistable and variable.name not in ("feed", "fetch"):
            value = draw(variable.name, tuple(variable.shape)).astype(np.float32)
            scope.var(variable.name).get_tensor().set(value, paddle.CPUPlace())
    executor = paddle.static.Executor(paddle.CPUPlace())
    target.mkdir(parents=True, exist_ok=True)
    (target / "inference.pdiparams").write_bytes(_serialize_persistables(program, executor))
    (target / "inference.pdmodel").write_bytes(graph.read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
