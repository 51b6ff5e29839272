"""One row per picture, in order, whatever the pictures come in and whatever is wrong with some of them."""

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from deepfake_detectors.modeling.image_loading import InputImageError
from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline
from deepfake_detectors.pipelines import pipeline as own_pipeline
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det

TASK = "deepfake-detection"
TOLERANCE = 1e-5  # on P(fake): batches of another size add up in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    points = {"strict": 0.01, "fpr@1%": 0.99}
    return tiny_m2f2_det(tmp_path_factory.mktemp("detector"), operating_points=points)


@pytest.fixture(scope="module")
def detector(folder: Path) -> DeepfakeDetectionPipeline:
    return pipeline(TASK, model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return random_pictures(5)


@pytest.fixture(scope="module")
def expected(folder: Path, pictures: list[Image.Image]) -> list[float]:
    """P(fake) of each picture by model and processor alone."""
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**processor(images=picture, return_tensors="pt")).logits[0] for picture in pictures]
    values = [logit.softmax(-1)[1].item() for logit in logits]
    assert np.ptp(values) > 100 * TOLERANCE, "the pictures must be told apart, or order could not be tested"
    return values


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, pictures: list[Image.Image]) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
    return [str(folder / f"{index}.png") for index in range(len(pictures))]


def probabilities(rows: object) -> list[float]:
    return [row["fake_probability"] for row in rows]


# ---- the row --------------------------------------------------------------------------------------------------------


def test_the_class_behind_the_task(detector: DeepfakeDetectionPipeline) -> None:
    assert isinstance(detector, DeepfakeDetectionPipeline)


def test_one_row(detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float]) -> None:
    row = detector(paths[0])
    assert list(row) == [
        "label", "score", "fake_probability", "threshold", "decision", "explanation", "explanation_verdict", "mask",
    ]  # fmt: skip
    probability = row["fake_probability"]
    assert probability == pytest.approx(expected[0], abs=TOLERANCE)
    assert row["label"] == ("fake" if probability >= 0.5 else "real")
    assert row["score"] == pytest.approx(max(probability, 1 - probability))
    assert row["threshold"] == 0.5
    assert row["decision"] is row["explanation"] is row["explanation_verdict"] is row["mask"] is None
    assert [type(row[key]) for key in ("label", "score", "fake_probability", "threshold")] == [
        str,
        float,
        float,
        float,
    ]
    assert json.loads(json.dumps(row)) == row


def test_the_probability_is_calibrated(folder: Path, paths: list[str], expected: list[float]) -> None:
    detector = pipeline(TASK, model=str(folder))
    detector.model.config.calibration = {"scale": 2.0, "bias": 1.0}
    odds = np.log(expected[0] / (1 - expected[0]))
    assert detector(paths[0])["fake_probability"] == pytest.approx(1 / (1 + np.exp(-(2 * odds + 1))), abs=TOLERANCE)


@pytest.mark.parametrize(("threshold", "label"), [(0, "fake"), (0.0, "fake"), (1, "real"), (np.float32(1.0), "real")])
def test_threshold_as_a_number(detector: DeepfakeDetectionPipeline, paths: list[str], threshold, label: str) -> None:
    row = detector(paths[0], threshold=threshold)
    assert (row["label"], row["threshold"]) == (label, float(threshold))
    probability = row["fake_probability"]
    assert row["score"] == (probability if label == "fake" else 1 - probability)


def test_the_threshold_itself_counts_as_fake(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    probability = detector(paths[0])["fake_probability"]
    assert detector(paths[0], threshold=probability)["label"] == "fake"
    assert detector(paths[0], threshold=np.nextafter(probability, 1))["label"] == "real"


@pytest.mark.parametrize(("name", "value", "label"), [("strict", 0.01, "fake"), ("fpr@1%", 0.99, "real")])
def test_threshold_by_name(folder: Path, paths: list[str], name: str, value: float, label: str) -> None:
    for row in (
        pipeline(TASK, model=str(folder))(paths[0], threshold=name),
        pipeline(TASK, model=str(folder), threshold=name)(paths[0]),
    ):
        assert (row["threshold"], row["label"]) == (value, label)


def test_unknown_operating_point_names_the_known(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    with pytest.raises(ValueError, match=r"'eer' is not an operating point\. This model has: fpr@1%, strict\."):
        detector(paths[0], threshold="eer")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), True, [0.5]])
