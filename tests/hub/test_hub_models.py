"""What is published of a checkpoint, what its card says, and what is refused."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, hf_hub_download, snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from typer.testing import CliRunner

from deepfake_detectors.checkpoints import built_in_path
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols import PROTOCOLS, evaluate_rows
from deepfake_detectors.evaluation.report import Results, results_content
from deepfake_detectors.facts import fact_names
from deepfake_detectors.hub.models import publish_model
from deepfake_detectors_cli.app import app
from support.hub_server import use_hub
from support.tiny_models import antifakeprompt, antifakeprompt_processor, tiny_m2f2_det


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_m2f2_det(tmp_path_factory.mktemp("model") / "mine", operating_points={"eer": 0.25})


@pytest.fixture
def folder(original, tmp_path):
    """A folder as a training leaves it."""
    shutil.copytree(original, tmp_path / "mine")
    torch.save({"learning_rate": 1}, tmp_path / "mine" / "training_args.bin")
    (tmp_path / "mine" / "checkpoint-5").mkdir()
    torch.save({}, tmp_path / "mine" / "checkpoint-5" / "optimizer.pt")
    return tmp_path / "mine"


def measure(output, protocol="corrected", reals=12, fakes=15):
    """results.json of the evaluation's own code, over scores and texts that are partly wrong."""
    rows = []
    for n in range(reals + fakes):
        fake = n >= reals
        score = ((n * 7) % 10) / 10 * 0.6 + (0.3 if fake else 0.1)
        said = "fake" if score >= 0.5 else "real"
        rows.append(
            Prediction(
                f"{n}.png", "fake" if fake else "real", score, f"This is a {said} image.", category=f"set {int(fake)}"
            )
        )
    rules = PROTOCOLS[protocol]
    if protocol == "paper:m2f2_det":
        rows = [Prediction(**{**vars(row), "video_id": f"{row.label}{n // 25}"}) for n, row in enumerate(rows)]
    settings = Settings(resamples=20)
    inputs = {"model": "/home/somebody/mine", "set": "ddvqa/c40/test", "pictures": len(rows)}
    Results(results_content(rules, inputs, evaluate_rows(rows, rules, settings))).save(output)
    return output / "results.json"


def card_of(hub, name):
    return ModelCard(hub.repository("model", name).files["README.md"].decode())


def test_published_folder(hub, folder, tmp_path):
    results = measure(tmp_path / "report")
    url = publish_model(folder, "tester/mine", results=results, private=True, message="Mine")
    assert url == f"{hub.url}/tester/mine"
    repository = hub.repository("model", "tester/mine")
    assert repository.private and repository.messages[-1] == "Mine"
    for name in ("model.safetensors", "config.json", "processor_config.json", "README.md", "LICENSE.md"):
        assert name in repository.files
    assert not [path for path in repository.files if "checkpoint" in path or path.endswith((".bin", ".pt"))]
    config = json.loads(repository.files["config.json"])
    assert config["custom_pipelines"]["deepfake-detection"]["impl"].startswith("pipeline_deepfake_detection.")
    assert config["operating_points"] == {"eer": 0.25}
    back, kept = AutoModel.from_pretrained("tester/mine"), AutoModel.from_pretrained(folder)
    assert all(torch.equal(back.state_dict()[name], weight) for name, weight in kept.state_dict().items())
    snapshot = snapshot_download("tester/mine")
    assert ModelCard.load(f"{snapshot}/README.md").data.license == "other"


