"""``inference.yml``: what a model folder says about itself.

Written by ``models.export`` beside the graph. Folders without one, such as PP-ShiTu's official exports, get the
defaults of ``inference_general_binary.yaml``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from .codes import BIT_ORDER, BinarizeMethod
from .engine import ModelFiles
from .errors import ModelInvalid
from .preprocessing import DETECTION, RECOGNITION, Preprocessing

MANIFEST_NAME = "inference.yml"
_DETECTION_CONFIG_NAME = "infer_cfg.yml"  # PaddleDetection's own
Kind = Literal["hasher", "detector"]


@dataclass(frozen=True)
class Manifest:
    """Preprocessing of a model and, for a hasher, how its output becomes a code.

    Attributes:
        kind: ``hasher`` or ``detector``.
        preprocessing: from RGB bytes to the input tensor.
        bits: length of the code; None where the folder does not say (read off the output then).
        binarize: ``sign`` or ``round``.
        hamming_radius: inclusive radius recommended by its trainer, measured on held-out data; or None.
        fingerprint: as written by the exporter, to be checked against the files; or None.
        name: for people; or None.
    """

    kind: Kind
    preprocessing: Preprocessing
    bits: int | None = None
    binarize: BinarizeMethod = "sign"
    hamming_radius: int | None = None
    fingerprint: str | None = None
    name: str | None = None

    @classmethod
    def read(cls, folder: Path | str, kind: Kind) -> Manifest:
        """Read the manifest of a folder, or give PP-ShiTu's defaults where there is none.

        Raises:
            ModelInvalid: it is not YAML, of another kind, or has an unknown key or unusable value.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        if path.is_file():
            return cls._parse(path, _load_yaml(path), kind)
        if kind == "hasher":
            return cls(kind, RECOGNITION)
        config = folder / _DETECTION_CONFIG_NAME
        if config.is_file():
            return cls(kind, Preprocessing.from_ops(_load_yaml(config).get("Preprocess") or []))
        return cls(kind, DETECTION)

    @classmethod
    def _parse(cls, path: Path, content: dict[str, Any], kind: Kind) -> Manifest:
        fields = dict(content)
        if (actual := fields.pop("kind", None)) != kind:
            raise ModelInvalid(f"{path}: kind is {actual!r}, but a {kind} was asked for")
        try:
            manifest = cls(
                kind=kind,
                preprocessing=Preprocessing.from_ops(fields.pop("transform_ops")),
                bits=_optional_int(fields, "bits"),
                binarize=fields.pop("binarize", "sign"),
                hamming_radius=_optional_int(fields, "hamming_radius"),
                fingerprint=fields.pop("fingerprint", None),
                name=fields.pop("name", None),
            )
        except KeyError as error:
            raise ModelInvalid(f"{path}: key {error.args[0]!r} is missing") from None
        except ModelInvalid as error:
            raise ModelInvalid(f"{path}: {error}") from None
        if manifest.binarize not in get_args(BinarizeMethod):
            raise ModelInvalid(f"{path}: binarize must be sign or round, not {manifest.binarize!r}")
        if fields:
            raise ModelInvalid(f"{path}: unknown key(s) {', '.join(sorted(map(str, fields)))}")
        return manifest

    def write(self, folder: Path | str) -> Path:
        """Write it into a model folder and return the file's path."""
        content = {
            "kind": self.kind,
            "name": self.name,
            "bits": self.bits,
            "binarize": self.binarize if self.kind == "hasher" else None,
            "hamming_radius": self.hamming_radius,
            "fingerprint": self.fingerprint,
            "transform_ops": self.preprocessing.to_ops(),
        }
        path = Path(folder) / MANIFEST_NAME
        known = {key: value for key, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(known, sort_keys=False, allow_unicode=True), "utf-8")
        return path

    def compute_fingerprint(self, files: ModelFiles, bits: int) -> str:
        """Identify the codes a model makes: 32 hexadecimal digits over everything that may change a bit.

        That is graph, weights, preprocessing, bits, binarisation and bit order.
        """
        digest = hashlib.sha256(files.digest())
        parts = [self.preprocessing.to_ops(), bits, self.binarize, BIT_ORDER]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        return digest.hexdigest()[:32]


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelInvalid(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ModelInvalid(f"{path} must be a map of keys")
    return content


def _optional_int(fields: dict[str, Any], key: str) -> int | None:
    value = fields.pop(key, None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ModelInvalid(f"{key} must be a whole number, not {value!r}")
    return value
