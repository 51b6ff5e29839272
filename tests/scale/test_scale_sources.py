"""Where `score` reads from: every kind of source gives the same images, cut into stretches of the size asked for."""

import io
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfake_detectors.modeling.image_loading import InputImageError
from deepfake_detectors.scale.sources import find_stretches

CONTENTS = [f"image {number}".encode() for number in range(10)]


def entries(source, rows=3, **options):
    found = []
    for stretch in find_stretches(source, rows, **options):
        read = list(stretch.read())
        assert [place for place, _ in read] == list(range(stretch.size)) and stretch.size <= rows
        # Read alone, an entry is the same.
        for place, entry in read:
            assert [(place, entry)] == list(stretch.read([place])) or isinstance(entry.content, InputImageError)
        found += [entry for _, entry in read]
    return found


def write_parquet(path: Path, columns: dict, row_group: int) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def write_tar(path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for number, content in enumerate(CONTENTS):
            for suffix, data in (("jpg", content), ("json", b"{}")):
                member = tarfile.TarInfo(f"{number:03d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("row_group", [1, 2, 4, 10])
@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_parquet_is_cut_anywhere(tmp_path, row_group, rows) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": CONTENTS, "n": list(range(10))}, row_group)
    found = entries(path, rows)
    assert [entry.content for entry in found] == CONTENTS
    assert [entry.id for entry in found] == [f"{path}/{number}" for number in range(10)]


def test_parquet_of_datasets_with_ids_and_of_paths(tmp_path) -> None:
    cells = [{"bytes": content, "path": None} for content in CONTENTS]
    path = write_parquet(tmp_path / "a.parquet", {"id": [f"x{n}" for n in range(10)], "image": cells}, 4)
    assert [(entry.id, entry.content) for entry in entries(path)] == [(f"x{n}", CONTENTS[n]) for n in range(10)]
    (tmp_path / "one.jpg").write_bytes(b"one")
    path = write_parquet(tmp_path / "b.parquet", {"file_name": ["one.jpg", "two.jpg", None]}, 4)
    one, two, none = entries(path)
    assert one.content == b"one" and one.source == str(tmp_path / "one.jpg")
    assert isinstance(two.content, InputImageError) and none.content is None
    with pytest.raises(ValueError, match="a, b"):
        find_stretches(write_parquet(tmp_path / "c.parquet", {"a": [1], "b": [2]}, 4), 3)
    other = write_parquet(tmp_path / "d.parquet", {"scan": CONTENTS}, 4)
    assert [entry.content for entry in entries(other, image_column="scan")] == CONTENTS


def test_tar_is_read_by_place(tmp_path) -> None:
    path = write_tar(tmp_path / "a.tar")
    found = entries(path, 4)
    assert [entry.content for entry in found] == CONTENTS and found[2].id == f"{path}/002.jpg"
    with pytest.raises(ValueError, match="compressed"):
        find_stretches(write_tar(tmp_path / "a.tar.gz", "w:gz"), 3)


def test_a_folder_of_everything(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.jpg").write_bytes(b"one")
    (tmp_path / "in" / "notes.txt").write_bytes(b"notes")
    (tmp_path / "in" / "lost.png").symlink_to(tmp_path / "nowhere")
    write_tar(tmp_path / "in" / "a.tar")
    write_parquet(tmp_path / "in" / "b.parquet", {"image": CONTENTS}, 4)
    (tmp_path / "in" / "c.parquet").write_bytes(b"not one")
    (tmp_path / "in" / "d.tar").write_bytes(b"x" * 2000)
    found = entries(tmp_path / "in", 5)
    assert len(found) == 24 and len({entry.id for entry in found}) == 24
    broken = {entry.id for entry in found if isinstance(entry.content, InputImageError)}
    assert broken == {"lost.png", "c.parquet", "d.tar"}
    assert {entry.id for entry in found} >= {"one.jpg", "a.tar/000.jpg", "b.parquet/9"}


def test_lists_and_globs_name_a_file_once(tmp_path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(CONTENTS[number])
    found = entries([str(tmp_path / "*.png"), str(tmp_path / "1.png")])
    assert [entry.id for entry in found] == [str(tmp_path / f"{number}.png") for number in range(3)]
    for missing in (tmp_path / "*.gif", []):
        with pytest.raises(ValueError):
            find_stretches(missing if missing == [] else str(missing), 3)


def test_any_url_of_fsspec(tmp_path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe({f"/bucket/{number}.png": CONTENTS[number] for number in range(4)})
    store.pipe("/bucket/deep/a.tar", write_tar(tmp_path / "a.tar").read_bytes())
    store.pipe("/bucket/b.parquet", write_parquet(tmp_path / "b.parquet", {"image": CONTENTS}, 4).read_bytes())
    try:
        found = entries("memory://bucket")
        assert len(found) == 24 and {"0.png", "deep/a.tar/000.jpg", "b.parquet/0"} < {entry.id for entry in found}
        assert [entry.content for entry in entries("memory://bucket/*.png")] == CONTENTS[:4]
        before = [stretch.state for stretch in find_stretches("memory://bucket/0.png", 3)]
        store.pipe("/bucket/0.png", b"other")
        assert before != [stretch.state for stretch in find_stretches("memory://bucket/0.png", 3)]
    finally:
        store.rm("/bucket", recursive=True)


def test_a_dataset(tmp_path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"image": [{"bytes": content, "path": None} for content in CONTENTS]})
    found = entries(table.cast_column("image", datasets.Image()), 4)
    assert [entry.content for entry in found] == CONTENTS and [entry.id for entry in found] == list(
        map(str, range(10))
    )


def test_urls_without_their_secrets(monkeypatch) -> None:
    from deepfake_detectors.scale import sources

    monkeypatch.setattr(sources, "download", lambda path, *rest, **more: path.encode())
    (entry,) = entries("https://user:word@host.example/a.jpg?token=secret")
    assert "word" in entry.content.decode() and "word" not in entry.source + entry.id and "secret" not in entry.id


def test_a_table_in_place_of_a_folder(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for number, content in enumerate(CONTENTS):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(content)
    table = tmp_path / "pictures.csv"
    table.write_text("img_path,label\n" + "".join(f"in/{number}.jpg,real\n" for number in range(10)))
    assert [entry.content for entry in entries(str(table))] == CONTENTS
    table.write_text("name\n1.jpg\n")
    with pytest.raises(ValueError, match="expected img_path"):
        find_stretches(str(table), 3)
