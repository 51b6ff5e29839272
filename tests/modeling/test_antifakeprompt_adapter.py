"""The learned words as a folder of their own: saved, loaded on a base, pushed; and as PEFT adapters."""

import base64
import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, InstructBlipForConditionalGeneration, pipeline

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.conversion.antifakeprompt_peft import export_peft, import_peft
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE, save_soft_words
from support.pictures import random_pictures
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    tiny_antifakeprompt,
    tiny_instructblip,
)

FULL_SIZE_LIMIT = 24_000  # bytes, of the weights file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_instructblip(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """Words on the stock base; made from words alone, as the converter does."""
    folder = tmp_path_factory.mktemp("adapter")
    trained = antifakeprompt(seed=3)
    save_soft_words({n: w.detach() for n, w in trained.soft_words().items()}, trained.config, str(base), folder)
    antifakeprompt_processor().save_settings(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(adapter):
    return AutoModel.from_pretrained(adapter)


@pytest.fixture(scope="module")
def pixels():
    return antifakeprompt_processor()(images=random_pictures(3))["pixel_values"]


def test_adapter_is_two_files_and_settings(adapter):
    assert {file.name for file in adapter.iterdir()} == {"config.json", ADAPTER_FILE, "processor_config.json"}
    assert set(load_file(adapter / ADAPTER_FILE)) == {"qformer_soft_word", "llm_soft_word"}


def test_full_size_words_are_some_20_kilobytes(tmp_path):
    from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig

    config = AntifakePromptConfig()
    widths = {
        "qformer_soft_word": config.qformer_config.hidden_size,
        "llm_soft_word": config.text_config.hidden_size,
    }
    save_soft_words({name: torch.zeros(1, width) for name, width in widths.items()}, config, "a/base", tmp_path)
    assert 4 * sum(widths.values()) < (tmp_path / ADAPTER_FILE).stat().st_size < FULL_SIZE_LIMIT


def test_adapter_is_the_base_with_the_words(loaded, base, adapter):
    stock = InstructBlipForConditionalGeneration.from_pretrained(base).state_dict()
    ours = loaded.state_dict()
    words = load_file(adapter / ADAPTER_FILE)
    assert all(torch.equal(ours[name], tensor) for name, tensor in stock.items())
    assert set(ours) - set(stock) == {name for name in ours if name.endswith(".soft_word")}
    assert all(torch.equal(word, words[name]) for name, word in loaded.soft_words().items())
    assert loaded.config.vision_config.hidden_size == stock["query_tokens"].shape[-1] + 8  # the base's own sizes


def test_ids_follow_the_tokenizers_of_the_base(loaded, adapter, base):
    processor = AutoProcessor.from_pretrained(adapter)
    assert loaded.config.llm_soft_word_id == processor.tokenizer.convert_tokens_to_ids("[*]")
    assert loaded.config.image_token_index == processor.tokenizer.convert_tokens_to_ids("<image>")
    assert loaded.config.image_token_index != loaded.config.llm_soft_word_id
    fields = processor.prompt_fields()
    assert {name: getattr(loaded.config, name) for name in fields} == fields


def test_adapter_save_equals_load(loaded, adapter, pixels, tmp_path):
    processor = AutoProcessor.from_pretrained(adapter)
    loaded.save_adapter(tmp_path / "again", processor)
    again = AutoModelForDeepfakeDetection.from_pretrained(tmp_path / "again")
    assert torch.equal(again.detect(pixels).logits, loaded.detect(pixels).logits)
    found = AutoProcessor.from_pretrained(tmp_path / "again")
    assert found.prompt_fields() == processor.prompt_fields()
    assert found.image_processor.to_dict() == processor.image_processor.to_dict()


def test_full_save_of_a_loaded_adapter_stands_alone(loaded, pixels, tmp_path):
    loaded.save_pretrained(tmp_path)
    assert loaded.config.base_model_name_or_path is not None
    assert json.loads((tmp_path / "config.json").read_text()).get("base_model_name_or_path") is None
    assert torch.equal(AutoModel.from_pretrained(tmp_path).detect(pixels).logits, loaded.detect(pixels).logits)


def test_adapter_on_a_full_checkpoint(tmp_path, pixels):
    tiny_antifakeprompt(tmp_path / "full")
    other = antifakeprompt(seed=3)
    other.save_adapter(tmp_path / "words", antifakeprompt_processor(), tmp_path / "full")
    loaded = AutoModel.from_pretrained(tmp_path / "words")
    expected = AutoModel.from_pretrained(tmp_path / "full")
    with torch.no_grad():
        for name, word in expected.soft_words().items():
            word.copy_(other.soft_words()[name])
    assert torch.equal(loaded.detect(pixels).logits, expected.detect(pixels).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_words_stay_float32_on_a_half_precision_base(adapter, dtype, tmp_path):
    half, words = AutoModel.from_pretrained(adapter, dtype=dtype), load_file(adapter / "soft_words.safetensors")
    assert {weight.dtype for weight in half.parameters() if weight.shape[0] != 1} == {dtype}

    half.save_pretrained(tmp_path / "whole")
    half.save_adapter(tmp_path / "words", antifakeprompt_processor())
    assert load_file(tmp_path / "words" / "soft_words.safetensors").keys() == words.keys()
    for model in (half, AutoModel.from_pretrained(tmp_path / "whole"), AutoModel.from_pretrained(tmp_path / "words")):
        assert {name: word.dtype for name, word in model.soft_words().items()} == dict.fromkeys(words, torch.float32)
        assert all(torch.equal(word, words[name]) for name, word in model.soft_words().items())


def test_pipeline_takes_an_adapter(adapter, loaded):
    judge = pipeline("deepfake-detection", model=str(adapter))
    picture = random_pictures(1)[0]
    inputs = judge.processor(images=picture)
    expected = loaded.detect(**inputs).fake_probability.item()
    assert judge(picture)["fake_probability"] == pytest.approx(expected, abs=1e-6)


def test_one_sided_adapter(base, tmp_path, pixels):
    model = antifakeprompt(soft_word_sides="llm")
    model.save_adapter(tmp_path, antifakeprompt_processor(soft_word_sides="llm"), base)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert set(loaded.soft_words()) == {"llm_soft_word"}
    assert loaded.detect(pixels).logits.isfinite().all()


# wrong adapters


def rewritten(adapter, folder, change):
    folder.mkdir()
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    words = load_file(folder / ADAPTER_FILE)
    change(words)
    save_file(words, folder / ADAPTER_FILE)
    return folder


def test_a_missing_word_is_refused(adapter, tmp_path):
    folder = rewritten(adapter, tmp_path / "words", lambda words: words.pop("llm_soft_word"))
    with pytest.raises(ValueError, match=r"words qformer_soft_word.*needs llm_soft_word, qformer_soft_word"):
        AutoModel.from_pretrained(folder)


def test_words_of_another_base_are_refused(adapter, tmp_path):
    folder = rewritten(adapter, tmp_path / "words", lambda words: words.update(llm_soft_word=torch.zeros(1, 9)))
    with pytest.raises(ValueError, match=r"\(1, 9\), but its base needs \(1, 32\)"):
        AutoModel.from_pretrained(folder)


def test_a_base_of_another_kind_is_refused(adapter, tmp_path):
    from transformers import CLIPVisionConfig

    CLIPVisionConfig().save_pretrained(tmp_path / "clip")
    folder = rewritten(adapter, tmp_path / "words", lambda words: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "clip")}))
    with pytest.raises(ValueError, match=r"clip_vision_model.*full InstructBLIP"):
        AutoModel.from_pretrained(folder)


