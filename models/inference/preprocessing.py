"""PP-ShiTu's picture preprocessing: from upright RGB bytes to the network's input tensor.

The vocabulary is that of ``inference_general_binary.yaml`` (``RecPreProcess``, ``DetPreProcess``): a list of
one-key maps under ``transform_ops``. The two pipelines there, and every pipeline this module accepts, are
*resize, perhaps crop, normalize, to CHW*, so they are kept as one frozen :class:`Preprocessing` and run in two
passes over the pixels instead of one an operator. Results equal the reference's within 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .errors import ModelInvalid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IGNORED_OPS = frozenset({"ToCHWImage", "DetPermute", "Permute"})  # the output is always CHW

Image = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, perhaps crop, normalize, CHW.

    Attributes:
        size: (height, width) in pixels that the picture is resized to without keeping its ratio; or None.
        resize_short: pixels that the shorter side is resized to, keeping the ratio; or None.
        crop: (height, width) of the centre crop after the resize; or None.
        interpolation: OpenCV's number for the resize (1 linear, 2 cubic).
        scale: factor on the bytes before mean and deviation.
        mean, std: per RGB channel, in units after ``scale``.
    """

    size: tuple[int, int] | None = (224, 224)
    resize_short: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: int = cv2.INTER_LINEAR
    scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def from_ops(cls, ops: Sequence[Mapping[str, Any]]) -> Preprocessing:
        """Read a ``transform_ops`` list (or PaddleDetection's ``Preprocess`` list of typed maps).

        Raises:
            ModelInvalid: an operator or one of its keys is unknown or has a value of the wrong kind.
        """
        fields: dict[str, Any] = {"size": None}
        strides: list[int] = []
        for entry in ops:
            name, arguments = _operator(entry)
            if name in ("ResizeImage", "DetResize", "Resize"):
                fields.update(_resize(name, arguments))
            elif name == "CropImage":
                fields["crop"] = _pair(name, "size", arguments.pop("size", None))
            elif name in ("NormalizeImage", "DetNormalizeImage"):
                fields.update(_normalize(name, arguments))
            elif name == "PadStride":
                strides.append(_positive(name, "stride", arguments.pop("stride", None)))
            elif name not in _IGNORED_OPS:
                raise ModelInvalid(f"preprocessing operator {name!r} is not known")
            if arguments and name not in _IGNORED_OPS:
                raise ModelInvalid(f"{name}: unknown key(s) {', '.join(sorted(map(str, arguments)))}")
        if fields["size"] is None and fields.get("resize_short") is None and fields.get("crop") is None:
            raise ModelInvalid("preprocessing does not fix the input size: ResizeImage or CropImage is missing")
        if fields.get("resize_short") is not None and fields.get("crop") is None:
            raise ModelInvalid("resize_short alone gives tensors of many sizes: add CropImage")
        preprocessing = cls(**fields)
        size = preprocessing.input_size
        if strides and (size is None or any(side % stride for side in size for stride in strides)):
            raise ModelInvalid(
                f"PadStride {strides[-1]} would pad {size}; only sizes that need no padding are supported"
            )
        return preprocessing

    def to_ops(self) -> list[dict[str, Any]]:
        """Write the same pipeline in PP-ShiTu's vocabulary; ``from_ops`` reads it back equal."""
        resize: dict[str, Any] = {"interpolation": self.interpolation}
        if self.size is not None:
            resize["size"] = list(self.size)
        if self.resize_short is not None:
            resize["resize_short"] = self.resize_short
        ops: list[dict[str, Any]] = [{"ResizeImage": resize}]
        if self.crop is not None:
            ops.append({"CropImage": {"size": list(self.crop)}})
        ops.append(
            {
                "NormalizeImage": {
                    "scale": self.scale,
                    "mean": list(self.mean),
                    "std": list(self.std),
                    "order": "",
                }
            }
        )
        ops.append({"ToCHWImage": None})
        return ops

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the tensor, or None when it follows the picture (short side without crop)."""
        return self.crop or self.size

    def __call__(self, image: Image) -> Tensor:
        """Turn one picture, RGB uint8 (H, W, 3), into float32 (3, height, width), C-contiguous."""
        if self.size is not None:
            image = self._resized(image, *self.size)
        elif self.resize_short is not None:
            if self.crop is not None:
                image = _without_far_ends(image, self.resize_short, self.crop)
            height, width = image.shape[:2]
            ratio = self.resize_short / min(height, width)
            image = self._resized(image, max(1, round(height * ratio)), max(1, round(width * ratio)))
        if self.crop is not None:
            image = _center_crop(image, *self.crop)
        # (x * scale - mean) / std as one multiply-add a channel, written straight into the CHW layout.
        tensor = np.empty((3, *image.shape[:2]), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            np.multiply(image[:, :, channel], np.float32(self.scale / std), out=tensor[channel])
            tensor[channel] -= np.float32(mean / std)
        return tensor

    def _resized(self, image: Image, height: int, width: int) -> Image:
        if image.shape[:2] == (height, width):
            return image
        return np.asarray(cv2.resize(image, (width, height), interpolation=self.interpolation), np.uint8)


RECOGNITION = Preprocessing()
"""``RecPreProcess`` of ``inference_general_binary.yaml``: 224 x 224, linear, ImageNet mean and deviation."""

DETECTION = Preprocessing(size=(640, 640), interpolation=cv2.INTER_CUBIC)
"""``DetPreProcess`` of the same file: 640 x 640, cubic, ratio not kept."""


def _operator(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(entry, Mapping) or not entry:
        raise ModelInvalid(f"a preprocessing operator must be a map, not {entry!r}")
    if "type" in entry:  # PaddleDetection's infer_cfg.yml: {type: Resize, interp: 2, ...}
        return str(entry["type"]), {key: value for key, value in entry.items() if key != "type"}
    if len(entry) != 1:
        raise ModelInvalid(f"a preprocessing operator must have one name, not {sorted(map(str, entry))}")
    ((name, arguments),) = entry.items()
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ModelInvalid(f"{name}: its arguments must be a map, not {arguments!r}")
    return str(name), dict(arguments or {})


def _resize(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.pop("keep_ratio", False):
        raise ModelInvalid(f"{name}: keep_ratio is not supported; PP-ShiTu's exports use keep_ratio: False")
    fields: dict[str, Any] = {}
    for key in ("interp", "interpolation"):
        if key in arguments:
            fields["interpolation"] = _interpolation(name, arguments.pop(key))
    short = arguments.pop("resize_short", None)
    size = arguments.pop("size", arguments.pop("target_size", None))
    arguments.pop("backend", None)
    if (short is None) == (size is None):
        raise ModelInvalid(f"{name}: give either size (target_size) or resize_short")
    if short is not None:
        fields["resize_short"] = _positive(name, "resize_short", short)
    else:
        fields["size"] = _pair(name, "size", size)
    return fields


def _interpolation(name: str, value: Any) -> int:
    names = {"nearest": 0, "bilinear": 1, "bicubic": 2, "area": 3, "lanczos": 4}
    number = names.get(value, value) if isinstance(value, str) else value
    if number not in names.values() or isinstance(number, bool):
        raise ModelInvalid(f"{name}: interpolation must be 0 to 4 or one of {', '.join(names)}, not {value!r}")
    return int(number)


def _normalize(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    order = arguments.pop("order", "")
    if order not in ("", "hwc", "HWC", "chw", "CHW"):
        raise ModelInvalid(f"{name}: order must be '' , hwc or chw, not {order!r}")
    fields: dict[str, Any] = {}
    is_scale = arguments.pop("is_scale", True)
    scale = arguments.pop("scale", None)
    arguments.pop("norm_type", None)
    fields["scale"] = (1.0 / 255.0 if is_scale else 1.0) if scale is None else parse_number(name, scale)
    for key in ("mean", "std"):
        value = arguments.pop(key, None)
        if value is None:
            continue
        if not isinstance(value, Sequence) or len(value) != 3:
            raise ModelInvalid(f"{name}: {key} must have three numbers, not {value!r}")
        fields[key] = tuple(parse_number(name, number) for number in value)
        if key == "std" and min(fields[key]) <= 0:
            raise ModelInvalid(f"{name}: std must be positive, not {value!r}")
    return fields


def parse_number(name: str, value: Any) -> float:
    """Read a number, or a quotient written as text such as ``1.0/255.0`` (PP-ShiTu's ``scale``)."""
    try:
        if isinstance(value, str):
            numerator, _, denominator = value.partition("/")
            value = float(Fraction(numerator.strip()) / Fraction(denominator.strip() or "1"))
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise ModelInvalid(f"{name}: {value!r} is not a number or a quotient of two")
    return number


def _pair(name: str, key: str, value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
    if len(values) == 3:  # PP-ShiTu's image_shape: [3, height, width]
        values = values[1:]
    if len(values) != 2:
        raise ModelInvalid(f"{name}: {key} must be one or two whole numbers, not {value!r}")
    return _positive(name, key, values[0]), _positive(name, key, values[1])


def _positive(name: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelInvalid(f"{name}: {key} must be a positive whole number of pixels, not {value!r}")
    return value


def _without_far_ends(image: Image, resize_short: int, crop: tuple[int, int]) -> Image:
    """Cut what a centre crop throws away off very long pictures before they are resized.

    A picture of 1 x 60,000 pixels would otherwise become one of 224 x 13,440,000. Four times the crop stays, so that
    ordinary pictures are not touched and give the reference's very pixels.
    """
    keep = [max(1, math.ceil(4 * side * min(image.shape[:2]) / resize_short)) for side in crop]
    height, width = (min(have, most) for have, most in zip(image.shape[:2], keep, strict=True))
    return _center_crop(image, height, width)


def _center_crop(image: Image, height: int, width: int) -> Image:
    have_height, have_width = image.shape[:2]
    if have_height < height or have_width < width:
        raise ModelInvalid(f"CropImage {height} x {width} is larger than the resized {have_height} x {have_width}")
    top, left = (have_height - height) // 2, (have_width - width) // 2
    return image[top : top + height, left : left + width]
