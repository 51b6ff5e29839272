"""Each family under its paper's protocol, from a model and pictures to results; and what only some of them can do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import BertConfig, BertModel

from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.real_data import needs_real_data, real_data
from support.tiny_models import (
    tiny_antifakeprompt,
    tiny_fakevlm,
    tiny_lvlm_dfd,
    tiny_lvlm_dfd_llm,
    tiny_m2f2_det,
    tiny_tokenizer,
)

DATASETS = {
    "m2f2_det": tiny_m2f2_det,
    "fakevlm": tiny_fakevlm,
    "antifakeprompt": tiny_antifakeprompt,
    "lvlm_dfd": tiny_lvlm_dfd,
    "lvlm_dfd_llm": tiny_lvlm_dfd_llm,
}
QUICK = ("--resamples", 20)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = DATASETS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two real and two fake videos of 22 frames each, and masks of the fakes."""
    root = tmp_path_factory.mktemp("frames")
    drawn = np.zeros((12, 16), dtype=np.uint8)
    drawn[:6] = 255
    for video in ("real/site/a", "real/site/b", "fake/swap/a", "fake/gan/b"):
        for number in range(22):
            path = save(root / video / f"{video.replace('/', '-')}-{number:02d}.png")
            if video.startswith("fake"):
                mask = root / "masks" / path.relative_to(root / "fake")
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(drawn).save(mask)
    return root


