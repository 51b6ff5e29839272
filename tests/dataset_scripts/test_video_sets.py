"""What is particular to each data set of videos: splits, groups, names, known defects."""

import json
import shutil
from pathlib import Path

import pytest

from deepfake_detectors.data.registry import make_builder
from support import raw_trees_videos as trees
from support.folder_tree import save, save_clip
from support.raw_trees import edit_json, frames


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw"


def inspect(tree, root, config=None, **options):
    builder = make_builder(tree.dataset, root, config or tree.config, {**tree.options, **options})
    return builder.inspect(root), builder


def by_id(splits):
    return {unit.id: unit for units in splits.values() for unit in units}


def said(builder, *levels):
    return [finding.message for finding in builder.findings if finding.level in levels]


class TestDeepFakeDetection:
    tree = trees.DeepFakeDetection()

    def test_columns(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root)
        assert list(splits) == ["test"]  # none is published
        fake = by_id(splits)["dfd/c23/fake/01_02__kitchen__ABCDEFGH"].columns
        assert (fake["target_id"], fake["source_id"], fake["category"]) == ("01__kitchen", "02", "kitchen")
        assert fake["group_id"] == by_id(splits)["dfd/c23/real/02__kitchen"].columns["group_id"]
        assert any(text.startswith("test: 2 fake videos") and "3068" in text for text in said(builder, "error"))

    def test_scene_with_underscores(self, root):
        frames(root / self.tree.real, "03__walking_outside_cafe_disgusted")
        frames(root / self.tree.fake, "03_04__walking_outside_cafe_disgusted__A1B2C3D4")
        splits, _ = inspect(self.tree, root)
        assert {unit.columns["category"] for unit in splits["test"]} == {"walking_outside_cafe_disgusted"}

    def test_one_class_missing(self, root):
        frames(root / self.tree.real, "03__kitchen")
        with pytest.raises(FileNotFoundError, match="DeepFakeDetection/c23 is not a folder"):
            inspect(self.tree, root)


class TestDFDC:
    tree = trees.DFDC()

    def test_groups_by_original_and_kept_apart_from_the_test(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root)
        units = by_id(splits)
        part = "dfdc/train/dfdc_train_part_0"
        assert units[f"{part}/aaa"].columns["group_id"] == units[f"{part}/bbb"].columns["group_id"] == "DFDC/bbb"
        assert [unit.columns["label"] for unit in splits["test"]] == ["real", "fake"]
        assert any(text.startswith("1 training parts") and "50" in text for text in said(builder, "warning"))

    def test_customary_cut_of_the_training_parts(self, root):
        for number in (0, 34, 35, 39, 40, 49):
            part = root / "train" / f"dfdc_train_part_{number}"
            frames(part / "frames", f"v{number}")
            (part / "metadata.json").write_text(json.dumps({f"v{number}.mp4": {"label": "REAL", "split": "train"}}))
        splits, _ = inspect(self.tree, root, "parts")
        assert {split: [unit.id.rsplit("/", 1)[1] for unit in units] for split, units in splits.items()} == {
            "train": ["v0", "v34"], "validation": ["v35", "v39"], "test": ["v40", "v49"],
        }  # fmt: skip

    def test_test_list_in_its_other_form(self, root):
        self.tree.write(root)
        (root / "test/labels.csv").unlink()
        (root / "test/metadata.json").write_text(json.dumps({"ccc.mp4": {"is_fake": 0}, "ddd.mp4": {"is_fake": 1}}))
        splits, _ = inspect(self.tree, root)
        assert [unit.columns["label"] for unit in splits["test"]] == ["real", "fake"]

    def test_two_lists_that_disagree(self, root):
        self.tree.write(root)
        (root / "test/metadata.json").write_text(json.dumps({"ccc.mp4": {"is_fake": 1}}))
        with pytest.raises(ValueError, match=r"metadata\.json .*ccc\.mp4 .*fake"):
            inspect(self.tree, root)

    def test_no_list(self, root):
        self.tree.write(root)
        (root / "test/labels.csv").unlink()
        with pytest.raises(FileNotFoundError, match=r"has neither metadata\.json nor labels\.csv"):
            inspect(self.tree, root)

    def test_original_that_nobody_has(self, root):
        self.tree.write(root)
        path = root / "train/dfdc_train_part_0/metadata.json"
        edit_json(path, lambda rows: rows["aaa.mp4"].update(original="zzz.mp4"))
        _, builder = inspect(self.tree, root)
        assert any("zzz.mp4 (of aaa.mp4)" in text for text in said(builder, "error"))

    def test_label_that_says_nothing(self, root):
        self.tree.write(root)
        path = root / "train/dfdc_train_part_0/metadata.json"
        edit_json(path, lambda rows: rows["aaa.mp4"].update(label="maybe"))
        with pytest.raises(ValueError, match=r"aaa\.mp4 has label 'maybe', expected REAL or FAKE"):
            inspect(self.tree, root)

    def test_list_that_leads_out(self, root):
        self.tree.write(root)
        (root / "test/labels.csv").write_text("filename,label\n../../x.mp4,0\n")
        with pytest.raises(ValueError, match=r"\.\./"):
            inspect(self.tree, root)


