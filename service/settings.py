"""Settings: environment variables ``SHITU_*`` over a YAML file over defaults. Only this module knows the environment.

A mistake is never ignored: an unknown ``SHITU_*`` variable, an unknown key of the file, a value of the wrong kind
or range each become one line that names the place and what is wrong, and all of them are reported together.

    SettingsError   the settings cannot be used; ``problems`` has one line for each thing to correct
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from index_store import MAX_METADATA_BYTES, METHODS, IndexOptions, Method
from models.inference import STARTER_DETECTOR, STARTER_HASHER, Preprocessing

from .config_file import FileSettings, read_config
from .logs import LogFormat
from .security.key_lines import MAX_RATE, MAX_REQUESTS
from .security.limits import CallerLimits
from .security.valid_keys import KeySources

ENV_PREFIX = "SHITU_"
CONFIG_VARIABLE = "SHITU_CONFIG"
CLIENT_KEY_VARIABLE = "SHITU_API_KEY"
"""The key that commands send to a server: an option of theirs, no setting of a service."""

_LOG = logging.getLogger("shitu.settings")
_FILE_ONLY = frozenset({"rec_preprocess", "det_preprocess"})  # pipelines: PP-ShiTu's sections write them better
_SECRET = frozenset({"api_keys", "otlp_endpoint"})  # values that no message repeats; the latter may have a password
_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# Kubernetes describes every service of a namespace in the environment of its pods; a service called "shitu" or
# "shitu-something" thereby sets variables that look like ours.
_KUBERNETES = re.compile(r"SHITU(_[A-Z0-9]+)*?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


class SettingsError(Exception):
    """The settings cannot be used.

    Attributes:
        problems: one line for each thing to correct.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        """Take one line for each thing to correct."""
        super().__init__("\n".join(problems))
        self.problems = problems


def _not_a_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 (pydantic collects value errors only)
    return value


def _expand(path: Path) -> Path:
    return path.expanduser()


