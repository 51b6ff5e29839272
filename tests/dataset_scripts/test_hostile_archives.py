"""Archives that are bombs, encrypted, damaged or packed in other ways are refused by name."""

import gzip
import io
import random
import struct
import tarfile
import zipfile

import pytest

from deepfake_detectors.dataset_scripts import _archives
from deepfake_detectors.dataset_scripts._archives import list_members, read_member

NOISE = random.Random(0).randbytes(3000)


def write_zip(path, method=zipfile.ZIP_DEFLATED, content=NOISE, name="a.png"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def with_header_field(path, offset, local_offset, value):
    """Set a 16-bit field in the local and in the central header of the one member."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, local_offset, value)
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    return path


def tar_bytes(members, format=tarfile.GNU_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def refused(path, match):
    with pytest.raises(ValueError, match=match) as caught:
        for name in list_members(path):
            read_member(path, name)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_usual_methods_are_read(method, tmp_path):
    assert read_member(write_zip(tmp_path / "x.zip", method), "a.png") == NOISE


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_usual_tars_are_read(mode, tmp_path):
    with tarfile.open(tmp_path / "x.tar", mode) as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(NOISE)
        archive.addfile(info, io.BytesIO(NOISE))
    assert read_member(tmp_path / "x.tar", "a.png") == NOISE


def test_encrypted_member(tmp_path):
    refused(with_header_field(write_zip(tmp_path / "x.zip"), 8, 6, 1), r"'a\.png', which is encrypted")


@pytest.mark.parametrize("method", [99, 14, 93, 1])
def test_other_methods(method, tmp_path):
    refused(with_header_field(write_zip(tmp_path / "x.zip"), 10, 8, method), rf"method {method}")


def test_lzma(tmp_path):
    refused(write_zip(tmp_path / "x.zip", zipfile.ZIP_LZMA), "method 14")
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    refused(tmp_path / "x.tar.xz", "LZMA")


def test_bombs(tmp_path, monkeypatch):
    refused(write_zip(tmp_path / "ratio.zip", content=bytes(5 * 2**20)), r"'a\.png'.*unpacks from \d+ to 5242880")
    monkeypatch.setattr(_archives, "LARGEST_MEMBER", 2**20)
    refused(write_zip(tmp_path / "size.zip", zipfile.ZIP_STORED, bytes(2**20 + 1)), "at most 1048576")
    whole = tar_bytes([(tarfile.TarInfo(f"{number}.png"), bytes(2**20)) for number in range(20)])
    (tmp_path / "total.tar.gz").write_bytes(gzip.compress(whole))
    refused(tmp_path / "total.tar.gz", r"unpacks to more than \d+ bytes at")
    (tmp_path / "behind.tar.gz").write_bytes(
        gzip.compress(tar_bytes([(tarfile.TarInfo("a.png"), NOISE)]) + bytes(2**25))
    )
    refused(tmp_path / "behind.tar.gz", r"unpacks to more than \d+ bytes .*end")


def test_members_that_overlap(tmp_path):
    path = write_zip(tmp_path / "x.zip", zipfile.ZIP_STORED)
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = [data[start:end].replace(b"a.png", name) for name in (b"a.png", b"b.png")]
    tail = bytearray(data[end:])
    struct.pack_into("<HHL", tail, 8, 2, 2, len(b"".join(entries)))
    path.write_bytes(data[:start] + b"".join(entries) + tail)
    refused(path, "overlap")


def test_sparse_tar(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "x.tar").write_bytes(tar_bytes([(info, b"")]))
    refused(tmp_path / "x.tar", r"'a\.png'.* sparse")
    info = tarfile.TarInfo("b.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.png"}
    (tmp_path / "y.tar").write_bytes(tar_bytes([(info, b"1\n0\n5\n" + bytes(506))], tarfile.PAX_FORMAT))
    refused(tmp_path / "y.tar", r"'b\.png'.* sparse")


def test_links_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    refused(tmp_path / "x.zip", "link or a device")


def test_wrong_checksum_of_a_stream(tmp_path):
    """The members read well; only the trailer of gzip says that bytes were changed."""
    data = bytearray(gzip.compress(tar_bytes([(tarfile.TarInfo("a.png"), NOISE)])))
    data[-8] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(data)
    refused(tmp_path / "x.tar.gz", "cannot be read as tar.*CRC")
    (tmp_path / "y.tar.gz").write_bytes(data[:-8])
    refused(tmp_path / "y.tar.gz", "cannot be read as tar")


def test_wrong_checksum_of_a_member(tmp_path):
    path = write_zip(tmp_path / "x.zip", zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    refused(path, r"a\.png.*CRC")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_any_damage_is_a_typed_error(suffix, tmp_path):
    """Every cut and 300 changed bytes: read as it was, or refused by name."""
    path = tmp_path / f"x{suffix}"
    whole = tar_bytes([(tarfile.TarInfo("a.png"), NOISE[:300])])
    good = {".tar": whole, ".tar.gz": gzip.compress(whole)}.get(suffix)
    if good is None:
        good = write_zip(path, content=NOISE[:300]).read_bytes()
    rng = random.Random(1)
    for number in range(300):
        data = bytearray(good)
        if number % 3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            for name in list_members(path):
                read_member(path, name)
        except ValueError as error:
            assert path.name in str(error)