class TestDFDCPreview:
    tree = trees.DFDCPreview()

    def test_method_is_the_top_folder(self, root):
        self.tree.write(root)
        splits, _ = inspect(self.tree, root)
        assert {unit.columns["manipulation"] for unit in splits["test"]} == {"real", "method_A", "method_B"}
        assert {split: len(units) for split, units in splits.items()} == {"train": 3, "test": 3}

    def test_everything_as_test(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root, "all_test")
        assert {split: len(units) for split, units in splits.items()} == {"test": 6}
        assert any(text.startswith("test: 2 real videos") and "1131" in text for text in said(builder, "error"))

    def test_clips_in_their_folders(self, root):
        pytest.importorskip("av")
        self.tree.write(root)
        for name in json.loads((root / "dataset.json").read_text()):
            save_clip(root / name)
        shutil.rmtree(root / "method_A/frames")
        splits, builder = inspect(self.tree, root, frames_per_video=2)
        unit = by_id(splits)["dfdcp/method_A/11/11_A/x_1"]
        assert [row["frame"] for row in builder.examples(unit)] == [0, 5]
        save_clip(root / "method_B/11/11_A/more.mp4")
        assert any("more.mp4" in text for text in said(inspect(self.tree, root)[1], "warning"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"../x.mp4": {"label": "real", "set": "train"}}, r"\.\./"),
            ({"method_C/1/1_A/x.mp4": {"label": "fake", "set": "train"}}, "'method_C', expected one of"),
            ({"method_A/1/1_A/x.mp4": {"label": "fake", "set": "val"}}, "set 'val', expected train or test"),
        ],
    )
    def test_bad_list(self, root, change, message):
        self.tree.write(root)
        edit_json(root / "dataset.json", lambda rows: rows.update(change))
        with pytest.raises(ValueError, match=message):
            inspect(self.tree, root)


class TestDeeperForensics:
    tree = trees.DeeperForensics()

    def test_reals_are_the_targets_in_the_split_of_their_fakes(self, root):
        self.tree.write(root)
        splits, _ = inspect(self.tree, root)
        for split, video in (("train", "000_M101"), ("validation", "001_W102"), ("test", "002_M103")):
            real, fake = splits[split]
            assert (real.columns["video_id"], real.columns["label"]) == (f"FaceForensics++/real/{video[:3]}", "real")
            assert (fake.columns["target_id"], fake.columns["source_id"]) == (video[:3], video[4:])
            assert real.columns["group_id"] == fake.columns["group_id"]

    def test_actors_are_no_real_class(self, root):
        self.tree.write(root)
        shutil.rmtree(root / "original_sequences")
        frames(root / "source_videos/M101/frames", "M101_light_up")
        splits, builder = inspect(self.tree, root)
        assert {unit.columns["label"] for unit in by_id(splits).values()} == {"fake"}
        assert any("real class" in text for text in said(builder, "error"))

    def test_training_videos_of_faceforensics_in_the_test(self, root):
        self.tree.write(root)
        (root / "train.json").write_text('[["002", "003"]]')
        _, builder = inspect(self.tree, root)
        assert "1 test videos are training videos of FaceForensics++: 002." in said(builder, "warning")

    def test_variants(self, root):
        self.tree.write(root)
        shutil.copytree(root / "manipulated_videos/end_to_end", root / "manipulated_videos/end_to_end_level_5")
        splits, _ = inspect(self.tree, root, variants=("end_to_end", "end_to_end_level_5"))
        assert len(by_id(splits)) == 9
        with pytest.raises(ValueError, match=r"variants has .*nope"):
            inspect(self.tree, root, variants=("nope",))
        with pytest.raises(FileNotFoundError, match="end_to_end_level_1 is not a folder"):
            inspect(self.tree, root, "all", variants=("end_to_end_level_1",))


