"""Mini bases: the form that each family's training starts from, on the words of a data set."""

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from support.ddvqa_tree import stems, write_tree
from support.pictures import random_pictures

pytest.importorskip("trl")
pytest.importorskip("datasets")

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.processing_lvlm_dfd import ANSWER_END
from deepfake_detectors.train.mini.tokenizers import llama_tokenizer
from deepfake_detectors.train.mini_base import main

VERDICT_PARTS = ("vision_tower", "detector")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ddvqa"), stems(range(3)), stems(range(10, 11)))


def build(data, folder, family, *options):
    main([family, "--output", str(folder), "--data-dir", str(data), "--vocabulary", "700", *options])
    return folder


@pytest.fixture(scope="module", params=[name for name, row in FAMILIES.items() if row.mini and row.generation])
def base(request, data, tmp_path_factory):
    return build(data, tmp_path_factory.mktemp(request.param) / "base", request.param)


def loaded(folder):
    checkpoint = open_checkpoint(folder)
    return checkpoint.load_model().eval(), checkpoint.load_processor()


def test_loads_strictly_and_judges_pictures(base):
    model, processor = loaded(base)
    inputs = processor(images=random_pictures(2), return_tensors="pt")
    logits = model.detect(**inputs).logits
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()
    assert type(AutoModelForDeepfakeDetection.from_pretrained(base)).__name__.endswith("ForDeepfakeDetection")


def test_explains_from_a_picture(base):
    model, processor = loaded(base)
    inputs = processor(images=random_pictures(1), return_tensors="pt")
    output = model.explain(processor, max_new_tokens=2, **inputs)
    assert [type(text) for text in output.explanations] == [str]


def test_words_of_the_data_are_known_to_the_tokenizer(base):
    tokenizer = loaded(base)[1].tokenizer
    text = "Does the skin look fake? It is smooth."
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    # A blank is a piece of its own in front of a word that only begins texts.
    assert [word for piece in pieces if (word := piece.strip("▁Ġ"))] == [
        "Does",
        "the",
        "skin",
        "look",
        "fake",
        "?",
        *"It is smooth .".split(),
    ]
    assert tokenizer.decode(tokenizer(f"{text}\n…", add_special_tokens=False).input_ids) == f"{text}\n…"
    assert len(tokenizer) <= 700 + 8


def test_answers_of_lvlm_dfd_end_where_its_training_ends_them(data, tmp_path):
    folder = build(data, tmp_path / "base", "lvlm_dfd")
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model.config.stop_token_id == processor.stop_token_id
    ids = torch.tensor([processor.token_ids(f"It is smooth.{ANSWER_END} Human:")])
    assert processor.decode_answers(ids) == ["It is smooth."]


def test_m2f2_det_takes_over_a_trained_detector_with_its_calibration(data, tmp_path):
    from support.tiny_models import m2f2_det, tiny_m2f2_det

    calibration = {"scale": 1.5, "bias": -0.25}
    source = tiny_m2f2_det(tmp_path / "detector", calibration=calibration, operating_points={"eer": 0.4})
    folder = build(data, tmp_path / "base", "m2f2_det", "--detector", str(source))
    detector, whole = m2f2_det(calibration=calibration), AutoModel.from_pretrained(folder).eval()
    pixels = AutoProcessor.from_pretrained(folder)(images=random_pictures(3))["pixel_values"]
    assert torch.allclose(whole.detect(pixels).logits, detector.detect(pixels).logits, atol=1e-5)
    assert whole.config.calibration == {"scale": 1.0, "bias": 0.0}, "what the language model reads is calibrated"
    assert whole.config.operating_points == {"eer": 0.4}


def test_options_change_the_config_field_by_field(data, tmp_path):
    option = '{"text_config": {"hidden_size": 32}}'
    folder = build(data, tmp_path / "base", "fakevlm", "--model_config", option)
    text = AutoModel.from_pretrained(folder).config.text_config
    assert (text.hidden_size, text.num_hidden_layers) == (32, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sunscreen"], "'sunscreen'.*m2f2_det, fakevlm"),
        (["fakevlm", "--detector", "x"], "detector='x'.*m2f2_det"),
        (["fakevlm", "--model_config", "[1]"], "model_config is .1."),
        (["fakevlm", "--vocabulary", "200"], "vocabulary is 200"),
        (["fakevlm", "--dataset_configs", "c40"], "ddvqa c40 "),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(data, tmp_path, options, message):
    family, *rest = options
    with pytest.raises(ValueError, match=message):
        main([family, "--output", str(tmp_path / "base"), "--data-dir", str(data), *rest])
    assert not (tmp_path / "base").exists()


def test_an_output_in_use_is_left_alone(data, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ValueError, match=str(tmp_path)):
        build(data, tmp_path, "fakevlm")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_pieces_do_not_depend_on_the_text_around_them():
    tokenizer = llama_tokenizer(["the eyes look fake.", "the nose looks real."], 400)
    alone = tokenizer("fake", add_special_tokens=False).input_ids
    assert tokenizer("the eyes look fake", add_special_tokens=False).input_ids[-len(alone) :] == alone
