"""The YAML settings file: PP-ShiTu's own vocabulary, and a section ``Service`` with the names of our settings.

A file made for PP-ShiTu (``inference_general_binary.yaml``, ``build_product_binary.yaml``) is read as it is,
misspellings included. Every key is in one table below with what becomes of it: a setting, a check, or a line in
the log when it has no effect here. What is in no table, or asks for something that this service does not do,
is a problem that names the key and its line; all problems of a file are reported together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from models.inference import ModelError, Preprocessing, available_cores

_MAX_DEPTH = 20


@dataclass(frozen=True)
class Given:
    """One value for a setting, and where it was given."""

    value: Any
    key: str
    line: int


@dataclass(frozen=True)
class FileSettings:
    """What a settings file says.

    Attributes:
        values: by name of the setting.
        notes: keys that were accepted without effect or with a changed meaning, for the log.
        problems: what must be corrected before the file can be used; each names file, line and key.
    """

    values: Mapping[str, Given] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Node:
    """A YAML value with its line; the entries of a map are nodes too, and remember the line of their key."""

    value: Any
    line: int


_Rule = Callable[["_Reading", str, _Node], None]


class _Reading:
    """Collects what the rules find while a file is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Given] = {}
        self.from_service: set[str] = set()
        self.notes: list[str] = []
        self.problems: list[str] = []

    def give(self, name: str, key: str, node: _Node, value: Any) -> None:
        earlier = self.values.get(name)
        if name in self.from_service and earlier is not None:
            self.note(key, node, f"{earlier.key} in line {earlier.line} goes before it")
        elif earlier is not None and earlier.value != value:
            self.refuse(key, node.line, f"says otherwise than {earlier.key} in line {earlier.line}")
        else:
            self.values[name] = Given(value, key, node.line)

    def note(self, key: str, node: _Node, message: str) -> None:
        self.notes.append(f"{self.path}:{node.line}: {key}: {message}")

    def refuse(self, key: str, line: int, message: str) -> None:
        self.problems.append(f"{self.path}:{line}: {key}: {message}")


def read_config(path: Path, setting_names: frozenset[str]) -> FileSettings:
    """Read the settings file at ``path``.

    Args:
        path: a YAML file in UTF-8. Folders named in it are relative to where the command runs, as in PP-ShiTu.
        setting_names: what the section ``Service`` may contain.

    Returns:
        The values, still unchecked against the settings' types and ranges. A file that cannot be read at all
        gives one problem.
    """
    reading = _Reading(path)
    try:
        root = _load(path)
    except OSError as error:
        return FileSettings(problems=(f"{path}: cannot be read: {error.strerror or error}",))
    except UnicodeDecodeError as error:
        return FileSettings(problems=(f"{path}: is not UTF-8 text ({error.reason})",))
    except _YamlProblem as error:
        return FileSettings(problems=(f"{path}:{error.line}: {error}",))
    if root.value is None:
        return FileSettings()
    sections = dict(_SECTIONS)
    sections["Service"] = _service_section(setting_names)
    _read_map(reading, "", root, sections)
    _check_together(reading)
    return FileSettings(reading.values, tuple(reading.notes), tuple(reading.problems))


# --- YAML with lines -------------------------------------------------------------------------------------------


