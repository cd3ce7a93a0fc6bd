"""From a decoded picture to the network's input: PaddleClas's ``transform_ops``, the random ones included.

What a server must do is the deterministic part, :attr:`Transforms.preprocessing`: a random crop becomes a plain resize
to its size, and flips vanish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference import Preprocessing

from ..config import ConfigError
from .augment import Image
from .operators import OPS, Op, only, read_preprocessing

Tensor = npt.NDArray[np.float32]


class Transforms:
    """A ``transform_ops`` list, ready to run. Threads may share one.

    Attributes:
        preprocessing: the deterministic part, which a server does and an export writes down.
        size: (height, width) of the result, in pixels.
        is_random: whether two calls may differ.
    """

    def __init__(self, ops: Sequence[Op], preprocessing: Preprocessing, is_random: bool) -> None:
        """See :meth:`from_ops`."""
        size = preprocessing.input_size
        if size is None:
            raise ConfigError("transform_ops: the size of the result is not fixed")
        self.preprocessing = preprocessing
        self.size = size
        self.is_random = is_random
        self._ops = tuple(ops)
        self._normalize = replace(preprocessing, size=size, resize_short=None, crop=None)

    @classmethod
    def from_ops(cls, ops: Sequence[Mapping[str, Any]]) -> Transforms:
        """Read a list of one-key maps; the names are those of :data:`models.training.data.operators.OPS`.

        Raises:
            ConfigError: an operator or one of its keys is unknown, has an unusable value, or stands where it cannot.
            DatasetError: a list of backgrounds, or a picture in it, is missing.
        """
        named = _read(ops)
        built = [OPS[name].build(arguments) for name, arguments in named]
        is_random = any(OPS[name].draws for name, _ in named)
        return cls([op for op in built if op is not None], _served(named), is_random)

    def __call__(self, image: Image, rng: np.random.Generator | None = None) -> Tensor:
        """Turn one picture into the network's input.

        Args:
            image: RGB uint8 (H, W, 3); it is not written to.
            rng: all randomness comes from here; None does the deterministic part.

        Returns:
            float32 (3, height, width).

        Raises:
            ModelInvalid: a CropImage is larger than the picture.
        """
        if rng is None or not self.is_random:
            return self.preprocessing(image)
        for op in self._ops:
            image = op(image, rng)
        return self._normalize(image)


def served_preprocessing(ops: Sequence[Mapping[str, Any]]) -> Preprocessing:
    """Read what a server must do from a ``transform_ops`` list, without opening files that random operators name.

    Raises:
        ConfigError: as :meth:`Transforms.from_ops`.
    """
    return _served(_read(ops))


def _served(named: Sequence[tuple[str, dict[str, Any]]]) -> Preprocessing:
    served: list[Mapping[str, Any]] = []
    for name, arguments in named:
        if OPS[name].fixes_size:
            served = [{"ResizeImage": only(arguments, "size", "interpolation")}]
        elif name in ("ResizeImage", "CropImage", "NormalizeImage"):
            served.append({name: arguments})
    geometry = [name for entry in served for name in entry if name != "NormalizeImage"]
    if geometry not in (["ResizeImage"], ["CropImage"], ["ResizeImage", "CropImage"]):
        raise ConfigError(
            "transform_ops: what is served must be one ResizeImage, perhaps one CropImage after it; here it is "
            + (", ".join(geometry) or "neither")
        )
    return read_preprocessing(served)


def _read(ops: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    named = [_named(entry) for entry in ops]
    _check_order([name for name, _ in named])
    return named


def _named(entry: object) -> tuple[str, dict[str, Any]]:
    """Take a one-key map apart; keys without a value count as absent."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"transform_ops: an operator is a map with one key, its name, not {entry!r}")
    ((name, arguments),) = entry.items()
    if name not in OPS:
        raise ConfigError(f"transform_ops: no operator is called {name!r}; there are {', '.join(OPS)}")
    if not isinstance(arguments or {}, Mapping):
        raise ConfigError(f"transform_ops: {name}: its arguments must be a map, not {arguments!r}")
    known = OPS[name].keys
    if unknown := [str(key) for key in arguments or {} if key not in known]:
        raise ConfigError(
            f"transform_ops: {name}: unknown key(s) {', '.join(unknown)}; it knows {', '.join(known) or 'none'}"
        )
    return str(name), {key: value for key, value in (arguments or {}).items() if value is not None}


def _check_order(names: Sequence[str]) -> None:
    if names.count("NormalizeImage") != 1:
        raise ConfigError("transform_ops: NormalizeImage (scale, mean, std) must be there once")
    if misplaced := set(names[names.index("NormalizeImage") + 1 :]) - {"ToCHWImage"}:
        raise ConfigError(f"transform_ops: after NormalizeImage only ToCHWImage may come, not {', '.join(misplaced)}")
    if "ToCHWImage" in names[:-1]:
        raise ConfigError("transform_ops: ToCHWImage must be the last")
    if "DecodeImage" in names[1:]:
        raise ConfigError("transform_ops: DecodeImage must be the first")
