"""Unpacking: what honest archives hold, what evil ones try, and what is left on the disk after each."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.hub import ArchiveInvalid
from models.hub.archive import Limits, Unpacked, check_archive, unpack

from .archives import MODEL, before_its_end, entry, tar, tar_gz, zipped

SMALL = Limits(total_bytes=1_000_000, entries=20, depth=3, ratio=20)


class Unpacker:
    """Unpacks bytes below a folder of its own, and sees what came of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "inside" / "model"
        self.target.parent.mkdir()

    def __call__(self, content: bytes, limits: Limits = SMALL) -> Unpacked:
        archive = self.root / "archive"
        archive.write_bytes(content)
        return unpack(archive, self.target, "the archive", limits)

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.target.iterdir()}

    def refuses(self, content: bytes, match: str, limits: Limits = SMALL) -> None:
        """Nothing may be left: neither in the folder nor anywhere around it."""
        with pytest.raises(ArchiveInvalid, match=match) as caught:
            self(content, limits)
        assert str(caught.value).startswith("the archive ")
        assert str(caught.value).isprintable()
        assert sorted(path.relative_to(self.root) for path in self.root.rglob("*")) == [Path("archive"), Path("inside")]


@pytest.fixture
def unpacking(tmp_path: Path) -> Unpacker:
    return Unpacker(tmp_path)


# What is kept


@pytest.mark.parametrize(
    "content",
    [
        tar(),
        tar(folder=""),
        tar(folder="./my_infer"),
        tar(folder="a/b/c"),
        tar(format=tarfile.USTAR_FORMAT),
        tar(format=tarfile.GNU_FORMAT),
        tar_gz(),
        zipped(),
    ],
    ids=["tar", "top", "dot", "deep", "ustar", "gnu", "gz", "zip"],
)
def test_a_models_files_are_kept_whatever_the_archive(unpacking: Unpacker, content: bytes) -> None:
    assert unpacking(content) == Unpacked(tuple(sorted(MODEL)), ())
    assert unpacking.files == MODEL


def test_what_a_model_folder_does_not_need_is_named_and_left_out(unpacking: Unpacker) -> None:
    others = {
        "run.sh": b"rm -rf /",
        ".bashrc": b"x",
        "manifest.json": b"{}",
        "._inference.pdmodel": b"x",
        "模型.yml": b"x",
    }
    extra = {"LICENSE": b"free", "README.md": b"read", "inference.pdiparams.info": b"a pickle"}
    unpacked = unpacking(tar(MODEL | others | extra))
    assert set(unpacked.kept) == {*MODEL, "LICENSE", "README.md"}
    assert set(unpacked.left_out) == {
        "my_infer/run.sh",
        "my_infer/.bashrc",
        "my_infer/manifest.json",
        "my_infer/._inference.pdmodel",
        r"my_infer/\u6a21\u578b.yml",
    }
    assert set(unpacking.files) == {*MODEL, "LICENSE", "README.md"}


def test_modes_and_owners_count_for_nothing(unpacking: Unpacker) -> None:
    unpacking(tar({}, *((entry(f"m/{name}", mode=0o6777, uid=12345), content) for name, content in MODEL.items())))
    umask = os.umask(0)
    os.umask(umask)
    for path in unpacking.target.iterdir():
        assert path.stat().st_mode & 0o7777 == 0o666 & ~umask
        assert path.stat().st_uid == os.getuid()


