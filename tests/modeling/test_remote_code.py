"""Published folders of every family and class, from a Hub on loopback: with this package, without it, and as stock."""

import importlib
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoProcessor, pipeline

import deepfake_detectors
from deepfake_detectors.hub.models import publish_model
from deepfake_detectors.loading import open_checkpoint
from support.hub_server import use_hub
from support.pictures import random_pictures
from support.source_tree import ROOT
from support.tiny_clip_probe import tiny_clip_probe, tiny_int8_clip_probe
from support.tiny_models import (
    antifakeprompt,
    antifakeprompt_processor,
    tiny_antifakeprompt,
    tiny_chat_vlm,
    tiny_fakevlm,
    tiny_instructblip,
    tiny_lvlm_dfd,
    tiny_lvlm_dfd_llm,
    tiny_m2f2_det,
    tiny_m2f2_det_llm,
)
from support.without_package import run_without_package, site_without_package

WHOLE = {
    "m2f2_det-cosine": tiny_m2f2_det,
    "m2f2_det-bridge": lambda folder: tiny_m2f2_det(folder, variant="bridge"),
    "m2f2_det-llm": tiny_m2f2_det_llm,
    "fakevlm": tiny_fakevlm,
    "antifakeprompt": tiny_antifakeprompt,
    "lvlm_dfd": tiny_lvlm_dfd,
    "lvlm_dfd-llm": tiny_lvlm_dfd_llm,
    "clip_probe": tiny_clip_probe,
    "clip_probe-int8": tiny_int8_clip_probe,
    "chat_vlm": tiny_chat_vlm,
}
LANGUAGE_MODEL = r".*language_model.*\.(q_proj|v_proj)"
# PEFT adapters: base, what gets LoRA, and what is trained whole beside it, as in the recipes.
LORA = {
    "fakevlm-lora": ("fakevlm", LANGUAGE_MODEL, None),
    "m2f2_det-lora": ("m2f2_det-llm", LANGUAGE_MODEL, ["multi_modal_projector", "deepfake_projector"]),
    "lvlm_dfd-lora": ("lvlm_dfd-llm", LANGUAGE_MODEL, ["prompt_learner"]),
    "lvlm_dfd-verdict-lora": ("lvlm_dfd", r".*vision_model.*\.(fc1|fc2)", ["classifier"]),
}
ADAPTERS = ("antifakeprompt-words", *LORA)
CLASSIFIERS = ("m2f2_det-cosine", "m2f2_det-bridge", "m2f2_det-llm", "clip_probe", "clip_probe-int8")
TOKENS = 6

JUDGE = f"""
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

repo, picture = arguments
model = AutoModel.from_pretrained(repo, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
judge = pipeline("deepfake-detection", model=repo, trust_remote_code=True)
assert type(judge).__module__.startswith("transformers_modules."), type(judge).__module__
base = judge.model.name_or_path if "lora" in repo else repo  # an adapter's processor is its base's
processor = AutoProcessor.from_pretrained(base, trust_remote_code=True)
inputs = processor(images=Image.open(picture), return_tensors="pt")
options = {{"explain": True, "generate_kwargs": {{"max_new_tokens": {TOKENS}}}}} if model.can_explain else {{}}
row = judge(picture, **options)
answer = {{"logits": model.detect(**inputs).logits.tolist(), "row": {{k: row[k] for k in row if k != "mask"}}}}
"""

AS_LLAVA = """
from PIL import Image

repo, picture, code = arguments
exec(code)  # as the card has it
text = "<image>Does the image looks real/fake?"
inputs = processor(images=Image.open(picture), text=text, return_tensors="pt")
model.eval()
answer = {"logits": model(**inputs).logits[0, -1].tolist(), "ids": inputs["input_ids"].tolist()}
"""

AS_CLASSIFIER = """
from transformers import pipeline

repo, picture = arguments
rows = pipeline("image-classification", model=repo, trust_remote_code=True)(picture)
answer = {row["label"]: row["score"] for row in rows}
"""


def save_words(folder: Path) -> Path:
    words = antifakeprompt(seed=3)
    words.save_adapter(folder, antifakeprompt_processor(), "tester/instructblip")
    return folder