def test_threshold_out_of_range(detector: DeepfakeDetectionPipeline, paths: list[str], threshold: object) -> None:
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
        detector(paths[0], threshold=threshold)


# ---- many pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 0), (5, 0), (8, 0), (1, 2), (2, 2)])
def test_a_list_in_order(
    detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float], batch_size: int, num_workers: int
) -> None:
    rows = detector(paths, batch_size=batch_size, num_workers=num_workers)
    assert isinstance(rows, list)
    assert probabilities(rows) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_other_containers(
    detector: DeepfakeDetectionPipeline,
    paths: list[str],
    pictures: list[Image.Image],
    expected: list[float],
    batch_size: int,
    num_workers: int,
) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["real", "fake"])})
    rows = datasets.Dataset.from_dict({"image": paths, "label": [0, 1, 0, 1, 0]}, features=features)
    containers = {
        "tuple": tuple(pictures),
        "generator": (picture for picture in pictures),
        "iterator": map(Path, paths),
        "rows": rows,
        "column": rows["image"],
        "key dataset": KeyDataset(rows, "image"),
        "undecoded rows": rows.cast_column("image", datasets.Image(decode=False)),
        "stream": rows.to_iterable_dataset(),
        "column of a stream": rows.to_iterable_dataset()["image"],
    }
    for name, container in containers.items():
        result = detector(container, batch_size=batch_size, num_workers=num_workers)
        assert isinstance(result, list) == (name == "tuple")
        assert probabilities(result) == pytest.approx(expected, abs=TOLERANCE), name


