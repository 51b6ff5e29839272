"""Every call that may load code of a folder says that it must not: `None` is not `False` to transformers."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("modeling", "src", "train", "dataset_scripts")
LOADING = {"from_pretrained", "from_config"}


def undecided(text: str) -> list[str]:
    """Calls of an Auto class, or of transformers' pipeline, without `trust_remote_code` or `**` arguments."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        names = {keyword.arg for keyword in node.keywords}
        called = ast.unparse(node.func)
        owner, _, method = called.rpartition(".")
        auto = method in LOADING and owner.rpartition(".")[2].startswith("Auto")
        if (auto or called == "transformers.pipeline") and not names & {"trust_remote_code", None}:
            found.append(f"{called}, line {node.lineno}")
    return found


def test_trust_is_decided():
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*.py")]
    found = {path.name: calls for path in files if (calls := undecided(path.read_text(encoding="utf-8")))}
    assert len(files) > 100 and not found


def test_the_check_can_fail():
    assert undecided("AutoModel.from_pretrained(x, dtype=y)\ntransformers.pipeline(task)")
    assert not undecided("AutoModel.from_pretrained(x, trust_remote_code=False)")
