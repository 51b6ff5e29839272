"""What is particular to LOKI and DMimageDetection."""

import io
import json

import pytest
from PIL import Image

from deepfake_detectors.data.parquet import build_dataset
from deepfake_detectors.data.registry import make_builder
from support import raw_trees_pictures as trees
from support.folder_tree import save
from support.raw_trees import edit_json


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw"


def inspect(tree, root, config=None, **options):
    builder = make_builder(tree.dataset, root, config, options)
    return builder.inspect(root), builder


class TestLOKI:
    tree = trees.LOKI()

    def test_one_row_per_picture(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root)
        assert [unit.id for unit in splits["test"]] == ["loki/f0", "loki/r0"]
        assert {unit.columns["category"] for unit in splits["test"]} == {"doc"}
        assert "question" not in builder.info.features

    def test_questions_turn_the_answer_round(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root, "questions")
        rows = {unit.id: (unit.columns["label"], unit.columns["answer"]) for unit in splits["test"]}
        assert rows == {
            "loki/f0/ask_fake": ("fake", "Yes"), "loki/f0/ask_real": ("fake", "No"),
            "loki/r0/ask_fake": ("real", "No"), "loki/r0/ask_real": ("real", "Yes"),
        }  # fmt: skip
        assert splits["test"][0].columns["question"] == "Is it fake?"
        assert any(
            finding.message.startswith("test: 2 fake") and "2634" in finding.message for finding in builder.findings
        )

    def test_faults_in_utf16(self, root, tmp_path):
        self.tree.write(root)
        record = {
            "image_path": "media_data/image/f0.png",
            "question": "<image>\nWhat is wrong?",
            "answer": "",
            "problems": {
                "regional": [{"region": [0, 0, 1, 1], "desc": "Six fingers – é."}],
                "global": [{"desc": "Flat"}],
            },
        }
        path = root / "data_json/image/open_ended_vqa.json"
        path.write_text(json.dumps([record], ensure_ascii=False), encoding="utf-16")
        splits, builder = inspect(self.tree, root, "faults")
        (unit,) = splits["test"]
        assert (unit.columns["label"], unit.columns["answers"]) == ("fake", ["Six fingers – é.", "Flat"])
        assert build_dataset(builder, tmp_path / "out").rows == {"test": 1}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"question_type": "image_mc"}, "question_type 'image_mc', expected"),
            ({"image_path": "../x.png"}, r"\.\./"),
            ({"image_path": None}, "has no image_path"),
            ({"question_type": "image_tf_image_real_ask_real_doc"}, "record 1 .*f0.png.* fake"),
        ],
    )
    def test_bad_record(self, root, change, message):
        self.tree.write(root)
        edit_json(root / self.tree.list, lambda rows: rows[0].update({"answer": "Yes"} | change))
        with pytest.raises(ValueError, match=message):
            inspect(self.tree, root)


class TestDMimage:
    tree = trees.DMimage()

    def write_operations(self, root, *lines):
        (root / "operations.csv").write_text("\n".join(["filename,size,x,y,quality", *lines]))

    def test_real_imagenet_in_either_spelling(self, tmp_path):
        for spelling in ("real_imagenet_valid", "real_imagenet_val"):
            save(tmp_path / spelling / spelling / "a.png")
            splits, _ = inspect(self.tree, tmp_path / spelling)
            assert [unit.id for unit in splits["test"]] == ["dmimage/real_imagenet_valid/a.png"]
            assert splits["test"][0].columns["label"] == "real"

    def test_generator_of_a_folder(self, root):
        save(root / "guided-diffusion_class2image_ImageNet" / "a.png")
        splits, _ = inspect(self.tree, root)
        assert splits["test"][0].columns["manipulation"] == "ADM"

    def test_processed_as_the_list_says(self, root):
        big = save(root / "eg3d" / "big.png", (300, 260))
        small = save(root / "real_ucid" / "small.png", (190, 180))
        save(root / "real_ucid" / "unlisted.png")
        self.write_operations(root, "eg3d/big.png,250,40,5,80", "real_ucid/small.png,160,3,7,65")
        splits, builder = inspect(self.tree, root, "processed")
        rows = {unit.id: next(builder.examples(unit)) for unit in splits["test"]}
        assert [row["compression"] for row in rows.values()] == ["jpeg80", "jpeg65"]
        assert any("unlisted.png" in finding.message for finding in builder.findings)
        for path, box, way, row in (
            (big, (40, 5, 290, 255), Image.Resampling.LANCZOS, rows["dmimage/eg3d/big.png"]),
            (small, (3, 7, 163, 167), Image.Resampling.BICUBIC, rows["dmimage/real_ucid/small.png"]),
        ):
            expected = io.BytesIO()
            quality = int(row["compression"].removeprefix("jpeg"))
            Image.open(path).convert("RGB").crop(box).resize((200, 200), way).save(expected, "JPEG", quality=quality)
            assert (row["image"]["bytes"], row["file_format"]) == (expected.getvalue(), "JPEG")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("eg3d/a.png,250,0,0,80", "too small for its crop"),
            ("eg3d/a.png,x,0,0,80", "expected path, crop size, x, y, JPEG quality"),
            ("../a.png,1,0,0,80", r"\.\./"),
            ("eg3d/gone.png,1,0,0,80", r"gone\.png"),
        ],
    )
    def test_bad_list(self, root, tmp_path, line, message):
        self.tree.write(root)
        self.write_operations(root, line)
        builder = make_builder("dmimage", root, "processed")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            build_dataset(builder, tmp_path / "out")
