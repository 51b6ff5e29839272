"""What a user installs: the wheel and the sdist, built from a copy of the sources and tried far away from them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.source_tree import NOT_SOURCES, PACKAGE_DIR, ROOT, SETUPTOOLS

pytestmark = pytest.mark.slow

ONLY_IN_EXTRAS = {
    *("datasets", "pyarrow", "pandas", "h5py", "av", "lmdb", "sklearn", "skimage", "scipy", "matplotlib", "trl"),
    *("tensorboard", "imagehash", "cv2", "dlib", "c2pa", "gradio", "ray", "webdataset", "onnx", "onnxruntime"),
}
# Each script below runs with `python -I FILE TARGET ...`: neither the working directory nor PYTHONPATH is looked at.
PRELUDE = """
import sys
target = sys.argv.pop(1)
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path_hooks = [hook for hook in sys.path_hooks if "editable" not in repr(hook).lower()]
sys.path.insert(0, target)
"""
IMPORT_ALL = """
import importlib, json, pkgutil
found = {}
for name in ("deepfake_detectors", "deepfake_detectors_cli"):
    package = importlib.import_module(name)
    found[name] = package.__file__
    for info in pkgutil.walk_packages(package.__path__, name + "."):
        if not info.name.endswith("__main__"):
            found[info.name] = importlib.import_module(info.name).__file__
print(json.dumps(found))
"""
LIST_DATA = """
import json
from importlib.resources import files
def walk(folder, prefix=""):
    for child in folder.iterdir():
        if child.is_dir():
            yield from walk(child, prefix + child.name + "/")
        elif not child.name.endswith((".py", ".pyc")):
            yield prefix + child.name