class TestWildDeepfake:
    tree = trees.WildDeepfake()

    def test_unpacked_folders_give_the_same_rows(self, root, tmp_path):
        self.tree.write(root)
        packed, builder = inspect(self.tree, root)
        rows = {row["id"]: row["image"]["bytes"] for unit in by_id(packed).values() for row in builder.examples(unit)}
        for archive in root.rglob("*.tar.gz"):
            members = self.tree.members(archive.parent.name)
            for name, content in members.items():
                path = archive.parent / "0" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            archive.unlink()
        unpacked, builder = inspect(self.tree, root)
        found = [row for unit in by_id(unpacked).values() for row in builder.examples(unit)]
        assert rows == {row["id"]: Path(row["image"]).read_bytes() for row in found}
        assert len(rows) == 16

    def test_sequences_of_one_name_in_several_places(self, root):
        self.tree.write(root)
        splits, _ = inspect(self.tree, root)
        videos = [unit.columns["video_id"] for unit in by_id(splits).values()]
        assert len(set(videos)) == len(videos) == 8
        assert {unit.columns["group_id"] for unit in splits["test"]} == {
            "WildDeepfake/real_test/0", "WildDeepfake/fake_test/0",
        }  # fmt: skip

    def test_frames_are_spread_by_number(self, root):
        self.tree.write(root)
        members = {f"s/{number}.png": self.tree.members("x")["3/9.png"] for number in (100, 9, 30, 1, 20)}
        self.tree.pack(root / "fake_train/1.tar.gz", members)
        splits, builder = inspect(self.tree, root, frames_per_video=2)
        unit = by_id(splits)["wilddeepfake/fake_train/1/s"]
        assert sorted(row["frame"] for row in builder.examples(unit)) == [1, 100]

    def test_gap_and_foreign_folder(self, root):
        self.tree.write(root)
        self.tree.pack(root / "fake_train/2.tar.gz", self.tree.members("x"))
        save(root / "fake_extra/0/1/1.png")
        _, builder = inspect(self.tree, root)
        assert any("archive 1," in text for text in said(builder, "warning"))
        assert any("fake_extra" in text for text in said(builder, "error"))


