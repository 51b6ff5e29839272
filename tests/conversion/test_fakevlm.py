"""Conversion of FakeVLM: the original LLaVA layout, the stock one, the stock output, and every wrong source."""

import json
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from deepfake_detectors.conversion import convert
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from support.fakevlm_folders import convert_fakevlm, fakevlm_fields, read_config, write_stock_folder
from support.golden_files import golden_folder
from support.pictures import random_pictures
from support.tiny_models import fakevlm_tokenizer

FOLDER = golden_folder("fakevlm")
GOLDEN = read_config(FOLDER)
WEIGHTS, TOKENIZER = FOLDER / "model_llava_format.safetensors", FOLDER / "tokenizer.json"
FIELDS = fakevlm_fields(GOLDEN)
WORDS = GOLDEN["text_config"]["vocab_size"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert_fakevlm(FOLDER, tmp_path_factory.mktemp("converted") / "ours")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return write_stock_folder(FOLDER, tmp_path_factory.mktemp("stock"))


def keys_of(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sorted(file.keys())


def official_folder(folder, tensors=None, **fields):
    """As the first official code writes it."""
    folder.mkdir()
    text = GOLDEN["text_config"]
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        **GOLDEN["llava_original"],
        **{name: text[name] for name in text if name != "pad_token_id"},
        **fields,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "unk_token": "<unk>"}))
    shutil.copy(TOKENIZER, folder)
    torch.save(tensors or load_file(WEIGHTS), folder / "pytorch_model.bin")
    return folder


def state_of(folder):
    return load_file(folder / "model.safetensors")


