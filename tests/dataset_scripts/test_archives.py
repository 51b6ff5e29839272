"""Archives read without unpacking: by content, never out of their folder, never the wrong member."""

import io
import re
import tarfile
import zipfile

import pytest

from deepfake_detectors.dataset_scripts._archives import list_members, read_member

FILES = {"b/2.png": b"two", "a/1.png": b"one"}


def write_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("b")
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return path


def write_tar(path, files=FILES, mode="w:gz", link=None):
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = link, "/etc/hostname"
            archive.addfile(info)
    return path


@pytest.fixture(params=["x.zip", "x.tar", "x.tar.gz", "plain.tar.gz"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".zip":
        return write_zip(path)
    return write_tar(path, mode="w:gz" if request.param == "x.tar.gz" else "w")


def test_names_in_the_order_of_the_archive_and_content_in_any(archive):
    assert list_members(archive) == list(FILES)
    assert {name: read_member(archive, name) for name in sorted(FILES)} == FILES
    with pytest.raises(ValueError, match=r"c\.png in .* cannot be read"):
        read_member(archive, "c.png")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_member_that_leads_out(write, name, tmp_path):
    path = write(tmp_path / f"x.{'zip' if write is write_zip else 'tar'}", {name: b"x"})
    with pytest.raises(ValueError, match=re.escape(path.name)):
        list_members(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_link_in_a_tar(kind, tmp_path):
    with pytest.raises(ValueError, match=r"x\.tar .*'link\.png'.* link"):
        list_members(write_tar(tmp_path / "x.tar", mode="w", link=kind))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_name_twice(write, tmp_path):
    path = write(tmp_path / f"x.{'zip' if write is write_zip else 'tar'}", [("a.png", b"x"), ("a.png", b"y")])
    with pytest.raises(ValueError, match=r"'a\.png' twice"):
        list_members(path)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar"])
def test_truncated(name, tmp_path):
    path = tmp_path / name
    write_zip(path) if path.suffix == ".zip" else write_tar(path, mode="w:gz" if name.endswith("gz") else "w")
    path.write_bytes(path.read_bytes()[: 700 if name == "x.tar" else path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as (zip|tar)"):
        list_members(path)


def test_new_content_under_the_old_name_is_seen(tmp_path):
    path = write_zip(tmp_path / "x.zip")
    assert read_member(path, "a/1.png") == b"one"
    write_zip(path, {"a/1.png": b"another"})
    assert read_member(path, "a/1.png") == b"another"