def test_generators_are_read_lazily(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    read: list[str] = []

    def endless() -> Iterator[str]:
        while True:
            read.append(paths[0])
            yield paths[0]

    rows = iter(detector(endless(), batch_size=2))
    next(rows), next(rows), next(rows)
    assert len(read) <= 6


def test_nothing_to_do(detector: DeepfakeDetectionPipeline) -> None:
    assert detector([]) == [] and detector(()) == []
    assert list(detector(iter([]))) == []


def test_workers_that_do_not_fork_can_rebuild_it(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    preprocess = pickle.loads(pickle.dumps(detector.preprocess))
    torch.testing.assert_close(preprocess(paths[0])["pixel_values"], detector.preprocess(paths[0])["pixel_values"])


def test_one_pixel(detector: DeepfakeDetectionPipeline) -> None:
    assert 0 < detector(Image.new("RGB", (1, 1)))["fake_probability"] < 1


# ---- pictures that cannot be read -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, paths: list[str]) -> list[object]:
    """Five good pictures (in order) and four bad ones, a bad one first and last."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    return ["missing.png", paths[0], paths[1], str(broken), None, paths[2], paths[3], paths[4], np.zeros((2, 2, 7))]


BAD = {0: "missing.png", 3: "broken.jpg", 4: "None", 8: "numpy array of dtype float64 and shape (2, 2, 7)"}


@pytest.mark.parametrize(
    ("batch_size", "num_workers", "lazy"),
    [
        (1, 0, False),
        (2, 0, False),
        (3, 0, True),
        (9, 0, False),
        (20, 0, True),
        (1, 2, False),
        (4, 2, False),
        (3, 1, True),
    ],
)
def test_errors_become_rows_in_their_places(
    detector: DeepfakeDetectionPipeline,
    mixed: list[object],
    expected: list[float],
    batch_size: int,
    num_workers: int,
    lazy: bool,
) -> None:
    inputs = iter(mixed) if lazy else mixed
    rows = list(detector(inputs, on_error="record", batch_size=batch_size, num_workers=num_workers))
    assert len(rows) == len(mixed)
    for index, name in BAD.items():
        assert set(rows[index]) == {"error", "input"}
        assert rows[index]["input"].endswith(name)
        assert rows[index]["error"].startswith(rows[index]["input"])
    good = [row for index, row in enumerate(rows) if index not in BAD]
    assert probabilities(good) == pytest.approx(expected, abs=TOLERANCE)
    json.dumps(rows)


def test_nothing_but_errors(detector: DeepfakeDetectionPipeline) -> None:
    rows = detector(["a.png", "b.png", "c.png"], on_error="record", batch_size=2)
    assert [row["input"] for row in rows] == ["a.png", "b.png", "c.png"]


def test_a_single_error_as_a_row(detector: DeepfakeDetectionPipeline) -> None:
    assert detector(None, on_error="record")["input"] == "None"


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (4, 0), (4, 1)])
def test_errors_are_raised_by_default(
    detector: DeepfakeDetectionPipeline, paths: list[str], batch_size: int, num_workers: int
) -> None:
    with pytest.raises(InputImageError, match=r"^missing\.png: no such file\.$") as caught:
        detector([*paths, "missing.png"], num_workers=num_workers, batch_size=batch_size)
    assert caught.value.source == "missing.png"


def test_a_blank_never_reaches_the_others(folder: Path, pictures: list[Image.Image]) -> None:
    """What stands in for a failed picture is no part of the batch, which matters where pictures see each other."""
    options = {"bridge_norm": "layer", "bridge_attention_axis": "batch"}
    detector = pipeline(TASK, model=str(tiny_m2f2_det(folder.with_name("bridge"), "bridge", **options)))
    alone = detector(pictures[:2], batch_size=2)
    mixed = detector([pictures[0], "missing.png", pictures[1]], batch_size=3, on_error="record")
    assert probabilities([mixed[0], mixed[2]]) == pytest.approx(probabilities(alone), abs=1e-7)
    assert detector(pictures[0])["fake_probability"] != pytest.approx(alone[0]["fake_probability"], abs=1e-6)


@pytest.mark.parametrize("view", ["rows", "column", "key dataset"])
def test_a_dataset_with_a_cell_that_does_not_decode(
    detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float], view: str
) -> None:
    cells = [{"bytes": b"broken", "path": None}, {"bytes": Path(paths[0]).read_bytes(), "path": None}]
    rows = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image()}))
    views = {"rows": rows, "column": rows["image"], "key dataset": KeyDataset(rows, "image")}
    broken, good = detector(views[view], on_error="record", batch_size=2)
    assert broken["input"] == "row 0" and "cannot be read" in broken["error"]
    assert good["fake_probability"] == pytest.approx(expected[0], abs=TOLERANCE)
    with pytest.raises(InputImageError, match="row 0"):
        list(detector(views[view]))


def test_a_url_without_network(detector: DeepfakeDetectionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    row = detector("https://example.com/face.jpg", on_error="record")
    assert row["input"] == "https://example.com/face.jpg" and "could not be downloaded" in row["error"]


def test_what_the_processor_cannot_use_is_an_input_error(
    folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = pipeline(TASK, model=str(folder))
    original = type(detector.processor).__call__

    def refuses_small(self, images, **kwargs):
        if images.width < 5:
            raise ValueError("too small")
        return original(self, images=images, **kwargs)

    monkeypatch.setattr(type(detector.processor), "__call__", refuses_small)
    rows = detector([Image.new("RGB", (2, 3)), pictures[0]], on_error="record")
    assert "2x3 pixels (too small)" in rows[0]["error"] and "fake_probability" in rows[1]


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ability", ["explain", "localize"])
def test_what_the_family_cannot_do(folder: Path, detector: DeepfakeDetectionPipeline, paths, ability: str) -> None:
    message = f"M2F2DetForDeepfakeDetection gives a verdict but cannot {ability}"
    with pytest.raises(ValueError, match=message):
        detector(paths[0], **{ability: True})
    with pytest.raises(ValueError, match=message):
        pipeline(TASK, model=str(folder), **{ability: True})
    assert detector(paths[0], **{ability: False})["label"] in ("real", "fake")


@pytest.mark.parametrize("argument", [{"question": "Is this real?"}, {"generate_kwargs": {"max_new_tokens": 3}}])
def test_a_question_needs_an_explanation(detector: DeepfakeDetectionPipeline, paths, argument: dict) -> None:
    with pytest.raises(ValueError, match="explain=True"):
        detector(paths[0], **argument)


def test_on_error_knows_two_words(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    with pytest.raises(ValueError, match="on_error is 'skip', expected one of 'raise', 'record'"):
        detector(paths[0], on_error="skip")


def test_misspelled_arguments_are_refused(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    with pytest.raises(TypeError, match="treshold"):
        detector(paths[0], treshold=0.4)


def test_defaults_given_at_construction_can_be_changed_in_a_call(folder: Path, paths: list[str]) -> None:
    detector = pipeline(TASK, model=str(folder), threshold=0.0, on_error="record", batch_size=2)
    rows = detector([paths[0], "missing.png"])
    assert rows[0]["threshold"] == 0.0 and "error" in rows[1]
    assert detector(paths[0], threshold=0.75)["threshold"] == 0.75
    with pytest.raises(InputImageError):
        detector("missing.png", on_error="raise")


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_precisions(folder: Path, paths: list[str], expected: list[float], dtype: torch.dtype) -> None:
    detector = pipeline(TASK, model=str(folder), dtype=dtype)
    assert detector.model.dtype == dtype
    assert probabilities(detector(paths, batch_size=2)) == pytest.approx(expected, abs=0.03)


def test_dropout_is_off(folder: Path, paths: list[str]) -> None:
    model = AutoModel.from_pretrained(folder).train()
    detector = pipeline(TASK, model=model, processor=AutoProcessor.from_pretrained(folder))
    assert not model.training
    assert detector(paths[0]) == detector(paths[0])


def test_a_model_that_answers_nan_is_an_error_not_a_verdict(folder: Path, paths: list[str]) -> None:
    detector = pipeline(TASK, model=str(folder))
    with torch.no_grad():
        detector.model.detector.classifier.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"0\.png: the model answered P\(fake\) = nan"):
        detector(paths[0], on_error="record")


def test_a_model_that_is_no_detector(folder: Path) -> None:
    model = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(ValueError, match=r"BertModel .*'bert'"):
        pipeline(TASK, model=model, processor=AutoProcessor.from_pretrained(folder))


def test_a_detector_without_its_processor(folder: Path) -> None:
    with pytest.raises(ValueError, match="processor"):
        DeepfakeDetectionPipeline(AutoModel.from_pretrained(folder))


def test_terms_of_the_weights_are_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    model.config.license_notice = "These weights are for research only."
    for _ in range(2):
        DeepfakeDetectionPipeline(model, processor=processor)
    assert caplog.messages.count("These weights are for research only.") == 1


# ---- saving ---------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_again(detector, tmp_path: Path, paths: list[str], expected: list[float]) -> None:
    detector.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json", "model.safetensors", "processor_config.json",
    ]  # fmt: skip
    again = pipeline(TASK, model=str(tmp_path))
    assert probabilities(again(paths)) == pytest.approx(expected, abs=TOLERANCE)
    assert again.processor.to_dict() == detector.processor.to_dict()


def test_saved_with_its_code(detector, tmp_path: Path, paths: list[str], expected: list[float]) -> None:
    saved = tmp_path / "saved"
    detector.save_pretrained(saved, remote_code=True)
    assert {"pipeline_deepfake_detection.py", "image_loading.py", "detection.py"} <= {f.name for f in saved.iterdir()}
    custom = json.loads((saved / "config.json").read_text())["custom_pipelines"]
    assert custom == {TASK: {"impl": "pipeline_deepfake_detection.DeepfakeDetectionPipeline", "pt": ["AutoModel"]}}, (
        "no path of this machine may go along"
    )

    # transformers insists on trust for such a folder, our own call does not.
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline(TASK, model=str(saved))
    ours = own_pipeline(model=saved)
    assert type(ours) is DeepfakeDetectionPipeline
    assert probabilities(ours(paths)) == pytest.approx(expected, abs=TOLERANCE)

    plain = tmp_path / "plain"
    ours.save_pretrained(plain)
    assert "custom_pipelines" not in json.loads((plain / "config.json").read_text())
    assert "custom_pipelines" in vars(ours.model.config), "saving must not change the model"


@pytest.mark.slow
def test_the_folders_own_code_runs(detector, tmp_path: Path, paths: list[str], expected: list[float]) -> None:
    saved = tmp_path / "saved"
    detector.save_pretrained(saved, remote_code=True)
    program = (
        "import sys, deepfake_detectors; from transformers import pipeline\n"
        f"p = pipeline({TASK!r}, model=sys.argv[1], trust_remote_code=True)\n"
        "assert type(p).__module__.startswith('transformers_modules'), type(p)\n"
        "print(*(row['fake_probability'] for row in p(sys.argv[2:])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved), *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx(expected, abs=TOLERANCE)


# ---- odd inputs -----------------------------------------------------------------------------------------------------


def test_pandas_columns_go_by_position(
    detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float]
) -> None:
    import pandas

    table = pandas.DataFrame({"path": paths, "image": paths})
    backwards = [row["fake_probability"] for row in detector(table.iloc[::-1].path)]
    assert backwards == pytest.approx(expected[::-1], abs=TOLERANCE)
    some = [row["fake_probability"] for row in detector(table[table.index % 2 == 1].path, batch_size=2)]
    assert some == pytest.approx(expected[1::2], abs=TOLERANCE)
    assert [row["fake_probability"] for row in detector(table)] == pytest.approx(expected, abs=TOLERANCE)
    with pytest.raises(ValueError, match="path"):
        detector(table[["path"]])


def test_an_open_file_is_one_picture(
    detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float]
) -> None:
    with Path(paths[0]).open("rb") as file:
        assert detector(file)["fake_probability"] == pytest.approx(expected[0], abs=TOLERANCE)
    with Path(__file__).open(encoding="utf-8") as text:
        assert "'rb'" in detector(text, on_error="record")["error"]


def test_every_odd_input_is_a_row(
    detector: DeepfakeDetectionPipeline, paths: list[str], expected: list[float]
) -> None:
    itself: dict[str, object] = {}
    itself["image"] = itself
    odd = [itself, torch.zeros(3, 8, 8).to_sparse(), torch.zeros(3, 8, 8, device="meta"), 3, "http://a..b/x.jpg"]
    odd += [f"http://{'x' * 64}/x.jpg", "http://127.0.0.1:1/x.jpg", [paths[0]], ("a",), "\udcff.png"]
    rows = detector([*odd, paths[0]], on_error="record")
    assert all("error" in row for row in rows[:-1]) and len(rows) == len(odd) + 1
    assert rows[-1]["fake_probability"] == pytest.approx(expected[0], abs=TOLERANCE)
    json.dumps(rows)


def test_the_budget_is_a_parameter(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    assert "max_pixels" in detector(paths[0], max_pixels=10, on_error="record")["error"]
    for wrong in (0, -1, True, "many"):
        with pytest.raises(ValueError, match="max_pixels"):
            detector(paths[0], max_pixels=wrong)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_rows_are_the_same_with_any_number_of_workers(
    detector: DeepfakeDetectionPipeline, mixed: list[object], batch_size: int
) -> None:
    def rows(num_workers: int, lazy: bool) -> list[dict[str, object]]:
        inputs = (item for item in mixed) if lazy else mixed
        return list(detector(inputs, on_error="record", batch_size=batch_size, num_workers=num_workers))

    alone = rows(0, False)
    assert len(alone) == len(mixed)
    for num_workers in (0, 1, 2):
        for lazy in (False, True):
            assert rows(num_workers, lazy) == alone


def test_generators_have_as_many_workers_as_lists(detector: DeepfakeDetectionPipeline, paths: list[str]) -> None:
    """Two readers wait for each other, which one worker could not do."""
    both = threading.Barrier(2, timeout=20)

    class Waiting(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0 and not self.__dict__.setdefault("met", False):
                self.met = True
                both.wait()
            return super().read(size)

    files = [Waiting(Path(path).read_bytes()) for path in paths[:4]]
    assert len(list(detector((file for file in files), num_workers=2))) == 4


def test_rows_of_a_table_are_decoded_by_workers(
    detector: DeepfakeDetectionPipeline, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of anything else are read in the calling thread, which may hold what only one thread can use."""
    rows = datasets.Dataset.from_dict({"image": paths}, features=datasets.Features({"image": datasets.Image()}))
    decoding = datasets.Image.decode_example
    threads: set[str] = set()

    def noted(*args: object, **kwargs: object) -> object:
        threads.add(threading.current_thread().name)
        return decoding(*args, **kwargs)

    monkeypatch.setattr(datasets.Image, "decode_example", noted)
    assert len(list(detector(KeyDataset(rows, "image"), num_workers=2))) == len(paths)
    assert threads and all(name.startswith("prefetch") for name in threads)

    class Own:
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> str:
            assert threading.current_thread() is threading.main_thread()
            return paths[index]

    assert len(list(detector(Own(), num_workers=2))) == len(paths)


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_numbers_of_workers_and_pictures(detector: DeepfakeDetectionPipeline, paths: list[str], wrong: object) -> None:
    with pytest.raises(ValueError, match="num_workers"):
        detector(paths, num_workers=wrong)
    with pytest.raises(ValueError, match="batch_size"):
        detector(paths, batch_size=wrong)
