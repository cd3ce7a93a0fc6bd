"""Settings from the environment, PP-ShiTu's YAML and defaults."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from models.inference import DETECTION, RECOGNITION, STARTER_HASHER
from service.security.limits import CallerLimits
from service.security.valid_keys import KeySources
from service.settings import Settings, SettingsError

# A configuration as PP-ShiTu's users have it, with its misspellings.
PPSHITU = """\
Global:
  infer_imgs: "./drink_dataset_v1.0/test_images/001.jpeg"
  det_inference_model_dir: "./models/mainbody_infer"
  rec_inference_model_dir: "./models/binary_infer"
  rec_nms_thresold: 0.07

  batch_size: 1
  image_shape: [3, 640, 640]
  threshold: 0.3
  max_det_results: 7
  labe_list:
  - foreground

  use_gpu: True
  enable_mkldnn: False
  cpu_num_threads: 1
  enable_benchmark: True
  use_fp16: False
  ir_optim: True
  use_tensorrt: False
  gpu_mem: 8000
  enable_profile: False

DetPreProcess:
  transform_ops:
    - DetResize:
        interp: 2
        keep_ratio: false
        target_size: [640, 640]
    - DetNormalizeImage:
        is_scale: true
        mean: [0.485, 0.456, 0.406]
        std: [0.229, 0.224, 0.225]
    - DetPermute: {}
DetPostProcess: {}

RecPreProcess:
  transform_ops:
    - ResizeImage:
        size: 224
    - NormalizeImage:
        scale: 1.0/255.0
        mean: [0.485, 0.456, 0.406]
        std: [0.229, 0.224, 0.225]
        order: ''
    - ToCHWImage:

RecPostProcess:
  main_indicator: Binarize
  Binarize:
    method: "round"

