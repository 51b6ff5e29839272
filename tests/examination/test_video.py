"""Frames by time: which ones, upright, of every container; and files that are not what they say."""

import os
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from deepfake_detectors.examination.video import VideoError, is_video, probe, sample_frames
from support.clips import frame_number, numbered, write_clip, write_sound

KEY = "76a6c65c5ea762046bd749a2e632ccbb"


def numbers(path, *arguments, **options):
    return [frame_number(frame.image) for frame in sample_frames(path, *arguments, **options)]


def test_frames_are_spread_from_the_first_to_the_last(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 50)
    found = list(sample_frames(clip, 8))
    assert [frame.index for frame in found] == [frame_number(frame.image) for frame in found]
    assert [frame.index for frame in found] == [0, 7, 14, 21, 28, 35, 42, 49]
    assert [frame.seconds for frame in found] == pytest.approx([index / 25 for index in range(0, 50, 7)])


def test_one_frame_is_the_first_and_a_short_video_gives_what_it_has(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 5)
    assert numbers(clip, 1) == [0]
    assert numbers(clip, 32) == [0, 1, 2, 3, 4]
    assert numbers(write_clip(tmp_path / "b.mp4", 1), 32) == [0]


def test_every_start_and_end(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 50)
    assert numbers(clip, every=0.4) == [0, 10, 20, 30, 40]
    assert numbers(clip, every=0.4, start=0.2) == [5, 15, 25, 35, 45]
    assert numbers(clip, 3, start=0.4, end=1.2) == [10, 20, 30]
    assert numbers(clip, 2, start=1.0, end=99) == [25, 49]


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"every": 0}, {"start": -1}, {"start": 1, "end": 1}, {"frames": True}]
)
def test_impossible_options_are_refused_before_the_file_is_opened(tmp_path, options):
    with pytest.raises(ValueError, match=str(list(options.values())[-1])):
        sample_frames(tmp_path / "missing.mp4", **options)


def test_a_start_beyond_the_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="50"):
        list(sample_frames(write_clip(tmp_path / "a.mp4", 10), start=50))


def test_of_a_variable_rate_the_frame_on_screen_is_taken(tmp_path):
    # Ten frames in 0.4 s, then ten in 4 s: evenly in time, the slow part gives most.
    ticks = [40 * number for number in range(10)] + [400 + 400 * number for number in range(10)]
    clip = write_clip(tmp_path / "a.mp4", 20, ticks=ticks)
    moments = [0.0, 1.0, 2.0, 3.0]
    on_screen = [max(n for n in range(20) if ticks[n] / 1000 <= moment) for moment in moments]
    found = list(sample_frames(clip, every=1.0))
    assert [frame_number(frame.image) for frame in found] == on_screen
    assert [frame.seconds for frame in found] == pytest.approx([ticks[n] / 1000 for n in on_screen])
    assert all(first.index < second.index for first, second in pairwise(found))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mov", "libx264"),
        (".mkv", "libx264"),
        (".webm", "libvpx"),
        (".avi", "mpeg4"),
        (".ts", "libx264"),
        (".flv", "flv1"),
        (".wmv", "msmpeg4v2"),
        (".h264", "libx264"),
    ],
)
def test_containers(tmp_path, suffix, codec):
    clip = write_clip(tmp_path / f"a{suffix}", 50, codec=codec)
    assert is_video(clip)
    assert probe(clip)["duration"] == pytest.approx(2.0, abs=0.05)
    assert numbers(clip, 5) == pytest.approx([0, 12, 24, 36, 49], abs=1)


@pytest.mark.parametrize(("rotation", "place"), [(90, (5, 154)), (-90, (90, 5)), (180, (154, 90))])
def test_rotation_is_applied(tmp_path, rotation, place):
    """The corner that lies at the top left of the stored frame comes to lie where a player shows it."""

    def marked(number, size):
        picture = Image.new("RGB", size, (20, 20, 20))
        picture.paste((250, 250, 250), (0, 0, 40, 40))
        return picture

    clip = write_clip(tmp_path / "a.mp4", 5, rotation=rotation, picture=marked)
    image = next(sample_frames(clip, 1)).image
    upright = (96, 160) if rotation % 180 else (160, 96)
    assert image.size == upright == (probe(clip)["width"], probe(clip)["height"])
    assert image.getpixel(place)[0] > 200
    assert sum(np.asarray(image.resize((2, 2), Image.Resampling.BOX))[..., 0].ravel() > 60) == 1


