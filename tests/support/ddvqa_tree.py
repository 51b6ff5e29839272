"""Writes a small DD-VQA folder in its official layout, with generated pictures."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = {
    "0": "Deepfakes",
    "1": "Face2Face",
    "2": "FaceShifter",
    "3": "FaceSwap",
    "5": "Original",
    "6": "Neuraltexture",
}
QUESTION = "<image>\n<deepfake>\nDo the image looks real or fake?"


def stems(videos: range, methods: str = "01") -> list[str]:
    """One real and one fake per method for each pair of videos (target, target + 1)."""
    names = []
    for video in videos:
        target, source = f"{2 * video:03d}", f"{2 * video + 1:03d}"
        names += [f"5_{target}", *(f"{method}_{target}_{source}" for method in methods)]
    return names


def picture(stem: str, size: int) -> Image.Image:
    """A smooth picture per target video; fakes carry noise in the middle."""
    kind, target = stem.split("_")[:2]
    generator = np.random.default_rng(int(target))
    coarse = generator.integers(60, 200, (4, 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).copy()
    if kind != "5":
        quarter = size // 4
        middle = image[quarter:-quarter, quarter:-quarter].astype(int)
        noise = np.random.default_rng([int(kind), int(target)]).integers(-50, 51, middle.shape)
        image[quarter:-quarter, quarter:-quarter] = np.clip(middle + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(image)


def write_tree(root: Path, train: list[str], test: list[str], size: int = 32) -> Path:
    """The whole folder; returns `root`."""
    for level, splits in (("c40", {"train": train, "test": test}), ("c23", {"test": test})):
        for split, names in splits.items():
            folder = root / f"images_{level}" / split
            folder.mkdir(parents=True)
            for stem in names:
                picture(stem, size).save(folder / f"{stem}.jpg", quality=95)
    write_lists(root, train, test)
    return root


def write_lists(root: Path, train: list[str], test: list[str]) -> None:
    """The split files and annotations that go with the pictures."""
    (root / "splits").mkdir(exist_ok=True)
    judgements = [
        {
            "id": stem.split("_", 1)[1],
            "image": f"{stem}.jpg",
            "conversations": [
                {"from": "human", "value": QUESTION},
                {"from": "gpt", "value": f"The image looks {'real' if stem[0] == '5' else 'fake'}."},
            ],
        }
        for stem in train
        for _ in range(2)
    ]
    (root / "splits" / "train_DDVQA_format_judge_only.json").write_text(json.dumps(judgements))
    lines = [
        json.dumps({f"{stem}_{number}": {"question": f"Question {number}?", "answer": [f"Answer {number}."]}})
        for stem in test
        for number in range(3)
    ]
    (root / "splits" / "test_explanation.jsonl").write_text("\n".join(lines) + "\n")
    for kind, name in FOLDERS.items():
        entries = {
            stem: {"0": {"question": "Does the skin look fake?", "answer": ["It is smooth.", "It is blurred."]}}
            for stem in train
            if stem[0] == kind
        }
        if kind == "2":  # annotated, but without pictures in the official c40 archive
            entries = {"2_900_901": {"0": {"question": "Does the skin look fake?", "answer": ["It is smooth."]}}}
        folder = root / "annotations" / "train_set" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(entries))


def write_clone(root: Path, train: list[str], test: list[str], size: int = 32, conversations: bool = True) -> Path:
    """The files of DD-VQA in a clone of M2F2-Det's repository: pictures zipped, no annotations; returns `root`."""
    utils = root / "utils"
    (utils / "DDVQA_images").mkdir(parents=True)
    for level, splits in (("c40", {"train": train, "test": test}), ("c23", {"test": test})):
        with zipfile.ZipFile(utils / "DDVQA_images" / f"{level}.zip", "w") as archive:
            archive.writestr("__MACOSX/._x.jpg", b"")
            for split, names in splits.items():
                for stem in names:
                    content = io.BytesIO()
                    picture(stem, size).save(content, "JPEG", quality=95)
                    archive.writestr(f"{level}/{split}/{stem}.jpg", content.getvalue())
    write_lists(root, train, test)
    split, tests = utils / "DDVQA_split" / "c40", utils / "DDVQA_eval" / "c40"
    split.mkdir(parents=True), tests.mkdir(parents=True)
    (root / "splits" / "train_DDVQA_format_judge_only.json").rename(split / "train_DDVQA_format_judge_only.json")
    (root / "splits" / "test_explanation.jsonl").rename(tests / "test.jsonl")
    (root / "splits").rmdir()
    shutil.rmtree(root / "annotations")
    if conversations:
        (split / "train_DDVQA_format.json").write_text(json.dumps(training_conversations(train)))
    return root


def training_conversations(train: list[str]) -> list[dict]:
    """For each picture a judgement, an explanation, and both as one conversation, in the official record form."""
    records = []
    for stem in train:
        label = "real" if stem[0] == "5" else "fake"
        judge = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": f"The image looks {label}."}]
        explain = [
            {"from": "human", "value": f"<image>\n<deepfake>\nThis image is {label}. Describe it."},
            {"from": "gpt", "value": "The skin is smooth."},
        ]
        records += [
            {"id": stem.split("_", 1)[1], "image": f"{stem}.jpg", "conversations": turns}
            for turns in (judge, explain, [*judge, {**explain[0], "value": "Why?"}, explain[1]])
        ]
    return records
