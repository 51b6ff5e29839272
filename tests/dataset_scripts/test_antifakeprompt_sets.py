"""AntifakePrompt sets: the class comes from the set, never from an unknown folder."""

import pytest

from deepfake_detectors.dataset_scripts.antifakeprompt import SETS, AntifakePrompt
from support.folder_tree import save


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "afp"
    for name in ("COCO", "flickr30k", "SDXL", "dalle_3", "FF++", "LaMa"):
        save(folder / name / "deep" / "1.jpg")
        save(folder / name / "ü.png")
    return folder


def make(root, tmp_path, **options):
    return AntifakePrompt(data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)


def messages(builder, *levels):
    return [finding.message for finding in builder.findings if finding.level in levels]


def test_rows(root, tmp_path):
    builder = make(root, tmp_path)
    builder.download_and_prepare()
    rows = builder.as_dataset(split="test")
    assert len(rows) == 12
    found = {row["id"].split("/")[1]: (row["label"], row["manipulation"], row["category"]) for row in rows}
    assert found == {
        "COCO": (0, "real", "held_in"),
        "Flickr": (0, "real", "held_out"),
        "SDXL": (1, "SDXL", "held_out"),
        "DALLE-3": (1, "DALLE-3", "held_out"),
        "FF++": (1, "FF++", "held_out"),
        "LaMa": (1, "LaMa", "held_out"),
    }
    assert list(found) == [name for name in SETS if name in found]


def test_absent_sets_and_counts_are_reported(root, tmp_path):
    builder = make(root, tmp_path)
    builder.inspect(root)
    assert any(text.startswith(f"{len(SETS) - 6} ") and "SD2" in text for text in messages(builder, "warning"))
    assert any(text.startswith("SDXL: 2 images") and "3000" in text for text in messages(builder, "warning"))


def test_unknown_folder_gets_no_class(root, tmp_path):
    save(root / "mine" / "1.jpg")
    builder = make(root, tmp_path)
    assert len(builder.inspect(root)["test"]) == 12
    assert any("mine" in text and "real=..." in text for text in messages(builder, "error"))
    stated = make(root, tmp_path, fake=("mine",)).inspect(root)["test"]
    assert stated[-1].columns["label"] == "fake"


def test_one_set_under_two_names(root, tmp_path):
    save(root / "DALLE3" / "1.jpg")
    with pytest.raises(ValueError, match="DALLE-3"):
        make(root, tmp_path).inspect(root)


def test_other_files_and_skipped_extensions(root, tmp_path):
    (root / "COCO" / "notes.txt").write_text("x")
    (root / "COCO" / "deep" / "1.jpg").rename(root / "COCO" / "deep" / "1.JPG")
    builder = make(root, tmp_path)
    builder.inspect(root)
    text = " ".join(messages(builder, "warning"))
    assert "notes.txt" in text
    assert "COCO: 1 images" in text


def test_link(root, tmp_path):
    (root / "COCO" / "link.png").symlink_to(save(tmp_path / "outside.png"))
    with pytest.raises(ValueError, match=r"link\.png"):
        make(root, tmp_path).inspect(root)


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="AntifakePrompt"):
        make(tmp_path / "empty", tmp_path).inspect(tmp_path / "empty")


def test_no_folder_name_means_two_sets(tmp_path):
    names = [alias for name, known in SETS.items() for alias in (name, *known.aliases)]
    for number, alias in enumerate(names):
        folder = tmp_path / str(number)
        save(folder / alias / "1.png")
        (unit,) = make(folder, tmp_path).inspect(folder)["test"]
        owner = next(name for name, known in SETS.items() if alias in (name, *known.aliases))
        assert unit.id == f"antifakeprompt/{owner}/1.png"


def test_option_against_the_published_class(root, tmp_path):
    with pytest.raises(ValueError, match="SDXL"):
        make(root, tmp_path, real=("SDXL",)).inspect(root)