# indexing engine config
IndexProcess:
  index_method: "flat"  # supported: HNSW32, Flat
  image_root: "./drink_dataset_v1.0/gallery/"
  index_dir: "./drink_dataset_v1.0/index_bin"
  data_file:  "./drink_dataset_v1.0/gallery/drink_label.txt"
  index_operation: "append"
  delimiter: "\\t"
  dist_type: "hamming"
  embedding_size: 512
  batch_size: 16
  return_k: 3
  hamming_radius: 90
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("SHITU_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "inference_general_binary.yaml"
    path.write_text(PPSHITU, encoding="utf-8")
    return path


def line_of(text: str, fragment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


def problems(config: Path | None = None, **overrides: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(config, **overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_defaults_are_those_of_the_design() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8000, Path("data"))
    assert settings.hasher_dir == STARTER_HASHER
    assert (settings.top_k, settings.hamming_radius, settings.index_method) == (5, None, None)
    assert (settings.max_upload_bytes, settings.max_pixels) == (20 * 1024 * 1024, 50_000_000)
    assert not settings.keep_images
    assert settings.api_keys_file is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().port = 1  # type: ignore[misc]


def test_a_ppshitu_file_is_read_unchanged(config: Path) -> None:
    settings = Settings.load(config)
    assert settings.detector_dir == Path("models/mainbody_infer")
    assert settings.hasher_dir == Path("models/binary_infer")
    assert settings.rec_nms_threshold == 0.07
    assert (settings.det_threshold, settings.max_objects) == (0.3, 7)
    assert (settings.device, settings.enable_mkldnn, settings.cpu_threads) == ("auto", False, 1)
    assert settings.binarize == "round"
    assert settings.rec_preprocess == RECOGNITION
    assert settings.det_preprocess == DETECTION
    assert settings.index_method == "Flat"
    assert settings.image_root == Path("drink_dataset_v1.0/gallery")
    assert settings.data_dir == Path("drink_dataset_v1.0/index_bin")
    assert settings.data_file == Path("drink_dataset_v1.0/gallery/drink_label.txt")
    assert (settings.index_operation, settings.delimiter) == ("append", "\t")
    assert (settings.expected_bits, settings.build_batch_size) == (512, 16)
    assert (settings.top_k, settings.hamming_radius) == (3, 90)


def test_keys_without_effect_leave_a_line_in_the_log(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shitu.settings"):
        Settings.load(config)
    for key in ("enable_benchmark", "ir_optim", "gpu_mem", "enable_profile", "infer_imgs"):
        line = line_of(PPSHITU, f"{key}:")
        assert any(f"{config}:{line}: Global.{key}: has no effect" in message for message in caplog.messages)
    assert not any("threshold" in message for message in caplog.messages)


def test_more_threads_than_cores_are_cut_to_the_cores(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    config.write_text(PPSHITU.replace("cpu_num_threads: 1", "cpu_num_threads: 1000"), encoding="utf-8")
    with caplog.at_level(logging.INFO, "shitu.settings"):
        assert 1 <= (Settings.load(config).cpu_threads or 0) < 1000
    assert any("cpu_num_threads: 1000 threads on" in message for message in caplog.messages)


def test_environment_goes_before_the_file_and_options_before_both(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHITU_CONFIG", str(config))
    monkeypatch.setenv("SHITU_TOP_K", "9")
    monkeypatch.setenv("SHITU_HAMMING_RADIUS", "80")
    settings = Settings.load(hamming_radius=70, host=None)
    assert (settings.top_k, settings.hamming_radius, settings.det_threshold) == (9, 70, 0.3)


def test_what_the_file_says_of_its_model_stays_with_that_model(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHITU_HASHER_DIR", "other")
    with caplog.at_level(logging.INFO, "shitu.settings"):
        settings = Settings.load(config)
    assert settings.hasher_dir == Path("other")
    assert (settings.rec_preprocess, settings.binarize) == (None, None)
    assert settings.det_preprocess == DETECTION
    assert any("RecPreProcess" in message and "left out" in message for message in caplog.messages)


def test_service_section_takes_our_own_names_and_wins(config: Path) -> None:
    config.write_text(PPSHITU + "Service:\n  port: 9000\n  data_dir: here\n  keep_images: true\n", encoding="utf-8")
    settings = Settings.load(config)
    assert (settings.port, settings.data_dir, settings.keep_images) == (9000, Path("here"), True)


def test_service_section_wins_wherever_it_stands(config: Path) -> None:
    config.write_text("Service: {top_k: 8}\n" + PPSHITU, encoding="utf-8")
    assert Settings.load(config).top_k == 8


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("return_k: 3", "retrun_k: 3", "IndexProcess.retrun_k", "did you mean return_k?"),
        ('dist_type: "hamming"', "dist_type: L2", "IndexProcess.dist_type", "binary"),
        ('dist_type: "hamming"', "dist_type: IP", "IndexProcess.dist_type", "binary"),
        ("use_tensorrt: False", "use_tensorrt: True", "Global.use_tensorrt", "cannot be honoured"),
        ("use_fp16: False", "use_fp16: True", "Global.use_fp16", "cannot be honoured"),
        ("use_gpu: True", "use_gpu: 7", "Global.use_gpu", "true or false"),
        ("threshold: 0.3", "threshold: high", "Global.threshold", "must be a number, not 'high'"),
        ("threshold: 0.3", "threshold: 1.5", "Global.threshold", "less than or equal to 1"),
        ("max_det_results: 7", "max_det_results: true", "Global.max_det_results", "whole number"),
        ("max_det_results: 7", "max_det_results: 0", "Global.max_det_results", "greater than or equal to 1"),
        ("image_shape: [3, 640, 640]", "image_shape: [3, 416, 416]", "Global.image_shape", "640 x 640"),
        ("keep_ratio: false", "keep_ratio: true", "DetPreProcess.transform_ops", "keep_ratio"),
        ("scale: 1.0/255.0", "scale: __import__('os')", "RecPreProcess.transform_ops", "not a number"),
        ("scale: 1.0/255.0", "scale: 1.0/0", "RecPreProcess.transform_ops", "not a number"),
        ("size: 224", "sise: 224", "RecPreProcess.transform_ops", "either size"),
        ("- ToCHWImage:", "- ToHWCImage:", "RecPreProcess.transform_ops", "not known"),
        ('method: "round"', "method: floor", "RecPostProcess.Binarize.method", "'sign' or 'round'"),
        ("main_indicator: Binarize", "main_indicator: Softmax", "RecPostProcess.main_indicator", "Softmax"),
        ("embedding_size: 512", "embedding_size: 500", "IndexProcess.embedding_size", "multiple of 8"),
        ('index_method: "flat"', "index_method: IVFPQ", "IndexProcess.index_method", "'HNSW32'"),
        ('index_operation: "append"', "index_operation: merge", "IndexProcess.index_operation", "'remove'"),
        ("DetPostProcess: {}", "DetPostProcess: {nms: 1}", "DetPostProcess.nms", "not a key"),
        ("DetPostProcess: {}", "DetPostproces: {}", "DetPostproces", "did you mean DetPostProcess?"),
    ],
)
def test_a_mistake_is_named_with_key_and_line(config: Path, old: str, new: str, key: str, says: str) -> None:
    text = PPSHITU.replace(old, new, 1)
    config.write_text(text, encoding="utf-8")
    (problem,) = problems(config)
    line = line_of(text, new)
    operators = "transform_ops" in key
    assert problem.startswith(f"{config}:{line}: {key}: ") or (operators and f"{config}:{line - 1}: {key}" in problem)
    assert says in problem


def test_a_float_configuration_is_refused(config: Path) -> None:
    text = PPSHITU.replace('  main_indicator: Binarize\n  Binarize:\n    method: "round"\n', "")
    text = text.replace("RecPostProcess:\n", "RecPostProcess: null\n").replace('"hamming"', '"IP"')
    config.write_text(text, encoding="utf-8")
    post, distance = problems(config)
    assert "RecPostProcess: " in post
    assert "models.binarize" in post
    assert "IndexProcess.dist_type: 'IP'" in distance


def test_all_mistakes_are_told_at_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PPSHITU.replace("return_k", "retrun_k").replace("threshold: 0.3", "threshold: 3")
    config.write_text(text, encoding="utf-8")
    monkeypatch.setenv("SHITU_PROT", "80")
    monkeypatch.setenv("SHITU_TOP_K", "0")
    told = problems(config, max_objects=0)
    assert len(told) == 5
    for place in ("SHITU_PROT: ", "retrun_k: ", "Global.threshold: ", "SHITU_TOP_K: ", "max_objects: "):
        assert sum(place in problem for problem in told) == 1, place
    assert "did you mean SHITU_PORT?" in told[0]


def test_both_spellings_of_a_key_must_agree(config: Path) -> None:
    text = PPSHITU.replace("  batch_size: 1\n", "  rec_nms_threshold: 0.5\n")
    config.write_text(text, encoding="utf-8")
    (problem,) = problems(config)
    assert "Global.rec_nms_threshold: says otherwise than Global.rec_nms_thresold in line 5" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Global:\n  use_gpu: [\n", ":3: not valid YAML"),
        ("Global:\n  threshold: 0.1\n  threshold: 0.2\n", ":3: threshold is given twice"),
        ("- Global\n", "must be a map"),
        ("Global: 3\n", ":1: Global: must be a map"),
        ("a: &a [*a]\n", "nested deeper"),
        ("a: !!python/object/apply:os.getcwd []\n", ":1: tag tag:yaml.org,2002:python"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("Service: {port: 70000}\n", ":1: Service.port: should be less than or equal to 65535"),
        ("Service:\n  prot: 7\n", ":2: Service.prot: is not a key that this service knows; did you mean port?"),
        ("Service: {port: yes}\n", ":1: Service.port: must be a number, not True"),
    ],
)
def test_a_file_that_is_no_settings_file(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    (problem,) = problems(path)
    assert problem.startswith(str(path))
    assert says in problem


def test_a_missing_or_binary_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No such file" in problems(tmp_path / "none.yaml")[0]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    monkeypatch.setenv("SHITU_CONFIG", str(binary))
    assert "not UTF-8" in problems()[0]


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert Settings.load(path) == Settings.load()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbf" + PPSHITU.replace("\n", "\r\n").encode())
    assert Settings.load(config).top_k == 3


def test_an_empty_detector_folder_means_no_detector(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_DETECTOR_DIR", "")
    settings = Settings.load(config)
    assert settings.detector_dir is None
    assert settings.det_preprocess is None
    monkeypatch.delenv("SHITU_DETECTOR_DIR")
    config.write_text(PPSHITU.replace('"./models/mainbody_infer"', '""'), encoding="utf-8")
    assert Settings.load(config).detector_dir is None


def test_other_empty_variables_count_as_not_set(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHITU_TOP_K", "SHITU_HAMMING_RADIUS", "SHITU_DATA_DIR", "SHITU_API_KEYS_FILE"):
        monkeypatch.setenv(name, "")
    assert Settings.load(config).hamming_radius == 90


def test_what_kubernetes_puts_into_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # The service links of services called "shitu" and "shitu-web" in the same namespace.
    for name, value in {
        "SHITU_SERVICE_HOST": "10.0.0.1",
        "SHITU_SERVICE_PORT": "8000",
        "SHITU_SERVICE_PORT_HTTP": "8000",
        "SHITU_PORT": "tcp://10.0.0.1:8000",
        "SHITU_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "SHITU_PORT_8000_TCP_ADDR": "10.0.0.1",
        "SHITU_WEB_SERVICE_HOST": "10.0.0.2",
        "SHITU_WEB_PORT": "tcp://10.0.0.2:80",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().port == 8000
    assert Settings(top_k=6).port == 8000
    monkeypatch.setenv("SHITU_PORT", "8080")
    assert Settings.load().port == 8080


def test_the_key_of_the_client_commands_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_API_KEY", "shitu_abc")
    settings = Settings.load()
    assert not settings.key_sources.given
    assert "shitu_abc" not in repr(settings)


def test_where_keys_are_and_what_they_are_limited_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SHITU_API_KEYS_FILE": "~/keys.txt",
        "SHITU_API_KEYS": "boss admin sha256:00",
        "SHITU_RATE_LIMIT": "2.5",
        "SHITU_MAX_CONCURRENT_REQUESTS_PER_KEY": "4",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.key_sources == KeySources(Path.home() / "keys.txt", "boss admin sha256:00", "SHITU_API_KEYS")
    assert settings.caller_limits == CallerLimits(2.5, 5, 4)
    assert "sha256:00" not in repr(settings)


def test_keys_that_are_no_text_are_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "shitu.yaml"
    path.write_text("Service:\n  api_keys: [boss admin sha256:00]\n", encoding="utf-8")
    (problem,) = problems(path)
    assert problem.startswith(f"{path}:2: Service.api_keys: ")
    assert "sha256" not in problem


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://shop.example", ("https://shop.example",)),
        (" https://shop.example , http://localhost:3000,", ("https://shop.example", "http://localhost:3000")),
        ("http://[::1]:8080", ("http://[::1]:8080",)),
        ("*", ("*",)),
    ],
)
def test_origins_are_parted_by_commas(given: str, read: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_CORS_ORIGINS", given)
    assert Settings.load().cors_origins == read


@pytest.mark.parametrize(
    "given",
    ["shop.example", "https://shop.example/", "https://Shop.example", "ftp://shop.example", "null", "https://*"],
)
def test_what_no_browser_sends_as_an_origin_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_CORS_ORIGINS", given)
    (problem,) = problems()
    assert problem.startswith("SHITU_CORS_ORIGINS: must be origins as browsers send them")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHITU_RATE_LIMIT", "0"),
        ("SHITU_RATE_LIMIT", "inf"),
        ("SHITU_RATE_LIMIT", "nan"),
        ("SHITU_RATE_BURST", "5"),
        ("SHITU_MAX_CONCURRENT_REQUESTS_PER_KEY", "0"),
        ("SHITU_MAX_METADATA_BYTES", "65537"),
    ],
)
def test_limits_that_cannot_be_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    (problem,) = problems()
    assert problem.startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["inf", "nan", "-1"])
def test_a_stop_takes_a_time_that_ends(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_DRAIN_TIMEOUT_S", value)
    (problem,) = problems()
    assert problem.startswith("SHITU_DRAIN_TIMEOUT_S: should be")


def test_index_methods_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, read in {"FLAT": "Flat", "ivf": "IVF", "Hnsw32": "HNSW32"}.items():
        monkeypatch.setenv("SHITU_INDEX_METHOD", given)
        assert Settings.load().index_method == read