def test_jumping_gives_the_frames_that_reading_gives(tmp_path):
    """Frames far apart are sought, near ones read; both must be the same, with rare key frames and frequent ones."""
    for key_every in (5, 250):
        clip = write_clip(tmp_path / f"{key_every}.mp4", 600, key_every=key_every)
        far = {frame.index: frame_number(frame.image) for frame in sample_frames(clip, every=4.0)}
        assert far == {index: index % 60 for index in range(0, 600, 100)}


@pytest.mark.parametrize(("suffix", "options"), [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
def test_moving_pictures_are_videos(tmp_path, suffix, options):
    path = tmp_path / f"a.{suffix}"
    frames = [numbered(number) for number in range(10)]
    lasting = [100] * 5 + [300] * 5
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=lasting, **options)
    assert is_video(path)
    facts = probe(path)
    assert (facts["frames"], facts["duration"], facts["width"]) == (10, pytest.approx(2.0), 160)
    assert numbers(path, every=0.5) == [0, 5, 6, 8]
    numbered(0).save(tmp_path / f"still.{suffix}")
    assert not is_video(tmp_path / f"still.{suffix}")


def test_what_is_a_video_is_seen_by_content(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 5)
    assert is_video(clip.rename(tmp_path / "a.jpg"))
    numbered(0).save(tmp_path / "b.jpg")
    assert not is_video((tmp_path / "b.jpg").rename(tmp_path / "b.mp4"))
    (tmp_path / "text.txt").write_text("no video")
    assert not is_video(tmp_path / "text.txt")
    assert not is_video(tmp_path / "missing.mp4")


def broken(tmp_path, kind):
    path = tmp_path / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(os.urandom(5000))
    elif kind == "without its index":
        content = write_clip(path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "sound":
        write_sound(path)
    elif kind == "playlist":
        clip = write_clip(tmp_path / "secret.ts")
        path.write_text(f"#EXTM3U\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n")
    elif kind == "encrypted":
        key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}
        write_clip(path, options=key)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind", ["empty", "noise", "without its index", "sound", "playlist", "encrypted", "folder", "missing"]
)
def test_files_that_cannot_be_examined(tmp_path, kind):
    path = broken(tmp_path, kind)
    assert is_video(path) == (kind not in ("folder", "missing"))
    for read in (probe, lambda path: list(sample_frames(path))):
        with pytest.raises(VideoError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert caught.value.source == str(path)
        assert isinstance(caught.value, ValueError)


def test_encrypted_files_are_called_so(tmp_path):
    with pytest.raises(VideoError, match="encrypted"):
        probe(broken(tmp_path, "encrypted"))


def test_a_file_cut_short_gives_what_it_has_and_says_where_it_ends(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 250, options={"movflags": "faststart"})
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 7 // 10])
    found = []
    with pytest.raises(VideoError, match="end=") as caught:
        for frame in sample_frames(clip, 10):
            found.append(frame)
    assert 3 <= len(found) < 10
    end = float(str(caught.value).partition("end=")[2].rstrip("."))
    assert len(list(sample_frames(clip, 10, end=end))) == 10


def test_a_header_that_claims_more_pixels_than_are_read_is_refused(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setattr("deepfake_detectors.examination.video.MAX_FRAME_PIXELS", 160 * 96 - 1)
    with pytest.raises(VideoError, match="160x96"):
        probe(clip)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert is_video(clip)
    with pytest.raises(ImportError, match=r"\[video\]"):
        probe(clip)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_moving_pictures_have_the_limit_of_pictures(tmp_path, suffix):
    frames = [Image.new("RGB", (40, 40), (shade, 90, 200)) for shade in (10, 120, 230)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert not is_video(path, max_pixels=1000)  # and as a picture it is refused
    for look in (probe, lambda *given, **limit: list(sample_frames(*given, **limit))):
        with pytest.raises(VideoError, match="max_pixels"):
            look(path, max_pixels=1000)
    assert is_video(path, max_pixels=4000)
    assert len(list(sample_frames(path, max_pixels=4000))) == 3
