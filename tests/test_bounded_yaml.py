"""YAML is read with bounds: a few lines of it can stand for gigabytes."""

import time

import pytest

from deepfake_detectors.facts import read_facts
from deepfake_detectors.files import parse_yaml, read_yaml
from deepfake_detectors.train.arguments import parse_recipe
from deepfake_detectors.train.probe_recipe import read_probe_recipe

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "bomb": BOMB,
    "deep flow": "[" * 100_000,
    "deep blocks": "".join(f"{' ' * level}a:\n" for level in range(400)),
    "deep closed": "[" * 500 + "]" * 500,
    "long": "a: " + "x" * 2**21,
    "twice": "a: 1\na: 2\n",
    "object": "a: !!python/object/apply:os.system ['true']\n",
    "date": "a: 2026-99-99\n",
    "many digits": f"a: {'9' * 5000}\n",
    "unhashable key": "{[1]: 2}\n",
    "control": "a: \x01\n",
    "merge of a word": "<<: x\n",
}


def test_usual_yaml():
    assert parse_yaml("a: [1, {b: null}]\nc: 2026-01-02\n", "x")["a"] == [1, {"b": None}]
    assert parse_yaml("", "x") is None


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_one_error_that_names_the_file(kind, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(HOSTILE[kind])
    started = time.monotonic()
    facts = ({"model_type": "m2f2_det"}, "M2F2DetForDeepfakeDetection", "name")
    for read in (
        read_yaml,
        lambda path: read_facts(path, *facts),
        read_probe_recipe,
        lambda path: parse_recipe(["--config", str(path)]),
    ):
        with pytest.raises(ValueError, match=r"r\.yaml"):
            read(file)
    assert time.monotonic() - started < 10


def test_bytes_that_are_not_text(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"a: \xe4\n")
    with pytest.raises(ValueError, match=r"r\.yaml.*cp1252"):
        read_yaml(tmp_path / "r.yaml")
