"""The command as a whole: its help, what it imports, and how it ends."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from deepfake_detectors.modeling.image_loading import InputImageError
from deepfake_detectors_cli.app import COMMANDS, Command
from deepfake_detectors_cli.console import work

HEAVY = {"torch", "torchvision", "transformers", "timm", "peft", "datasets", "sklearn", "matplotlib", "PIL", "numpy"}
LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["info"],
    ["info", "--format", "table"],
    ["dataset", "list"],
    *([name, "--help"] for name in COMMANDS),
    *(["dataset", name, "--help"] for name in ("list", "info", "check", "build", "lint", "publish")),
]


def test_help_lists_the_commands_and_completion(shell) -> None:
    result = shell("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert "--install-completion" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(shell, command: str) -> None:
    result = shell(command, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    deepfake-detectors {command}" in result.stdout


def test_version(shell) -> None:
    assert shell("--version").stdout.strip() == version("deepfake-detectors")


def test_unknown_command(shell) -> None:
    result = shell("detekt")
    assert result.exit_code == 2 and "'detect'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", LIGHT_COMMANDS, ids=" ".join)
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    program = (
        "import json, sys; from deepfake_detectors_cli import app\n"
        "try: app()\n"
        "except SystemExit as error: code = error.code\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0 and done.stdout.strip()
    assert not {name.split(".")[0] for name in modules} & HEAVY
    assert "deepfake_detectors" not in modules


@pytest.mark.slow
def test_module_and_console_script_are_one_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deepfake_detectors_cli", "detekt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("Usage: deepfake-detectors ")


# ---- errors ---------------------------------------------------------------------------------------------------------


def ending(error: BaseException, working: bool = False):
    """Run a command with `--data-dir` and `--explain` that raises `error`."""
    small = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @small.command(cls=Command)
    def raising(data_dir: str = "", explain: bool = False, threshold: str = "0.5") -> None:
        if working:
            with work():
                raise error
        raise error

    return CliRunner().invoke(small)


@pytest.mark.parametrize("error", [ValueError("a\n  b"), FileNotFoundError("a b"), ImportError("a b")])
@pytest.mark.parametrize(("working", "code"), [(False, 2), (True, 1)])
def test_an_error_of_the_library_is_one_line(error: Exception, working: bool, code: int) -> None:
    result = ending(error, working)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "Error: a b\n")


def test_a_model_that_breaks_ends_with_1() -> None:
    assert ending(RuntimeError("out of memory"), working=True).exit_code == 1
    assert ending(InputImageError("x.png: empty", "x.png"), working=True).exit_code == 1


def test_a_defect_of_the_command_itself_is_one_line_and_can_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ending(KeyError("x"))
    assert result.exit_code == 1 and "KeyError" in result.stderr and "Traceback" not in result.stderr
    monkeypatch.setenv("DEEPFAKE_DETECTORS_DEBUG", "1")
    assert isinstance(ending(KeyError("x")).exception, KeyError)


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("Set `data_dir`.", "Set --data-dir."),
        ("It cannot explain (explain=True).", "It cannot explain (--explain)."),
        ("threshold is 2, expected [0, 1].", "--threshold is 2, expected [0, 1]."),
        ("threshold 'x' is not known.", "--threshold 'x' is not known."),
        ("Set `mask_dir`.", "Set `mask_dir`."),  # not an option of this command
        ("The threshold is high.", "The threshold is high."),
    ],
)
def test_parameters_become_options(message: str, typed: str) -> None:
    assert ending(ValueError(message)).stderr == f"Error: {typed}\n"
