"""`deepfake-detectors score`: arguments, summary and exit codes."""

import json

import pyarrow.parquet as pq


def test_score_and_again(shell, photos, model, tmp_path) -> None:
    words = ("score", photos, tmp_path / "out", "--model", model, "--unit-rows", 2, "--threshold", "strict")
    first = shell(*words)
    assert first.exit_code == 0, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["rows"], summary["units"], summary["computed"]) == (4, 2, 2)
    rows = [row for path in sorted((tmp_path / "out").glob("unit-*")) for row in pq.read_table(path).to_pylist()]
    assert {row["id"] for row in rows} == {"0.png", "1.JPG", "2.webp", "deeper/3.png"}
    assert all(row["label"] == "fake" for row in rows)  # the operating point `strict` is 0.01
    assert json.loads(shell(*words).stdout)["computed"] == 0


def test_score_with_a_cascade(shell, photos, model, tmp_path) -> None:
    words = ("score", photos, tmp_path / "out", "--model", model, "--cascade", model, "--cascade-share", 0.5)
    result = shell(*words, "--format", "table")
    assert result.exit_code == 0 and "chosen 2" in result.stdout


def test_score_counts_what_cannot_be_read(shell, photos, model, tmp_path) -> None:
    (photos / "broken.png").write_bytes(b"broken")
    result = shell("score", photos, tmp_path / "out", "--model", model)
    assert result.exit_code == 1 and "1 of 5" in result.stderr and json.loads(result.stdout)["errors"] == 1


def test_score_of_something_wrong(shell, photos, model, tmp_path) -> None:
    for words, said in (
        (("--engine", "spark"), "--engine"),
        (("--cascade-share", 0.5), "--cascade"),
        (("--explain",), "explain"),
        (("--unit-rows", 0), "unit-rows"),
    ):
        result = shell("score", photos, tmp_path / "out", "--model", model, *words)
        assert result.exit_code == 2 and said in result.stderr, result.stderr
    assert shell("score", tmp_path / "nowhere", tmp_path / "out", "--model", model).exit_code == 1


def test_export_of_something_wrong(shell, model, tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert shell("export", "--model", model, "--output", tmp_path / "full").exit_code == 2
    result = shell("export", "--model", model, "--output", tmp_path / "new", "--format", "tflite")
    assert result.exit_code == 2 and "onnx" in result.stderr
    assert shell("export", "--model", model, "--output", tmp_path / "new", "--head", "face").exit_code == 2


def test_detect_refuses_what_the_backend_cannot(shell, photos, model) -> None:
    for words in (
        ["--backend", "tensorrt"],
        ["--backend", "onnxruntime"],
        ["--backend", "onnxruntime", "--model", model],
    ):
        result = shell("detect", photos / "0.png", *words)
        assert result.exit_code == 2, result.stderr