class _YamlProblem(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _load(path: Path) -> _Node:
    loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
    try:
        root = loader.get_single_node()
        return _Node(None, 1) if root is None else _convert(loader, root, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "is not YAML"
        raise _YamlProblem(mark.line + 1 if mark else 1, f"not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise _YamlProblem(1, f"not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _convert(loader: yaml.SafeLoader, node: yaml.Node, depth: int) -> _Node:
    line = node.start_mark.line + 1
    if depth > _MAX_DEPTH:
        raise _YamlProblem(line, f"nested deeper than {_MAX_DEPTH} levels")
    if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
        raise _YamlProblem(line, f"tag {node.tag} is not used in settings")
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        entries: dict[str, _Node] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            key_line = key_node.start_mark.line + 1
            if key in entries:
                raise _YamlProblem(key_line, f"{key} is given twice; it is also in line {entries[key].line}")
            entries[key] = _Node(_convert(loader, value_node, depth + 1).value, key_line)
        return _Node(entries, line)
    if isinstance(node, yaml.SequenceNode):
        return _Node([_convert(loader, child, depth + 1) for child in node.value], line)
    return _Node(loader.construct_object(node), line)


def _plain(value: Any) -> Any:
    """Strip the lines from a value."""
    if isinstance(value, dict):
        return {key: _plain(child.value) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child.value) for child in value]
    return value


# --- rules: what becomes of a key --------------------------------------------------------------------------------


def _read_map(reading: _Reading, prefix: str, node: _Node, rules: Mapping[str, _Rule]) -> None:
    if node.value is None or node.value == "":
        return
    if not isinstance(node.value, dict):
        reading.refuse(prefix or "the file", node.line, f"must be a map of keys, not {_plain(node.value)!r}")
        return
    for key, child in node.value.items():
        dotted = f"{prefix}.{key}" if prefix else key
        rule = rules.get(key)
        if rule is None:
            near = difflib.get_close_matches(key, rules, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            reading.refuse(dotted, child.line, f"is not a key that this service knows{hint}")
        else:
            rule(reading, dotted, child)


def _section(rules: Mapping[str, _Rule]) -> _Rule:
    return lambda reading, key, node: _read_map(reading, key, node, rules)


def _kind(kind: str, accepts: Callable[[Any], bool]) -> Callable[[str], _Rule]:
    """Make the rule factory for settings whose YAML value must be of one kind."""

    def factory(name: str) -> _Rule:
        def rule(reading: _Reading, key: str, node: _Node) -> None:
            value = _plain(node.value)
            if accepts(value):
                reading.give(name, key, node, value)
            else:
                reading.refuse(key, node.line, f"must be {kind}, not {value!r}")

        return rule

    return factory


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_whole = _kind("a whole number", _is_int)
_number = _kind("a number", lambda value: _is_int(value) or isinstance(value, float))
_text = _kind("text", lambda value: isinstance(value, str) and value != "")
_folder = _kind("a path", lambda value: isinstance(value, str) and value != "")
_flag = _kind("true or false", lambda value: isinstance(value, bool))


def _without_effect(why: str) -> _Rule:
    return lambda reading, key, node: reading.note(key, node, f"has no effect here: {why}")


def _only(accepted: tuple[Any, ...], otherwise: str) -> _Rule:
    """Accept the values that ask for what this service does anyway, and say why it cannot do the rest."""

    def rule(reading: _Reading, key: str, node: _Node) -> None:
        value = _plain(node.value)
        folded = value.lower() if isinstance(value, str) else value
        if not any(folded == one and type(folded) is type(one) for one in accepted):
            reading.refuse(key, node.line, f"{value!r} cannot be honoured: {otherwise}")

    return rule


def _detector_dir(reading: _Reading, key: str, node: _Node) -> None:
    value = _plain(node.value)
    if value is None or isinstance(value, str):
        reading.give("detector_dir", key, node, value or None)
    else:
        reading.refuse(key, node.line, f"must be a path, or nothing for no detector, not {value!r}")


def _use_gpu(reading: _Reading, key: str, node: _Node) -> None:
    if _plain(node.value) is True:
        reading.note(key, node, "means device auto: the GPU where there is one, else the CPU")
        reading.give("device", key, node, "auto")
    elif _plain(node.value) is False:
        reading.give("device", key, node, "cpu")
    else:
        reading.refuse(key, node.line, f"must be true or false, not {_plain(node.value)!r}")


def _threads(reading: _Reading, key: str, node: _Node) -> None:
    value = _plain(node.value)
    cores = available_cores()
    if _is_int(value) and value > cores:
        # The files that come with PP-ShiTu say 10; more threads than cores only makes them wait for each other.
        reading.note(key, node, f"{value} threads on {cores} cores: {cores} are used")
        value = cores
    _whole("cpu_threads")(reading, key, _Node(value, node.line))


def _image_shape(reading: _Reading, key: str, node: _Node) -> None:
    value = _plain(node.value)
    if not (isinstance(value, list) and len(value) == 3 and value[0] == 3 and all(map(_is_int, value))):
        reading.refuse(key, node.line, f"must be [3, height, width], not {value!r}")
        return
    reading.give("_image_shape", key, node, (value[1], value[2]))


def _preprocessing(name: str) -> _Rule:
    def transform_ops(reading: _Reading, key: str, node: _Node) -> None:
        if not isinstance(node.value, list):
            reading.refuse(key, node.line, "must be a list of operators")
            return
        try:
            preprocessing = Preprocessing.from_ops(_plain(node.value))
        except ModelError as error:
            reading.refuse(key, _line_of(node, str(error)), str(error))
        else:
            reading.give(name, key, node, preprocessing)

    return _section({"transform_ops": transform_ops})


def _line_of(node: _Node, message: str) -> int:
    """Find the operator, and in it the key, that an error about a list of operators speaks of."""
    operator, _, rest = message.partition(":")
    for entry in node.value:
        if isinstance(entry.value, dict):
            for name, arguments in entry.value.items():
                if name == operator or repr(name) in message:
                    keys = arguments.value if isinstance(arguments.value, dict) else {}
                    named = [child.line for key, child in keys.items() if key in rest]
                    return int(named[0] if named else arguments.line)
    return node.line


def _rec_postprocess(reading: _Reading, key: str, node: _Node) -> None:
    if node.value is None or node.value == "":
        reading.refuse(key, node.line, f"empty means a model of float features; {_FLOAT}")
        return
    _read_map(reading, key, node, _REC_POSTPROCESS)


def _without_keys(reading: _Reading, key: str, node: _Node) -> None:
    _read_map(reading, key, node, {})


def _service_section(setting_names: frozenset[str]) -> _Rule:
    def any_value(name: str) -> _Rule:
        def rule(reading: _Reading, key: str, node: _Node) -> None:
            reading.from_service.add(name)
            earlier = reading.values.get(name)
            if earlier is not None:
                reading.note(key, node, f"goes before {earlier.key} in line {earlier.line}")
            reading.values[name] = Given(_plain(node.value), key, node.line)

        return rule

    def section(reading: _Reading, key: str, node: _Node) -> None:
        _read_map(reading, key, node, {name: any_value(name) for name in sorted(setting_names)})

    return section


def _check_together(reading: _Reading) -> None:
    shape = reading.values.pop("_image_shape", None)
    detection = reading.values.get("det_preprocess")
    if shape is None:
        return
    if detection is None:
        reading.notes.append(f"{reading.path}:{shape.line}: {shape.key}: the detector's folder decides its input size")
    elif detection.value.size is not None and detection.value.size != shape.value:
        wanted = " x ".join(map(str, detection.value.size))
        reading.refuse(shape.key, shape.line, f"disagrees with {detection.key} in line {detection.line}, {wanted}")


_FLOAT = "this service searches binary codes: use a binary model, or convert this one with `python -m models.binarize`"
_NO_ENGINE = "only Paddle Inference in full precision, with oneDNN on a CPU, is supported; set it to False"

_REC_POSTPROCESS: dict[str, _Rule] = {
    "main_indicator": _only(("binarize",), _FLOAT),
    "Binarize": _section({"method": _text("binarize")}),
    "feature_normalize": _only((False,), _FLOAT),
}

_GLOBAL: dict[str, _Rule] = {
    "infer_imgs": _without_effect("pictures come with each request (or `shitu search IMAGE`)"),
    "det_inference_model_dir": _detector_dir,
    "rec_inference_model_dir": _folder("hasher_dir"),
    "rec_nms_thresold": _number("rec_nms_threshold"),
    "rec_nms_threshold": _number("rec_nms_threshold"),
    "batch_size": _without_effect("the service makes its own batches"),
    "image_shape": _image_shape,
    "threshold": _number("det_threshold"),
    "max_det_results": _whole("max_objects"),
    "labe_list": _without_effect("boxes of every class of the detector count as objects"),
    "label_list": _without_effect("boxes of every class of the detector count as objects"),
    "use_gpu": _use_gpu,
    "enable_mkldnn": _flag("enable_mkldnn"),
    "cpu_num_threads": _threads,
    "enable_benchmark": _without_effect("see /metrics for durations"),
    "use_fp16": _only((False,), _NO_ENGINE),
    "ir_optim": _without_effect("Paddle Inference chooses its own graph optimisation"),
    "use_tensorrt": _only((False,), _NO_ENGINE),
    "gpu_mem": _without_effect("Paddle takes GPU memory as it needs it"),
    "enable_profile": _without_effect("see /metrics for durations"),
    "feature_normalize": _only((False,), _FLOAT),
}

_INDEX: dict[str, _Rule] = {
    "index_method": _text("index_method"),
    "image_root": _folder("image_root"),
    "index_dir": _folder("data_dir"),
    "data_file": _folder("data_file"),
    "index_operation": _text("index_operation"),
    "delimiter": _text("delimiter"),
    "dist_type": _only(("hamming",), _FLOAT),
    "binary_index": _only((True,), _FLOAT),
    "embedding_size": _whole("expected_bits"),
    "batch_size": _whole("build_batch_size"),
    "return_k": _whole("top_k"),
    "hamming_radius": _whole("hamming_radius"),
    "score_thres": _without_effect("it is a similarity of float features; hamming_radius decides here"),
}

_SECTIONS: dict[str, _Rule] = {
    "Global": _section(_GLOBAL),
    "DetPreProcess": _preprocessing("det_preprocess"),
    "DetPostProcess": _without_keys,
    "RecPreProcess": _preprocessing("rec_preprocess"),
    "RecPostProcess": _rec_postprocess,
    "IndexProcess": _section(_INDEX),
}
