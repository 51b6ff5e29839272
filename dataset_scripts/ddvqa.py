"""DD-VQA: face crops of FaceForensics++ videos with questions and answers about what looks real or fake.

Zhang et al., "Common Sense Reasoning for Deepfake Detection" (ECCV 2024), in the form used by Guo et al., "Rethinking
Vision-Language Model in Face Forensics" (M2F2-Det, CVPR 2025). Expected in the data folder:

    images_c40/{train,test}/<type>_<target>[_<source>].jpg      224 x 224
    images_c23/test/<type>_<target>[_<source>].jpg              160 x 160
    splits/train_DDVQA_format_judge_only.json                   real/fake conversations on the training images
    splits/train_DDVQA_format.json                              the same with explanations; not in every copy
    splits/test_explanation.jsonl                               questions and reference answers on the test images
    annotations/train_set/<type>/<type>.json                    questions and answers on the training images

or an unmodified clone of github.com/CHELSEA234/M2F2_Det: `utils/DDVQA_images/{c40,c23}.zip` (unpacking is optional),
`utils/DDVQA_split/c40/*.json` and `utils/DDVQA_eval/c40/test.jsonl`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from ._archives import read_picture
from ._builder import INSIDE, RawBuilder, RawConfig, Unit, components, unit_columns
from ._ddvqa_frames import asked_frames
from ._ddvqa_layout import Layout, Picture, find_layout
from ._ddvqa_questions import (
    REAL_TYPE,
    Entry,
    explaining_turns,
    read_annotations,
    read_conversations,
    read_explanations,
    read_judgements,
    stated_answer,
    stated_question,
)
from ._files import first_names, identical_files, is_picture, list_files, stable_id
from ._frames import frame_key, read_frames
from ._releases import CROSSING_PAIRS, describe_crossing

__all__ = ["DDVQA", "DDVQAConfig"]

REMEDY = (
    "Point data_dir at a clone of github.com/CHELSEA234/M2F2_Det, or at a folder with images_c40/, images_c23/, "
    "splits/ and annotations/ (these from github.com/Reality-Defender/Research-DD-VQA)."
)
SOURCE_SET = "FaceForensics++"  # the images come from its videos, so these ids can match those of other datasets

MANIPULATIONS = {  # type digit -> name, family
    "0": ("Deepfakes", "swap"),
    "1": ("Face2Face", "reenact"),
    "2": ("FaceShifter", "swap"),
    "3": ("FaceSwap", "swap"),
    "5": ("real", None),
    "6": ("NeuralTextures", "reenact"),
}
WITHOUT_C40_PICTURES = "2"  # FaceShifter has annotations, but the published c40 archive does not contain its images

PICTURE_SPLITS = {"c40": ("train", "test"), "c23": ("test",)}
TASKS = ("classify", "judge", "explain", "converse", "frames")
CONFLICT_POLICIES = ("keep", "drop", "error")
QUESTION_FORMS = ("collected", "stated")


class PictureName(NamedTuple):
    """The parts of a file name in the dataset, `<type>_<target>[_<source>]`."""

    stem: str
    type: str
    target: str
    source: str | None

    @property
    def videos(self) -> tuple[str, ...]:
        return (self.target,) if self.source is None else (self.target, self.source)


@dataclass
class DDVQAConfig(RawConfig):
    """One version of the dataset.

    Args:
        compression: `"c40"` (low quality, train and test) or `"c23"` (high quality, test only).
        task: `"classify"`: one row per image. `"judge"`: one row per published real/fake conversation, available only
            for training images. `"explain"`: one row per question about what looks real or fake. `"converse"`:
            training data of M2F2-Det's stage 3, one row per conversation of `train_DDVQA_format.json`, with one or
            more turns (`question` and `answer` are the first turn, `messages` all of them). Without that file, it uses
            the judgements and the annotators' questions in the stated form. Test rows are those of `"explain"`.
            `"frames"`: FakeVLM's protocol, one row per collected question, on frames of the FaceForensics++ videos in
            `ffpp_dir`.
        on_label_conflict: what to do with a fake image that is byte-identical to a real one: `"keep"` (as published,
            with a warning), `"drop"` (recommended for training: the manipulation missed this frame) or `"error"`.
            In the published data this is `0_281_474`, identical to `5_281`.
        ffpp_dir: for `"frames"`, the folder of FaceForensics++ with `original_sequences/`.
        questions: for `"explain"` training rows, `"collected"` as asked to the annotators ("Do the person's eyes look
            real/fake?"), or `"stated"` as in the test rows ("The eyes in the image are fake, tell me why. ..."), with
            answers that do not repeat the verdict; see `stated_question`. Other rows are as published. In a copy
            without annotations, training rows come from its conversations and are also as published.
    """

    compression: str = "c40"
    task: str = "classify"
    on_label_conflict: str = "keep"
    questions: str = "collected"
    ffpp_dir: str = ""

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        for name, allowed in (
            ("compression", tuple(PICTURE_SPLITS)),
            ("task", TASKS),
            ("on_label_conflict", CONFLICT_POLICIES),
            ("questions", QUESTION_FORMS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}.")
        if (self.task == "frames") != bool(self.ffpp_dir):
            raise ValueError("ffpp_dir is required for the task 'frames' and not allowed for other tasks.")
        if self.task not in ("classify", "frames") and self.compression != "c40":
            raise ValueError(f"Task {self.task!r} is only published for c40, not for {self.compression!r}.")


class DDVQA(RawBuilder):
    """Builder for the published layout: `DDVQA(config_name="c40", data_dir=...).download_and_prepare()`.

    Configs: `c40` (default), `c23`, `c40_judge` (train only), `c40_explain`, `c40_converse`, and `fakevlm` on frames
    of FaceForensics++. The splits are official. Split off a validation set with `split_by_group` on `group_id`, never
    by image.

    Raises:
        FileNotFoundError: for a missing folder, annotation file or image, with its path.
        ValueError: for an unexpected file name, or an image that cannot be decoded.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = DDVQAConfig
    BUILDER_CONFIGS = [
        DDVQAConfig(name="c40", version=VERSION, description="Images, strongly compressed."),
        DDVQAConfig(name="c23", version=VERSION, compression="c23", description="Test images, lightly compressed."),
        DDVQAConfig(name="c40_judge", version=VERSION, task="judge", description="Real/fake conversations."),
        DDVQAConfig(name="c40_explain", version=VERSION, task="explain", description="Questions about details."),
        DDVQAConfig(name="c40_converse", version=VERSION, task="converse", description="Conversations for stage 3."),
        DDVQAConfig(
            name="fakevlm",
            version=VERSION,
            compression="c23",
            task="frames",
            description="FakeVLM's protocol; pass ffpp_dir.",
        ),
    ]
    DEFAULT_CONFIG_NAME = "c40"
    NAME = "DD-VQA"
    TERMS = "Images: FaceForensics++ terms of use, non-commercial research only."
    LAYOUT = "images_c40/{train,test}/, images_c23/test/, splits/, annotations/train_set/<type>/<type>.json"
    REMEDY = REMEDY
    HOMEPAGE = "https://github.com/CHELSEA234/M2F2_Det"
    UNIT_NAME = "rows"

    def has_dialogue(self) -> bool:
        """Return true for all tasks except `"classify"`."""
        return self.config.task != "classify"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Return the published counts of c40 images; other tasks are counted from their lists."""
        if (
            self.config.task != "classify"
            or self.config.compression != "c40"
            or self.config.on_label_conflict == "drop"
        ):
            return {}
        return {"train": {"real": 455, "fake": 884}, "test": {"real": 72, "fake": 72}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per row: an image, or a question about one."""
        if self.config.task == "frames":
            return {split: list(self._frame_units(root, split)) for split in ("train", "test")}
        layout = find_layout(root)
        pictures = {split: self._list_pictures(layout, split) for split in PICTURE_SPLITS[self.config.compression]}
        groups = self._groups(layout, pictures)
        splits = {}
        for split, found in pictures.items():
            found = self._resolve_conflicts(found)
            formats = {
                name: self.check_picture(picture.read(), str(picture)).format if self.decode_listed else None
                for name, picture in found.items()
            }
            self._warn_about_formats(split, formats)
            splits[split] = [
                self._unit(name, found[name], formats[name], groups[name.target], split, suffix, dialogue)
                for name, suffix, dialogue in self._expand(layout, split, found)
            ]
        return splits

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the row with an image that `units` has decoded, or with the frame of a video."""
        if unit.frames:
            place, (frame,) = Path(unit.path), unit.frames
            if place.is_dir():
                number, columns = frame_key(frame), self.picture_columns(str(place / frame))
            else:
                form = place.suffix.lstrip(".").upper()
                number, columns = frame, {"image": next(read_frames(place, [frame])), "file_format": form}
            yield {"id": unit.id, **unit.columns, "frame": number, **columns}
            return
        archive, inside, name = unit.path.partition(INSIDE)
        columns = read_picture(Path(archive), name, self.config.max_pixels) if inside else {"image": unit.path}
        yield {"id": unit.id, **columns, **unit.columns}

    def _frame_units(self, root: Path, split: str) -> Iterator[Unit]:
        methods = {digit: name for digit, (name, _) in MANIPULATIONS.items()}
        videos = Path(self.config.ffpp_dir).expanduser().resolve()
        asked = list(asked_frames(root, videos, self.config.compression, split, methods, REMEDY))
        names = {each.entry.picture: _parse_name(Picture(None, f"{each.entry.picture}.jpg")) for each in asked}
        groups = components(name.videos for name in names.values())
        for (stem, suffix, question, answers, _), place, number in asked:
            frame = _frame_in(place, number)
            if frame is None:
                absent = f"{place}/{number}" if place.is_dir() else str(place)
                self.missing += [absent] if absent not in self.missing else []
                continue
            name = names[stem]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]
            dialogue = {"question": question, "answer": answers[0], "answers": answers, "messages": messages}
            unit = self._unit(
                name, Picture(None, str(place)), None, groups[name.target], split, f"/{suffix}", dialogue
            )
            yield unit._replace(frames=(frame,))

    def _groups(self, layout: Layout, pictures: dict[str, dict[PictureName, Picture]]) -> dict[str, str]:
        """Return the group of each video; parts of one YouTube video share the name of their training group.

        Computed over all splits, so that a group has the same name in every config and split; without published
        training images, those of c40 are used.
        """
        trained = set(pictures.get("train", ()))
        if not trained and layout.holds("c40", "train"):
            trained = {_parse_name(picture) for picture in layout.list("c40", "train", REMEDY)[0]}
        groups = components(name.videos for name in [*trained, *(n for found in pictures.values() for n in found)])
        train = {video for name in trained for video in name.videos}
        test = {video for name in pictures["test"] for video in name.videos}
        sides = [(a, b) for pair in CROSSING_PAIRS for a, b in (pair, pair[::-1]) if a in test and b in train]
        crossing = {a: b for a, b in sides if groups[a] != groups[b]}
        if not crossing:
            return groups
        touched = [name.stem for name in pictures["test"] if crossing.keys() & set(name.videos)]
        pairs = [f"{a} (test) / {b} (train)" for a, b in crossing.items()]
        self.report(
            "warning",
            f"{describe_crossing(pairs)} They affect {len(touched)} of {len(pictures['test'])} test images: "
            f"{first_names(touched)}.",
        )
        renamed = {groups[a]: groups[b] for a, b in crossing.items()}
        return {video: renamed.get(group, group) for video, group in groups.items()}

    def _list_pictures(self, layout: Layout, split: str) -> dict[PictureName, Picture]:
        level = self.config.compression
        listed, elsewhere = layout.list(level, split, REMEDY)
        self.ignored += [name for name in elsewhere if name not in self.ignored]
        pictures: dict[PictureName, Picture] = {}
        for picture in listed:
            name = _parse_name(picture)
            if name in pictures:
                raise ValueError(f"{picture} and {pictures[name]} are the same image by name; keep one of them.")
            pictures[name] = picture
        if not pictures:
            raise FileNotFoundError(f"{layout.place(level, split)} does not contain images. {REMEDY}")
        if level == "c40":  # there is no published list of the c23 images
            entries = (
                read_judgements(layout.judgements, REMEDY)
                if split == "train"
                else read_explanations(layout.explanations, REMEDY)
            )
            missing = sorted({entry.picture for entry in entries} - {name.stem for name in pictures})
            self.missing += [f"{layout.place(level, split)}/{stem}.jpg" for stem in missing]
        return pictures

    def _resolve_conflicts(self, pictures: dict[PictureName, Picture]) -> dict[PictureName, Picture]:
        names = {picture: name for name, picture in pictures.items()}
        dropped: set[PictureName] = set()
        for group in identical_files((picture, picture.read) for picture in pictures.values()):
            reals = [path for path in group if names[path].type == REAL_TYPE]
            fakes = [path for path in group if names[path].type != REAL_TYPE]
            if not reals or not fakes:
                continue
            finding = f"{', '.join(map(str, fakes))}: labelled fake, but byte-identical to the real {reals[0]}"
            if self.config.on_label_conflict == "error":
                raise ValueError(f"{finding}. Pass on_label_conflict='drop' or 'keep', or remove one of the files.")
            if self.config.on_label_conflict == "drop":
                self.report("warning", f"Dropped {finding}.")
                dropped.update(names[path] for path in fakes)
            else:
                self.report("warning", f"Kept {finding}. Pass on_label_conflict='drop' for training.")
        return {name: picture for name, picture in pictures.items() if name not in dropped}

    def _warn_about_formats(self, split: str, formats: dict[PictureName, str | None]) -> None:
        if len(set(formats.values())) > 1:
            table = Counter((MANIPULATIONS[name.type][0], form) for name, form in formats.items())
            counts = ", ".join(f"{count} {method} {form}" for (method, form), count in sorted(table.items()))
            self.report(
                "warning",
                f"{self.config.compression} {split} has mixed file formats, which a detector could learn instead of "
                f"the forgery: {counts}.",
            )

    def _expand(
        self, layout: Layout, split: str, pictures: dict[PictureName, Picture]
    ) -> Iterator[tuple[PictureName, str, dict[str, Any]]]:
        """Return the rows of a split: image, suffix of its id, and the question with its answers."""
        if self.config.task == "classify":
            yield from ((name, "", {}) for name in pictures)
        elif split == "test" and self.config.task != "judge":
            yield from self._attach(layout, split, pictures, read_explanations(layout.explanations, REMEDY))
        elif split == "train":
            yield from self._attach(layout, split, pictures, self._train_entries(layout))

    def _train_entries(self, layout: Layout) -> Iterator[Entry]:
        task, published = self.config.task, layout.conversations.is_file()
        if task == "judge":
            yield from read_judgements(layout.judgements, REMEDY)
        elif task == "converse" and published:
            yield from read_conversations(layout.conversations, REMEDY)
        elif task == "converse":
            self.report(
                "warning",
                f"{layout.conversations} is missing; using the judgements and the annotators' questions, worded like "
                "the test questions.",
            )
            yield from read_judgements(layout.judgements, REMEDY)
            yield from self._stated(read_annotations(layout.annotations, REMEDY))
        elif published and not layout.annotations.is_dir():
            yield from explaining_turns(read_conversations(layout.conversations, REMEDY))
        else:
            entries = read_annotations(layout.annotations, REMEDY)
            yield from self._stated(entries) if self.config.questions == "stated" else entries

    @staticmethod
    def _stated(entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            label = "real" if entry.picture.startswith(f"{REAL_TYPE}_") else "fake"
            question = stated_question(entry.question, label, entry.answers[0])
            yield entry._replace(question=question, answers=[stated_answer(answer) for answer in entry.answers])

    def _attach(
        self,
        layout: Layout,
        split: str,
        pictures: dict[PictureName, Picture],
        entries: Iterator[Entry],
    ) -> Iterator[tuple[PictureName, str, dict[str, Any]]]:
        by_stem = {name.stem: name for name in pictures}
        place = layout.place(self.config.compression, split)
        published = {picture.stem for picture in layout.list(self.config.compression, split, REMEDY)[0]}
        absent: set[str] = set()
        for stem, suffix, question, answers, later in entries:
            if stem not in by_stem:
                # Left out by name above, or never published; anything else is missing from this copy.
                dropped = self.config.on_label_conflict == "drop" and stem in published
                if not dropped and not stem.startswith(f"{WITHOUT_C40_PICTURES}_"):
                    absent.add(f"{place}/{stem}.jpg")
                continue
            messages = [
                {"role": role, "content": content}
                for pair in ((question, answers[0]), *later)
                for role, content in zip(("user", "assistant"), pair, strict=True)
            ]
            yield (
                by_stem[stem],
                f"/{suffix}",
                {"question": question, "answer": answers[0], "answers": answers, "messages": messages},
            )
        self.missing += sorted(absent - set(self.missing))

    def _unit(
        self,
        name: PictureName,
        picture: Picture,
        form: str | None,
        group: str,
        split: str,
        suffix: str,
        dialogue: dict[str, Any],
    ) -> Unit:
        manipulation, family = MANIPULATIONS[name.type]
        columns = unit_columns(
            label="real" if name.type == REAL_TYPE else "fake",
            group_id=f"{SOURCE_SET}/{group}",
            manipulation=manipulation,
            family=family,
            video_id=f"{SOURCE_SET}/{manipulation}/{'_'.join(name.videos)}",
            target_id=name.target,
            source_id=name.source,
            compression=self.config.compression,
        )
        columns |= {"file_format": form} | dialogue  # the frame number is not published
        identity = stable_id("ddvqa", self.config.compression, split, f"{name.stem}{suffix}")
        return Unit(identity, str(picture), columns)


def _frame_in(place: Path, number: int) -> str | int | None:
    """Return the frame with this number: a file name, or the number itself for a clip; `None` if missing."""
    if not place.is_dir():
        return number if place.is_file() else None
    files = (path.name for path in list_files(place) if is_picture(path) and frame_key(path.name) == number)
    return next(files, None)


def _parse_name(picture: Picture) -> PictureName:
    kind, *videos = picture.stem.split("_")
    if picture.suffix not in (".jpg", ".jpeg", ".png"):
        raise ValueError(
            f"{picture} is not an image of this dataset; expected <type>_<target>[_<source>].jpg. Move it elsewhere."
        )
    if kind not in MANIPULATIONS:
        allowed = ", ".join(f"{digit} ({name})" for digit, (name, _) in MANIPULATIONS.items())
        raise ValueError(f"{picture} starts with type {kind!r}, expected one of {allowed}. Rename or remove it.")
    expected = 1 if kind == REAL_TYPE else 2
    if len(videos) != expected or not all(video.isdigit() for video in videos):
        raise ValueError(
            f"{picture} refers to the videos {videos}, but type {kind} ({MANIPULATIONS[kind][0]}) needs {expected} "
            "numeric video id(s) after the type."
        )
    return PictureName(picture.stem, kind, videos[0], videos[1] if expected == 2 else None)