# What condemns an archive


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (entry("/etc/passwd"), "leads out of its folder: /etc/passwd"),
        (entry("my_infer/../../inference.yaml"), "leads out"),
        (entry("..\\inference.yaml"), "leads out"),
        (entry("my_infer/inference.yaml", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "holds a link"),
        (entry("my_infer/inference.yaml", type=tarfile.LNKTYPE, linkname="my_infer/inference.yml"), "holds a link"),
        (entry("my_infer/x.yaml", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "neither a file nor a folder"),
        (entry("my_infer/x.yaml", type=tarfile.BLKTYPE), "neither a file nor a folder"),
        (entry("my_infer/x.yaml", type=tarfile.FIFOTYPE), "neither a file nor a folder"),
        (entry("my_infer/x.yaml", type=tarfile.CONTTYPE), "neither a file nor a folder"),
        (entry("my_infer/inference.yml"), "two files of one name"),
        (entry("./my_infer//inference.yml"), "two files of one name"),
        (entry("inference.yml"), r"holds inference.yml twice, in my_infer and in \."),
        (entry("other_infer/model.pdmodel"), "models in several folders"),
        (entry("a/b/c/d/x.yaml"), "nested deeper than the 3"),
        (entry("\x1b[2J/../x"), r"leads out of its folder: \\x1b\[2J"),
        (entry("my_infer/\u202ex/../../y"), r"leads out of its folder: my_infer/\\u202ex"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_entry_that_no_model_has_condemns_the_archive(
    unpacking: Unpacker, header: tarfile.TarInfo, match: str
) -> None:
    unpacking.refuses(tar(MODEL, (header, b"") if header.type in tarfile.REGULAR_TYPES else header), match)


def test_a_sparse_file_is_refused(unpacking: Unpacker) -> None:
    """A gigabyte of nothing in a few bytes."""
    sparse = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": "1000000000",
        "GNU.sparse.map": "0,1",
    }
    header = entry("my_infer/x.yaml", pax_headers={**sparse, "GNU.sparse.numblocks": "1"})
    unpacking.refuses(tar(MODEL, (header, b"x")), "neither a file nor a folder")


@pytest.mark.parametrize("name", ["/etc/x.yaml", "../x.yaml", "a\\..\\x.yaml"])
def test_a_zip_may_not_lead_out_either(unpacking: Unpacker, name: str) -> None:
    unpacking.refuses(zipped(MODEL, (zipfile.ZipInfo(name), b"x")), "leads out")


def test_a_name_that_a_zero_byte_cuts_is_refused(unpacking: Unpacker) -> None:
    content = zipped(MODEL, ("my_infer/x.yaml!.sh", b"x")).replace(b"x.yaml!.sh", b"x.yaml\0.sh")
    unpacking.refuses(content, "leads out")


def test_links_and_passwords_in_a_zip_are_refused(unpacking: Unpacker) -> None:
    link = zipfile.ZipInfo("my_infer/x.yaml")
    link.external_attr = 0o120777 << 16
    unpacking.refuses(zipped(MODEL, (link, b"/etc/passwd")), "holds a link")
    content = bytearray(zipped())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last entry in the directory
    unpacking.refuses(bytes(content), "an encrypted file")


def test_an_unusual_compression_is_refused(unpacking: Unpacker) -> None:
    odd = zipfile.ZipInfo("my_infer/x.yaml")
    odd.compress_type = zipfile.ZIP_LZMA
    unpacking.refuses(zipped(MODEL, (odd, b"x")), "compressed in an unusual way")


def test_a_zip_that_points_before_its_beginning_is_torn(unpacking: Unpacker) -> None:
    content = bytearray(zipped())
    end = content.rindex(b"PK\x05\x06")
    offset = struct.unpack_from("<I", content, end + 16)[0]
    struct.pack_into("<I", content, end + 16, offset + 5000)
    unpacking.refuses(bytes(content), "torn|cannot be unpacked")


def test_two_files_of_one_name_in_a_zip_are_refused(unpacking: Unpacker) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zipped(MODEL, ("my_infer/inference.yml", b"x"))
    unpacking.refuses(content, "two files of one name")


# Limits


def test_the_bytes_are_limited(unpacking: Unpacker) -> None:
    unpacking.refuses(tar(MODEL | {"big.yml": os.urandom(1_000_000)}), "more than .* allow")


def test_the_bytes_are_limited_before_they_are_there(unpacking: Unpacker) -> None:
    claim = entry("my_infer/big.yml", size=10**12).tobuf()
    unpacking.refuses(before_its_end(tar()) + claim + bytes(2000), "more than the 1,000,000 bytes")


def test_the_entries_are_limited(unpacking: Unpacker) -> None:
    unpacking.refuses(tar(MODEL | {f"{number}.txt": b"" for number in range(20)}), "more than the 20 entries")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "left out"])
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_bomb_does_not_go_off(unpacking: Unpacker, kept: bool, pack: object) -> None:
    """100 MB of zeros in 100 kB; nothing of it is to be on the disk, and hardly anything to be decompressed."""
    content = pack(MODEL | {"big.yml" if kept else "big.bin": bytes(100_000_000)})  # type: ignore[operator]
    assert len(content) < 200_000
    unpacking.refuses(content, "more than", Limits(total_bytes=10**9))