def save_lora(folder: Path, base: Path, targets: str, whole: list[str] | None) -> Path:
    """An adapter as trainings write it: its base is a local folder."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=targets, modules_to_save=whole)
    tuned = get_peft_model(AutoModel.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def hub(place):
    """Everything published, by the very command's function."""
    with ExitStack() as stack:
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        server = stack.enter_context(use_hub(monkeypatch, place / "home"))
        for name, build in WHOLE.items():
            publish_model(build(place / name), f"tester/{name}", without_results=True)
        HfApi().create_repo("tester/instructblip")
        HfApi().upload_folder(repo_id="tester/instructblip", folder_path=tiny_instructblip(place / "instructblip"))
        publish_model(save_words(place / "antifakeprompt-words"), "tester/antifakeprompt-words", without_results=True)
        for name, (base, targets, whole) in LORA.items():
            lora = save_lora(place / name, place / base, targets, whole)
            publish_model(lora, f"tester/{name}", base=f"tester/{base}@main", without_results=True)
        yield server


@pytest.fixture(scope="module")
def picture(place):
    random_pictures(1)[0].save(place / "picture.png")
    return place / "picture.png"


@pytest.fixture(scope="module")
def elsewhere(hub, place, picture):
    """What processes find that have only the Hub."""
    programs = {name: (JUDGE, f"tester/{name}", picture) for name in (*WHOLE, *ADAPTERS)}
    card = hub.repository("model", "tester/fakevlm").files["README.md"].decode()
    (code,) = re.findall(r"```python\n(from transformers import LlavaFor.*?)```", card, re.DOTALL)
    programs["as llava"] = (AS_LLAVA, "tester/fakevlm", picture, code)
    for name in CLASSIFIERS:
        programs[f"{name} as classifier"] = (AS_CLASSIFIER, f"tester/{name}", picture)
    site = site_without_package(place / "site")
    return run_without_package(site, programs, place, **hub.environment(place / "elsewhere"))


def other_transformers() -> dict[str, str]:
    """Version -> interpreter of the environments beside this one (`make test-newest`, `make test-oldest`)."""
    ask = "from importlib.metadata import version; print(version('transformers'))"
    found = {}
    for name in ("", "-newest", "-oldest"):
        python = ROOT / f".venv{name}" / "bin" / "python"
        done = python.exists() and subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if done and done.returncode == 0 and done.stdout.strip() != transformers.__version__:
            found[done.stdout.strip()] = str(python)
    return found


@pytest.fixture(scope="module")
def on_other_versions(hub, place, picture):
    """What the code that was published with this transformers finds on others."""
    found = {}
    for version, python in other_transformers().items():
        site = site_without_package(place / f"site-{version}", python)
        programs = {name: (JUDGE, f"tester/{name}", picture) for name in WHOLE}
        home = place / f"elsewhere-{version}"
        home.mkdir()
        found[version] = run_without_package(site, programs, home, python, **hub.environment(home))
    if not found:
        pytest.skip("no environment with another transformers lies beside this one (.venv-newest, .venv-oldest)")
    return found


def local(name: str, place: Path) -> tuple:
    """Model and processor of the folder that was published."""
    if name == "chat_vlm":  # AutoModel gives its stock class
        found = open_checkpoint(place / name)
        return found.load_model(), found.load_processor()
    processor = place / (LORA[name][0] if name in LORA else name)
    return AutoModel.from_pretrained(place / name).eval(), AutoProcessor.from_pretrained(processor)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WHOLE, *ADAPTERS])