def test_model_index_is_taken_from_the_results(hub, folder, tmp_path):
    results = measure(tmp_path / "report")
    publish_model(folder, "tester/mine", results=results)
    measured = json.loads(results.read_text())["metrics"]
    entries = card_of(hub, "tester/mine").data.eval_results
    assert {e.metric_type: e.metric_value for e in entries} == {
        name: entry["value"] for name, entry in measured.items() if entry["value"] is not None
    }
    assert {(e.dataset_type, e.dataset_config, e.dataset_split) for e in entries} == {("ddvqa", "c40", "test")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_a_card(hub, folder, tmp_path, protocol):
    results = measure(tmp_path / "report", protocol, reals=50, fakes=50)
    publish_model(folder, "tester/mine", results=results)
    card = card_of(hub, "tester/mine")
    card.validate()
    fields = json.loads(results.read_text())
    found = {e.metric_name: e.metric_value for e in card.data.eval_results}
    values = [entry["value"] for entry in fields["metrics"].values() if entry["value"] is not None]
    assert values and all(value in found.values() for value in values)
    if protocol != "corrected":
        assert any(name.endswith(f"({protocol})") for name in found)
        corrected = fields["corrected"]["metrics"]["accuracy"]["value"]
        assert found["Accuracy"] == corrected, "beside the published numbers stand the sound ones"
        assert "Defects of the published scorer" in card.text
    assert f"Protocol `{protocol}`" in card.text
    assert "/home/somebody" not in str(card), "local folders are nobody's business"


def test_card_says_what_a_reader_must_know(hub, folder, tmp_path):
    publish_model(folder, "tester/mine", results=measure(tmp_path / "report"))
    text = card_of(hub, "tester/mine").text
    for words in ("For research only", "CLIP ViT-L/14-336", "Meant for:", "Never use it as the only evidence"):
        assert words in text
    assert 'deepfake_detectors.pipeline(model="tester/mine")' in text
    assert "`eer` 0.250" in text
    assert re.search(r"\| AUC \| 0\.\d{3} \|", text)
    terms = hub.repository("model", "tester/mine").files["LICENSE.md"].decode()
    assert "CLIP ViT-L/14-336" in terms


def test_training_is_described_by_its_own_file(hub, folder, tmp_path):
    (folder / "validation.json").write_text(
        json.dumps(
            {
                "seed": 3,
                "steps": 40,
                "best_step": 30,
                "train_seconds": 120.0,
                "train_rows": 77,
                "model_name_or_path": "some/base",
                "dataset": "ddvqa",
                "dataset_configs": ["c23", "c40"],
                "validation_pictures": 9,
                "command": "accelerate launch -m deepfake_detectors.train.train_sft --config mine.yaml "
                "--output_dir /home/me/out",
                "metrics": {"eval_auc": 0.75, "eval_runtime": 1.0},
            }
        )
    )
    publish_model(folder, "tester/mine", without_results=True)
    card = card_of(hub, "tester/mine")
    text = card.text
    assert card.data.base_model == "some/base"
    assert "- Base: `some/base`, revision not recorded." in text
    assert "- Data: `ddvqa` of deepfake-detectors (c23, c40), version not recorded." in text
    assert "77 conversations, 40 steps, best checkpoint at step 30, seed 3, 2 minutes." in text
    assert "On the 9 validation images: AUC 0.750." in text
    assert (
        "```bash\naccelerate launch -m deepfake_detectors.train.train_sft --config mine.yaml --output_dir out\n```"
        in text
    )
    assert "These weights were not evaluated." in text


def test_embedded_default_can_be_published(hub):
    publish_model(built_in_path("m2f2-det-mini"), "tester/default", facts="m2f2_det_default")
    files = hub.repository("model", "tester/default").files
    assert files["LICENSE"] == (built_in_path("m2f2-det-mini") / "LICENSE").read_bytes()
    card = ModelCard(files["README.md"].decode())
    stored = json.loads((built_in_path("m2f2-det-mini") / "results.json").read_text())["metrics"]
    assert {e.metric_type: e.metric_value for e in card.data.eval_results} == {
        name: entry["value"] for name, entry in stored.items()
    }
    card.validate()


def test_embedded_default_keeps_its_terms_without_facts_of_its_own(hub):
    source = built_in_path("m2f2-det-mini")
    publish_model(source, "tester/default")
    files = hub.repository("model", "tester/default").files
    text = card_of(hub, "tester/default").text
    notice = json.loads((source / "config.json").read_text())["license_notice"]
    assert f"Terms: {notice}" in text and notice in files["LICENSE.md"].decode()
    assert "[LICENSE](LICENSE)" in text
    assert files["LICENSE"] == (source / "LICENSE").read_bytes()
    assert "### Explanations" in text and "\n\n\n" not in text


@pytest.mark.parametrize("name", [name for name in fact_names() if name.startswith("published_")])
def test_facts_of_official_checkpoints_say_that_numbers_are_cited(name):
    from importlib.resources import files

    facts = yaml.safe_load(files("deepfake_detectors.hub_cards").joinpath(f"facts/{name}.yaml").read_text())
    assert facts["commands"]["convert"].startswith(f"deepfake-detectors convert {facts['family']} ")
    for row in facts.get("cited", []):
        assert set(row) == {"set", "metric", "value", "source"} and row["source"]
        float(row["value"])


def test_learned_words_are_published_alone(hub, tmp_path):
    model = antifakeprompt()
    model.save_adapter(tmp_path / "words", antifakeprompt_processor(), "Salesforce/instructblip-vicuna-7b")
    publish_model(tmp_path / "words", "tester/words", facts="published_antifakeprompt", without_results=True)
    repository = hub.repository("model", "tester/words")
    assert "model.safetensors" not in repository.files
    card = card_of(hub, "tester/words")
    assert card.data.base_model == "Salesforce/instructblip-vicuna-7b"
    assert card.data.base_model_relation == "adapter"
    count = sum(word.numel() for word in model.soft_words().values())
    assert f"{count} parameters on top of the base." in card.text
    assert "| COCO | real | yes | 92.53 | 90.40 |" in card.text
    assert "were not measured here" in card.text
    assert "full-size accuracy was not measured" in " ".join(card.text.split())


def test_base_may_be_named_with_its_revision(hub, tmp_path):
    antifakeprompt().save_adapter(tmp_path / "words", antifakeprompt_processor(), tmp_path)
    with pytest.raises(ValueError, match=r"local folder .* `base`"):
        publish_model(tmp_path / "words", "tester/words", without_results=True)
    assert ("model", "tester/words") not in hub.repositories
    publish_model(tmp_path / "words", "tester/words", base="some/base@v1.0", without_results=True)
    card = card_of(hub, "tester/words")
    assert card.data.base_model == "some/base" and "Base: `some/base`, revision v1.0." in card.text
    path = Path(hf_hub_download("tester/words", "config.json"))
    assert json.loads(path.read_text())["base_model_name_or_path"] == "some/base"


def test_adapter_of_a_detector(hub, original, tmp_path):
    adapter = tmp_path / "lora"
    adapter.mkdir()
    fields = {"base_model_name_or_path": str(original), "peft_type": "LORA", "r": 1, "revision": None}
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    torch.save({}, adapter / "adapter_model.bin")
    options = {"without_results": True}
    refused(hub, ValueError, "local folder .*`base`", adapter, "tester/lora", **options)
    options["base"] = "tester/mine@abc"
    refused(hub, ValueError, r"adapter_model\.safetensors.*safetensors", adapter, "tester/lora", **options)
    save_file({"lora_A": torch.zeros(2, 3)}, adapter / "adapter_model.safetensors")
    publish_model(adapter, "tester/lora", **options)
    files = hub.repository("model", "tester/lora").files
    assert set(files) - {".gitattributes"} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "LICENSE.md",
    }
    named = json.loads(files["adapter_config.json"])
    assert (named["base_model_name_or_path"], named["revision"], named["r"]) == ("tester/mine", "abc", 1)
    card = card_of(hub, "tester/lora")
    assert (card.data.library_name, card.data.base_model) == ("peft", "tester/mine")
    assert "6 parameters on top of the base." in card.text


