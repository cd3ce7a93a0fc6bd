"""The models of PP-ShiTu that their authors publish and the service can load.

Addresses and facts are those of PaddleClas's documentation (quick start, ``deploy/configs``, model lists; Apache-2.0).
No checksums are published. What is known all the same: the graph (``inference.pdmodel``) of most, and with it the exact
size of their parameters, because Paddle writes each tensor with a header that its shape decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Kind = Literal["hasher", "detector"]

STORE = "https://paddle-imagenet-models-name.bj.bcebos.com"
_REC = "/dygraph/rec/models"


@dataclass(frozen=True)
class KnownFile:
    """What a file of a model must be: its length, and its SHA-256 in hexadecimal where that is known."""

    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class PublishedModel:
    """A model that can be pulled by its name.

    Attributes:
        name: short, of ours.
        kind: what the service uses it as.
        title: what it is, in a line.
        path: of the archive in the publisher's store.
        folder: that the archive holds.
        input_side: height and width of its input, in pixels.
        features: length of its output; None for a detector.
        is_binary: whether it was trained to be binarised; a float model gets codes by the sign of its features.
        files: what is known of the folder's files.
        hamming_radius: to set instead of the default, where one was measured.
        notes: what to know before using it, a sentence each.
        weights_path: of the parameters to train on from, in the same store; or None.
    """

    name: str
    kind: Kind
    title: str
    path: str
    folder: str
    input_side: int
    features: int | None = None
    is_binary: bool = False
    files: Mapping[str, KnownFile] = field(default_factory=dict)
    hamming_radius: int | None = None
    notes: tuple[str, ...] = ()
    weights_path: str | None = None
    licence: str = "Apache-2.0"
    publisher: str = "PaddleClas (PaddlePaddle)"

    @property
    def url(self) -> str:
        """Address of the archive."""
        return self.at(STORE)

    @property
    def weights_url(self) -> str | None:
        """Address of the parameters to train on from, if any."""
        return None if self.weights_path is None else STORE + self.weights_path

    @property
    def size_bytes(self) -> int | None:
        """What the known files take; None where none is known."""
        return sum(known.size_bytes for known in self.files.values()) or None

    def at(self, mirror: str) -> str:
        """Address of the archive in a mirror of the publisher's store: an address that its paths follow."""
        return mirror.rstrip("/") + self.path


_MODELS = (
    PublishedModel(
        name="mainbody-detector",
        kind="detector",
        title="main-body detector of PP-ShiTu V1 and V2: PicoDet on PPLCNet_x2_5",
        path=f"{_REC}/inference/picodet_PPLCNet_x2_5_mainbody_lite_v1.0_infer.tar",
        folder="picodet_PPLCNet_x2_5_mainbody_lite_v1.0_infer",
        input_side=640,
        files={
            "inference.pdmodel": KnownFile(
                4_044_493, "aef54d49af0ed0b38334c1da9939ff8a5e2a19229f9a21147521cdf22b456280"
            ),
            "inference.pdiparams": KnownFile(26_542_897),
        },
        weights_path=f"{_REC}/pretrain/picodet_PPLCNet_x2_5_mainbody_lite_v1.0_pretrained.pdparams",
    ),
    PublishedModel(
        name="general-v1-binary",
        kind="hasher",
        title="binary feature model of PP-ShiTu V1: PPLCNet_x2_5 with tanh",
        path=f"{_REC}/inference/general_PPLCNet_x2_5_lite_binary_v1.0_infer.tar",
        folder="general_PPLCNet_x2_5_lite_binary_v1.0_infer",
        input_side=224,
        features=512,
        is_binary=True,
        notes=("Nothing is known of its files beforehand: the first pull is believed.",),
    ),
    PublishedModel(
        name="general-v1",
        kind="hasher",
        title="float feature model of PP-ShiTu V1: PPLCNet_x2_5",
        path=f"{_REC}/inference/general_PPLCNet_x2_5_lite_v1.0_infer.tar",
        folder="general_PPLCNet_x2_5_lite_v1.0_infer",
        input_side=224,
        features=512,
        files={
            "inference.pdmodel": KnownFile(533_226, "67a6c2544357a259996e9aac37464996d6a7f884638329a678641f95afb2703d"),
            "inference.pdiparams": KnownFile(33_683_009),
        },
        hamming_radius=152,
        notes=(
            "On PP-ShiTu's drink gallery (its published float features of 1,069 photos, leave-one-out) the 512 signs "
            "find the right product first for 0.955 of the photos, the floats, in 32 times the memory, for 0.964.",
        ),
        weights_path=f"{_REC}/pretrain/general_PPLCNet_x2_5_pretrained_v1.0.pdparams",
    ),
    PublishedModel(
        name="general-v2",
        kind="hasher",
        title="float feature model of PP-ShiTu V2: PPLCNetV2_base",
        path=f"{_REC}/inference/PP-ShiTuV2/general_PPLCNetV2_base_pretrained_v1.0_infer.tar",
        folder="general_PPLCNetV2_base_pretrained_v1.0_infer",
        input_side=224,
        features=512,
        files={
            "inference.pdmodel": KnownFile(
                1_141_862, "3e0ade05639ff7b5fe450a55883a8087dc2b5c2349fe6b73897cbe2a5eeb6ee8"
            ),
            "inference.pdiparams": KnownFile(18_307_022),
        },
        notes=("How well its signs find was not measured here: choose the radius with python -m models.recommend.",),
        weights_path=f"{_REC}/pretrain/PPShiTuV2/general_PPLCNetV2_base_pretrained_v1.0.pdparams",
    ),
)

CATALOGUE: Mapping[str, PublishedModel] = MappingProxyType({model.name: model for model in _MODELS})
"""Every published model by its name."""