def test_a_bomb_in_a_header_does_not_go_off(unpacking: Unpacker) -> None:
    """Names of a pax header are read into memory before anybody sees the entry."""
    header = entry("my_infer/x.yaml", pax_headers={"comment": "x" * 50_000_000})
    unpacking.refuses(gzip.compress(tar(MODEL, header)), "more than", Limits(total_bytes=10**9))


def test_a_zip_that_lies_about_a_size_is_torn(unpacking: Unpacker) -> None:
    content = bytearray(zipped({"inference.pdmodel": bytes(1000), "inference.pdiparams": bytes(100_000)}))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 10)
    unpacking.refuses(bytes(content), "torn")


# What is none


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\n  <!DOCTYPE html><html>Please sign in</html>", "is a web page, perhaps one to sign in"),
        (os.urandom(1) + b"no archive at all" * 100, "is no tar, tar.gz or zip"),
        (gzip.compress(b"no tar" * 1000), "torn or no archive"),
        (b"BZh9" + bytes(600), "is no tar"),
        (zlib.compress(tar()), "is no tar"),
        (b"PK\x03\x04" + bytes(600), "torn or no archive"),
    ],
    ids=["empty", "html", "noise", "gz of noise", "bzip2", "zlib", "zip of nothing"],
)
def test_what_is_no_archive_is_told(unpacking: Unpacker, content: bytes, match: str) -> None:
    unpacking.refuses(content, match)


def test_a_page_is_told_before_anything_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<html>")
    with pytest.raises(ArchiveInvalid, match="https://there is a web page"):
        check_archive(tmp_path / "page", "https://there")


@pytest.mark.parametrize("missing", ["inference.pdmodel", "inference.pdiparams"])
def test_half_of_a_model_is_none(unpacking: Unpacker, missing: str) -> None:
    files = {name: content for name, content in MODEL.items() if name != missing}
    unpacking.refuses(tar(files), r"holds no exported model: .*there is inference\.")


@pytest.mark.parametrize("content", [tar(), tar_gz(), zipped()], ids=["tar", "gz", "zip"])
def test_a_torn_archive_leaves_nothing(unpacking: Unpacker, content: bytes) -> None:
    for share in (0.1, 0.5):
        unpacking.refuses(content[: int(share * len(content))], "torn")


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start=st.sampled_from([tar(), tar_gz(), zipped()]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_whatever_is_changed_in_an_archive_is_told_in_one_way(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, changes: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(start)
    for place, value in changes:
        content[int(place * len(content))] = value
    (folder / "archive").write_bytes(content)
    try:
        unpack(folder / "archive", folder / "model", "the archive", SMALL)
    except ArchiveInvalid:
        assert not (folder / "model").exists()
    assert {path.name for path in folder.iterdir()} <= {"archive", "model"}


def test_a_header_with_a_negative_size_ends(unpacking: Unpacker) -> None:
    """``tarfile`` would go back to an earlier header and read for ever (CVE-2025-8194)."""
    header = bytearray(entry("my_infer/x.bin", size=1).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-2048 & (1 << 96) - 1 | 1 << 95).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    unpacking.refuses(before_its_end(tar()) + bytes(header) + bytes(2000), "neither a file nor a folder|torn")


def test_io_errors_are_no_fault_of_the_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "nothing", tmp_path / "model", "the archive")
    assert not (tmp_path / "model").exists()