def _index_method(value: Any) -> Any:
    names = {method.lower(): method for method in METHODS}
    return names.get(value.lower(), value) if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _none_if_empty(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _tab(value: Any) -> Any:
    return "\t" if value == "\\t" else value


def _parted(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origins(origins: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for origin in origins or ():
        if origin != "*" and _ORIGIN.fullmatch(origin) is None:
            raise ValueError(
                "must be origins as browsers send them, such as https://shop.example or http://localhost:3000: scheme, "
                "host in lower case and a port if it is not the scheme's own, without a path"
            )
    return origins


def _http_url(url: str | None) -> str | None:
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ValueError("must be a URL such as http://collector:4318")
    return url


def _starter_detector() -> Path | None:
    return STARTER_DETECTOR if STARTER_DETECTOR.is_dir() else None


Number = BeforeValidator(_not_a_flag)
FilePath = Annotated[Path, AfterValidator(_expand)]


class Settings(BaseSettings):
    """Everything that can be configured, read once and passed down.

    ``Settings(...)`` takes values by name over the environment over defaults; :meth:`load` also reads the YAML
    file and checks for variables that no setting has, so a process should start with that.

    Sizes are in bytes and pixels, times in seconds, thresholds from 0 to 1, distances in bits.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: Annotated[int, Number] = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: FilePath = Field(Path("data"), description="folder of the gallery; one process at a time owns it")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="least severe level that is logged"
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        "text", description="how the log is written to standard error: text for people, or json, an object a line"
    )
    otlp_endpoint: Annotated[str | None, BeforeValidator(_none_if_empty), AfterValidator(_http_url)] = Field(
        None, description="URL of an OpenTelemetry collector that takes traces over OTLP/HTTP; unset: no traces"
    )

    hasher_dir: FilePath = Field(STARTER_HASHER, description="folder of the binary feature model")
    detector_dir: Annotated[FilePath | None, BeforeValidator(_none_if_empty)] = Field(
        default_factory=_starter_detector, description="folder of the main-body detector; empty: no detector"
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], BeforeValidator(_lower)] = Field(
        "auto", description="where the models run; auto: the GPU where there is one"
    )
    cpu_threads: Annotated[int, Number] | None = Field(
        None, ge=1, le=1024, description="threads of inference and search; unset: one a core"
    )
    enable_mkldnn: bool = Field(True, description="use oneDNN on a CPU")
    binarize: Annotated[Literal["sign", "round"], BeforeValidator(_lower)] | None = Field(
        None, description="how features become bits; unset: what the model folder says"
    )
    rec_preprocess: Preprocessing | None = Field(
        None, description="preprocessing of the feature model; unset: what the model folder says"
    )
    det_preprocess: Preprocessing | None = Field(
        None, description="preprocessing of the detector; unset: what the model folder says"
    )
    expected_bits: Annotated[int, Number] | None = Field(
        None, ge=8, multiple_of=8, description="code length that the feature model must have; unset: any"
    )
    hash_batch_size: Annotated[int, Number] = Field(32, ge=1, le=1024, description="most crops hashed at a time")
    model_cache_dir: FilePath | None = Field(
        None, description="folder of models from `shitu models pull`; unset: `shitu-hash/models` in the user's cache"
    )

    index_method: Annotated[Method, BeforeValidator(_index_method)] | None = Field(
        None, description="kind of search index; unset: what was chosen for the gallery last, Flat for a new one"
    )
    index_device: Annotated[Literal["cpu", "gpu"], BeforeValidator(_lower)] = Field(
        "cpu", description="where a Flat index compares codes; gpu: where Faiss has one, else the CPU, with a warning"
    )
    nlist: Annotated[int, Number] | None = Field(
        None, ge=1, le=10_000_000, description="inverted lists of IVF; unset: by the number of items"
    )
    nprobe: Annotated[int, Number] | None = Field(
        None, ge=1, description="inverted lists that a search looks at unless it says so itself; unset: a twentieth"
    )
    ef_construction: Annotated[int, Number] = Field(
        100, ge=4, le=10_000, description="candidates that HNSW32 keeps while it links an item"
    )
    ef_search: Annotated[int, Number] = Field(
        128, ge=1, le=100_000, description="candidates that HNSW32 keeps in a search unless it says so itself"
    )
    hamming_radius: Annotated[int, Number] | None = Field(
        None, ge=0, description="greatest distance of a match, inclusive; unset: what the model recommends"
    )
    top_k: Annotated[int, Number] = Field(5, ge=1, le=1000, description="most matches an object")
    det_threshold: Annotated[float, Number] = Field(0.2, ge=0, le=1, description="least score of a detected box")
    max_objects: Annotated[int, Number] = Field(5, ge=1, le=100, description="most detected boxes a picture")
    whole_image: bool = Field(
        True, description="search the whole picture beside the detected boxes; false: only where nothing is detected"
    )
    rec_nms_threshold: Annotated[float, Number] = Field(
        0.05, ge=0, le=1, description="overlap (IoU) above which the worse of two recognised objects is dropped"
    )

    max_upload_bytes: Annotated[int, Number] = Field(20 * 2**20, ge=1, description="largest picture file")
    max_pixels: Annotated[int, Number] = Field(50_000_000, ge=1, description="largest picture, width times height")
    max_metadata_bytes: Annotated[int, Number] = Field(
        MAX_METADATA_BYTES, ge=2, le=MAX_METADATA_BYTES, description="most metadata of an item, as compact JSON"
    )
    max_batch_images: Annotated[int, Number] = Field(
        256, ge=1, le=10_000, description="most items in one POST /gallery/batch with pictures"
    )
    max_batch_codes: Annotated[int, Number] = Field(
        10_000, ge=1, le=100_000, description="most items in one POST /gallery/batch of codes alone"
    )
    max_batch_bytes: Annotated[int, Number] = Field(
        256 * 2**20, ge=1, description="largest body of POST /gallery/batch"
    )
    max_concurrent_requests: Annotated[int, Number] = Field(
        64, ge=1, description="requests other than batches under way or waiting; further ones are answered 429"
    )

    max_connections: Annotated[int, Number] = Field(
        1000, ge=2, description="most open connections; beyond, a new one takes the place of the longest idle one"
    )
    header_timeout_s: Annotated[float, Number] = Field(
        10.0, gt=0, allow_inf_nan=False, description="time for the head of a request to arrive"
    )
    keep_alive_timeout_s: Annotated[int, Number] = Field(
        75, ge=0, description="time that a connection is kept open for a further request"
    )
    drain_delay_s: Annotated[float, Number] = Field(
        0.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="time that the service still takes requests after it was told to stop and is not ready any more",
    )
    drain_timeout_s: Annotated[float, Number] = Field(
        20.0, ge=0, allow_inf_nan=False, description="time to finish accepted requests when the service stops"
    )

    keep_images: bool = Field(False, description="keep enrolled pictures, so that another model can hash them again")
    min_free_bytes: Annotated[int, Number] = Field(
        256 * 2**20,
        ge=0,
        description="room on the disk of the data folder that enrolment, rebuilds and kept pictures leave free",
    )

    api_keys_file: FilePath | None = Field(None, description="file of API keys; unset: no authentication")
    api_keys: SecretStr | None = Field(
        None, description="lines as in a file of API keys, parted by line ends or `;`, beside or instead of the file"
    )
    open_probes: bool = Field(True, description="answer /livez and /readyz without a key")
    open_metrics: bool = Field(True, description="answer /metrics without a key")
    rate_limit: Annotated[float, Number] | None = Field(
        None, gt=0, le=MAX_RATE, description="requests a second of one key; further ones are answered 429; unset: any"
    )
    rate_burst: Annotated[int, Number] | None = Field(
        None,
        ge=1,
        le=MAX_REQUESTS,
        description="requests at once of one key after a quiet time; unset: 2 seconds' worth",
    )
    max_concurrent_requests_per_key: Annotated[int, Number] | None = Field(
        None,
        ge=1,
        le=MAX_REQUESTS,
        description="requests of one key under way; further ones are answered 429; unset: any",
    )
    cors_origins: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_parted), AfterValidator(_origins)] = (
        Field(None, description="origins whose pages may use the service from a browser, parted by commas; unset: none")
    )

    image_root: FilePath | None = Field(None, description="folder that the paths of a gallery list are relative to")
    data_file: FilePath | None = Field(None, description="gallery list: one path and label a line")
    delimiter: Annotated[str, BeforeValidator(_tab)] = Field(
        "\t", min_length=1, description="what parts path and label in the gallery list"
    )
    index_operation: Annotated[Literal["new", "append", "remove"], BeforeValidator(_lower)] = Field(
        "new", description="what building from the gallery list does"
    )
    build_batch_size: Annotated[int, Number] = Field(32, ge=1, le=1024, description="pictures a step of a build")

    @field_validator("rate_burst")
    @classmethod
    def _burst_needs_a_rate(cls, burst: int | None, info: ValidationInfo) -> int | None:
        if burst is not None and info.data.get("rate_limit", burst) is None:
            raise ValueError("needs a rate limit beside it")
        return burst

    @property
    def key_sources(self) -> KeySources:
        """Where API keys are written."""
        lines = None if self.api_keys is None else self.api_keys.get_secret_value()
        return KeySources(self.api_keys_file, lines, _variable("api_keys"))

    @property
    def caller_limits(self) -> CallerLimits:
        """What one caller may use whose key has no limits of its own."""
        return CallerLimits.of(self.rate_limit, self.rate_burst, self.max_concurrent_requests_per_key)

    @property
    def index_options(self) -> IndexOptions:
        """How indexes are made and searched."""
        return IndexOptions(
            nlist=self.nlist,
            nprobe=self.nprobe,
            ef_construction=self.ef_construction,
            ef_search=self.ef_search,
            gpu=self.index_device == "gpu",
        )

    @classmethod
    def load(cls, config: Path | None = None, **overrides: Any) -> Settings:
        """Read the settings: ``overrides`` over the environment over the YAML file over defaults.

        Args:
            config: the YAML file; None takes the one that ``SHITU_CONFIG`` names, if any.
            overrides: values by name, such as options of a command line. None leaves a setting alone.

        Raises:
            SettingsError: something is unknown, of the wrong kind or out of range.
        """
        names = frozenset(cls.model_fields) - _FILE_ONLY
        environment = _our_variables(os.environ)
        problems = _unknown_variables(environment, names)
        config = config or _config_from(environment)
        file = read_config(config, names) if config is not None else FileSettings()
        problems += file.problems
        overrides = {name: value for name, value in overrides.items() if value is not None}
        chosen, notes = _choose(file, set(overrides) | {name for name in names if _variable(name) in environment})
        settings = None
        try:
            settings = cls(**(chosen | overrides))
        except ValidationError as error:
            problems += _explain(error, config, file, overrides, environment)
        if problems or settings is None:
            raise SettingsError(problems)
        for note in (*file.notes, *notes):
            _LOG.info(note)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller, then the environment; no secret files, no ``.env``."""
        return init_settings, _Environment(settings_cls)


class _Environment(EnvSettingsSource):
    """The environment, where an empty variable counts as not set: ``SHITU_X=${X:-}`` is usual in compose files."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        file_only = {_variable(name) for name in _FILE_ONLY}
        ours = _our_variables(os.environ)
        return {name.lower(): value for name, value in ours.items() if name not in file_only}


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _our_variables(environ: Mapping[str, str]) -> dict[str, str]:
    ours = {}
    for name, value in environ.items():
        upper = name.upper()
        foreign = _KUBERNETES.fullmatch(upper) and (upper != _variable("port") or "://" in value)
        empty = not value.strip() and upper != _variable("detector_dir")
        if upper.startswith(ENV_PREFIX) and upper != CLIENT_KEY_VARIABLE and not foreign and not empty:
            ours[upper] = value
    return ours


def _unknown_variables(environment: Mapping[str, str], names: frozenset[str]) -> tuple[str, ...]:
    known = [CONFIG_VARIABLE, *(_variable(name) for name in sorted(names))]
    problems = []
    for name in sorted(set(environment) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name}: is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(problems)


def _config_from(environment: Mapping[str, str]) -> Path | None:
    named = environment.get(CONFIG_VARIABLE)
    return Path(named).expanduser() if named else None


_OF_MODEL = {"rec_preprocess": "hasher_dir", "binarize": "hasher_dir", "det_preprocess": "detector_dir"}


def _choose(file: FileSettings, elsewhere: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Take the file's values that nothing goes before; what belongs to a model goes with its folder."""
    chosen, notes = {}, []
    for name, given in file.values.items():
        folder = _OF_MODEL.get(name)
        if name in elsewhere:
            continue
        if folder is not None and not given.key.startswith("Service.") and folder in elsewhere:
            notes.append(f"{given.key} in line {given.line} belongs to another model folder and is left out")
            continue
        chosen[name] = given.value
    return chosen, notes


def _explain(
    error: ValidationError,
    config: Path | None,
    file: FileSettings,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str],
) -> tuple[str, ...]:
    problems = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        if name in overrides:
            place = name
        elif _variable(name) in environment:
            place = _variable(name)
        elif name in file.values:
            place = f"{config}:{file.values[name].line}: {file.values[name].key}"
        else:
            place = name
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
        problems.append(f"{place}: {message}" + ("" if name in _SECRET else f", not {detail['input']!r}"))
    return tuple(dict.fromkeys(problems))
