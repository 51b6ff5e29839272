"""Where recipes are found: the user's own files, and the shipped ones by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfake_detectors import train
from deepfake_detectors.train.arguments import parse_recipe
from deepfake_detectors.train.probe_recipe import read_probe_recipe
from deepfake_detectors.train.recipe_files import find_recipe, recipe_names

RECIPES = Path(train.__file__).parent / "recipes"
NAME = "m2f2_det_stage1_bridge_mini"


def test_the_names_are_those_of_the_files():
    assert NAME in recipe_names()
    assert len(recipe_names()) == len(list(RECIPES.iterdir()))


@pytest.mark.parametrize("given", [NAME, f"{NAME}.yaml"])
def test_a_shipped_recipe_is_found_by_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()  # a folder of that name, such as an output, is not a recipe
    assert find_recipe(given).samefile(RECIPES / f"{NAME}.yaml")


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f"{NAME}.yaml"
    own.write_text("seed: 7\n")
    assert find_recipe(own.name).samefile(own)
    assert find_recipe(NAME).samefile(RECIPES / own.name)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("m2f2_det_stage1_brigde_mini", NAME),
        (f"train/recipes/{NAME}.yaml", f": {NAME}\\."),  # as in a checkout, typed elsewhere
        ("../../etc/passwd", "lvlm_dfd_stage1"),
        ("nothing like it", "fakevlm_full"),
    ],
)
def test_what_is_not_there_is_named_with_the_remedy(given, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=named) as caught:
        find_recipe(given)
    assert repr(given) in str(caught.value)


def test_trainings_take_names_and_what_stands_behind_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data, training = parse_recipe(["--config", NAME, "--max_steps", "3", "--dataset", "image_folder"])
    assert (model.model_type, data.dataset, training.max_steps) == ("m2f2_det", "image_folder", 3)
    assert read_probe_recipe("clip_probe_mini").encoder
    with pytest.raises(FileNotFoundError, match="no_such_recipe"):
        read_probe_recipe("no_such_recipe")
