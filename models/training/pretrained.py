"""``Arch.Backbone.pretrained``: weights that a backbone starts from, from a file, an address, or their publisher."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from paddle import nn

from models.hub import HubError, user_cache
from models.hub.bar import DownloadBar
from models.hub.download import Progress, download
from models.nets.pplcnet import WIDTHS

from .weight_files import SUFFIX, WeightFileError, Weights, find_file, read_weights

_STORE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
_PPLCNET = {name: f"{_STORE}/legendary_models/{name}_pretrained.pdparams" for name in WIDTHS}
_VGG19 = f"{_STORE}/legendary_models/VGG19_pretrained.pdparams"

PUBLISHED: dict[str, str] = {
    "AlexNet": f"{_STORE}/AlexNet_pretrained.pdparams",
    **_PPLCNET,
    **{f"{name}_Tanh": url for name, url in _PPLCNET.items()},
    "VGG19": _VGG19,
    "VGG19Sigmoid": _VGG19,
}
"""Addresses of PaddleClas's ImageNet weights by architecture."""

_DISTILLED = ("PPLCNet_x0_25", "PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5")
PUBLISHED_SSLD: dict[str, str] = {
    f"{name}{suffix}": f"{_STORE}/legendary_models/{name}_ssld_pretrained.pdparams"
    for name in _DISTILLED
    for suffix in ("", "_Tanh")
}
"""The same of those that were distilled from a larger network (SSLD; Cui et al., arXiv 2103.05959)."""

# Of the others no checksum is published: the length must agree and the file must load.
_MD5 = {PUBLISHED["AlexNet"]: "7f0f9f737132e02732d75a1459d98a43"}
_INSTEAD = "; a file that is on this machine can be named by its path in Arch.Backbone.pretrained"


class PretrainedError(Exception):
    """Pretrained weights cannot be had, read or used; the text names their address or file."""


