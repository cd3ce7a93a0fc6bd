"""``Arch.Backbone.pretrained``: files, addresses (from a real server), the publisher's, and how weights meet a net."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
import pytest

from models import nets
from models.training.pretrained import PUBLISHED, PUBLISHED_SSLD, PretrainedError, apply_pretrained, load_pretrained

from .file_server import FileServer, serve

ROOT = Path(__file__).parent.parent.parent
NAME = "PPLCNet_x0_25"
Weights = dict[str, npt.NDArray[Any]]


def copy(net: paddle.nn.Layer) -> Weights:
    return {name: np.array(tensor.numpy()) for name, tensor in net.state_dict().items()}


def assert_equal(actual: Weights, expected: Weights) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait before another attempt: the server is ready for it."""
    monkeypatch.setattr("models.hub.download._PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as PaddleClas publishes them: a state with 1,000 classes."""
    paddle.seed(5)
    path = tmp_path_factory.mktemp("published") / "weights.pdparams"
    paddle.save(nets.build(NAME).state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def weights(published: Path) -> Weights:
    return paddle.load(str(published), return_numpy=True)


@pytest.fixture
def server(published: Path) -> Iterator[FileServer]:
    with serve(published.read_bytes()) as running:
        yield running


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send everything to a proxy that nobody runs."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        yield


# Where weights come from


def test_false_means_none() -> None:
    assert load_pretrained(NAME, False) == {}


@pytest.mark.parametrize("suffix", ["", ".pdparams"])
def test_a_path_may_leave_out_its_suffix(published: Path, weights: Weights, suffix: str) -> None:
    assert_equal(load_pretrained(NAME, f"{published.with_suffix('')}{suffix}"), weights)


def test_a_path_may_begin_at_home(published: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(published.parent))
    assert_equal(load_pretrained(NAME, "~/weights"), weights)


def test_of_a_whole_model_the_backbone_is_taken(tmp_path: Path, weights: Weights) -> None:
    whole = {f"backbone.{name}": value for name, value in weights.items()} | {"head.fc.weight": np.ones((4, 4))}
    paddle.save(whole, str(tmp_path / "best_model.pdparams"))
    assert_equal(load_pretrained(NAME, str(tmp_path / "best_model")), weights)


def test_a_missing_file_is_told_with_both_names_it_may_have(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match=rf"{tmp_path}/weights or {tmp_path}/weights\.pdparams"):
        load_pretrained(NAME, str(tmp_path / "weights"))
    with pytest.raises(PretrainedError, match="there is no file"):
        load_pretrained(NAME, str(tmp_path))


@pytest.mark.parametrize("value", ["", 3, None, ["weights"]])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(PretrainedError, match=r"must be true, false, a path or a URL, not"):
        load_pretrained(NAME, value)


def test_an_address_is_downloaded_once_and_kept(server: FileServer, weights: Weights, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    loaded = load_pretrained(NAME, server.url, cache_dir=tmp_path, progress=lambda *one: told.append(one))
    assert_equal(loaded, weights)
    assert told[-1] == (len(server.content), len(server.content))
    server.status = 404
    assert_equal(load_pretrained(NAME, server.url, cache_dir=tmp_path), weights)
    assert len(server.asked) == 1
    # Another address that ends alike is another file.
    with pytest.raises(PretrainedError, match="answers 404"):
        load_pretrained(NAME, f"{server.url}?version=2", cache_dir=tmp_path)


def test_the_cache_is_where_the_desktop_keeps_caches(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_pretrained(NAME, server.url)
    assert [path.suffix for path in (tmp_path / "cache" / "shitu-hash" / "pretrained").glob("*.pdparams")] != []
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    load_pretrained(NAME, server.url)
    assert [path.suffix for path in (tmp_path / ".cache" / "shitu-hash" / "pretrained").glob("*.pdparams")] != []


def test_a_download_that_broke_off_goes_on(server: FileServer, weights: Weights, tmp_path: Path) -> None:
    server.breaks = [1_000_000]
    assert_equal(load_pretrained(NAME, server.url, cache_dir=tmp_path), weights)
    assert server.asked == [None, "bytes=1000000-"]


def test_a_page_instead_of_weights_is_not_kept(server: FileServer, weights: Weights, tmp_path: Path) -> None:
    content, server.content = server.content, b"<html>Please log in to the network first</html>"
    with pytest.raises(PretrainedError, match=rf"{server.url} cannot be read as weights"):
        load_pretrained(NAME, server.url, cache_dir=tmp_path)
    server.content = content
    assert_equal(load_pretrained(NAME, server.url, cache_dir=tmp_path), weights)


class Hostile:
    """Runs a command where it is unpickled without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_nothing_that_comes_from_the_network_runs(server: FileServer, weights: Weights, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    server.content = pickle.dumps({**weights, "fc.bias": Hostile(f"touch {flag}")}, 2)
    with pytest.raises(PretrainedError, match=r"not safe to read: it asks for posix\.system"):
        load_pretrained(NAME, server.url, cache_dir=tmp_path / "cache")
    assert not flag.exists()
    pickle.loads(server.content)  # the trap is live
    assert flag.exists()


def test_a_kept_file_that_was_damaged_is_told_by_its_path(server: FileServer, tmp_path: Path) -> None:
    load_pretrained(NAME, server.url, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("*.pdparams")
    kept.write_bytes(kept.read_bytes()[:-1000])
    with pytest.raises(PretrainedError, match=re.escape(str(kept))):
        load_pretrained(NAME, server.url, cache_dir=tmp_path)


def test_two_processes_at_once_share_one_download(server: FileServer, tmp_path: Path) -> None:
    server.pause_s = 0.01
    script = (
        "import sys; from pathlib import Path; from models.training.pretrained import load_pretrained; "
        "print(len(load_pretrained('PPLCNet_x0_25', sys.argv[1], cache_dir=Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, server.url, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert counts == [len(nets.build(NAME).state_dict())] * 2
    assert server.asked == [None]


def test_a_folder_that_cannot_be_made_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PretrainedError, match=rf"cannot be kept in {tmp_path}/file/cache"):
        load_pretrained(NAME, server.url, cache_dir=tmp_path / "file" / "cache")


def test_a_full_disk_is_told_with_the_folder(server: FileServer, tmp_path: Path) -> None:
    load_pretrained(NAME, server.url, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("*.pdparams")
    kept.unlink()
    kept.with_name(f"{kept.name}.part").symlink_to("/dev/full")
    with pytest.raises(PretrainedError, match=rf"{server.url} cannot be kept in {tmp_path}: .*No space left"):
        load_pretrained(NAME, server.url, cache_dir=tmp_path)
    assert not kept.exists()


@pytest.mark.parametrize("url", ["ftp://example.org/weights.pdparams", "http:///weights.pdparams", "file:///etc/hosts"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(PretrainedError, match=r"no address of http or https; .* named by its path"):
        load_pretrained(NAME, url)


# What is published

BASE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"


def test_every_backbone_of_the_reference_has_an_address() -> None:
    parts = {"CosMargin", "FC", "Tanh"}
    assert set(PUBLISHED) == set(nets.NETS) - parts - {"MobileNetV1", "PicoDetS"}
    assert set(PUBLISHED_SSLD) < set(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "use_ssld", "address"),
    [
        ("PPLCNet_x2_5_Tanh", True, f"{BASE}/legendary_models/PPLCNet_x2_5_ssld_pretrained.pdparams"),
        ("PPLCNet_x0_35", False, f"{BASE}/legendary_models/PPLCNet_x0_35_pretrained.pdparams"),
        ("AlexNet", False, f"{BASE}/AlexNet_pretrained.pdparams"),
        ("VGG19Sigmoid", False, f"{BASE}/legendary_models/VGG19_pretrained.pdparams"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_true_means_the_published_ones_and_without_a_network_says_which(
    name: str, use_ssld: bool, address: str, tmp_path: Path, published: Path, weights: Weights
) -> None:
    with pytest.raises(
        PretrainedError, match=rf"cannot connect to {re.escape(address)}.*by its path in Arch\.Backbone"
    ) as caught:
        load_pretrained(name, True, use_ssld, cache_dir=tmp_path)
    # Put where the message says, the file is taken without a network.
    place = Path(str(caught.value).partition("may be put at ")[2].partition(" by hand")[0])
    assert place.parent == tmp_path
    place.write_bytes(published.read_bytes())
    assert_equal(load_pretrained(name, True, use_ssld, cache_dir=tmp_path), weights)


def test_what_is_not_published_is_told() -> None:
    with pytest.raises(PretrainedError, match=r"no distilled weights are published for AlexNet, only for .*use_ssld"):
        load_pretrained("AlexNet", True, use_ssld=True)
    with pytest.raises(PretrainedError, match=r"no weights are published for MobileNetV1.*by its path"):
        load_pretrained("MobileNetV1", True)


# How they meet a network


def test_all_is_put_where_all_fits(weights: Weights) -> None:
    net = nets.build(NAME)
    assert apply_pretrained(net, weights) == []
    assert_equal(copy(net), weights)


def test_a_last_layer_of_another_length_stays_random(weights: Weights) -> None:
    net = nets.build(f"{NAME}_Tanh", class_num=48)
    before = copy(net)
    left = apply_pretrained(net, weights)
    assert left == ["fc.origin_layer.weight", "fc.origin_layer.bias"]
    after = copy(net)
    assert_equal({name: after[name] for name in left}, {name: before[name] for name in left})
    assert_equal(
        {name: value for name, value in after.items() if name not in left},
        {name: value for name, value in weights.items() if not name.startswith("fc.")},
    )


@pytest.mark.parametrize(("source", "target"), [("", "_Tanh"), ("_Tanh", "")])
def test_a_last_layer_of_this_length_fits_with_and_without_tanh(source: str, target: str) -> None:
    trained, net = nets.build(f"{NAME}{source}", class_num=16), nets.build(f"{NAME}{target}", class_num=16)
    assert apply_pretrained(net, copy(trained)) == []
    for one, other in zip(copy(net).values(), copy(trained).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_last_layer_is_taken_whole_or_not_at_all(weights: Weights) -> None:
    net = nets.build(NAME)
    bias = np.array(net.fc.bias.numpy())
    given = {name: value for name, value in weights.items() if name != "fc.weight"} | {"fc.bias": bias + 1}
    assert apply_pretrained(net, given) == ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(net.fc.bias.numpy(), bias)


def test_mobilenet_starts_from_its_archive(shared: Path) -> None:
    path = shared / "data" / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz"
    net = nets.build("MobileNetV1", class_num=48, pooled_blocks=(11, 13))
    left = apply_pretrained(net, load_pretrained("MobileNetV1", str(path)))
    norm = [f"norm.{part}" for part in ("weight", "bias", "_mean", "_variance")]
    assert sorted(left) == sorted([*norm, "fc.weight", "fc.bias"])
    with np.load(path) as archive:
        np.testing.assert_array_equal(net.conv7_dw.weight.numpy(), archive["conv7_dw.weight"])


def test_half_precision_is_widened(weights: Weights) -> None:
    net = nets.build(NAME)
    apply_pretrained(net, {name: value.astype(np.float16) for name, value in weights.items()})
    assert net.conv1.conv.weight.dtype == paddle.float32
    np.testing.assert_array_equal(net.conv1.conv.weight.numpy(), weights["conv1.conv.weight"].astype(np.float16))


def without(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name != "blocks6.1.se.conv2.bias"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (NAME, without, r"another architecture .*: blocks6\.1\.se\.conv2\.bias is missing$"),
        (
            "PPLCNet_x0_5",
            dict,
            r": \S+ has the shape \[8, 8, 1, 1\], and the network one of \[16, 8, 1, 1\] \(and \d+ more",
        ),
        ("MobileNetV1", dict, r": conv0\.weight is missing \(and 53 more do not fit\)"),
        (NAME, lambda given: given | {"conv1.bn.bias": np.zeros(8, np.int8)}, r"conv1\.bn\.bias is of the type int8"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(
    weights: Weights, name: str, change: Callable[[Weights], Weights], message: str
) -> None:
    net = nets.build(name)
    before = copy(net)
    with pytest.raises(PretrainedError, match=message):
        apply_pretrained(net, change(weights))
    assert_equal(copy(net), before)
