"""Cards of data sets: one for every builder, nothing in them that nobody measured or cited."""

import re

import pytest
from huggingface_hub import DatasetCard

from deepfake_detectors.data.parquet import BuiltConfig, build_dataset, find_builds
from deepfake_detectors.data.registry import DATASETS, builder_class, make_builder
from deepfake_detectors.dataset_scripts._builder import detection_features
from deepfake_detectors.hub.dataset_cards import COLUMN_TEXTS, dataset_facts, render_dataset_card
from support.folder_tree import save

COUNTS = [{"split": "test", "label": "real", "manipulation": "real", "rows": 3}]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A finished build of two splits and a mask column."""
    folder = tmp_path_factory.mktemp("card")
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            save(folder / "raw" / split / "real" / f"{split}{number}.jpg")
            save(folder / "raw" / split / "fake" / "gan" / f"{split}{number}.png")
            save(folder / "raw" / "masks" / f"{split}{number}.png")
    build_dataset(make_builder("image_folder", folder / "raw", "real_fake", {"masks": "masks"}), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_builder_has_a_card(name, build, tmp_path):
    facts, kind = dataset_facts(name), builder_class(name)
    (real,) = find_builds(build)
    other = BuiltConfig(real.folder, name, "1.0.0", "some", detection_features(True, True), real.splits, COUNTS)
    text = render_dataset_card([other], "me/copy")
    card = DatasetCard(text)
    assert card.data.license == facts["license"]
    assert facts["license"] != "other" or facts["license_name"] == card.data.license_name
    for said in (kind.TERMS, kind.LAYOUT, facts["summary"], facts["polarity"], *facts["limits"]):
        assert said in text
    for row in facts["counts"]:
        assert f"| {row['what']} | {row['value']} | {row['source']} |" in text
    for row in facts["defects"]:
        assert f"- {row['text']} ({row['source']})" in text
    assert ("not verified against an original copy" in text) is not kind.LAYOUT_VERIFIED
    assert ("does not grant any other rights" in text) is kind.RESEARCH_ONLY
    assert not re.search(r"\{\{|\{%|None|\bTODO\b|\n\n\n", text.split("---", 2)[2])


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_number_names_its_source(name):
    facts = dataset_facts(name)
    assert all(set(row) == {"what", "value", "source"} and all(row.values()) for row in facts["counts"])
    assert all(set(row) == {"text", "source"} and all(row.values()) for row in facts["defects"])


def test_facts_belong_to_builders():
    from importlib.resources import files

    names = [path.name for path in files("deepfake_detectors.hub_cards").joinpath("facts").iterdir()]
    described = {name.removeprefix("dataset_").removesuffix(".yaml") for name in names if name.startswith("dataset_")}
    assert described == set(DATASETS)


def test_header_describes_the_files(build):
    builds = find_builds(build)
    data = DatasetCard(render_dataset_card(builds, "me/mine")).data
    (info,) = data.dataset_info if isinstance(data.dataset_info, list) else [data.dataset_info]
    rows = {split["name"]: split["num_examples"] for split in info["splits"]}
    assert rows == {"train": 6, "test": 4}
    assert info["download_size"] == sum(path.stat().st_size for path in build.rglob("*.parquet"))
    assert [item["config_name"] for item in data.configs] == ["real_fake"]
    assert data.size_categories == ["n<1K"]
    assert data.task_categories == ["image-classification"]


def test_counts_are_those_of_the_parquet(build):
    text = render_dataset_card(find_builds(build), "me/mine")
    assert "# mine\n" in text
    for row in (
        "train | real | real | 3",
        "train | fake | gan | 3",
        "test | real | real | 2",
        "test | fake | gan | 2",
    ):
        assert f"| real_fake | {row} |" in text


def test_all_columns_are_described():
    assert set(COLUMN_TEXTS) == set(detection_features(mask=True, dialogue=True))


def test_lint_goes_into_the_card(build):
    from deepfake_detectors.data.lint import LintResult, lint_dataset, parquet_source
    from deepfake_detectors.dataset_scripts._builder import Finding

    result = lint_dataset(parquet_source(build))
    assert result.by_code("shortcut-format")
    result.findings.append(Finding("warning", "in /home/somebody/secret"))
    text = render_dataset_card(find_builds(build), "me/mine", LintResult.to_dict(result))
    assert "file format PNG in 100 % of 3 fake" in text
    (control,) = [item for item in result.by_code("bytes-per-pixel") if item.split == "train"]
    assert f"| train | bytes per pixel alone | {control.details['auc']:.3f} |" in text
    assert "secret" not in text


def test_unknown_facts():
    with pytest.raises(ValueError, match=r"no facts about 'nope'; add hub_cards/facts/dataset_nope\.yaml"):
        dataset_facts("nope")
