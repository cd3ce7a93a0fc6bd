"""``DataLoader`` and ``Metric``: which pictures, in which batches, and what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.yaml_tree import Node

from ..config import ConfigError, LoaderConfig, Metrics, Sampler
from ..data.cifar10 import MEMBERS
from ..data.datasets import SOURCES
from ..data.operators import OPS
from ..data.samplers import SAMPLERS
from ..data.transforms import Transforms
from .fields import (
    ABSENT,
    Reader,
    Reading,
    Unusable,
    anything,
    entries,
    flag,
    list_of,
    named_maps,
    one_of,
    only,
    suggest,
    text,
    whole,
    without_effect,
)

_EVAL_BATCH = 64
_CIFAR10_OPS: tuple[Mapping[str, Any], ...] = (
    {"ResizeImage": {"size": 224}},
    {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
    {"ToCHWImage": None},
)
"""What the reference does to pictures of CustomizedCifar10, whose section there has no ``transform_ops``."""


def read_train(reading: Reading, node: Node, batch_size_needed: bool) -> LoaderConfig | None:
    """Read ``DataLoader.Train``; None where it lacks something. A sampler that does not say has a ``batch_size`` of 0.

    Args:
        reading: collects problems.
        node: the section.
        batch_size_needed: whether the sampler has to say it, because no stage does.
    """
    values = _loader(reading, node)
    if batch_size_needed:
        reading.require(node, "sampler", "how pictures make batches, such as {batch_size: 128, shuffle: true}")
        if "sampler" in values:
            reading.require(node.value["sampler"], "batch_size", "pictures a step on one device")
    given = {"name": "DistributedBatchSampler", "batch_size": 0, **values.get("sampler", {})}
    return _loader_config(values, Sampler(**given))


def read_eval(reading: Reading, node: Node | None) -> tuple[LoaderConfig | None, LoaderConfig | None]:
    """Read ``DataLoader.Eval``: queries and gallery, both None where there is nothing to evaluate on."""
    found = reading.section(node, {"Query": _eval_part, "Gallery": _eval_part}, "DataLoader.Eval")
    if node is not None and len(found) == 1:
        # As in the reference: every picture is a query to all others.
        ((name, part),) = found.items()
        if {"Query", "Gallery"} - {name} <= {key for key, child in node.value.items() if child.value is not None}:
            return None, None  # the other one is there, with a problem
        reading.note(node.value[name], "is both queries and gallery; each picture is searched among the others")
        return part, part
    return found.get("Query"), found.get("Gallery")


def read_metrics(reading: Reading, node: Node | None) -> Metrics:
    """Read ``Metric``."""
    found = reading.section(
        node,
        {"Eval": _metrics, "Train": without_effect("the log has the accuracy of every step where there is a head")},
        "Metric",
    )
    return found.get("Eval", Metrics())


def _eval_part(reading: Reading, node: Node) -> Any:
    values = _loader(reading, node)
    given = values.get("sampler", {})
    if given.get("drop_last"):
        reading.note(node.value["sampler"].value["drop_last"], "has no effect here: all pictures are evaluated")
    sampler = Sampler("DistributedBatchSampler", given.get("batch_size", _EVAL_BATCH), shuffle=False, drop_last=False)
    return _loader_config(values, sampler) or ABSENT


def _loader_config(values: dict[str, Any], sampler: Sampler) -> LoaderConfig | None:
    if "dataset" not in values:
        return None
    datasets, ops = values["dataset"]
    workers = values.get("loader", {}).get("num_workers", LoaderConfig.num_workers)
    return LoaderConfig(datasets, values.get("transform_ops", ops), sampler, workers)


def _loader(reading: Reading, node: Node) -> dict[str, Any]:
    reading.require(node, "dataset", "where the pictures are: name, image_root, cls_label_path, transform_ops")
    values = reading.section(node, _LOADER, node.key)
    datasets = values.get("dataset")
    if datasets is not None and not datasets[1] and entries(reading, node).get("transform_ops") is None:
        place = node if isinstance(node.value["dataset"].value, list) else node.value["dataset"]
        reading.require(place, "transform_ops", "what is done to a picture before the network sees it")
    if datasets is not None and datasets[1] and "transform_ops" in values and _says_ops(node.value["dataset"]):
        reading.refuse(node.value["transform_ops"], "dataset.transform_ops says it too; give one of the two")
    return values


def _says_ops(node: Node) -> bool:
    return isinstance(node.value, dict) and "transform_ops" in node.value


def _datasets(reading: Reading, node: Node) -> tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]:
    """Read one source or a list of them: their fields and the ``transform_ops`` that come with them."""
    if not isinstance(node.value, list):
        fields = _source(reading, node)
        return (fields,), fields.pop("transform_ops", _default_ops(fields))
    if not node.value:
        raise Unusable("must name at least one source of pictures")
    sources = []
    for child in node.value:
        if _says_ops(child):
            reading.refuse(child.value["transform_ops"], "give it once for all sources, beside dataset")
        fields = _source(reading, child)
        fields.pop("transform_ops", None)
        sources.append(fields)
    defaults = {_default_ops(fields) == () for fields in sources}
    return tuple(sources), () if True in defaults else _CIFAR10_OPS


def _default_ops(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return _CIFAR10_OPS if fields.get("name") == "CustomizedCifar10" else ()


def _source(reading: Reading, node: Node) -> dict[str, Any]:
    name = reading.name(node, "dataset", tuple(SOURCES), "ImageNetDataset")
    if name is None:
        return {}
    readers = {key: _FIELDS.get(key, text) for key in SOURCES[name][1]}
    if "image_root" in readers:
        reading.require(node, "image_root", "the folder below which the pictures lie")
    found = reading.section(node, {**_SOURCE, **_OF_SOURCE[name], **readers}, name)
    return {**found, "name": name}


def _transform_ops(reading: Reading, node: Node) -> Any:
    """Read a list of operators, without opening the files that they may name."""
    named = named_maps(reading, node)
    unknown = [name for name, _ in named if name not in OPS]
    for name, child in named:
        if name in unknown:
            reading.refuse(child, f"no operator is called {name}{suggest(name, OPS)}")
        else:
            reading.section(child, dict.fromkeys(OPS[name].keys, anything), name)
    ops = node.plain()
    if unknown or len(named) < len(ops):
        return ABSENT
    message = _refusal(ops)
    if message is not None:
        reading.refuse(_guilty(ops, message, named) or node, message)
    return tuple(ops)


def _refusal(ops: Sequence[Mapping[str, Any]]) -> str | None:
    """Give what is wrong with operators, apart from the files that they name."""
    try:
        Transforms.from_ops([_without(op, "backgrounds") for op in ops])
    except ConfigError as error:
        return str(error).removeprefix("transform_ops: ")
    return None


def _guilty(ops: Sequence[Mapping[str, Any]], message: str, named: Sequence[tuple[str, Node]]) -> Node | None:
    """Find the key of an operator without which the message is another, or the operator that it begins with."""
    accused = [place for place, (name, _) in enumerate(named) if message.startswith(f"{name}: ")]
    for place in accused:
        child = named[place][1]
        for key, below in child.value.items() if isinstance(child.value, dict) else ():
            others = [_without(op, key) if number == place else op for number, op in enumerate(ops)]
            if _refusal(others) != message:
                return below
    return named[accused[0]][1] if accused else None


def _without(op: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    ((name, arguments),) = op.items()
    if not isinstance(arguments, dict):
        return op
    return {name: {other: value for other, value in arguments.items() if other != key}}


def _sampler(reading: Reading, node: Node) -> Any:
    name = reading.name(node, "sampler", tuple(SAMPLERS), "DistributedBatchSampler")
    if name is None:
        return ABSENT
    values = reading.section(node, {**_SAMPLER, **(_PK_SAMPLER if name == "PKSampler" else {})}, name)
    if name == "PKSampler":
        reading.require(node, "sample_per_id", "pictures of each class in a batch")
        size, each = values.get("batch_size"), values.get("sample_per_id")
        if size is not None and each is not None and size % each:
            reading.refuse(node.value["batch_size"], f"{size} is not a multiple of sample_per_id, {each}")
    return {**values, "name": name}


def _metrics(reading: Reading, node: Node) -> Metrics:
    ranks: dict[str, tuple[int, ...]] = {}
    for name, child in named_maps(reading, node):
        if name not in _METRICS:
            reading.refuse(child, f"no metric is called {name}{suggest(name, _METRICS)}")
            continue
        found = reading.section(child, _METRICS[name], name)
        ranks[name] = found.get("topk", Metrics.recall_topk)
    return Metrics(ranks.get("Recallk", ()), ranks.get("Precisionk", ()), "mAP" in ranks)


_TOPK: dict[str, Reader] = {"topk": list_of(whole(1), single=True)}
_METRICS: dict[str, dict[str, Reader]] = {
    "Recallk": _TOPK,
    "Precisionk": _TOPK,
    "mAP": {"descending": only(True, "the nearest come first")},
}
_SOURCE: dict[str, Reader] = {
    "name": anything,
    "transform_ops": _transform_ops,
    "repeat": whole(1),
    "teacher": text,
    "backend": without_effect("pictures are decoded in one way, that of the service"),
}
_OF_SOURCE: dict[str, dict[str, Reader]] = {
    "ImageNetDataset": {"relabel": only(False, "with Arch.Head.class_num: auto classes are numbered by name")},
    "VeriWild": {},
    "CustomizedCifar10": {"download": without_effect("data_file, or Paddle's cache, has to hold the archive")},
}
_FIELDS: dict[str, Reader] = {"mode": one_of(*MEMBERS)}
_SAMPLER: dict[str, Reader] = {"name": anything, "batch_size": whole(1), "shuffle": flag, "drop_last": flag}
_PK_SAMPLER: dict[str, Reader] = {
    "sample_per_id": whole(1),
    "sample_method": only("sample_avg_prob", "classes are drawn by their number of pictures"),
}
_LOADER: dict[str, Reader] = {
    "dataset": _datasets,
    "transform_ops": _transform_ops,
    "sampler": _sampler,
    "loader": lambda reading, node: reading.section(node, _THREADS, node.key),
}
_THREADS: dict[str, Reader] = {
    "num_workers": whole(0),
    "use_shared_memory": without_effect("pictures are read by threads, which share memory"),
}
