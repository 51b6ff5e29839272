"""Real/fake image folders in every naming convention, their defects, and the real sets where they are."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from datasets.exceptions import DatasetGenerationError

from deepfake_detectors.dataset_scripts.genimage import GenImage
from deepfake_detectors.dataset_scripts.image_folder import CONVENTIONS, RealFakeFolder
from support.folder_tree import save
from support.real_data import needs_real_data, real_data


def builder(root, tmp_path, config="real_fake", kind=RealFakeFolder, **options):
    return kind(config_name=config, data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)


def build(root, tmp_path, config="real_fake", kind=RealFakeFolder, **options):
    made = builder(root, tmp_path, config, kind, **options)
    made.download_and_prepare()
    return made.as_dataset()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set"
    for name in ("real/ffhq/a.jpg", "real/ffhq/b.jpg", "fake/gan/c.jpg", "fake/größe/é.png"):
        save(folder / name)
    return folder


@pytest.mark.parametrize("name", [name for name in CONVENTIONS if name != "custom"])
def test_polarity_of_each_convention(tmp_path, name):
    (real, *_), (fake, *_) = CONVENTIONS[name]
    for number in range(2):
        save(tmp_path / "set" / real / f"r{number}.png")
        save(tmp_path / "set" / fake / f"f{number}.png")
    rows = build(tmp_path / "set", tmp_path, name)["train"]
    assert {Path(row["id"]).name[0]: row["label"] for row in rows} == {"r": 0, "f": 1}
    assert rows.features["label"].names == ["real", "fake"]


def test_polarity_is_never_a_default(root, tmp_path):
    with pytest.raises(ValueError, match="real_fake"):
        builder(root, tmp_path, None)
    with pytest.raises(ValueError, match="both classes"):
        builder(root, tmp_path, "custom")
    with pytest.raises(ValueError, match="cannot be both"):
        builder(root, tmp_path, "custom", real="a", fake="A")


def test_custom_names(root, tmp_path):
    (root / "real").rename(root / "photos")
    rows = build(root, tmp_path, "custom", real="Photos", fake=("fake",))["train"]
    assert Counter(rows["label"]) == {0: 2, 1: 2}


def test_columns(root, tmp_path):
    rows = {row["id"]: row for row in build(root, tmp_path, prefix="mine")["train"]}
    assert sorted(rows) == sorted(
        ["mine/fake/gan/c.jpg", "mine/fake/größe/é.png", "mine/real/ffhq/a.jpg", "mine/real/ffhq/b.jpg"]
    )
    real, fake = rows["mine/real/ffhq/a.jpg"], rows["mine/fake/größe/é.png"]
    assert (real["manipulation"], real["category"], real["file_format"]) == ("real", "ffhq", "JPEG")
    assert (fake["manipulation"], fake["category"], fake["file_format"]) == ("größe", None, "PNG")


def test_ids_do_not_depend_on_how_a_file_system_stores_accents(tmp_path):
    for form, folder in (("\u00e9", "composed"), ("e\u0301", "decomposed")):
        save(tmp_path / folder / "real" / f"{form}.png")
        save(tmp_path / folder / "fake" / "x.png")
    assert (
        build(tmp_path / "composed", tmp_path)["train"]["id"][:]
        == build(tmp_path / "decomposed", tmp_path)["train"]["id"][:]
    )


def test_two_names_that_differ_in_form_only_are_a_duplicate_id(root, tmp_path):
    save(root / "fake" / "größe" / "e\u0301.png")
    with pytest.raises(ValueError, match="have the same id"):
        builder(root, tmp_path).inspect(root)


def test_splits_and_generators_above_the_class(tmp_path):
    for split in ("train", "val"):
        for name in ("0_real/r.png", "1_fake/f.png"):
            save(tmp_path / "set" / "progan" / split / "cat" / name)
    data = build(tmp_path / "set", tmp_path, "0_real_1_fake")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 2}
    assert {(row["manipulation"], row["category"]) for row in data["train"]} == {("real", "cat"), ("progan", "cat")}


def test_wrong_convention_names_the_fitting_one(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="config real_fake"):
        builder(root, tmp_path, "nature_ai").inspect(root)


def test_class_folder_inside_the_other(root, tmp_path):
    save(root / "real" / "fake" / "x.png")
    with pytest.raises(ValueError, match="real folder"):
        builder(root, tmp_path).inspect(root)


def test_one_class_missing(root, tmp_path):
    for path in (root / "fake").rglob("*.*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="fake images"):
        builder(root, tmp_path).inspect(root)


def test_extra_files_are_named(root, tmp_path):
    save(root / "stray.png")
    (root / "real" / "clip.mp4").write_bytes(b"x")
    (root / "README.md").write_text("about")
    made = builder(root, tmp_path)
    made.inspect(root)
    (message,) = [finding.message for finding in made.findings]
    assert message.startswith("2 file") and message.endswith("stray.png, real/clip.mp4.")


def test_truncated_picture(root, tmp_path):
    path = root / "real" / "ffhq" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetGenerationError) as caught:
        build(root, tmp_path)
    assert "a.jpg (300 bytes) cannot be decoded" in str(caught.value.__cause__)


@pytest.mark.parametrize("folder", [False, True])
def test_links(root, tmp_path, folder):
    outside = tmp_path / "outside"
    save(outside / "x.png")
    target = outside if folder else outside / "x.png"
    (root / "fake" / "gan" / "link.png").symlink_to(target)
    with pytest.raises(ValueError, match=r"link\.png "):
        builder(root, tmp_path).inspect(root)


class TestMasks:
    @pytest.fixture
    def masked(self, root):
        save(root / "masks" / "c.png")
        save(root / "masks" / "é.png")
        return root

    def test_paired(self, masked, tmp_path):
        rows = {row["id"]: row for row in build(masked, tmp_path, masks="masks")["train"]}
        assert [row["mask"] is not None for _, row in sorted(rows.items())] == [True, True, False, False]

    def test_not_asked_for(self, masked, tmp_path):
        made = builder(masked, tmp_path)
        made.inspect(masked)
        assert any("pass masks='masks'" in finding.message for finding in made.findings)

    def test_missing(self, masked, tmp_path):
        (masked / "masks" / "c.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"c\.jpg has 0 masks"):
            builder(masked, tmp_path, masks="masks").inspect(masked)

    def test_other_size(self, masked, tmp_path):
        save(masked / "masks" / "c.png", size=(5, 5))
        with pytest.raises(DatasetGenerationError) as caught:
            build(masked, tmp_path, masks="masks")
        assert "c.png: the mask is (5, 5)" in str(caught.value.__cause__)


class TestManifest:
    @staticmethod
    def write(root, rows):
        with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([("file", "label", "group"), *rows])

    def test_groups_missing_and_extra(self, root, tmp_path):
        self.write(
            root,
            [
                ("real/ffhq/a.jpg", "real", "7"),
                ("fake/gan/c.jpg", "fake", "7"),
                ("fake/größe/é.png", "fake", ""),
                ("fake/gone.jpg", "fake", ""),
            ],
        )
        made = builder(root, tmp_path, prefix="p")
        units = {unit.id: unit for unit in made.inspect(root)["train"]}
        assert units["p/real/ffhq/a.jpg"].columns["group_id"] == units["p/fake/gan/c.jpg"].columns["group_id"] == "p/7"
        errors = [finding.message for finding in made.findings if finding.level == "error"]
        assert len(errors) == 2
        assert "b.jpg is not listed" in errors[0]
        assert "fake/gone.jpg" in errors[1]
        with pytest.raises(FileNotFoundError, match="pass allow_missing=True"):
            build(root, tmp_path)
        assert len(build(root, tmp_path, allow_missing=True)["train"]) == 4

    def test_wrong_label(self, root, tmp_path):
        self.write(root, [("real/ffhq/a.jpg", "fake", "")])
        with pytest.raises(ValueError, match=r"a\.jpg .* real .*manifest\.csv"):
            builder(root, tmp_path).inspect(root)


class TestGenImage:
    @pytest.fixture
    def genimage(self, tmp_path):
        folder = tmp_path / "genimage"
        for split in ("train", "val"):
            inner = folder / "Stable Diffusion V1.4" / "imagenet_ai_0419_sdv4" / split
            save(inner / "ai" / "033_sdv4_00152.png")
            save(inner / "nature" / "n01440764_10026.JPEG")
        return folder

    def test_columns(self, genimage, tmp_path):
        data = build(genimage, tmp_path, None, GenImage)
        assert set(data) == {"train", "validation"}
        rows = {row["label"]: row for row in data["train"]}
        assert (rows[1]["manipulation"], rows[1]["category"]) == ("stable_diffusion_v_1_4", "033")
        assert (rows[0]["manipulation"], rows[0]["file_format"]) == ("real", "JPEG")

    def test_findings(self, genimage, tmp_path):
        made = builder(genimage, tmp_path, None, GenImage)
        made.inspect(genimage)
        text = " ".join(finding.message for finding in made.findings)
        assert "not verified" in text
        assert "ADM, BigGAN" in text


@needs_real_data
@pytest.mark.parametrize("name", ["faces_stylegan2", "scenes_text2image", "photos_flux_imagen", "copymove_noso"])
def test_real_sets(name, tmp_path):
    root = real_data(name)
    with (root / "manifest.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    masks = "masks" if any(row["label"] == "masks" for row in listed) else ""
    made = builder(root, tmp_path, masks=masks, prefix=name)
    made.download_and_prepare()
    rows = made.as_dataset(split="train")
    table = next(
        line for line in (root.parent / "README.md").read_text(encoding="utf-8").splitlines() if f"`{name}/`" in line
    )
    stated = table.split("|")[3].split()[0].split("/")
    assert [rows["label"][:].count(label) for label in (0, 1)] == [int(number) for number in stated]
    assert not [finding for finding in made.findings if finding.level == "error"]
    fakes = Counter(row["source"] for row in listed if row["label"] == "fake")
    found = Counter(manipulation for manipulation in rows["manipulation"] if manipulation != "real")
    if not masks:  # its manifest writes the whole folder as source
        assert found == fakes
    else:
        assert sum(row is not None for row in rows["mask"]) == sum(row["label"] == "masks" for row in listed)
        groups = {}
        for row in listed:
            groups.setdefault(row["group"], set())
        assert {group.split("/")[-1] for group in rows["group_id"]} <= set(groups)


MANIFEST = "file,label,group\nreal/a.png,real,g\nfake/b.png,fake,g\n"


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("\ufeff" + MANIFEST.replace("a.png,real", "a.png,fake"), ValueError, "manifest.csv.*'fake'"),
        (MANIFEST + "real/a.png,real,h\n", ValueError, r"line 4 .*real/a\.png"),
        (MANIFEST + "real/c.png\n", ValueError, "line 4 lacks file or label"),
        (MANIFEST.replace(",", ";"), "warning", "its columns are 'file;label;group', expected file, label"),
    ],
)
def test_manifest_as_spreadsheets_write_it(tmp_path, text, level, message):
    for name in ("real/a.png", "fake/b.png"):
        save(tmp_path / "raw" / name)
    (tmp_path / "raw" / "manifest.csv").write_text(text, encoding="utf-8")
    builder = RealFakeFolder(
        config_name="real_fake", data_dir=str(tmp_path / "raw"), cache_dir=str(tmp_path / "cache")
    )
    if level == "warning":
        builder.inspect(tmp_path / "raw")
        assert any(message in item.message for item in builder.findings if item.level == level)
    else:
        with pytest.raises(ValueError, match=message):
            builder.inspect(tmp_path / "raw")


class TestTable:
    """A table `img_path,label` in place of folders."""

    @pytest.fixture
    def table(self, tmp_path):
        for name in ("set/a.png", "set/b.png", "elsewhere/c.png"):
            save(tmp_path / name)
        return tmp_path / "set" / "pictures.csv"

    def rows(self, table, tmp_path, text, **options):
        table.write_text(text)
        return build(table, tmp_path, "table", **options)

    def test_labels_and_columns(self, table, tmp_path):
        text = f"img_path,label,split,group\na.png,yes,,\nb.png,FAKE,test,g\n{tmp_path}/elsewhere/c.png,no,val,g\n"
        data = self.rows(table, tmp_path, text)
        found = {row["id"]: (split, row["label"], row["group_id"]) for split in data for row in data[split]}
        assert found == {
            "image_folder/set/a.png": ("train", 0, "image_folder/set/a.png"),
            "image_folder/set/b.png": ("test", 1, "image_folder/g"),
            "image_folder/elsewhere/c.png": ("validation", 1, "image_folder/g"),
        }

    @pytest.mark.parametrize(("real", "expected"), [("0", [0, 1]), ("1", [1, 0])])
    def test_numbers_need_their_meaning(self, table, tmp_path, real, expected):
        text = "img_path,label\na.png,0\nb.png,1\n"
        assert self.rows(table, tmp_path, text, number_real=real)["train"]["label"] == expected
        with pytest.raises(ValueError, match=r"line 2: the label is '0'.*number_real"):
            self.rows(table, tmp_path, text)

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("path,label\na.png,real\n", ValueError, r"has the columns \['path', 'label'\], expected img_path, label"),
            ("img_path,label\na.png,maybe\n", ValueError, "line 2: the label is 'maybe', expected one of real, fake"),
            ("img_path,label\n,real\n", ValueError, "line 2 has no img_path"),
            ("img_path,label\na.png,real\na.png,fake\n", ValueError, "have the same id"),
            ("img_path,label\na.png,real\nz.png,real\n", FileNotFoundError, r"z\.png"),
            ("img_path,label,split\na.png,real,dev\n", ValueError, "line 2 has the split 'dev'"),
        ],
    )
    def test_faults_are_named(self, table, tmp_path, text, error, message):
        with pytest.raises(error, match=message):
            self.rows(table, tmp_path, text)
