"""``Arch`` and ``Loss``: the network, its losses, and whether they fit each other."""

from __future__ import annotations

from typing import Any

from models.losses import LOSSES, NEED_LOGITS
from models.nets import NETS
from models.yaml_tree import Node

from ..config import Arch, LossTerm
from .fields import (
    Reader,
    Reading,
    Unusable,
    anything,
    flag,
    named_maps,
    number,
    only,
    required_by,
    settings_of,
    suggest,
    whole,
    without_effect,
)

NECKS = ("FC", "Tanh")
HEADS = ("CosMargin", "FC")
DETECTORS = ("PicoDetS",)
BACKBONES = tuple(name for name in NETS if name not in (*NECKS, *HEADS, *DETECTORS))
_BYTE = 8


def read_arch(reading: Reading, node: Node) -> Arch | None:
    """Read ``Arch``; None where it lacks what makes a network."""
    reading.require(node, "Backbone", "the network whose last layer gives the code, as {name: AlexNet, class_num: 48}")
    found = reading.section(node, _ARCH, "Arch")
    if "Backbone" not in found:
        return None
    backbone = dict(found["Backbone"])
    pretrained, use_ssld = backbone.pop("pretrained", False), backbone.pop("use_ssld", False)
    arch = Arch(backbone, pretrained, use_ssld, found.get("Neck"), found.get("Head"))
    _check_sizes(reading, node, arch)
    return arch


def read_losses(reading: Reading, node: Node, arch: Arch | None) -> tuple[LossTerm, ...]:
    """Read ``Loss``, and check that the network gives what the losses take."""
    reading.require(node, "Train", "a list of losses, such as - CELoss: {weight: 1.0}")
    terms = dict(reading.section(node, _LOSS, "Loss").get("Train", {}))
    head = arch.head if arch is not None else None
    for term, entry in terms.values():
        if arch is not None and head is None and term.name in NEED_LOGITS:
            reading.refuse(entry, "needs logits, which Arch.Head gives, and there is none; add one such as "
                           "Head: {name: FC, embedding_size: <the bits>, class_num: auto}")  # fmt: skip
        classes, n_class = (head or {}).get("class_num", "auto"), term.settings.get("n_class")
        if n_class is not None and classes not in ("auto", n_class):
            reading.refuse(entry.value["n_class"], f"is {n_class}, and Arch.Head.class_num is {classes}")
    if terms and head is not None and not set(terms) & set(NEED_LOGITS):
        reading.note(node.value["Train"], "no loss looks at the logits, so that Arch.Head is not trained")
    return tuple(term for term, _ in terms.values())


def _check_sizes(reading: Reading, node: Node, arch: Arch) -> None:
    """Follow the length of the features from the backbone through the neck to the head."""
    length, giver = arch.backbone.get("class_num"), node.value["Backbone"]
    for part, settings in (("Neck", arch.neck or {}), ("Head", arch.head or {})):
        size = settings.get("embedding_size")
        if None not in (size, length) and size != length:
            taker = node.value[part].value["embedding_size"]
            reading.refuse(taker, f"is {size}, and {giver.key}.class_num, which comes before it, is {length}")
        if part == "Neck" and "class_num" in settings:
            length, giver = settings["class_num"], node.value[part]
    if length is not None and length % _BYTE:
        low = length // _BYTE * _BYTE
        nearest = f"{low} or {low + _BYTE}" if low else f"{_BYTE}"
        reading.refuse(
            giver.value["class_num"],
            f"{length} bits do not fill whole bytes: the length of the code must be a multiple of 8, such as {nearest}",
        )


def _backbone(reading: Reading, node: Node) -> dict[str, Any]:
    return _part(reading, node, "backbone", BACKBONES, {"class_num": "the number of bits of the code"}, _WEIGHTS)


def _neck(reading: Reading, node: Node) -> dict[str, Any]:
    return _part(reading, node, "neck", NECKS, _SIZES, {})


def _head(reading: Reading, node: Node) -> dict[str, Any]:
    return _part(reading, node, "head", HEADS, _SIZES, {"class_num": _class_num})


def _part(
    reading: Reading, node: Node, kind: str, names: tuple[str, ...], required: dict[str, str], own: dict[str, Reader]
) -> dict[str, Any]:
    """Read a part of the network: ``name`` and what the architecture of this name takes."""
    name = reading.name(node, kind, names)
    if name is None:
        return {}
    readers = settings_of(NETS[name], without=("first_block",))
    for key in set(required) & set(readers):
        reading.require(node, key, required[key])
    sizes = {key: whole(1) for key in ("class_num", "embedding_size") if key in readers}
    return reading.section(node, {"name": anything, **readers, **sizes, **own}, name)


def _class_num(reading: Reading, node: Node) -> int | str:
    return "auto" if node.value == "auto" else whole(1)(reading, node)


def _pretrained(_: Reading, node: Node) -> bool | str:
    if isinstance(node.value, bool) or (isinstance(node.value, str) and node.value):
        return node.value
    raise Unusable(f"must be true, false, a path or a URL, not {node.plain()!r}")


def _terms(reading: Reading, node: Node) -> dict[str, tuple[LossTerm, Node]]:
    """Read a list of losses: by name the loss and where it stands."""
    terms: dict[str, tuple[LossTerm, Node]] = {}
    named = named_maps(reading, node)
    if not named:
        raise Unusable("must name at least one loss")
    for name, entry in named:
        if name not in LOSSES:
            reading.refuse(entry, f"no loss is called {name!r}{suggest(name, LOSSES)}")
        elif name in terms:
            reading.refuse(entry, "is there twice; give it once, with the sum of the weights")
        else:
            terms[name] = _term(reading, name, entry), entry
    return terms


def _term(reading: Reading, name: str, entry: Node) -> LossTerm:
    before = len(reading.problems)
    settings = reading.section(entry, {**settings_of(LOSSES[name]), "weight": number(0)}, name)
    weight = settings.pop("weight", 1.0)
    for key in required_by(LOSSES[name]):
        reading.require(entry, key, f"{name} has no default for it")
    if len(reading.problems) == before:
        try:
            LOSSES[name](**settings)  # light, and it knows its own limits
        except (TypeError, ValueError) as error:
            reading.refuse(entry, str(error).replace(f"{name}.__init__() ", ""))
    return LossTerm(name, weight, settings)


_SIZES = {
    "embedding_size": "how many numbers it takes; for PP-ShiTu the bits",
    "class_num": "how many numbers it gives",
}
_WEIGHTS: dict[str, Reader] = {"pretrained": _pretrained, "use_ssld": flag}
_ARCH: dict[str, Reader] = {
    "name": only("RecModel", "what is trained is a RecModel: Backbone, perhaps Neck, perhaps Head"),
    "infer_output_key": only("features", "the code is made of the features"),
    "infer_add_softmax": without_effect("the export ends at the features, where there is no softmax"),
    "is_rec": without_effect("every RecModel is for recognition"),
    "use_sync_bn": only(False, "batch norm counts one device's pictures"),
    "Backbone": _backbone,
    "Neck": _neck,
    "Head": _head,
}
_LOSS: dict[str, Reader] = {
    "Train": _terms,
    "Eval": without_effect("the evaluation is by retrieval metrics (Metric.Eval)"),
}