def read(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


@pytest.mark.parametrize(
    ("family", "protocol", "metrics"),
    [
        ("m2f2_det", "paper:m2f2_det", {"auc", "best_threshold_accuracy"}),
        ("fakevlm", "paper:fakevlm", {"accuracy", "accuracy_real", "accuracy_fake", "f1", "f1_fake", "f1_macro"}),
        ("antifakeprompt", "paper:antifakeprompt", {"average"}),
        ("lvlm_dfd", "paper:lvlm_dfd", {"auc", "text_accuracy"}),
        ("lvlm_dfd_llm", "paper:lvlm_dfd", {"auc", "text_accuracy"}),
    ],
)
def test_paper_protocol_end_to_end(shell, folder_of, pictures, tmp_path, family, protocol, metrics):
    explain = ("--explain",) if family == "lvlm_dfd_llm" else ()
    limit = ("--max-new-tokens", 3) if explain or family == "fakevlm" else ()
    result = shell(
        *("evaluate", "--model", folder_of(family), "--protocol", protocol, "--output", tmp_path / "out", *QUICK),
        *("--real-dir", pictures / "real", "--fake-dir", pictures / "fake", "--batch-size", 44, *explain, *limit),
    )
    assert result.exit_code == 0, result.stderr
    results = read(tmp_path / "out")
    assert set(results["metrics"]) == metrics and set(results["defects"])
    for name, entry in results["metrics"].items():
        # Of a model without texts only the verdicts of texts are missing, and that is said.
        assert (entry["value"] is None) == (name in results["undefined"])
        assert entry["value"] is not None or name == "text_accuracy"
    assert ("text_accuracy" in results["undefined"]) == (family == "lvlm_dfd")
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert len(rows) == 88 and all(("text" in row) == bool(limit) for row in rows)
    corrected = results["corrected"]
    assert corrected["metrics"]["accuracy"]["value"] is not None
    if family != "fakevlm":  # its corrected numbers are of texts too
        assert corrected["videos"]["trimmed"]["videos"] == 4
        for aggregation in corrected["videos"].values():
            entry = aggregation["metrics"]["auc"]
            assert entry["low"] <= entry["value"] <= entry["high"]
    assert "published" in result.stdout and "corrected" in result.stdout
    assert "Known defects of the published scorer" in (tmp_path / "out" / "report.md").read_text()


def test_masks_are_measured_and_survive_a_kill(shell, folder_of, pictures, tmp_path):
    command = (
        *("evaluate", "--model", folder_of("lvlm_dfd"), "--fake-dir", pictures / "fake", "--batch-size", 8, *QUICK),
        *("--real-dir", pictures / "real", "--mask-dir", pictures / "masks"),
    )
    assert shell(*command, "--output", tmp_path / "whole").exit_code == 0
    found = read(tmp_path / "whole")["localisation"]
    assert found["counts"] == {"forged with mask": 44, "forged without": 0, "real": 44}
    assert set(found["per_manipulation"]) == {"gan", "swap"}
    assert found["metrics"]["marked_on_real"]["value"] is not None and found["metrics"]["iou"]["low"] is not None

    # The same numbers from the masks that `detect` writes.
    from sklearn.metrics import roc_auc_score

    paths = sorted((pictures / "fake" / "gan" / "b").iterdir())[:4]
    shell("detect", *paths, "--model", folder_of("lvlm_dfd"), "--save-masks", tmp_path / "masks")
    counts = {row["id"]: row for row in map(json.loads, (tmp_path / "whole" / "localisation.jsonl").open())}
    for path in paths:
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{path.stem}.mask.png"))
        truth = np.asarray(Image.open(pictures / "masks" / path.relative_to(pictures / "fake"))) > 127
        row = counts[f"fake/gan/b/{path.name}"]
        levels = [
            (int(level), kind == "changed", count)
            for kind in ("unchanged", "changed")
            for level, count in row[kind].items()
        ]
        values, labels, weights = zip(*levels, strict=True)
        assert sum(weights) == mask.size
        assert roc_auc_score(labels, values, sample_weight=weights) == pytest.approx(
            roc_auc_score(truth.ravel(), mask.ravel())
        )

    # Other masks are another run.
    other = shell(*command[:-1], pictures / "fake", "--output", tmp_path / "whole")
    assert other.exit_code == 2 and "predictions of another run: masks differ" in other.stderr

    # Killed between the two files, and in the middle of a line.
    torn = tmp_path / "torn"
    torn.mkdir()
    for name, lines, rest in (("localisation.jsonl", 48, 30), ("predictions.jsonl", 40, 9)):
        content = (tmp_path / "whole" / name).read_bytes().splitlines(keepends=True)
        (torn / name).write_bytes(b"".join(content[:lines]) + content[lines][:rest])
    (torn / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
    result = shell(*command, "--output", torn)
    assert result.exit_code == 0 and "40 of 88 images" in result.stderr
    for name in ("results.json", "predictions.jsonl"):
        assert (torn / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_masks_of_another_size_are_refused(shell, folder_of, tmp_path):
    save(tmp_path / "fake" / "a.png")
    save(tmp_path / "masks" / "a.png", size=(5, 5))
    result = shell(
        *("evaluate", "--model", folder_of("lvlm_dfd"), "--fake-dir", tmp_path / "fake"),
        *("--mask-dir", tmp_path / "masks", "--output", tmp_path / "out"),
    )
    assert result.exit_code == 2 and "5x5" in result.stderr and "16x12" in result.stderr


def test_masks_of_data_sets(shell, folder_of, tmp_path):
    model = folder_of("lvlm_dfd")
    data = write_tree(tmp_path / "ddvqa", stems(range(1)), stems(range(20, 26)), size=56)
    twins = ("evaluate", "--model", model, "--dataset", "ddvqa", "--data-dir", data, "--twin-masks", *QUICK)
    assert shell(*twins, "--output", tmp_path / "twins").exit_code == 0
    found = read(tmp_path / "twins")["localisation"]
    assert found["counts"] == {"forged with mask": 12, "forged without": 0, "real": 6}

    for name in ("real/r.png", "fake/gan/f.png", "masks/f.png"):
        save(tmp_path / "mine" / name)
    result = shell(
        *("evaluate", "--model", model, "--dataset", "image_folder", "--dataset-config", "real_fake", "--split"),
        *("train", "--data-dir", tmp_path / "mine", "--option", "masks=masks", "--output", tmp_path / "own", *QUICK),
    )
    assert result.exit_code == 0, result.stderr
    assert read(tmp_path / "own")["localisation"]["counts"]["forged with mask"] == 1


def test_a_built_data_set_gives_the_numbers_of_its_raw_files(shell, folder_of, tmp_path):
    for name in ("train/real/r.png", "test/real/s.png", "test/fake/gan/f.png", "test/fake/gan/g.png"):
        save(tmp_path / "mine" / name)
    for name in ("f.png", "g.png"):
        save(tmp_path / "mine" / "masks" / name)
    raw = ("--data-dir", tmp_path / "mine", "--option", "masks=masks")
    built = tmp_path / "built"
    result = shell("dataset", "build", "image_folder", "--config", "real_fake", *raw, "--output", built)
    assert result.exit_code == 0, result.stderr
    command = ("evaluate", "--model", folder_of("lvlm_dfd"), *QUICK)
    sides = {
        "raw": ("--dataset", "image_folder", "--dataset-config", "real_fake", *raw),
        "built": ("--dataset", built),
    }
    found = {}
    for side, where in sides.items():
        result = shell(*command, *where, "--output", tmp_path / "of" / side)
        assert result.exit_code == 0, result.stderr
        found[side] = read(tmp_path / "of" / side)
    assert found["built"] == found["raw"] and found["raw"]["localisation"]["counts"]["forged with mask"] == 2
    for wrong, message in (
        (("--split", "validation"), "'validation' of real_fake"),
        (("--dataset-config", "c40"), "real_fake"),
        (("--option", "masks=masks"), "`dataset_options`"),
    ):
        result = shell(*command, *sides["built"], *wrong, "--output", tmp_path / "none")
        assert result.exit_code == 2 and message in result.stderr, result.stderr


def test_a_detector_without_masks_leaves_them(shell, folder_of, pictures, tmp_path):
    result = shell(
        *("evaluate", "--model", folder_of("m2f2_det"), "--fake-dir", pictures / "fake" / "gan", *QUICK),
        *("--mask-dir", pictures / "masks" / "gan", "--output", tmp_path / "out", "--batch-size", 22),
    )
    assert result.exit_code == 0 and "cannot localize" in result.stderr
    assert "localisation" not in read(tmp_path / "out")


def test_explanations_against_references(shell, folder_of, pictures, tmp_path):
    tokenizer = tiny_tokenizer(markers=False)
    tokenizer.save_pretrained(tmp_path / "encoder")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes), add_pooling_layer=False).save_pretrained(
        tmp_path / "encoder"
    )
    folder = pictures / "fake" / "gan" / "b"
    ids = [f"fake/{path.name}" for path in sorted(folder.iterdir())]
    lines = [{name: {"answer": ["This is a fake image.", "It is fake."]}} for name in ids]
    (tmp_path / "ref.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = (
        *("evaluate", "--model", folder_of("fakevlm"), "--fake-dir", folder, "--protocol", "paper:fakevlm", *QUICK),
        *("--max-new-tokens", 4, "--batch-size", 22, "--references", tmp_path / "ref.jsonl"),
    )
    result = shell(*command, "--similarity", tmp_path / "encoder", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    found = read(tmp_path / "out")["explanation"]
    assert {"Bleu_4", "ROUGE_L", "CIDEr", "similarity", "rouge_l_f"} <= set(found["metrics"])
    assert found["counts"]["explanations"] == 22 and "explanation:" in result.stdout
    again = shell(
        *("evaluate", "--predictions", tmp_path / "out" / "predictions.jsonl", "--protocol", "paper:fakevlm", *QUICK),
        *("--references", tmp_path / "ref.jsonl", "--output", tmp_path / "again"),
    )
    assert again.exit_code == 0, again.stderr
    assert read(tmp_path / "again")["explanation"]["metrics"]["ROUGE_L"] == found["metrics"]["ROUGE_L"]
    (tmp_path / "ref.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    short = shell(*command, "--output", tmp_path / "out")
    assert short.exit_code == 2 and "1 of 22 explanations have no reference" in short.stderr


@needs_real_data
def test_real_masks(shell, folder_of, tmp_path):
    """Camera pictures with masks drawn by their authors; the tiny detector knows nothing, and is told so."""
    result = shell(
        *("evaluate", "--model", folder_of("lvlm_dfd"), "--dataset", "image_folder", "--dataset-config", "real_fake"),
        *("--split", "train", "--data-dir", real_data("copymove_noso"), "--option", "masks=masks", *QUICK),
        *("--output", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.stderr
    results = read(tmp_path / "out")
    assert results["localisation"]["counts"] == {"forged with mask": 13, "forged without": 0, "real": 9}
    assert 0.2 < results["localisation"]["metrics"]["pixel_auc"]["value"] < 0.8
    assert results["bootstrap"]["by"] == "group of shared source material"
