"""Optimisers and schedules of the papers, alone and in the training loop."""

import pytest
import torch

from deepfake_detectors.train.optimization import epoch_cosine, schedule_options
from deepfake_detectors.train.train_classifier import build_trainer
from support.antifakeprompt_folders import read_config
from support.classifier_runs import logged, parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.golden_files import golden_folder
from support.sft_runs import recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)


def test_epoch_cosine_gives_the_official_table():
    table = read_config(golden_folder("antifakeprompt"))["lr_schedule_epoch_step"]
    rates = {tuple(map(int, place.split(","))): rate for place, rate in table.items()}
    per_epoch = max(step for _, step in rates) + 1
    official = recipe("antifakeprompt")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=official["learning_rate"])
    options = schedule_options("epoch_cosine", official["lr_scheduler_kwargs"])
    schedule = epoch_cosine(optimizer, official["learning_rate"], per_epoch, official["num_train_epochs"], **options)
    found = {}
    for step in range(per_epoch * official["num_train_epochs"]):
        found[divmod(step, per_epoch)] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert {place: found[place] for place in rates} == pytest.approx(rates, rel=1e-9, abs=0)


def test_epoch_cosine_follows_the_epochs_of_the_run(data, tmp_path):
    """34 pictures or so in batches of 4, two of them per step: the last step of an epoch is a short one."""
    fields = small_fields(
        "antifakeprompt", data, tmp_path / "out", num_train_epochs=2, gradient_accumulation_steps=2, learning_rate=0.01
    )
    trainer, _ = build_trainer(*parsed(tmp_path, fields))
    trainer.train()
    batches = -(-len(trainer.train_dataset) // 4)
    steps = -(-batches // 2)
    expected = [1e-8] + [0.01] * (steps - 1) + [0.005] * steps
    assert logged(trainer, "learning_rate") == pytest.approx(expected)


def test_plateau_watches_the_loss_while_auc_picks_the_best(data, tmp_path):
    plateau = {"mode": "min", "factor": 0.5, "patience": 0, "cooldown": 0, "min_lr": 0.001, "threshold": 0.9}
    fields = small_fields(
        "m2f2_det_stage1_bridge",
        data,
        tmp_path / "out",
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=0.01,
        learning_rates={"detector.text_alpha": 0.3},
        lr_scheduler_kwargs=plateau,
    )
    trainer, _ = build_trainer(*parsed(tmp_path, fields))
    trainer.train()
    losses, rate, best, expected = logged(trainer, "eval_loss"), 0.01, float("inf"), []
    for loss in losses:
        expected.append(rate)
        # Nothing short of a tenth counts as better: every evaluation but the first halves the rate.
        rate, best = (rate, loss) if loss < best * (1 - 0.9) else (max(rate / 2, 0.001), best)
    assert expected[1] == 0.01 > expected[3]
    assert logged(trainer, "learning_rate") == pytest.approx(expected)
    first, second = (group["lr"] for group in trainer.optimizer.param_groups)
    assert first == pytest.approx(rate)
    assert second == pytest.approx(0.3 * 0.5 ** (len(losses) - 1))  # the alpha's own rate falls alike
    assert trainer.state.best_metric == max(logged(trainer, "eval_auc"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamm"}, "optimizer is 'adamm', allowed are adam"),
        ({"lr_schedule": "cosine"}, "lr_schedule is 'cosine', allowed are epoch_cosine"),
        ({"lr_scheduler_kwargs": {"min": 1.0}}, "min; epoch_cosine .*min_lr, start_lr"),
        ({"push_to_hub": True, "hub_strategy": "every_save"}, "hub_strategy is 'every_save'"),
        ({"push_to_hub": True}, "is a local folder"),
    ],
)
def test_wrong_settings(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        build_trainer(*parsed(tmp_path, small_fields("antifakeprompt", data, tmp_path / "out", **changes)))
    assert not (tmp_path / "out").exists()


def test_unknown_plateau_metric(data, tmp_path):
    changes = {"plateau_metric": "f1", "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    trainer, _ = build_trainer(
        *parsed(tmp_path, small_fields("m2f2_det_stage1_bridge", data, tmp_path / "out", **changes))
    )
    with pytest.raises(ValueError, match=r"'f1'.*eval_loss"):
        trainer.train()