print(json.dumps({name: sorted(walk(files(name))) for name in json.loads(sys.argv[1])}))
"""
DETECT = """
import runpy
from importlib.machinery import PathFinder
hidden = %r
class CoreOnly(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = CoreOnly
runpy.run_module("deepfake_detectors_cli", run_name="__main__")
"""


def run(arguments: list[str], cwd: Path, **environment: str) -> str:
    """Run a command away from the repository; returns stdout, or fails with stderr."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, env={**clean, **environment})
    assert done.returncode == 0, f"{' '.join(arguments[:6])}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """`{"wheel": file, "sdist": file}`; the wheel is made from the sdist, so the sdist has all that it needs."""
    source, dist = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(*NOT_SOURCES - {"goldens"}, "*.egg-info", ".*_cache", "outputs")
    shutil.copytree(ROOT, source, ignore=ignored)
    assert list((source / "tests").rglob("*.py"))  # they are there to be left out
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)], cwd=dist)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The folder that holds the installed wheel, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run([*pip, "--target", str(target), str(built["wheel"])], cwd=target)
    return target


@pytest.fixture
def elsewhere(installed, tmp_path):
    """A function that runs a script against the installed wheel in an empty folder and returns what it prints."""

    def call(script: str, *arguments: str, **environment: str) -> str:
        file = tmp_path / "script.py"
        file.write_text(PRELUDE + script)
        return run([sys.executable, "-I", str(file), str(installed), *arguments], cwd=tmp_path, **environment)

    return call


def sources(suffixes: tuple[str, ...] | None = None) -> dict[str, set[str]]:
    """Files of each listed package as they lie in the repository, relative to the package, without sub-packages."""
    files: dict[str, set[str]] = {}
    for package in SETUPTOOLS["packages"]:
        base = max((name for name in PACKAGE_DIR if package == name or package.startswith(name + ".")), key=len)
        folder = PACKAGE_DIR[base].joinpath(
            *package.removeprefix(base).strip(".").split(".") if package != base else []
        )
        files[package] = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file()
            and "__pycache__" not in path.parts
            and not any(parent != folder and (parent / "__init__.py").exists() and folder in parent.parents
                        for parent in path.parents)
            and (suffixes is None or path.suffix in suffixes)
        }  # fmt: skip
    return files


def test_the_wheel_holds_the_sources_and_nothing_else(built):
    """Catches a data file that package-data forgets as well as a stray one."""
    expected = {f"{package.replace('.', '/')}/{name}" for package, names in sources().items() for name in names}
    with zipfile.ZipFile(built["wheel"]) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert sorted(carried - expected) == []
    assert sorted(expected - carried) == []


def test_neither_archive_holds_tests_or_goldens(built):
    with zipfile.ZipFile(built["wheel"]) as wheel, tarfile.open(built["sdist"]) as sdist:
        names = [*wheel.namelist(), *sdist.getnames()]
    assert any(name.endswith("detection.py") for name in names)
    assert not [
        name
        for name in names
        if {"tests", "goldens", "examples", "benchmarks", ".ci", ".github"}.intersection(Path(name).parts)
    ]
    assert not [name for name in names if Path(name).name.startswith("test_")]


def test_both_archives_carry_the_licence(built):
    with zipfile.ZipFile(built["wheel"]) as wheel, tarfile.open(built["sdist"]) as sdist:
        assert [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert [name for name in sdist.getnames() if name.count("/") == 1 and name.endswith("/LICENSE")]


def test_every_module_imports_from_the_wheel(elsewhere, installed):
    found = json.loads(elsewhere(IMPORT_ALL).splitlines()[-1])
    outside = {name: file for name, file in found.items() if not Path(file).is_relative_to(installed)}
    assert not outside
    assert set(SETUPTOOLS["packages"]) <= set(found)


def test_data_files_are_found_through_importlib_resources(elsewhere):
    names = json.dumps(SETUPTOOLS["packages"])
    listed = {name: set(files) for name, files in json.loads(elsewhere(LIST_DATA, names).splitlines()[-1]).items()}
    tables = {path.name for path in PACKAGE_DIR["deepfake_detectors"].glob("*.toml")}
    assert "families.toml" in tables
    assert {"py.typed"} | tables <= listed["deepfake_detectors"]
    for package, suffix in [("hub_cards", ".md.jinja"), ("hub_cards", ".yaml"), ("train", ".yaml")]:
        assert [file for file in listed[f"deepfake_detectors.{package}"] if file.endswith(suffix)], (package, suffix)
    built_in = [path.parent.name for path in PACKAGE_DIR["deepfake_detectors"].glob("checkpoints/*/config.json")]
    assert "m2f2_det_mini" in built_in
    for name in built_in:
        files = {file.removeprefix(f"{name}/") for file in listed["deepfake_detectors.checkpoints"]}
        assert {"config.json", "LICENSE", "README.md"} <= files, name
        assert [file for file in files if file.endswith(".safetensors")], name


def test_detect_works_offline_from_the_wheel_with_core_dependencies_only(elsewhere):
    picture = ROOT / "examples" / "pictures" / "real_astronaut.jpg"
    lines = elsewhere(DETECT % ONLY_IN_EXTRAS, "detect", str(picture), HF_HUB_OFFLINE="1").splitlines()
    verdicts = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(verdicts) == 1
    assert verdicts[0]["label"] in ("real", "fake")
    assert 0.0 <= verdicts[0]["fake_probability"] <= 1.0


SPACE = """
import runpy, urllib.request
from pathlib import Path
import deepfake_detectors as dfd
assert dfd.__file__.startswith(target)
folder = Path(dfd.publish_space("m2f2-det-mini", "me/page", dry_run="space"))
page = runpy.run_path(str(folder / "app.py"))["page"]
_, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
with urllib.request.urlopen(url + "config", timeout=30) as answer:
    config = answer.read().decode()
page.close(verbose=False)
print("m2f2-det-mini" in config and "real_hopper" in config)
"""


def test_a_space_runs_offline_from_the_wheel(elsewhere, tmp_path):
    pytest.importorskip("gradio", reason="the app needs the extra [app]")
    printed = elsewhere(SPACE, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    assert printed.split()[-1] == "True"
