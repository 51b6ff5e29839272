"""Writes a small DD-VQA folder in its official layout, with generated pictures."""

import json
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
