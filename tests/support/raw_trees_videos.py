"""Trees of the data sets of videos."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np

from support.folder_tree import save
from support.raw_trees import Expect, Tree, Videos, cut, decomposed, edit_json, frames

PAIRS = {"train": [["000", "001"]], "val": [["004", "005"]], "test": [["007", "006"]]}


def write_pairs(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, pairs in PAIRS.items():
        (root / f"{split}.json").write_text(json.dumps(pairs))


def both_ways(pairs):
    return [f"{a}_{b}" for pair in pairs for a, b in (pair, pair[::-1])]


class FaceForensics(Videos):
    dataset = "faceforensics"
    options = {"methods": ("Deepfakes",)}
    picture = "manipulated_sequences/Deepfakes/c23/frames/007_006/000.png"
    prefix = "ffpp/c23/Deepfakes/007_006"
    fakes = ("/Deepfakes/",)

    def write(self, root):
        write_pairs(root)
        for pairs in PAIRS.values():
            frames(root / "original_sequences/youtube/c23/frames", *pairs[0])
            frames(root / "manipulated_sequences/Deepfakes/c23/frames", *both_ways(pairs))

    def extra(self, root):
        frames(root / "manipulated_sequences/Deepfakes/c23/frames", "998_999")
        return Expect(r"\b1 video.*998_999", "warning")

    def wrong_label(self, root):
        (root / self.video).rename(root / "original_sequences/youtube/c23/frames/007_006")
        return Expect("Deepfakes/c23/frames/007_006")


class FFPPHdf5(Tree):
    dataset = "ffpp_hdf5"
    picture = "FF++_Deepfakes_c40_test_only.h5"
    fakes = ("1_", "2_", "3_", "4_")
    manipulations = ("original", "Deepfakes", "FaceSwap", "NeuralTextures", "Face2Face")

    def write(self, root):
        import h5py

        root.mkdir(parents=True)
        (root / "test.json").write_text(json.dumps(PAIRS["test"]))
        for name in self.manipulations:
            with h5py.File(self.file(root, name), "w") as file:
                for key in PAIRS["test"][0] if name == "original" else both_ways(PAIRS["test"]):
                    file[key] = self.clip(len(key))

    @staticmethod
    def file(root, name):
        return root / f"FF++_{name}_c40_test_only.h5"

    @staticmethod
    def clip(seed):
        return np.random.default_rng(seed).integers(0, 256, (100, 2, 2, 3), dtype=np.uint8)

    def missing(self, root):
        (root / self.picture).unlink()
        return Expect(r"FF\+\+_Deepfakes_c40.* missing")

    def truncated(self, root):
        cut(root / self.picture)
        return Expect(r"FF\+\+_Deepfakes_c40_test_only\.h5 cannot be read")

    def link_out(self, root):
        return super().link_out(root)._replace(text=r"FF\+\+_Deepfakes_c40_test_only\.h5")

    def extra(self, root, name="Deepfakes", key="900_901"):
        import h5py

        with h5py.File(self.file(root, name), "a") as file:
            file[key] = self.clip(0)
        return Expect(rf"FF\+\+_{name}_c40_test_only\.h5 .*\b1 video.*{key}", "warning")

    def wrong_label(self, root):
        return self.extra(root, "original", "007_006")

    def duplicate(self, root):
        edit_json(root / "test.json", lambda pairs: [*pairs, ["006", "009"]])
        return Expect(r"\b006\b.*test\.json")

    def non_ascii(self, root):
        import h5py

        edit_json(root / "test.json", lambda pairs: [*pairs, ["é", "ü"]])
        for name in self.manipulations:
            with h5py.File(self.file(root, name), "a") as file:
                for key in ("é", "ü") if name == "original" else ("é_ü", "ü_é"):
                    file[key] = self.clip(1)
        return Expect("1_é_ü_0", "read", lost=-1000)


class CelebDF(Videos):
    dataset = "celeb_df"
    picture = "Celeb-real/frames/id0_0000/000.png"
    prefix = "celeb_df_v2/Celeb-real/id0_0000"
    fakes = ("/Celeb-synthesis/",)

    def write(self, root):
        frames(root / "Celeb-real/frames", "id0_0000", "id0_0001")
        frames(root / "YouTube-real/frames", "00000", "00001")
        frames(root / "Celeb-synthesis/frames", "id0_id1_0000", "id1_id0_0000")
        lines = ("1 Celeb-real/id0_0000.mp4", "1 YouTube-real/00000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4")
        self.list(root).write_text("\n".join(lines) + "\n")

    @staticmethod
    def list(root):
        return root / "List_of_testing_videos.txt"

    def extra(self, root):
        frames(root / "Celeb-real/frames", "notes")
        return Expect("Celeb-real/notes")

    def wrong_label(self, root):
        self.list(root).write_text(self.list(root).read_text().replace("1 Celeb-real", "0 Celeb-real"))
        return Expect(r"line 1 .*Celeb-real/id0_0000\.mp4.* fake")

    def duplicate(self, root):
        self.list(root).write_text(self.list(root).read_text() + "1 Celeb-real/id0_0000.mp4\n")
        return Expect(r"line 4 .*Celeb-real/id0_0000\.mp4")

    def non_ascii(self, root):
        frames(root / "Celeb-real/frames", decomposed("idé_0000"))
        return Expect("celeb_df_v2/Celeb-real/idé_0000/000", "read", lost=-2)


class DeepfakeBench(Videos):
    dataset = "deepfakebench"
    options = {"json": "u.json"}
    picture = "UADFV/fake/frames/0000_fake/000.png"
    fakes = ("/UADFV_Fake/",)

    def write(self, root):
        groups: dict = {}
        for label, videos in (("Real", ["0000", "0001"]), ("Fake", ["0000_fake", "0001_fake"])):
            folder = f"UADFV/{label.lower()}/frames"
            frames(root / folder, *videos)
            record = {
                video: {
                    "label": f"UADFV_{label}",
                    "frames": [f"{folder}\\{video}\\{number:03d}.png" for number in (1, 0)],
                }
                for video in videos
            }
            groups[f"UADFV_{label}"] = {"train": record, "test": record}
        (root / "u.json").write_text(json.dumps({"UADFV": groups}))

    def missing(self, root):
        (root / self.picture).unlink()
        return Expect(r"0000_fake\\000\.png")

    def extra(self, root):
        save(root / self.video / "999.png")
        return Expect(r"\b1 .*0000_fake/999\.png", "warning")

    def wrong_label(self, root):
        edit_json(root / "u.json", lambda c: self.record(c).update(label="UADFV_Real"))
        return Expect("UADFV_Fake/train/0000_fake is labelled 'UADFV_Real'")

    @staticmethod
    def record(content):
        return content["UADFV"]["UADFV_Fake"]["train"]["0000_fake"]

    def duplicate(self, root):
        text = (root / "u.json").read_text()
        (root / "u.json").write_text(text.replace('"0001_fake": {"label"', '"0000_fake": {"label"', 1))
        return Expect(r"u\.json is not valid JSON.* twice: 0000_fake")

    def non_ascii(self, root):
        frames(root / "UADFV/fake/frames", "é")

        def add(content):
            record = {"label": "UADFV_Fake", "frames": ["UADFV/fake/frames/é/000.png"]}
            content["UADFV"]["UADFV_Fake"]["train"]["é"] = record

        edit_json(root / "u.json", add)
        return Expect("deepfakebench/UADFV/-/UADFV_Fake/é/000", "read", lost=-1)


class DeepFakeDetection(Videos):
    dataset = "dfd"
    real, fake = "original_sequences/actors/c23/frames", "manipulated_sequences/DeepFakeDetection/c23/frames"
    picture = f"{fake}/01_02__kitchen__ABCDEFGH/000.png"
    prefix = "dfd/c23/fake/01_02__kitchen__ABCDEFGH"
    fakes = ("/fake/",)

    def write(self, root):
        frames(root / self.real, "01__kitchen", "02__kitchen")
        frames(root / self.fake, "01_02__kitchen__ABCDEFGH", "02_01__kitchen__HGFEDCBA")

    def missing(self, root):
        shutil.rmtree(root / self.real / "01__kitchen")
        return Expect("01__kitchen", "warning", lost=2)

    def extra(self, root):
        frames(root / self.fake, "notes")
        return Expect(r"\bnotes\b.* fake video")

    def wrong_label(self, root):
        (root / self.video).rename(root / self.real / self.video.name)
        return Expect("01_02__kitchen__ABCDEFGH.* real video")

    def non_ascii(self, root):
        frames(root / self.real, decomposed("01__café"))
        return Expect("dfd/c23/real/01__café/000", "read", lost=-2)


class DFDC(Videos):
    dataset = "dfdc"
    picture = "train/dfdc_train_part_0/frames/aaa/000.png"
    prefix = "dfdc/train/dfdc_train_part_0/aaa"
    fakes = ("/aaa/", "/ddd/")

    def write(self, root):
        part = root / "train/dfdc_train_part_0"
        frames(part / "frames", "aaa", "bbb")
        rows = {
            "aaa.mp4": {"label": "FAKE", "split": "train", "original": "bbb.mp4"},
            "bbb.mp4": {"label": "REAL", "split": "train"},
        }
        (part / "metadata.json").write_text(json.dumps(rows))
        frames(root / "test/frames", "ccc", "ddd")
        (root / "test/labels.csv").write_text("filename,label\nccc.mp4,0\nddd.mp4,1\n")

    def extra(self, root):
        frames(root / "test/frames", "zzz")
        return Expect("zzz", "warning")

    def wrong_label(self, root):
        path = root / "train/dfdc_train_part_0/metadata.json"
        edit_json(path, lambda rows: rows["aaa.mp4"].update(label="REAL"))
        return Expect(r"aaa\.mp4 is labelled REAL, but was made from bbb\.mp4")

    def duplicate(self, root):
        path = root / "test/labels.csv"
        path.write_text(path.read_text() + "ccc.mp4,0\n")
        return Expect(r"labels\.csv .*ccc\.mp4")

    def non_ascii(self, root):
        frames(root / "test/frames", decomposed("é"))
        with (root / "test/labels.csv").open("a", encoding="utf-8") as file:
            file.write("é.mp4,1\n")
        return Expect("dfdc/test/é/000", "read", lost=-2)


class DFDCPreview(Videos):
    dataset = "dfdcp"
    picture = "method_A/frames/x_1/000.png"
    prefix = "dfdcp/method_A/11/11_A/x_1"
    fakes = ("/method_A/", "/method_B/")

    def write(self, root):
        rows = {}
        for top, label, number in (("original_videos", "real", 0), ("method_A", "fake", 1), ("method_B", "fake", 2)):
            frames(root / top / "frames", f"x_{number}", f"y_{number}")
            for name, where in ((f"x_{number}", "train"), (f"y_{number}", "test")):
                rows[f"{top}/11/11_A/{name}.mp4"] = {
                    "label": label, "set": where, "target_id": "11", "swapped_id": "12" if number else "",
                    "augmentations": [],
                }  # fmt: skip
        (root / "dataset.json").write_text(json.dumps(rows))

    def extra(self, root):
        frames(root / "method_B/frames", "zzz")
        return Expect(r"\b1 video.*dataset\.json.*zzz", "warning")

    def wrong_label(self, root):
        edit_json(root / "dataset.json", lambda rows: rows["method_A/11/11_A/x_1.mp4"].update(label="real"))
        return Expect(r"method_A/11/11_A/x_1\.mp4 has label 'real'")

    def duplicate(self, root):
        edit_json(
            root / "dataset.json",
            lambda rows: rows.update({"method_A/12/12_B/x_1.mp4": rows["method_A/11/11_A/x_1.mp4"]}),
        )
        return Expect(r"has method_A/12/12_B/x_1\.mp4 and method_A/11/11_A/x_1\.mp4")


class DeeperForensics(Videos):
    dataset = "deeperforensics"
    picture = "manipulated_videos/end_to_end/frames/000_M101/000.png"
    prefix = "deeperforensics/end_to_end/000_M101"
    fakes = ("/end_to_end/",)

    def write(self, root):
        videos = {"train": "000_M101", "val": "001_W102", "test": "002_M103"}
        for split, video in videos.items():
            self.list(root, split).parent.mkdir(parents=True, exist_ok=True)
            self.list(root, split).write_text(f"{video}.mp4\n")
            frames(root / "manipulated_videos/end_to_end/frames", video)
            frames(root / "original_sequences/youtube/c23/frames", video[:3])

    @staticmethod
    def list(root, split):
        return root / "lists" / "splits" / f"{split}.txt"

    def extra(self, root):
        frames(root / "manipulated_videos/end_to_end/frames", "999_M101")
        return Expect(r"\b1 video.*999_M101", "warning")

    def wrong_label(self, root):
        self.list(root, "train").write_text("000.mp4\n")  # a real video on the list of fakes
        return Expect(r"train\.txt, line 1 is '000\.mp4', expected a fake")

    def duplicate(self, root):
        self.list(root, "test").write_text("002_M103.mp4\n000_M101.mp4\n")
        return Expect(r"000_M101 .*test\.txt, line 2 .*train\.txt, line 1")


class WildDeepfake(Tree):
    dataset = "wilddeepfake"
    picture = "fake_train/0.tar.gz"
    fakes = ("/fake_",)

    def write(self, root):
        for name in ("real_train", "fake_train", "real test", "fake_test"):
            self.pack(root / name / "0.tar.gz", self.members(name))

    @staticmethod
    def members(name):
        buffers = {}
        for sequence in ("3", "12"):
            for number in (9, 10):
                path = f"{sequence}/{number}.png"
                pixels = np.random.default_rng([len(name), number]).integers(0, 256, (4, 6, 3), dtype=np.uint8)
                buffers[path] = png(pixels)
        return buffers

    @staticmethod
    def pack(path, members):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            for name, content in members.items() if isinstance(members, dict) else members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    def add(self, root, *more, **replaced):
        self.pack(root / self.picture, [*(self.members("fake_train") | replaced).items(), *more])

    def missing(self, root):
        shutil.rmtree(root / "fake_train")
        return Expect(r"fake_train \(folder\)")

    def extra(self, root):
        self.add(root, ("3/notes.txt", b"x"))
        return Expect(r"\b1 file.*3/notes\.txt in .*0\.tar\.gz", "warning")

    def truncated(self, root):
        picture = self.members("fake_train")["3/9.png"]
        self.add(root, **{"3/9.png": picture[: len(picture) // 2]})
        return Expect(r"3/9\.png in .*0\.tar\.gz .*cannot be decoded")

    def wrong_label(self, root):
        self.add(root, ("real/5/1.png", self.members("x")["3/9.png"]))
        return Expect(r"real/5/1\.png in .*0\.tar\.gz .*real.*fake")

    def duplicate(self, root):
        self.add(root, ("3/9.png", b"x"))
        return Expect(r"0\.tar\.gz .*'3/9\.png'")

    def non_ascii(self, root):
        self.add(root, (f"{decomposed('é')}/1.png", self.members("x")["3/9.png"]))
        return Expect("wilddeepfake/fake_train/0/é/1", "read", lost=-1)

    def archive_up(self, root):
        self.add(root, ("../evil.png", b"x"))
        return Expect(r"0\.tar\.gz .*'\.\./evil\.png'")


def png(pixels):
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


class DF40(Videos):
    dataset = "df40"
    real = "FaceForensics++/original_sequences/youtube/c23/frames"
    picture = f"{real}/000/000.png"
    prefix = "df40/ff/c23/000"
    fakes = ("/blendface/", "/StyleGAN2/", "/starganv2/fake/")

    def write(self, root):
        write_pairs(root / "FaceForensics++")
        frames(root / self.real, *(video for pairs in PAIRS.values() for pair in pairs for video in pair))
        frames(root / "DF40_train/blendface/frames", "000_001")
        frames(root / "DF40/blendface/ff/frames", "007_006")
        frames(root / "DF40/blendface/cdf/frames", "id0_id1_0000")
        save(root / "DF40_train/StyleGAN2/001/seed0188.png")
        for label in ("real", "fake"):
            save(root / f"DF40/starganv2/{label}/547.jpg")
        frames(root / "Celeb-DF-v2/Celeb-real/frames", "id0_0000")
        (root / "Celeb-DF-v2/List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\n")

    def extra(self, root):
        save(root / "DF40/newmethod/1.png")
        return Expect("DF40/newmethod", "error")

    def wrong_label(self, root):
        save(root / "DF40/blendface/real/000/000.png")
        return Expect("blendface")


class FFIW(Videos):
    dataset = "ffiw"
    picture = "target/train/frames/v1/000.png"
    prefix = "ffiw/target/train/v1"
    fakes = ("/target/",)

    def write(self, root):
        for folder in ("source", "target"):
            frames(root / folder / "train/frames", "v1", "v2")
            frames(root / folder / "val/frames", "v1")

    def missing(self, root):
        shutil.rmtree(root / self.video)
        return Expect(r"^train: .*\bv1\b", "warning", lost=2)

    def extra(self, root):
        frames(root / "target/extra/frames", "v9")
        return Expect("target/extra", "error")

    def wrong_label(self, root):
        frames(root / "target_mask/train/frames", "v2", "v9")  # a mask says that v9 is fake
        frames(root / "source/train/frames", "v9")
        return Expect(r"target_mask/train .*\bv9\b", "error", lost=-2)

    def non_ascii(self, root):
        for folder in ("source", "target"):
            frames(root / folder / "train/frames", decomposed("é"))
        return Expect("ffiw/target/train/é/000", "read", lost=-4)


class UADFV(Videos):
    dataset = "uadfv"
    picture = "fake/frames/0000_fake/000.png"
    prefix = "uadfv/fake/0000_fake"
    fakes = ("/fake/",)

    def write(self, root):
        frames(root / "real/frames", "0000", "0001")
        frames(root / "fake/frames", "0000_fake", "0001_fake")

    def extra(self, root):
        frames(root / "real/frames", "notes")
        return Expect("real/frames/notes .* real video")

    def wrong_label(self, root):
        (root / self.video).rename(root / "real/frames/0000_fake")
        return Expect("real/frames/0000_fake .* real video")