def test_judges_alike_without_the_package(name, elsewhere, place, picture):
    found = elsewhere[name]
    assert "error" not in found, found["error"]
    model, processor = local(name, place)
    logits = model.detect(**processor(images=random_pictures(1), return_tensors="pt")).logits
    assert torch.allclose(torch.tensor(found["logits"]), logits, atol=1e-5)
    options = {"explain": True, "generate_kwargs": {"max_new_tokens": TOKENS}} if model.can_explain else {}
    row = deepfake_detectors.pipeline(model=model, processor=processor)(str(picture), **options)
    assert found["row"]["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-5)
    assert found["row"]["explanation"] == row["explanation"]
    assert found["row"]["explanation"] is not None or not model.can_explain


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_judges_alike_on_another_transformers(name, on_other_versions, place, picture):
    model, processor = local(name, place)
    options = {"explain": True, "generate_kwargs": {"max_new_tokens": TOKENS}} if model.can_explain else {}
    row = deepfake_detectors.pipeline(model=model, processor=processor)(str(picture), **options)
    for version, answers in on_other_versions.items():
        found = answers[name]
        assert "error" not in found, f"transformers {version}: {found['error']}"
        assert found["row"]["fake_probability"] == pytest.approx(row["fake_probability"], abs=1e-5), version
        assert found["row"]["explanation"] == row["explanation"], version


@pytest.mark.parametrize("name", [*WHOLE, *ADAPTERS])
def test_judges_alike_with_the_package_and_without_trust(name, hub, place, picture):
    detector = deepfake_detectors.pipeline(model=f"tester/{name}")
    assert type(detector.model).__module__.startswith("deepfake_detectors."), "no code of the repository may run"
    model, processor = local(name, place)
    expected = deepfake_detectors.pipeline(model=model, processor=processor)(str(picture))
    assert detector(str(picture))["fake_probability"] == pytest.approx(expected["fake_probability"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", LORA)
def test_adapters_change_the_answer(name, elsewhere):
    """Else the tests above would not see an adapter that is never loaded."""
    tuned, plain = elsewhere[name], elsewhere[LORA[name][0]]
    verdicts = [torch.tensor(found["logits"]) for found in (tuned, plain)]
    assert not torch.allclose(*verdicts, atol=1e-3) or tuned["row"]["explanation"] != plain["row"]["explanation"]


@pytest.mark.slow
def test_published_fakevlm_is_a_stock_llava(elsewhere, place, picture):
    found = elsewhere["as llava"]
    assert "error" not in found, found["error"]
    model, processor = local("fakevlm", place)
    inputs = processor(images=random_pictures(1), return_tensors="pt")
    ids = torch.tensor(found["ids"])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"]).logits
    # the stock picture processor resizes with torchvision: one grey level
    assert torch.allclose(torch.tensor(found["logits"]), logits[0, -1], atol=2e-2)
    assert logits[0, -1].std() > 0.5, "else the comparison would say nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_published_classifiers_are_stock_ones(name, elsewhere, place, picture):
    found = elsewhere[f"{name} as classifier"]
    assert "error" not in found, found["error"]
    row = deepfake_detectors.pipeline(model=str(place / name))(str(picture))
    assert found["fake"] == pytest.approx(row["fake_probability"], abs=1e-5)
    here = pipeline("image-classification", model=f"tester/{name}")(str(picture))
    assert {row["label"]: row["score"] for row in here}["fake"] == pytest.approx(row["fake_probability"], abs=1e-5)


def test_only_the_closure_of_one_detector_is_published(hub):
    """No file of another family, and nothing that runs code when it is loaded."""
    for name in WHOLE:
        files = hub.repository("model", f"tester/{name}").files
        code = [path for path in files if path.endswith(".py")]
        others = {"m2f2_det", "fakevlm", "antifakeprompt", "lvlm_dfd", "clip_probe", "chat_vlm"} - {name.split("-")[0]}
        strangers = [path for path in code if path.startswith("modeling_") and any(other in path for other in others)]
        assert code and not strangers
        assert not [path for path in files if path.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_no_local_path_is_published(hub, place):
    for name in (*WHOLE, *ADAPTERS):
        for path, content in hub.repository("model", f"tester/{name}").files.items():
            assert str(place).encode() not in content, f"{name}: {path}"


def test_code_files_import_from_beside_them_only():
    for module in ("modeling_m2f2_det_llm", "pipeline_deepfake_detection"):
        source = Path(importlib.import_module(f"deepfake_detectors.modeling.{module}").__file__).read_text()
        assert "deepfake_detectors.modeling" not in source.replace("deepfake_detectors.modeling.*", "")
