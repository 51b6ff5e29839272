import numpy as np
import pytest

from deepfake_detectors.evaluation.videos import (
    AGGREGATIONS,
    aggregate_videos,
    best_threshold_accuracy,
    official_video_metrics,
    video_metrics,
)


def frames_of(lengths, labels, seed=0):
    """Frames of videos v0, v1 ... with noisy scores around their label."""
    generator = np.random.default_rng(seed)
    videos, truth, scores = [], [], []
    for number, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        videos += [f"v{number}"] * length
        truth += [label] * length
        scores += np.clip(generator.normal(0.3 + 0.4 * label, 0.2, length), 0, 1).tolist()
    return videos, truth, scores


def test_aggregations_counted_by_hand():
    videos, labels = ["b"] * 21 + ["a"] * 22, [1] * 21 + [0] * 22
    scores = np.linspace(0, 1, 21).tolist() + [0.0] * 21 + [1.0]
    pooled = {name: aggregate_videos(videos, labels, scores, name)[2].tolist() for name in AGGREGATIONS}
    assert pooled["mean"] == pytest.approx([1 / 22, 0.5])
    assert pooled["max"] == [1.0, 1.0]
    assert pooled["top_k"] == pytest.approx([0.2, 0.9])
    assert pooled["trimmed"] == pytest.approx([0.0, 0.5])


def test_order_of_frames_does_not_matter():
    videos, labels, scores = frames_of([25, 30, 21, 40], [0, 1, 1, 0])
    order = np.random.default_rng(1).permutation(len(videos))
    shuffled = [np.array(values, dtype=object)[order].tolist() for values in (videos, labels, scores)]
    assert video_metrics(*shuffled) == video_metrics(videos, labels, scores)


def test_intervals_draw_videos_and_their_groups():
    videos, labels, scores = frames_of([25] * 24, [0, 1] * 12)
    scores = np.array(scores)
    alone = video_metrics(videos, labels, scores, resamples=200)["mean"]["metrics"]
    groups = [f"g{int(video[1:]) // 8}" for video in videos]
    together = video_metrics(videos, labels, scores, groups=groups, resamples=200)["mean"]["metrics"]
    assert alone["brier"]["value"] == together["brier"]["value"]
    for found in (alone, together):
        for name in ("auc", "accuracy", "brier"):
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
    assert alone["brier"] != together["brier"]
    # Of 24 videos, not of 600 frames.
    _, truth, pooled = aggregate_videos(videos, labels, scores)
    errors = (pooled - truth) ** 2
    assert (alone["brier"]["high"] - alone["brier"]["low"]) / 2 == pytest.approx(
        1.96 * errors.std() / np.sqrt(24), rel=0.3
    )


def test_short_videos_cannot_be_trimmed_but_averaged():
    videos, labels, scores = frames_of([25, 20], [0, 1])
    found = video_metrics(videos, labels, scores)
    assert "1 of 2 videos have 20 frames or fewer" in found["trimmed"]["unavailable"]
    assert found["mean"]["metrics"]["auc"]["value"] == 1.0
    with pytest.raises(ValueError, match="video v1 has 20 frames"):
        aggregate_videos(videos, labels, scores, "trimmed")


def test_published_aggregation_of_short_videos_is_said_not_scored():
    result = official_video_metrics(*frames_of([20, 25, 25], [0, 1, 0]))
    assert result.value("auc") is None and result.value("best_threshold_accuracy") is None
    assert "1 of 2 videos have 20 frames or fewer" in result.undefined["auc"]


def test_published_labels_can_make_a_two_class_set_one_class():
    # Of fake, real, real the last video is dropped, and the labels that remain are those of the last two.
    result = official_video_metrics(*frames_of([25, 25, 25], [0, 1, 1]))
    assert "no fake image" in result.undefined["auc"]
    assert result.value("best_threshold_accuracy") == 1.0


@pytest.mark.parametrize(
    ("videos", "message"),
    [(["a", "b", "c"], "the 3 images"), (["a", "a", None], "1 of 3 .*video_id")],
)
def test_set_without_videos(videos, message):
    for function in (video_metrics, official_video_metrics):
        with pytest.raises(ValueError, match=message):
            function(videos, [0, 0, 1], [0.1, 0.2, 0.3])


def test_video_with_two_labels():
    with pytest.raises(ValueError, match="video a has frames of both labels"):
        aggregate_videos(["a", "a"], [0, 1], [0.1, 0.2])


def test_best_threshold_is_no_worse_than_any_other():
    _, labels, scores = frames_of([40, 40], [0, 1])
    best = best_threshold_accuracy(labels, scores)
    grid = [np.mean((np.array(scores) >= cut) == np.array(labels)) for cut in np.linspace(0, 1, 101)]
    assert best == pytest.approx(max(best, max(grid)))
    assert best > np.mean((np.array(scores) >= 0.2) == np.array(labels))