def test_an_incomplete_base_is_refused(adapter, base, tmp_path):
    broken = tmp_path / "base"
    for file in [path for path in base.rglob("*") if path.is_file()]:
        target = broken / file.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    del tensors["query_tokens"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    folder = rewritten(adapter, tmp_path / "words", lambda words: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(broken)}))
    with pytest.raises(ValueError, match="query_tokens"):
        AutoModel.from_pretrained(folder)


def test_saving_without_a_base_is_refused(tmp_path):
    with pytest.raises(ValueError, match="base_model_name_or_path"):
        antifakeprompt().save_adapter(tmp_path)


# push


class Hub(BaseHTTPRequestHandler):
    """The three calls of an upload; keeps the files."""

    files: dict = {}

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self._answer({"id": "me/words", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body, where = self._body(), f"http://{self.headers['Host']}/me/words"
        if self.path.endswith("/repos/create"):
            self._answer({"url": where, "name": "me/words", "id": "0"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{where}/commit/0", "commitOid": "0" * 40, "success": True})
        else:
            self._answer({}, 404)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.files
    server.shutdown()
    server.server_close()


def test_push_of_the_words_alone(hub, base, tmp_path, pixels, monkeypatch):
    endpoint, files = hub
    model, processor = antifakeprompt(), antifakeprompt_processor()
    model.push_adapter_to_hub("me/words", processor, "some/base", token="dummy", endpoint=endpoint)
    assert set(files) == {"config.json", ADAPTER_FILE, "processor_config.json"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    config = json.loads(files["config.json"])
    assert config["base_model_name_or_path"] == "some/base"
    (tmp_path / "config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    found = AutoModel.from_pretrained(tmp_path).soft_words()
    assert all(torch.equal(word, found[name]) for name, word in model.soft_words().items())


def test_push_on_a_local_base_is_refused(base):
    with pytest.raises(ValueError, match="Hub id"):
        antifakeprompt().push_adapter_to_hub("me/words", base_model_name_or_path=str(base))


# PEFT


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    export_peft(loaded, folder)
    return folder


def test_peft_loads_the_export_on_a_stock_base(exported, loaded, base, pixels):
    from peft import PeftModel

    stock = InstructBlipForConditionalGeneration.from_pretrained(base)
    stock.vision_model.post_layernorm.eps = loaded.config.ln_vision_eps
    config = loaded.config
    stock.resize_token_embeddings(max(config.llm_soft_word_id + 1, config.text_config.vocab_size), mean_resizing=False)
    stock.qformer.resize_token_embeddings(config.qformer_soft_word_id + 1, mean_resizing=False)
    stock.language_model = PeftModel.from_pretrained(stock.language_model, str(exported / "language_model"))
    stock.qformer = PeftModel.from_pretrained(stock.qformer, str(exported / "qformer"))
    lead = [config.image_token_index] * config.num_query_tokens
    with torch.no_grad():
        logits = stock(
            pixel_values=pixels,
            qformer_input_ids=torch.tensor([config.qformer_prompt_ids] * 3),
            input_ids=torch.tensor([[*lead, *config.llm_prompt_ids]] * 3),
        ).logits[:, -1, [ids[0] for ids in config.candidate_ids]]
    assert torch.allclose(logits, loaded.detect(pixels).logits, atol=1e-4)


def test_peft_import_restores_the_words(exported, loaded):
    other = copy.deepcopy(loaded)
    with torch.no_grad():
        for word in other.soft_words().values():
            word.zero_()
    import_peft(other, exported)
    found = loaded.soft_words()
    assert all(torch.equal(word, found[name]) for name, word in other.soft_words().items())


def test_wrong_peft_folders_are_refused(exported, loaded, tmp_path):
    with pytest.raises(ValueError, match="lacks llm_soft_word, qformer_soft_word"):
        import_peft(loaded, tmp_path)
    other = copy.deepcopy(loaded)
    other.config.llm_soft_word_id = 5
    with pytest.raises(ValueError, match=r"learned word of this model is \[5\]"):
        import_peft(other, exported)
    narrow = tmp_path / "narrow"
    (narrow / "qformer").mkdir(parents=True)
    (narrow / "qformer" / "adapter_config.json").write_bytes(
        (exported / "qformer" / "adapter_config.json").read_bytes()
    )
    save_file({"stranger": torch.zeros(1, 2)}, narrow / "qformer" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="stranger"):
        import_peft(loaded, narrow)
