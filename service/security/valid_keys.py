"""Which keys are valid now: read at the start, and again whenever their file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ..errors import KeyFileError
from .key_file import KeyFile, Stamp, read_key_file, stamp_of
from .key_lines import Source, parse
from .keys import ApiKey, KeyRing

_LOG = logging.getLogger("shitu.keys")
_LOOK_EVERY_S = 2.0
HOW_TO_MAKE_ONE = "make one with `shitu keys add NAME --scope admin`"


@dataclass(frozen=True)
class KeySources:
    """Where the keys are written.

    Attributes:
        file: a file of lines, which may not be there yet; None: there is none.
        lines: the same lines as the value of a setting; None: it is not set.
        setting: what to call that setting.
    """

    file: Path | None = None
    lines: str | None = field(default=None, repr=False)
    setting: str = "api_keys"

    @property
    def given(self) -> bool:
        """Whether keys are asked for; without, everybody may do everything."""
        return self.file is not None or self.lines is not None

    @property
    def place(self) -> str:
        """Where a key would be written."""
        return self.setting if self.file is None else str(self.file)

    def read_file(self) -> KeyFile | None:
        """Read the file; None if there is to be none.

        Raises:
            KeyFileError: it cannot be read.
        """
        return None if self.file is None else read_key_file(self.file)

    def ring(self, file: KeyFile | None) -> KeyRing:
        """Put the keys of the file, as it was read, and of the setting together.

        Raises:
            KeyFileError: something in them is wrong.
        """
        sources = [] if file is None else [file.source]
        if self.lines is not None:
            sources.append(Source.variable(self.setting, self.lines))
        return parse(sources)


class ValidKeys:
    """The keys that are valid now; none before :meth:`load`. Looking one up belongs to the event loop's thread."""

    def __init__(self, sources: KeySources) -> None:
        """Take where the keys are written; nothing is read yet."""
        self._sources = sources
        self._ring = KeyRing()
        self._stamp = Stamp()
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def required(self) -> bool:
        """Whether a request needs a key at all."""
        return self._sources.given

    @property
    def hint(self) -> str:
        """What to do where there is no key yet; empty where there is one."""
        return "" if len(self._ring) else f"there is no API key yet: {HOW_TO_MAKE_ONE}"

    def find(self, key: str) -> ApiKey | None:
        """Give the stored key of a key that a request came with."""
        return self._ring.find(key)

    def load(self, host: str) -> None:
        """Read the keys for the first time and say what that means for a service on ``host``.

        Raises:
            KeyFileError: something in them is wrong.
        """
        if not self.required:
            _warn_of_no_keys(host)
            return
        self._take(self._sources.read_file())
        if self.hint:
            _LOG.error("every request is refused: %s, in %s", self.hint, self._sources.place)

    def reload_soon(self) -> None:
        """Have the file read again; signal handlers may call this."""
        if self._sources.file is None:
            _LOG.info("no file of API keys is watched, so there is nothing to read again")
        elif self._loop is not None:  # else the service starts or ends; a start looks at the file anyway
            self._loop.call_soon_threadsafe(self._asked.set)

    async def watch(self) -> None:
        """Read the file again when it changes or :meth:`reload_soon` asks for it, for as long as the service runs."""
        if self._sources.file is None:
            return
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), _LOOK_EVERY_S)
                asked = self._asked.is_set()
                self._asked.clear()
                file = await asyncio.to_thread(self._changed, self._sources.file, asked)
                if file is not None:
                    self._take_or_keep(file)
        finally:
            self._loop = None  # a signal that comes later must not wake a loop that has ended

    def _changed(self, path: Path, asked: bool) -> KeyFile | None:
        """Read the file if it is another than the one that was read last; None if it is not, or cannot be read."""
        stamp = stamp_of(path)
        if stamp == self._stamp and not asked:
            return None
        try:
            return read_key_file(path)
        except KeyFileError as error:
            self._stamp = stamp
            _say_that_former_keys_stay(error)
            return None

    def _take_or_keep(self, file: KeyFile) -> None:
        former = {key.name: key for key in self._ring}
        self._stamp = file.stamp
        try:
            self._take(file)
        except KeyFileError as error:
            _say_that_former_keys_stay(error)
            return
        now = {key.name: key for key in self._ring}
        _LOG.info(
            "API keys read again; added: %s; changed: %s; removed: %s",
            _listed(now.keys() - former.keys()),
            _listed(name for name in now.keys() & former.keys() if now[name] != former[name]),
            _listed(former.keys() - now.keys()),
        )
        if self.hint:
            _LOG.error("every request is refused: %s, in %s", self.hint, self._sources.place)

    def _take(self, file: KeyFile | None) -> None:
        self._ring = self._sources.ring(file)
        if file is not None:
            self._stamp = file.stamp
            if file.exposed is not None:
                _LOG.warning("%s: %s", file.exposed, file.remedy)
        _LOG.info("%d API keys are valid", len(self._ring))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _say_that_former_keys_stay(error: KeyFileError) -> None:
    _LOG.error("the API keys cannot be read again, the former ones stay valid:\n%s", error)


def _warn_of_no_keys(host: str) -> None:
    if is_loopback(host):
        _LOG.warning("no API keys are configured: whoever reaches the port can read and change the gallery")
    else:
        _LOG.error(
            "no API keys are configured, and the service listens on %s: everybody in the network can read, change and "
            "delete the gallery. Set SHITU_API_KEYS_FILE and %s",
            host,
            HOW_TO_MAKE_ONE,
        )


def is_loopback(host: str) -> bool:
    """Whether an address or name is of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