def load_pretrained(
    arch_name: str,
    pretrained: bool | str,
    use_ssld: bool = False,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Get the weights that a backbone starts from. Nothing in them is run: see :mod:`models.training.weight_files`.

    Args:
        arch_name: of the backbone, as in :data:`models.nets.NETS`.
        pretrained: False for none; True for those of :data:`PUBLISHED`; an http or https address; or the path of a
            ``.pdparams`` (with or without this suffix) or an ``.npz``.
        use_ssld: with True, take those of :data:`PUBLISHED_SSLD`.
        cache_dir: where downloads are kept; by default ``shitu-hash/pretrained`` in ``$XDG_CACHE_HOME`` or
            ``~/.cache``.
        progress: is told of a download's bytes instead of the bar on standard error.

    Returns:
        Arrays by parameter name of the backbone; of weights of a whole ``RecModel`` those of its backbone.

    Raises:
        PretrainedError: nothing is published for the architecture, the download fails, there is no such file, or it
            cannot be read as weights.
    """
    if pretrained is False:
        return {}
    if pretrained is True:
        path = _fetch(_published(arch_name, use_ssld), cache_dir, progress)
    elif isinstance(pretrained, str) and "://" in pretrained:
        path = _fetch(pretrained, cache_dir, progress)
    elif isinstance(pretrained, (str, os.PathLike)) and str(pretrained):
        path = _find(Path(pretrained))
    else:
        raise PretrainedError(f"Arch.Backbone.pretrained must be true, false, a path or a URL, not {pretrained!r}")
    try:
        weights = read_weights(path)
    except (WeightFileError, OSError) as error:
        raise PretrainedError(f"{path} cannot be read as weights: {error}") from error
    prefix = "backbone."
    inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return inner or weights


def apply_pretrained(backbone: nn.Layer, weights: Weights) -> list[str]:
    """Put pretrained weights into a backbone.

    A layer in ``backbone.output_layers``, which another ``class_num`` shapes otherwise, is left as it is where the
    weights do not fit it; everything else must be there. ``fc`` and ``fc.origin_layer`` count as one name, with which
    PaddleClas tells a layer from one with an activation on it. Weights that the backbone has no use for are passed
    over: what a network of another architecture lacks is noticed all the same.

    Args:
        backbone: with ``output_layers``, as those of :mod:`models.nets` have.
        weights: from :func:`load_pretrained`; left as they are.

    Returns:
        The names of the parameters and buffers that were left random.

    Raises:
        PretrainedError: a parameter is missing or has another shape; the backbone was not changed then.
    """
    own = backbone.state_dict()
    given = {_plain(name): value for name, value in weights.items()}
    for name in own:
        # 16-bit "brain" floats are kept as integers by Paddle, and quantised weights are no weights without scales.
        if _plain(name) in given and given[_plain(name)].dtype.kind != "f":
            raise PretrainedError(f"the pretrained {name} is of the type {given[_plain(name)].dtype}, not a float")
    unfit = [name for name, tensor in own.items() if _shape(given.get(_plain(name))) != tuple(tensor.shape)]
    left_layers = {layer for layer in backbone.output_layers for name in unfit if name.startswith(f"{layer}.")}
    wrong = [name for name in unfit if name.split(".")[0] not in left_layers]
    if wrong:
        raise PretrainedError(_describe_misfit(backbone, wrong, given))
    left = [name for name in own if name.split(".")[0] in left_layers]
    for name, tensor in own.items():
        if name not in left:
            tensor.set_value(np.asarray(given[_plain(name)], np.float32))
    return left


def _describe_misfit(backbone: nn.Layer, wrong: list[str], given: Weights) -> str:
    name = wrong[0]
    shape = _shape(given.get(_plain(name)))
    here = list(backbone.state_dict()[name].shape)
    what = "is missing" if shape is None else f"has the shape {list(shape)}, and the network one of {here}"
    more = f" (and {len(wrong) - 1} more do not fit)" if len(wrong) > 1 else ""
    return f"the pretrained weights are of another architecture than Arch.Backbone: {name} {what}{more}"


def _plain(name: str) -> str:
    return name.replace(".origin_layer.", ".")


def _shape(value: np.ndarray | None) -> tuple[int, ...] | None:
    return None if value is None else value.shape


def _published(arch_name: str, use_ssld: bool) -> str:
    table = PUBLISHED_SSLD if use_ssld else PUBLISHED
    if arch_name in table:
        return table[arch_name]
    if use_ssld and arch_name in PUBLISHED:
        raise PretrainedError(
            f"no distilled weights are published for {arch_name}, only for {', '.join(table)}: "
            "take use_ssld out of Arch.Backbone"
        )
    raise PretrainedError(f"no weights are published for {arch_name}, only for {', '.join(table)}{_INSTEAD}")


def _find(path: Path) -> Path:
    path = path.expanduser()
    if (found := find_file(path)) is not None:
        return found
    raise PretrainedError(f"Arch.Backbone.pretrained: there is no file {path} or {path}{SUFFIX}")


def _fetch(url: str, cache_dir: Path | None, progress: Progress | None) -> Path:
    """Download weights into the cache, if they are not there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PretrainedError(f"{url} is no address of http or https{_INSTEAD}")
    name = PurePosixPath(parts.path).name or "weights"
    # Addresses that end alike are different files.
    target = (cache_dir or user_cache("pretrained")) / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    bar = None if progress is not None else DownloadBar(name)
    try:
        return download(url, target, md5=_MD5.get(url), verify=read_weights, progress=progress or bar)
    except WeightFileError as error:
        raise PretrainedError(f"{url} cannot be read as weights: {error}") from error
    except HubError as error:
        raise PretrainedError(f"{error}; the file may be put at {target} by hand{_INSTEAD}") from error
    except OSError as error:
        raise PretrainedError(
            f"{url} cannot be kept in {target.parent}: {error}; what came of it stays there, and another try goes on"
        ) from error
    finally:
        if bar is not None:
            bar.stop()
