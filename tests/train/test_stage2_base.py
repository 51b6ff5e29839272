"""Detector and language model in one folder: each as it was, ready for stage 2."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from deepfake_detectors.module_command import run_command
from deepfake_detectors.train.stage2_base import Stage2BaseArguments, stage2_base
from deepfake_detectors.train.train_sft import train_sft
from support.ddvqa_tree import stems, write_tree
from support.pictures import random_pictures
from support.sft_runs import ON_THIS_MACHINE, parsed, recipe
from support.tiny_models import lvlm_tokenizer, tiny_fakevlm, tiny_lvlm_dfd, tiny_m2f2_det


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    root = tmp_path_factory.mktemp("detectors")
    return {"m2f2_det": tiny_m2f2_det(root / "m2f2_det"), "lvlm_dfd": tiny_lvlm_dfd(root / "lvlm_dfd")}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A causal language model with a tokenizer in the manner of Vicuna's."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = lvlm_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def join(detector, language_model, output):
    options = ["--detector", detector, "--language_model", language_model, "--output", output]
    return run_command(stage2_base, Stage2BaseArguments, [str(option) for option in options])


@pytest.mark.parametrize("family", ["m2f2_det", "lvlm_dfd"])
def test_verdicts_are_the_detectors_and_words_the_language_models(family, detectors, llama, tmp_path):
    base = join(detectors[family], llama, tmp_path / "base")
    joined, processor = AutoModel.from_pretrained(base), AutoProcessor.from_pretrained(base)
    assert joined.can_explain
    assert str(llama) not in (base / "config.json").read_text(), "a folder of this machine"
    pixels = processor(images=random_pictures(3))
    alone = AutoModel.from_pretrained(detectors[family])
    torch.testing.assert_close(joined.detect(**pixels).logits, alone.detect(**pixels).logits, atol=1e-6, rtol=1e-5)

    language = AutoModelForCausalLM.from_pretrained(llama)
    words = language.config.vocab_size
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    with torch.no_grad():
        expected, found = language(input_ids=ids).logits, joined(input_ids=ids).logits
    torch.testing.assert_close(found[..., :words], expected, atol=1e-5, rtol=1e-5)
    assert joined.explain(processor, **pixels, max_new_tokens=2).explanations


def test_llava_brings_its_projector(detectors, tmp_path):
    llava = tiny_fakevlm(tmp_path / "llava")
    LlavaForConditionalGeneration.from_pretrained(llava).save_pretrained(llava)  # as a stock folder
    base = join(detectors["m2f2_det"], llava, tmp_path / "base")
    joined, stock = AutoModel.from_pretrained(base), LlavaForConditionalGeneration.from_pretrained(llava)
    for part in ("multi_modal_projector", "language_model"):
        ours, theirs = (getattr(model.model, part).state_dict() for model in (joined, stock))
        assert all(torch.equal(ours[name][: len(tensor)], tensor) for name, tensor in theirs.items())
    processor = AutoProcessor.from_pretrained(base)
    assert joined.config.image_token_id == stock.config.image_token_index
    assert joined.config.deepfake_token_id == processor.tokenizer.convert_tokens_to_ids("<deepfake>")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [("m2f2_det", "m2f2_det_stage2"), ("lvlm_dfd", "lvlm_dfd_stage2")])
def test_stage_2_runs_on_it(family, name, detectors, llama, tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(6)), stems(range(20, 22)))
    fields = recipe(name, **ON_THIS_MACHINE)
    fields |= {"model_name_or_path": str(join(detectors[family], llama, tmp_path / "base")), "data_dir": str(data)}
    fields |= {"dataset": "ddvqa", "dataset_config": None, "dataset_configs": ["c40_judge"], "max_steps": 1}
    fields |= {"validation_fraction": 0.3, "output_dir": str(tmp_path / "out")}
    assert (train_sft(*parsed(tmp_path, fields)) / "validation.json").is_file()


def test_what_does_not_fit_is_refused(detectors, llama, tmp_path):
    with pytest.raises(ValueError, match=r"'fakevlm'.* m2f2_det, lvlm_dfd"):
        join(tiny_fakevlm(tmp_path / "fakevlm"), llama, tmp_path / "base")
    assert not (tmp_path / "base").exists()
    with pytest.raises(ValueError, match="llama"):
        join(detectors["m2f2_det"], llama, llama)