def test_adapter_beside_a_model_is_not_forgotten(hub, folder, caplog):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    publish_model(folder, "tester/mine", without_results=True)
    assert "merge(model, deltas, output)" in caplog.text
    assert not [path for path in hub.repository("model", "tester/mine").files if "adapter" in path]


def refused(hub, error, words, *arguments, **options):
    requests = len(hub.requests)
    with pytest.raises(error, match=words):
        publish_model(*arguments, **options)
    assert not [r for r in hub.requests[requests:] if r.startswith("POST /api/repos")], "nothing may be half-pushed"


def test_missing_results(hub, folder, tmp_path):
    words = r"results\.json.*`without_results`"
    refused(hub, FileNotFoundError, words, folder, "tester/mine")
    refused(hub, FileNotFoundError, r"nowhere\.json", folder, "tester/mine", results=tmp_path / "nowhere.json")


def test_results_that_are_none(hub, folder, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    refused(hub, ValueError, r"bad\.json is not valid JSON", folder, "tester/mine", results=bad)
    bad.write_text('{"accuracy": 1.0}')
    refused(hub, ValueError, r"bad\.json .*protocol, inputs, metrics, versions", folder, "tester/mine", results=bad)


def test_training_file_with_a_gap(hub, folder):
    (folder / "validation.json").write_text('{"steps": 3, "train_seconds": 1.0, "seed": 0, "metrics": {}}')
    refused(
        hub,
        ValueError,
        "'validation_pictures'",
        folder,
        "tester/mine",
        without_results=True,
    )


def test_results_of_another_family(hub, folder, tmp_path):
    fields = json.loads((built_in_path("m2f2-det-mini") / "results.json").read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**fields, "model_type": "fakevlm"}))
    refused(hub, ValueError, "'fakevlm'.*'m2f2_det'", folder, "tester/mine", results=other)


