"""Linear heads on kept features: weights, both regressions, validation, and a whole run of `train_probe`."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression, Ridge

import deepfake_detectors
from deepfake_detectors import publish_model
from deepfake_detectors.modeling.modeling_clip_probe_storage import ENCODER_FILE
from deepfake_detectors.train import probe_features
from deepfake_detectors.train.probe_features import Picture, changed_copy
from deepfake_detectors.train.probe_fitting import TrainingSet, fit_head, fit_weighted_platt, picture_weights
from deepfake_detectors.train.probe_recipe import CopySettings, HeadRecipe, Part, read_probe_recipe
from deepfake_detectors.train.probe_validation import validate_head
from deepfake_detectors.train.train_probe import ProbeArguments, train_probe
from support.tiny_clip_probe import clip_probe, rounded_to_int8

SHIPPED = Path(__file__).resolve().parents[2] / "train" / "recipes" / "clip_probe_mini.yaml"


def pictures_of(counts: dict[str, int], parts: dict[str, Part]) -> list[Picture]:
    return [
        Picture(name, parts[name].source or name, f"{name}{n}", parts[name].label == "fake", name, f"{name}{n}", "")
        for name, count in counts.items()
        for n in range(count)
    ]


def part(label: str, **fields) -> Part:
    return Part(folder="somewhere", label=label, **fields)


# weights


def test_the_shipped_recipe_weighs_by_domain():
    parts = read_probe_recipe(SHIPPED).heads["picture"].parts
    counts = {"scenes_fake": 40, "stylegan2": 160, "sfhq": 156, "gpt4o": 35, "nano_banana": 44}
    counts |= {"scenes_real": 40, "ffhq_even": 80, "ffhq_odd": 80, "imagenet": 208}
    counts |= {"bsds500": 271, "kodak": 19, "wallpapers": 78}
    pictures = pictures_of(counts, parts)
    weights = picture_weights(pictures, parts)
    assert len(pictures) == 1211
    mass = {name: weights[[picture.part == name for picture in pictures]].sum() / (1211 / 2) for name in counts}
    assert [mass[name] for name in ("scenes_fake", "stylegan2", "sfhq", "gpt4o", "nano_banana")] == pytest.approx(
        [0.2] * 5
    )
    assert mass["ffhq_even"] + mass["ffhq_odd"] == pytest.approx(0.4)
    general = {name: mass[name] for name in ("scenes_real", "imagenet", "bsds500", "kodak", "wallpapers")}
    assert sum(general.values()) == pytest.approx(0.6), "as much real as fake in general scenes"
    assert general["bsds500"] == pytest.approx(0.15)
    assert general["kodak"] + general["wallpapers"] == pytest.approx(0.15)
    assert general["imagenet"] == pytest.approx(2 * general["scenes_real"])
    # Kodak and wallpapers count as one source: each of their pictures weighs the same.
    of_kodak, of_wallpapers = (weights[[p.part == name for p in pictures]] for name in ("kodak", "wallpapers"))
    assert of_kodak[0] == pytest.approx(of_wallpapers[0], rel=1e-6)


def test_weights_by_manipulation():
    parts = {"set": Part(dataset="ddvqa", per_manipulation=True)}
    kinds = ["real"] * 6 + ["a"] * 3 + ["b"]
    pictures = [Picture("set", "set", str(n), kind != "real", kind, str(n), "") for n, kind in enumerate(kinds)]
    weights = picture_weights(pictures, parts)
    assert weights.sum() == pytest.approx(10)
    assert weights[6:9].sum() == pytest.approx(weights[9]) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="one class"):
        picture_weights(pictures[:6], parts)


# regressions


@pytest.fixture
def data():
    """Two sources of each class; the second feature separates, the third says the source."""
    draw = np.random.default_rng(0)
    parts = {
        "fake_a": part("fake", source="a", against=("real_a",)),
        "fake_b": part("fake", source="b", against=("real_b",), mass=2.0),
        "real_a": part("real", source="a"),
        "real_b": part("real", source="b", mass=0.5),
        "stranger": part("real"),
    }
    counts = {"fake_a": 40, "fake_b": 30, "real_a": 50, "real_b": 35, "stranger": 70}
    pictures = pictures_of(counts, parts)
    features = draw.normal(size=(len(pictures), 6)).astype(np.float32)
    features[:, 1] += [2.5 * picture.fake for picture in pictures]
    features[:, 2] += [4.0 * (picture.source == "a") for picture in pictures]
    recipe = HeadRecipe(parts, clip=3.0, strength=0.01, strangers=(("stranger",),), strange_fakes=("fake_a", "fake_b"))
    return TrainingSet(pictures, features), recipe


def standardised(data: TrainingSet, recipe: HeadRecipe) -> tuple[np.ndarray, np.ndarray]:
    weights = picture_weights(data.pictures, recipe.parts)
    mean = np.average(data.features, axis=0, weights=weights)
    deviation = np.sqrt(np.average((data.features - mean) ** 2, axis=0, weights=weights))
    return np.clip((data.features - mean) / deviation, -3, 3), weights


def test_logistic_is_scikit_learns(data):
    values, weights = standardised(*data)
    expected = LogisticRegression(C=0.01, tol=1e-10, max_iter=9999).fit(values, data[0].fake, sample_weight=weights)
    head = fit_head(*data)
    assert head.weight == pytest.approx(expected.coef_[0], abs=1e-5)
    assert head.difference(data[0].features) == pytest.approx(expected.decision_function(values), abs=1e-4)


def test_copies_have_half_the_weight(data):
    training, recipe = data
    same = TrainingSet(training.pictures, training.features, training.features.copy())
    assert fit_head(same, recipe).weight == pytest.approx(fit_head(training, recipe).weight, abs=1e-6)
    other = TrainingSet(training.pictures, training.features, training.features + 1.0)
    assert np.abs(fit_head(other, recipe).weight - fit_head(training, recipe).weight).max() > 1e-3


def test_ridge_is_scikit_learns(data):
    training, recipe = data
    recipe = replace(recipe, method="ridge", strength=0.7)
    values, weights = standardised(training, recipe)
    target = np.where(training.fake, 1.0, -1.0)
    expected = Ridge(alpha=0.7 * len(target)).fit(values, target, sample_weight=weights)
    head = fit_head(training, recipe)
    assert head.weight == pytest.approx(expected.coef_, abs=1e-5)
    assert head.bias == pytest.approx(expected.intercept_, abs=1e-5)


def test_pair_term_pulls_twins_apart(data):
    training, recipe = data
    twins = [
        replace(picture, twin=f"real_a{n}", part="real_a") if picture.part == "fake_a" else picture
        for n, picture in enumerate(training.pictures)
    ]
    training = TrainingSet(twins, training.features)
    parts = {**recipe.parts, "real_a": Part(dataset="ddvqa")}
    gaps = []
    for pair_term in (0.0, 1.0, 10.0):
        head = fit_head(training, replace(recipe, parts=parts, method="ridge", strength=0.5, pair_term=pair_term))
        scores = head.difference(training.features)
        gaps.append(np.mean([scores[n] - scores[70 + n] for n in range(40)]))
    assert gaps[0] < gaps[1] < gaps[2] <= 2.05


def test_calibration_is_unregularised():
    draw = np.random.default_rng(0)
    differences = draw.normal(size=20_000)
    fake = draw.random(20_000) < 1 / (1 + np.exp(-(1.7 * differences + 0.4)))
    found = fit_weighted_platt(fake, differences, np.ones(20_000))
    assert found["scale"] == pytest.approx(1.7, abs=0.06)
    assert found["bias"] == pytest.approx(0.4, abs=0.04)


# validation


def test_leaving_sources_out(data):
    found = validate_head(*data)
    report = found.report
    assert set(report["left_out"]) == {"fake_a", "fake_b"}
    assert report["m1"] == pytest.approx(np.mean([found["auc"] for found in report["left_out"].values()]))
    first = report["left_out"]["fake_a"]
    assert (first["real"], first["fake"]) == (50, 40)
    assert first["low"] < first["auc"] < first["high"]
    assert report["m1"] > 0.9
    assert set(report["strangers"]) == {"fake_a against stranger", "fake_b against stranger"}
    assert report["left_out_reals_accused"]["stranger"]["pictures"] == 70
    assert len(found.out_of_fold) == len(data[0].pictures)
    assert all(0 <= row.score <= 1 for row in found.out_of_fold)


def test_a_source_that_says_the_class_does_not_help_when_left_out(data):
    """The trap that leaving sources out is for: here the third feature is the class, but only inside source b."""
    training, recipe = data
    features = np.random.default_rng(1).normal(size=training.features.shape).astype(np.float32)
    for n, picture in enumerate(training.pictures):
        features[n, 2] = 3.0 * picture.fake if picture.source == "b" else features[n, 2]
    report = validate_head(TrainingSet(training.pictures, features), recipe).report
    assert report["left_out"]["fake_a"]["auc"] < 0.7


def test_cross_validation_keeps_groups_together():
    draw = np.random.default_rng(0)
    parts = {"set": Part(dataset="ddvqa")}
    pictures, features = [], []
    for group in range(60):  # every picture of a group is its noise: only a head that saw it can tell
        for fake in (False, True):
            pictures.append(Picture("set", "set", f"{group}{fake}", fake, "a" if fake else "real", str(group), ""))
            features.append(np.eye(60)[group] * (5.0 if fake else -5.0) + draw.normal(size=60) * 0.01)
    recipe = HeadRecipe(parts, method="ridge", strength=0.1, validation="cross_validation")
    training = TrainingSet(pictures, np.array(features, dtype=np.float32))
    assert validate_head(training, recipe).report["cross_validated"]["auc"] < 0.75
    assert validate_head(training, recipe).report["groups"] == 60


# pictures


def test_copies_follow_from_the_picture_and_the_seed():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(40)]
    first, again = ([changed_copy(picture, CopySettings(), d) for d in digests] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = [changed_copy(picture, CopySettings(seed=1), d) for d in digests]
    assert not all(a.size == b.size and np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    shrunk = [copy.size != picture.size for copy in first]
    assert 0.4 < np.mean(shrunk) < 0.95
    assert all(36 <= copy.width <= 120 for copy in first)
    never = CopySettings(shrink=0.0, blur=0.0, jpeg=0.0)
    assert np.array_equal(changed_copy(picture, never, digests[0]), picture)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"heads": {}}, "heads"),
        ({"speed": 3}, "speed"),
        ({"heads": {"picture": {"parts": {"a": {"folder": "x"}}}}}, "label"),
        ({"heads": {"picture": {"parts": {"a": {"folder": "x", "label": "fake", "weight": 2}}}}}, "weight"),
        ({"heads": {"picture": {"parts": {"a": {"folder": "x", "label": "fake", "against": ["b"]}}}}}, "b"),
        ({"heads": {"picture": {"method": "forest", "parts": {"a": {"dataset": "ddvqa"}}}}}, "forest"),
    ],
)
def test_recipes_that_cannot_be(tmp_path, change, named):
    content = {**yaml.safe_load(SHIPPED.read_text()), **change}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=named):
        read_probe_recipe(tmp_path / "recipe.yaml")


# a whole run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures whose class is a matter of fine stripes, a tiny encoder, and a recipe."""
    place = tmp_path_factory.mktemp("probe")
    draw = np.random.default_rng(0)
    for source in ("a", "b"):
        for label in ("real", "fake"):
            folder = place / "data" / source / label
            folder.mkdir(parents=True)
            for n in range(130):
                values = draw.normal(128, 40, (8, 8, 3)).repeat(9, axis=0).repeat(9, axis=1)
                if label == "fake":
                    values[:, ::2] += 60
                Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{n:03}.png")
    rounded_to_int8(clip_probe(heads={"picture": {}})).save_pretrained(place / "encoder")
    parts = {
        f"{label}_{source}": {
            "folder": f"{source}/{label}",
            "label": label,
            "source": source,
            **({"against": [f"real_{source}"]} if label == "fake" else {}),
        }
        for source in ("a", "b")
        for label in ("real", "fake")
    }
    recipe = {
        "encoder": str(place / "encoder"),
        "output_dir": str(place / "out"),
        "features_dir": str(place / "features"),
        "data_dir": str(place / "data"),
        "heads": {
            "picture": {"parts": parts, "strength": 0.01, "copies": {"seed": 0}, "license_notice": "test terms"},
            "face": {
                "parts": {name: {**fields, "every": [0, 3]} for name, fields in parts.items()},
                "features": ["patch_mean"],
                "layers": [2],
                "subject": "faces",
                "method": "ridge",
                "strength": 1.0,
                "validation": "cross_validation",
                "license_notice": "test terms of faces",
            },
        },
    }
    # A copy through JSON: what is named twice would be written as an alias, which recipes may not hold.
    (place / "recipe.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(recipe)), sort_keys=False))
    train_probe(ProbeArguments(str(place / "recipe.yaml")).recipe())
    return place


def test_the_folder_is_a_detector_that_learned(place):
    detector = deepfake_detectors.pipeline(model=str(place / "out"))
    paths = [place / "data" / "a" / label / "000.png" for label in ("real", "fake")]
    for head in ("picture", "face"):
        rows = detector([str(path) for path in paths], head=head)
        assert [row["label"] for row in rows] == ["real", "fake"]
    assert rows[0]["terms"] == "test terms of faces"
    config = detector.model.config
    assert (config.default_head, config.license_notice, config.encoder_storage) == ("picture", "test terms", "int8")
    assert config.heads["face"]["subject"] == "faces"


def test_the_encoder_file_is_the_sources(place):
    assert (place / "out" / ENCODER_FILE).read_bytes() == (place / "encoder" / ENCODER_FILE).read_bytes()


def test_what_was_measured_is_written_down(place):
    report = json.loads((place / "out" / "validation.json").read_text())["heads"]
    assert report["picture"]["pictures"] == 520
    assert report["picture"]["parts"]["real_a"] == {"real": 130, "fake": 0}
    assert report["picture"]["m1"] > 0.9
    assert report["face"]["cross_validated"]["auc"] > 0.9
    assert report["picture"]["left_out"]["fake_a"]["bytes_per_pixel_auc"] is not None
    assert report["picture"]["band"]["coverage"] > 0.3
    band = deepfake_detectors.pipeline(model=str(place / "out")).model.config.decision_band
    assert band == {key: report["picture"]["band"][key] for key in band}
    # 176 pictures: 44 of each class to fit on are too few for the promise, so that this head makes none
    assert report["face"]["band"] is None
    lines = (place / "out" / "out_of_fold_picture.jsonl").read_text().splitlines()
    assert len(lines) == 520
    assert (place / "out" / "band_picture.png").is_file()


def test_a_second_run_gives_the_same_heads_without_the_encoder(place, tmp_path, monkeypatch):
    arguments = ProbeArguments(str(place / "recipe.yaml"), output_dir=str(tmp_path / "again"))

    def never(*_, **__):
        raise AssertionError("a kept feature was computed again")

    monkeypatch.setattr(probe_features.FeatureStore, "_computed", never)
    train_probe(arguments.recipe())
    first, again = (load_file(folder / "heads.safetensors") for folder in (place / "out", tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.allclose(first[name], again[name], atol=1e-6, rtol=0) for name in first)


def test_new_features_give_the_same_heads_to_1e_6(place, tmp_path):
    arguments = ProbeArguments(
        str(place / "recipe.yaml"), output_dir=str(tmp_path / "again"), features_dir=str(tmp_path / "features")
    )
    train_probe(arguments.recipe())
    first, again = (load_file(folder / "heads.safetensors") for folder in (place / "out", tmp_path / "again"))
    assert all(torch.allclose(first[name], again[name], atol=1e-6, rtol=0) for name in first)


def test_what_was_trained_can_be_published(place, tmp_path):
    """Without strangers, cross-checked parts or facts of its own, as a recipe of the user's is."""
    target = publish_model(place / "out", "tester/own", without_results=True, dry_run=tmp_path / "look")
    card = (Path(target) / "README.md").read_text()
    report = json.loads((place / "out" / "validation.json").read_text())["heads"]["picture"]
    assert f"mean {report['m1']:.3f}" in card
    assert "| fake_b | 130 / 130 |" in card
    assert "recorded nothing" not in card
    assert "FFHQ" not in card
    detector = deepfake_detectors.pipeline(model=target)
    assert detector(str(place / "data" / "a" / "fake" / "000.png"))["label"] == "fake"


def test_another_encoder_does_not_get_kept_features(place, tmp_path):
    rounded_to_int8(clip_probe(seed=1, heads={"picture": {}})).save_pretrained(tmp_path / "encoder")
    before = len(list((place / "features").rglob("*.npy")))
    arguments = ProbeArguments(
        str(place / "recipe.yaml"), encoder=str(tmp_path / "encoder"), output_dir=str(tmp_path / "out")
    )
    train_probe(arguments.recipe())
    assert len(list((place / "features").rglob("*.npy"))) == 2 * before


def test_missing_data_is_named(place, tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    recipe = ProbeArguments(str(place / "recipe.yaml")).recipe()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_probe(replace(recipe, data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="DEEPFAKE_DATA"):
        train_probe(replace(recipe, data_dir=None))
