"""The table of data sets against their builders, and options in the types of their fields."""

import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.data.registry import DATASETS, builder_class, config_options, make_builder


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_table_says_what_the_builder_says(name):
    row, kind = DATASETS[name], builder_class(name)
    assert row.builder == f"{kind.__module__}:{kind.__name__}"
    assert row.title == kind.NAME
    assert list(row.configs) == [config.name for config in kind.BUILDER_CONFIGS]
    assert (row.layout_verified, row.research_only) == (kind.LAYOUT_VERIFIED, kind.RESEARCH_ONLY)
    assert row.terms == kind.TERMS


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_builder_says_what_it_is(name):
    kind = builder_class(name)
    for attribute in ("NAME", "TERMS", "LAYOUT", "REMEDY"):
        assert getattr(kind, attribute), attribute
    assert isinstance(kind.LAYOUT_VERIFIED, bool)
    assert isinstance(kind.RESEARCH_ONLY, bool)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_builder_asks_for_data(name, monkeypatch):
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    with pytest.raises(ValueError, match="DEEPFAKE_DATA"):
        make_builder(name)


def test_unknown_names(raw):
    with pytest.raises(ValueError, match=r"'nope'.*ddvqa"):
        make_builder("nope", raw)
    with pytest.raises(ValueError, match="nope"):
        make_builder("image_folder", raw, "real_fake", {"nope": 1})


@pytest.mark.parametrize(
    ("dataset", "option", "given", "expected"),
    [
        ("faceforensics", "allow_missing", "False", False),
        ("dmimage", "processed", "no", False),
        ("faceforensics", "masks", "Yes", True),
        ("faceforensics", "frames_per_video", "8", 8),
        ("faceforensics", "methods", "Deepfakes", ("Deepfakes",)),
        ("faceforensics", "methods", ["Deepfakes", "FaceSwap"], ("Deepfakes", "FaceSwap")),
        ("image_folder", "real", ["a"], ("a",)),
        ("image_folder", "prefix", 12, "12"),
        ("ffpp_hdf5", "split_file", None, None),
        ("deepfakebench", "prefix_map", {"a": "b"}, {"a": "b"}),
    ],
)
def test_options_have_the_types_of_their_fields(dataset, option, given, expected):
    converted = config_options(dataset, {option: given})[option]
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        ("allow_missing", "maybe", "Option allow_missing is 'maybe', expected true or false"),
        ("frames_per_video", "eight", "Option frames_per_video is 'eight', expected a whole number"),
        ("frames_per_video", 1.5, "frames_per_video is 1.5"),
        ("compression", True, "Option compression is True, expected a text"),
        ("methods", [1], r"Option methods is \[1\], expected a text or a list of texts"),
        ("data_dir", "x", "faceforensics has no option data_dir.*allow_missing, compression"),
    ],
)
def test_options_of_another_type_are_refused(tmp_path, option, given, message):
    for call in (make_builder, load_faceforensics):
        with pytest.raises(ValueError, match=message):
            call("faceforensics", tmp_path, options={option: given})


def load_faceforensics(dataset, folder, options):
    return load_split(dataset, "test", folder, options=options)


def test_missing_data_names_the_parameter(monkeypatch):
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    with pytest.raises(ValueError, match="`data_dir`"):
        make_builder("ddvqa")