def test_results_of_other_weights(hub, folder, tmp_path):
    results = measure(tmp_path / "report")
    fields = json.loads(results.read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    results.write_text(json.dumps({**fields, "model_type": "m2f2_det", "weights": "0" * 64}))
    words = rf"other weights \(sha256 000000000000\.\.\.\).*\({digest[:12]}.*evaluate\(.*`without_results`"
    refused(hub, ValueError, words, folder, "tester/mine", results=results)
    for number, known in enumerate(({"model_type": "m2f2_det", "weights": digest}, {"weights": None})):
        results.write_text(json.dumps({**fields, **known}))
        publish_model(folder, f"tester/mine{number}", results=results)


def test_folders_that_are_no_checkpoint(hub, folder, tmp_path):
    options = {"without_results": True}
    refused(hub, FileNotFoundError, "nowhere", tmp_path / "nowhere", "tester/mine", **options)
    (tmp_path / "empty").mkdir()
    refused(
        hub, ValueError, r"empty is not a model folder.*config\.json", tmp_path / "empty", "tester/mine", **options
    )
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "config.json").write_text('{"model_type": "bert"}')
    refused(hub, ValueError, "'bert'", tmp_path / "stranger", "tester/mine", **options)


def test_pickled_weights(hub, folder):
    state = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    words = r"\*\.safetensors.*Pickled weights"
    refused(hub, ValueError, words, folder, "tester/mine", without_results=True)


def test_incomplete_weights(hub, folder):
    state = load_file(folder / "model.safetensors")
    state.popitem()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(hub, ValueError, r"vision_tower\.pre_layrnorm\.weight", folder, "tester/mine", without_results=True)


def test_damaged_weights(hub, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights of .* are damaged") as caught:
        publish_model(folder, "tester/mine", without_results=True)
    assert "Traceback" not in str(caught.value)
    assert ("model", "tester/mine") not in hub.repositories


def test_words_without_their_processor(hub, tmp_path):
    antifakeprompt().save_adapter(tmp_path / "words", base_model_name_or_path="some/base")
    words = r"words .*processor_config\.json"
    refused(hub, ValueError, words, tmp_path / "words", "tester/words", without_results=True)


def test_destination_is_asked_before_anything_is_loaded(hub, folder, monkeypatch):
    publish_model(folder, "tester/mine", without_results=True)
    (folder / "model.safetensors").unlink()  # would be the next complaint
    refused(hub, ValueError, "exists already", folder, "tester/mine", without_results=True)
    monkeypatch.delenv("HF_TOKEN")
    refused(hub, ValueError, "not logged in", folder, "tester/new", without_results=True)


def test_facts_that_do_not_fit(hub, folder, tmp_path):
    options = {"without_results": True}
    words = "nonsense.*published_fakevlm"
    refused(hub, FileNotFoundError, words, folder, "tester/mine", facts="nonsense", **options)
    words = "'fakevlm'.*'m2f2_det'"
    refused(hub, ValueError, words, folder, "tester/mine", facts="published_fakevlm", **options)
    words = "variant='bridge'.*'cosine'"
    refused(hub, ValueError, words, folder, "tester/mine", facts="published_m2f2_det_bridge", **options)
    (tmp_path / "mine.yaml").write_text("title: Mine\nlicense: mit\n")
    words = r"summary, uses.*family: m2f2_det"
    refused(hub, ValueError, words, folder, "tester/mine", facts=tmp_path / "mine.yaml", **options)
    (tmp_path / "mine.yaml").write_text("family: m2f2_det\ntitle: Mine\nsummary: s\nlicense: mit\nlicense_link: TERMS")
    words = "licence file TERMS"
    refused(hub, ValueError, words, folder, "tester/mine", facts=tmp_path / "mine.yaml", **options)


def test_dry_run_is_whole_or_nothing(folder, tmp_path):
    publish_model(folder, "owner/mine", without_results=True, dry_run=tmp_path / "dry")
    assert {"README.md", "model.safetensors"} <= {path.name for path in (tmp_path / "dry").iterdir()}
    with pytest.raises(FileNotFoundError):
        publish_model(folder, "owner/mine", without_results=True, facts="nonsense", dry_run=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_command_and_function_write_the_same_dry_run(original, tmp_path):
    results = measure(tmp_path / "report")
    publish_model(original, "owner/mine", results=results, dry_run=tmp_path / "function")
    given = ["--model", original, "--repo", "owner/mine", "--results", results, "--dry-run", tmp_path / "command"]
    done = CliRunner().invoke(app, ["publish", *map(str, given)])
    assert done.exit_code == 0, done.output
    function, command = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "function", tmp_path / "command")
    )
    assert function == command and Path("model.safetensors") in function


def test_no_index_leads_out_of_the_folder(hub, folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    weights = dict.fromkeys(load_file(tmp_path / "secret.safetensors"), "../secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    refused(hub, ValueError, r"\.\./secret\.safetensors", folder, "tester/mine", without_results=True)


def test_results_of_another_schema(hub, folder, tmp_path):
    """Such as trainings and earlier versions wrote."""
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"dataset": "ddvqa", "metrics": {}, "versions": {}}))
    refused(hub, ValueError, "protocol, inputs", folder, "tester/mine", results=old)