class TestDF40:
    tree = trees.DF40()

    def test_splits_and_families(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root)
        units = by_id(splits)
        assert units["df40/DF40/blendface/cdf/id0_id1_0000"].columns["target_id"] == "id0_0000"
        assert units["df40/DF40_train/StyleGAN2/001"].columns["video_id"] is None  # a bin is no video
        assert units["df40/DF40/starganv2/real"].columns["manipulation"] == "real"
        where = {unit.id: split for split, found in splits.items() for unit in found}
        assert where["df40/DF40_train/blendface/000_001"] == where["df40/ff/c23/000"] == "train"
        assert where["df40/DF40/blendface/ff/007_006"] == where["df40/ff/c23/007"] == "test"
        group = units["df40/DF40_train/blendface/000_001"].columns["group_id"]
        assert group == units["df40/ff/c23/001"].columns["group_id"]
        assert not said(builder, "error")
        assert any(text.startswith("37 methods") for text in said(builder, "warning"))

    def test_fakes_in_the_wrong_split_are_moved(self, root):
        self.tree.write(root)
        frames(root / "DF40_train/simswap/frames", "004_005", "007_006")
        splits, builder = inspect(self.tree, root)
        assert "df40/DF40_train/simswap/004_005" in {unit.id for unit in splits["validation"]}
        assert "df40/DF40_train/simswap/007_006" in {unit.id for unit in splits["test"]}
        assert any("2 fakes moved to their official split" in text for text in said(builder, "warning"))

    def test_celeb_df_is_never_trained_on(self, root):
        self.tree.write(root)
        frames(root / "DF40_train/simswap/cdf/frames", "id0_id1_0000")
        with pytest.raises(ValueError, match="fakes of Celeb-DF"):
            inspect(self.tree, root)
        shutil.rmtree(root / "DF40_train/simswap")
        splits, _ = inspect(self.tree, root, "ff")
        assert {unit.columns["category"] for unit in by_id(splits).values()} == {"ff", None}

    def test_empty_files_are_missing(self, root):
        self.tree.write(root)
        (root / "DF40/starganv2/real/548.jpg").write_bytes(b"")
        _, builder = inspect(self.tree, root)
        assert [name.rsplit("/", 1)[1] for name in builder.missing] == ["548.jpg (empty)"]
        splits, _ = inspect(self.tree, root, allow_missing=True)
        assert by_id(splits)["df40/DF40/starganv2/real"].frames == ("547.jpg",)

    def test_reals_in_no_list_are_told(self, root):
        self.tree.write(root)
        frames(root / self.tree.real, "999")
        frames(root / "Celeb-DF-v2/Celeb-real/frames", "id0_0009")
        splits, builder = inspect(self.tree, root)
        assert not {"df40/ff/c23/999", "df40/cdf/Celeb-real/id0_0009"} & set(by_id(splits))
        assert any("frames/999" in text for text in said(builder, "warning"))
        assert any("id0_0009" in text for text in said(builder, "note"))

    def test_real_video_of_empty_files(self, root):
        self.tree.write(root)
        for path in (root / self.tree.picture).parent.iterdir():
            path.write_bytes(b"")
        splits, builder = inspect(self.tree, root, allow_missing=True)
        assert "df40/ff/c23/000" not in by_id(splits)
        assert sum("(empty)" in name for name in builder.missing) == 2

    def test_names_of_methods(self, root):
        self.tree.write(root)
        (root / "DF40/starganv2").rename(root / "DF40/StarGANv2")
        save(root / "DF40/whichisreal/fake/1.png")
        frames(root / "DF40/ff/frames", "007_006")  # what uniface's archive unpacks to
        splits, builder = inspect(self.tree, root)
        methods = {unit.columns["manipulation"] for unit in by_id(splits).values()}
        assert {"starganv2", "whichfaceisreal"} <= methods
        assert any("uniface's archive lacks its top folder" in text for text in said(builder, "error"))
        with pytest.raises(ValueError, match="methods has"):
            inspect(self.tree, root, methods=("nope",))
        chosen, _ = inspect(self.tree, root, methods=("whichisreal",))
        assert {unit.columns["manipulation"] for unit in by_id(chosen).values()} == {"real", "whichfaceisreal"}

    def test_masks_and_landmarks_are_no_frames(self, root):
        self.tree.write(root)
        for number in range(2):
            save(root / f"DF40_train/blendface/masks/000_001/{number:03d}.png", (6, 4))
        save(root / "DF40_train/blendface/landmarks/000_001/000.png")
        splits, _ = inspect(self.tree, root, masks=True, allow_missing=True)
        unit = by_id(splits)["df40/DF40_train/blendface/000_001"]
        assert unit.masks.endswith("DF40_train/blendface/masks/000_001")
        assert not any("landmarks" in name for name in by_id(splits))


class TestFFIW:
    tree = trees.FFIW()

    def test_target_is_fake(self, root):
        self.tree.write(root)
        splits, _ = inspect(self.tree, root)
        units = by_id(splits)
        assert units["ffiw/target/train/v1"].columns["label"] == "fake"
        assert units["ffiw/source/train/v1"].columns["group_id"] == units["ffiw/target/train/v1"].columns["group_id"]
        assert {split: len(found) for split, found in splits.items()} == {"train": 4, "validation": 2}

    def test_masks(self, root):
        self.tree.write(root)
        for split, video in (("train", "v1"), ("train", "v2"), ("val", "v1")):
            frames(root / f"target_mask/{split}/frames", video)
        splits, builder = inspect(self.tree, root, masks=True)
        masks = {row["id"]: row["mask"] for unit in by_id(splits).values() for row in builder.examples(unit)}
        assert {name for name, mask in masks.items() if mask is not None} == {
            name for name in masks if name.startswith("ffiw/target/")
        }


class TestUADFV:
    tree = trees.UADFV()

    def test_pairs_are_groups_of_one_split(self, root):
        self.tree.write(root)
        splits, builder = inspect(self.tree, root)
        assert list(splits) == ["test"]
        assert len({unit.columns["group_id"] for unit in splits["test"]}) == 2
        assert any(text.startswith("test: 2 real videos") and "49" in text for text in said(builder, "warning"))