def assert_equal_weights(first, second):
    first, second = state_of(first), state_of(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# what fits


def test_official_config_gives_sizes_and_picture_route(converted, tmp_path):
    """A folder with LLaVA's own config.json needs no `config` for the language model's sizes."""
    sizes = {"vision_config": GOLDEN["vision_config"]}
    folder = convert("fakevlm", [official_folder(tmp_path / "official")], tmp_path / "out", config=sizes)
    assert_equal_weights(folder, converted)
    ours, theirs = AutoConfig.from_pretrained(folder), AutoConfig.from_pretrained(converted)
    assert ours.text_config.hidden_size == GOLDEN["text_config"]["hidden_size"]
    assert ours.verdict_tokens == theirs.verdict_tokens
    assert AutoProcessor.from_pretrained(folder).image_aspect == ours.image_aspect == "pad"


@pytest.mark.parametrize(("aspect", "route"), [("pad", "pad"), (None, "crop"), ("square", "crop")])
def test_picture_route_follows_the_official_config(aspect, route, tmp_path):
    source = official_folder(tmp_path / "official", image_aspect_ratio=aspect)
    sizes = {"vision_config": GOLDEN["vision_config"]}
    assert (
        AutoProcessor.from_pretrained(convert("fakevlm", [source], tmp_path / "out", config=sizes)).image_aspect
        == route
    )


def test_names_on_disk_are_those_of_the_released_layout(converted, stock):
    assert keys_of(converted) == keys_of(stock)


def test_added_rows_are_never_the_likeliest(converted):
    model = AutoModel.from_pretrained(converted)
    assert model.config.image_token_index == GOLDEN["hf"]["image_token_index"]
    assert len(model.lm_head.weight) > WORDS
    with torch.no_grad():
        logits = model.lm_head(torch.randn(200, model.config.text_config.hidden_size))
    assert (logits[:, WORDS:].max(1).values < logits[:, :WORDS].max(1).values).all()


def test_tower_from_a_clip_checkpoint(converted, tmp_path):
    tensors = load_file(WEIGHTS)
    prefix = "model.vision_tower.vision_tower."
    tower = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    position_ids = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file({**tower, **position_ids, "text_model.x": torch.zeros(1)}, tmp_path / "clip.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith(prefix)}, tmp_path / "llava.safetensors")
    sources = [tmp_path / "llava.safetensors", tmp_path / "clip.safetensors", TOKENIZER]
    assert_equal_weights(convert("fakevlm", sources, tmp_path / "out", config=FIELDS), converted)


def test_shards_and_old_buffers(converted, tmp_path):
    tensors = load_file(WEIGHTS)
    names = sorted(tensors)
    half = {name: tensors[name] for name in names[::2]}
    half["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_file(half, tmp_path / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, tmp_path / "model-00002-of-00002.safetensors")
    assert_equal_weights(convert("fakevlm", [tmp_path, TOKENIZER], tmp_path / "out", config=FIELDS), converted)


def test_half_precision_stays(tmp_path):
    save_file({k: v.to(torch.bfloat16) for k, v in load_file(WEIGHTS).items()}, tmp_path / "half.safetensors")
    folder = convert("fakevlm", [tmp_path / "half.safetensors", TOKENIZER], tmp_path / "out", config=FIELDS)
    assert AutoModel.from_pretrained(folder).dtype == torch.bfloat16


def test_tokenizer_that_has_the_markers_keeps_them(converted, tmp_path):
    folder = convert("fakevlm", [WEIGHTS, FOLDER / "tokenizer_hf.json"], tmp_path / "out", config=FIELDS)
    ours, theirs = (AutoProcessor.from_pretrained(path) for path in (folder, converted))
    text = "<image>Does the image looks real/fake?\nThis is a fake image."
    assert ours.token_ids(text) == theirs.token_ids(text)
    assert ours.tokenizer.pad_token_id == theirs.tokenizer.pad_token_id == GOLDEN["hf"]["pad_token_id"]


def test_stock_folder_in(stock, tmp_path):
    folder = convert("fakevlm", [stock], tmp_path / "out", config={"prompt_style": "hf_chat"})
    assert_equal_weights(folder, stock)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is FakeVLMForDeepfakeDetection
    assert processor.image_aspect == "crop" and processor.prompt_style == model.config.prompt_style == "hf_chat"


# stock output


@pytest.mark.parametrize("source", ["original", "stock", "ours"])
def test_llava_output_loads_in_the_stock_class(source, converted, stock, tmp_path):
    """Nothing missing, the same logits, the right number of image tokens; so for vLLM, which reads the same files."""
    options = {"prompt_style": "raw", "image_aspect": "pad"}
    if source == "original":
        folder = convert_fakevlm(FOLDER, tmp_path / "out", format="llava", **options)
    else:
        origin = {"stock": stock, "ours": converted}[source]
        folder = convert("fakevlm", [origin], tmp_path / "out", config=options, format="llava")
    ours = convert("fakevlm", [stock], tmp_path / "ours", config=options) if source == "stock" else converted
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model_type"] == "llava" and saved["architectures"] == ["LlavaForConditionalGeneration"]
    assert not {"verdict_tokens", "prompt_style", "calibration"} & saved.keys()
    assert (folder / "preprocessor_config.json").exists()
    theirs, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
    model, processor = AutoModel.from_pretrained(ours), AutoProcessor.from_pretrained(ours)
    plain = AutoProcessor.from_pretrained(folder)
    assert type(plain) is LlavaProcessor
    prompts = [processor.explanation_prompt()] * 2
    inputs = processor(images=random_pictures(2), text=prompts)
    stock_inputs = plain(images=random_pictures(2), text=prompts, return_tensors="pt", padding=True)
    assert torch.equal(inputs["input_ids"], stock_inputs["input_ids"])
    # torchvision against PIL: one grey level (goldens' README)
    assert torch.allclose(inputs["pixel_values"], stock_inputs["pixel_values"], atol=0.03)
    with torch.no_grad():
        assert torch.equal(theirs(**inputs).logits, model(**inputs).logits)
    again = FakeVLMForDeepfakeDetection.from_pretrained(folder)
    assert torch.equal(again.detect(inputs["pixel_values"]).logits, model.detect(inputs["pixel_values"]).logits)


# what does not fit


def refused(tmp_path, sources, message, **options):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        convert("fakevlm", sources, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something was left half-written"
    return str(caught.value)


def saved(tensors, path):
    save_file(tensors, path)
    return path


def test_missing_and_unexpected_keys_are_listed(tmp_path):
    tensors = load_file(WEIGHTS)
    less = saved({k: v for k, v in tensors.items() if k != "model.norm.weight"}, tmp_path / "less.safetensors")
    refused(tmp_path, [less, TOKENIZER], r"1 missing: model\.language_model\.norm\.weight", config=FIELDS)
    more = saved({**tensors, "mystery.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    refused(tmp_path, [more, TOKENIZER], r"key table: mystery\.weight", config=FIELDS)


def test_wrong_sizes_point_to_config(tmp_path):
    message = refused(tmp_path, [WEIGHTS, TOKENIZER], "`config`")
    assert "`config`" in message


def test_no_tower_says_which_file_holds_it(tmp_path):
    tensors = {k: v for k, v in load_file(WEIGHTS).items() if "vision_tower" not in k}
    path = saved(tensors, tmp_path / "blind.safetensors")
    refused(tmp_path, [path, TOKENIZER], "CLIP image tower.*clip-vit-large-patch14-336", config=FIELDS)


def test_foreign_weights(tmp_path):
    path = saved({"encoder.weight": torch.zeros(1)}, tmp_path / "bert.safetensors")
    refused(tmp_path, [path, TOKENIZER], r"LLaVA checkpoint.*encoder\.weight")


def test_stock_weights_without_their_folder(tmp_path, stock):
    refused(tmp_path, [stock / "model.safetensors", TOKENIZER], r"config\.json", config=FIELDS)
    refused(tmp_path, [stock, WEIGHTS], re.escape(stock.name))


def test_no_weights_no_tokenizer_no_sources(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    refused(tmp_path, [folder], "No weights")
    refused(tmp_path, [], "No weights")
    refused(tmp_path, [WEIGHTS, folder], "No tokenizer", config=FIELDS)
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}')
    refused(tmp_path, [WEIGHTS, folder], r"tokenizer\.json .*<s>, </s>, <unk>", config=FIELDS)


def test_a_tokenizer_of_another_model(tmp_path):
    fakevlm_tokenizer(vocabulary=280).save_pretrained(tmp_path / "other")  # its markers lie among the words
    refused(tmp_path, [WEIGHTS, tmp_path / "other"], "do not belong together", config=FIELDS)
    grown = load_file(WEIGHTS)
    rows = {k: v[:100] if v.shape[0] == WORDS else v for k, v in grown.items()}
    path = saved(rows, tmp_path / "short.safetensors")
    refused(tmp_path, [path, TOKENIZER], r"tokens, but the checkpoint has 100 rows \(none for", config=FIELDS)


def test_another_projector(tmp_path):
    folder = official_folder(tmp_path / "official", mm_projector_type="linear")
    refused(tmp_path, [folder], "'linear', expected 'mlp2x_gelu'")


def test_twice_the_same(tmp_path):
    refused(tmp_path, [WEIGHTS, WEIGHTS, TOKENIZER], "lm_head.weight", config=FIELDS)


def test_pickles_that_run_code_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    torch.save({"state": Bomb()}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, [tmp_path / "pytorch_model.bin", TOKENIZER], "could not be read safely")


def test_options(tmp_path):
    refused(tmp_path, [WEIGHTS, TOKENIZER], "'hf', allowed are 'fakevlm', 'llava'", config=FIELDS, format="hf")
    refused(tmp_path, [WEIGHTS, TOKENIZER], "fakevlm has no option variant; it has config, format", variant="bridge")
    with pytest.raises(ValueError, match="m2f2_det has no option format"):
        convert("m2f2_det", [], tmp_path / "out", format="llava")


def test_a_candidate_of_several_tokens(tmp_path):
    state = json.loads(TOKENIZER.read_text())
    merges = state["model"]["merges"]
    state["model"]["merges"] = [m for m in merges if "".join(m if isinstance(m, list) else m.split(" ")) != "▁fake"]
    assert len(state["model"]["merges"]) < len(merges)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    refused(tmp_path, [WEIGHTS, tmp_path / "tokenizer.json"], r"'fake' is \d tokens .* verdict_prefix", config=FIELDS)
