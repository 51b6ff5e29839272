"""Splits read from raw files through the cache of `datasets`."""

import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.dataset_scripts.ddvqa import DDVQA
from support.ddvqa_tree import stems, write_tree
from support.pictures import random_pictures


@pytest.fixture
def generated(monkeypatch):
    """The number of units of every split that was generated."""
    found = []
    generate = DDVQA._generate_examples

    def counting(self, units):
        found.append(len(units))
        return generate(self, units)

    monkeypatch.setattr(DDVQA, "_generate_examples", counting)
    return found


def test_only_the_wanted_split_is_built_and_only_anew_when_files_changed(tmp_path, generated):
    root = write_tree(tmp_path / "ddvqa", stems(range(3)), stems(range(20, 22)), size=32)
    DDVQA(data_dir=str(root.resolve())).download_and_prepare()  # a whole build in the cache is no hindrance
    generated.clear()
    first = load_split("ddvqa", "test", root)
    assert generated == [6]
    assert load_split("ddvqa", "test", root)["id"][:] == first["id"][:]
    assert generated == [6]
    assert len(load_split("ddvqa", "train", root)) == 9
    assert generated == [6, 9]
    (changed, *_) = sorted(root.glob("images_c40/test/0_*.jpg"))
    random_pictures(1)[0].resize((40, 24)).save(changed)
    assert (40, 24) in [image.size for image in load_split("ddvqa", "test", root)["image"]]
    assert generated == [6, 9, 6]
    with pytest.raises(ValueError, match=r"'dev'.*train, test"):
        load_split("ddvqa", "dev", root)
