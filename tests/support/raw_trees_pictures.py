"""Trees of the data sets of pictures."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.raw_trees import Expect, Tree, decomposed, edit_json


class DDVQA(Tree):
    dataset = "ddvqa"
    picture = "images_c40/train/0_000_001.jpg"
    fakes = ("/0_",)

    def write(self, root):
        write_tree(root, stems(range(2), "0"), stems(range(5, 6), "0"))

    def extra(self, root):
        (root / "images_c40/train/notes.txt").write_text("x")
        return Expect(r"notes\.txt")

    def wrong_label(self, root):
        def change(entries):
            entry = next(entry for entry in entries if entry["image"] == "0_000_001.jpg")
            entry["conversations"][1]["value"] = "The image looks real."

        edit_json(root / "splits/train_DDVQA_format_judge_only.json", change)
        return Expect("0_000_001")

    def duplicate(self, root):
        shutil.copy(root / self.picture, root / "images_c40/train/0_000_001.jpeg")
        return Expect(r"0_000_001\.jpg and .*0_000_001\.jpeg")

    def non_ascii(self, root):
        shutil.copy(root / self.picture, root / "images_c40/train/0_é_001.jpg")
        return Expect(r"0_é_001\.jpg")


class FakeClue(Tree):
    dataset = "fakeclue"
    picture = "train.zip"
    fakes = ("/fake/",)
    names = {"train": ["doc/fake/a.png", "doc/real/b.png"], "test": ["doc/fake/c.png", "doc/real/d.png"]}

    def write(self, root):
        (root / "data_json").mkdir(parents=True)
        for split, names in self.names.items():
            (root / f"data_json/{split}.json").write_text(json.dumps([self.record(name) for name in names]))
            with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
                for name in names:
                    archive.writestr(f"{split}/{name}", self.content(root, name))

    @staticmethod
    def record(name):
        turns = [{"from": "human", "value": "<image>Real?"}, {"from": "gpt", "value": "It is."}]
        return {"image": name, "label": int("/real/" in name), "cate": "doc", "conversations": turns}

    @staticmethod
    def content(root, name):
        path = save(root.parent / "made" / Path(name).name)
        return path.read_bytes()

    def add(self, root, name, content):
        with zipfile.ZipFile(root / "train.zip", "a") as archive:
            archive.writestr(name, content)

    def list_too(self, root, name):
        edit_json(root / "data_json/train.json", lambda records: records.append(self.record(name)))

    def missing(self, root):
        self.list_too(root, "doc/fake/gone.png")
        return Expect(r"train/doc/fake/gone\.png")

    def extra(self, root):
        self.add(root, "train/doc/fake/z.png", b"x")
        return Expect(r"\b1 .*doc/fake/z\.png", "warning")

    def truncated(self, root):
        self.add(root, "train/doc/fake/t.png", self.content(root, "t.png")[:100])
        self.list_too(root, "doc/fake/t.png")
        return Expect(r"doc/fake/t\.png in .*train\.zip \(100 bytes\) cannot be decoded")

    def wrong_label(self, root):
        edit_json(root / "data_json/train.json", lambda records: records[0].update(label=1))
        return Expect(r"\b1 .*doc/fake/a\.png", "warning")

    def duplicate(self, root):
        self.list_too(root, "doc/fake/a.png")
        return Expect("have the same id 'fakeclue/train/doc/fake/a.png'")

    def non_ascii(self, root):
        self.add(root, decomposed("train/doc/fake/é.png"), self.content(root, "é.png"))
        self.list_too(root, "doc/fake/é.png")
        return Expect("fakeclue/train/doc/fake/é.png", "read", lost=-1)

    def archive_up(self, root):
        self.add(root, "train/../../evil.png", b"x")
        return Expect(r"train\.zip.*'train/\.\./\.\./evil\.png'")


class ImageFolder(Tree):
    dataset = "image_folder"
    config = "real_fake"
    picture = "fake/gan/c.png"
    fakes = ("/fake/",)

    def write(self, root):
        for name in ("real/a.png", "real/b.png", self.picture, "fake/gan/d.png"):
            save(root / name)
        self.manifest(root)

    @staticmethod
    def manifest(root, **labels):
        rows = [(path.relative_to(root).as_posix(), path.relative_to(root).parts[0]) for path in root.rglob("*.png")]
        with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "label"), *((name, labels.get(name, label)) for name, label in rows)])

    def extra(self, root):
        save(root / "stray.png")
        return Expect(r"\b1 .*stray\.png", "warning")

    def wrong_label(self, root):
        self.manifest(root, **{self.picture: "real"})
        return Expect(r"c\.png.* fake .*manifest\.csv.*'real'")

    def duplicate(self, root):
        for form in ("é", decomposed("é")):
            save(root / "fake/gan" / f"{form}.png")
        return Expect("have the same id 'image_folder/fake/gan/é.png'")

    def non_ascii(self, root):
        save(root / "fake/gan" / f"{decomposed('é')}.png")
        self.manifest(root)
        return Expect("image_folder/fake/gan/é.png", "read", lost=-1)


class GenImage(ImageFolder):
    dataset = "genimage"
    config = None
    inner = "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/train"
    picture = f"{inner}/ai/033_sdv4_00152.png"
    fakes = ("/ai/",)

    def write(self, root):
        save(root / self.picture)
        save(root / self.inner / "nature/n01440764_10026.png")

    def missing(self, root):
        (root / self.picture).unlink()  # nothing lists the pictures, so only a whole class is missed
        return Expect(r"\bfake images")

    def wrong_label(self, root):
        save(root / self.inner / "nature/ai/x.png")
        return Expect(r"nature/ai/x\.png .*nature.*ai")

    def duplicate(self, root):
        for form in ("é", decomposed("é")):
            save(root / self.inner / "ai" / f"{form}.png")
        return Expect(f"have the same id 'genimage/{self.inner}/ai/é.png'")

    def non_ascii(self, root):
        save(root / self.inner / "ai" / f"{decomposed('é')}.png")
        return Expect(f"genimage/{self.inner}/ai/é.png", "read", lost=-1)


class AntifakePrompt(Tree):
    dataset = "antifakeprompt"
    real, fake = "COCO", "SDXL"
    picture = "SDXL/a.png"
    fakes = ("/SDXL/",)

    def write(self, root):
        for folder in (self.real, self.fake):
            save(root / folder / "a.png")

    def missing(self, root):
        (root / self.picture).unlink()
        return Expect(rf"{self.fake} \(")

    def extra(self, root):
        save(root / "mine/1.png")
        return Expect(r"\bmine\b.*real=", "error")

    def wrong_label(self, root):
        self.options = {"real": (self.fake,)}
        return Expect(self.fake)

    def duplicate(self, root):
        save(root / self.fake.swapcase() / "a.png")
        return Expect(f"are both the set {self.fake}")

    def non_ascii(self, root):
        save(root / self.fake / f"{decomposed('é')}.png")
        return Expect(f"{self.dataset}/{self.fake}/é.png", "read", lost=-1)


class DMimage(AntifakePrompt):
    dataset = "dmimage"
    real, fake = "real_ucid", "eg3d"
    picture = "eg3d/a.png"
    fakes = ("/eg3d/",)


class LOKI(Tree):
    dataset = "loki"
    picture = "media_data/image/f0.png"
    fakes = ("loki/f",)
    list = "data_json/image/true_or_false.json"

    def write(self, root):
        (root / "data_json/image").mkdir(parents=True)
        rows = []
        for name in ("f0", "r0"):
            save(root / f"media_data/image/{name}.png")
            rows += self.rows(name)
        (root / self.list).write_text(json.dumps(rows))

    @staticmethod
    def rows(name):
        label = {"f": "fake", "r": "real"}[name[0]]
        return [
            {
                "image_path": f"media_data/image/{name}.png",
                "question": f"<image>\nIs it {asked}?\n",
                "answer": "Yes" if asked == label else "No",
                "question_type": f"image_tf_image_{label}_ask_{asked}_doc",
                "id": f"doc_{asked}_{name}",
            }
            for asked in ("fake", "real")
        ]

    def extra(self, root):
        save(root / "media_data/image/zzz.png")
        return Expect(r"\b1 .*true_or_false\.json.*zzz\.png", "warning")

    def wrong_label(self, root):
        edit_json(root / self.list, lambda rows: rows[0].update(answer="No"))
        return Expect(r"record 0 \(media_data/image/f0\.png\).* 'No' .*fake")

    def duplicate(self, root):
        save(root / "media_data/image/f0.jpg")
        more = [row | {"image_path": "media_data/image/f0.jpg"} for row in self.rows("f0")]
        edit_json(root / self.list, lambda rows: rows + more)
        return Expect("have the same id 'loki/f0'")

    def non_ascii(self, root):
        save(root / "media_data/image/fé.png")
        edit_json(root / self.list, lambda rows: rows + self.rows("fé"))
        return Expect("loki/fé", "read", lost=-1)
