"""The path of a stranger: everything that the README tells a new user to type, in a fresh environment.

    python tests/packaging/strangers_path.py FOLDER        # or: make stranger FOLDER=...

The commands are taken from the bash blocks of README.md, so that the two cannot drift apart. A clone is made of this
checkout (of what is committed) instead of the published repository, and a distribution that is installed by name is
this checkout. The rest is typed as it stands there, with the images that the README speaks of prepared from
`examples/pictures`, and without network once everything is installed. Each step prints its name and ends the run when
it fails.

`--borrow FOLDER` names a site-packages folder whose libraries the new environment sees, which spares a trial the
gigabytes of PyTorch. Only the standard library is needed here; the new environment does the work.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "examples" / "pictures"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISTRIBUTION = re.compile(r"^(?:deepfake-detectors|\.)(\[[\w,-]+\])?$")
# Step -> how its command begins. The first such command of the README is the one.
STEPS = {
    "install": "pip install",
    "judge a picture": "deepfake-detectors detect photo.jpg",
    "examine a clip": "deepfake-detectors examine clip.mp4",
    "open the page": "deepfake-detectors app",
    "evaluate two folders": "deepfake-detectors evaluate --real-dir",
    "fine-tune a miniature": "accelerate launch",
    "publish a dry run": "deepfake-detectors publish",
}
PREPARE = """
from pathlib import Path
import av
from PIL import Image
picture = Image.open("photo.jpg").convert("RGB")
side = min(picture.size) // 4 * 3 // 2 * 2
with av.open("clip.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
    for number in range(50):
        container.mux(stream.encode(av.VideoFrame.from_image(picture.crop((number, 0, number + side, side)))))
    container.mux(stream.encode())
for source, kind in (("photos", "real"), ("forgeries", "fake")):  # eleven pictures are too few to set some aside
    for path in sorted(Path(source).iterdir()):
        picture = Image.open(path)
        half, across = min(picture.size) // 2, picture.width
        for number, left in enumerate((0, (across - half) // 2, across - half)):
            for top in (0, picture.height - half):
                name = f"{path.stem}_{number}_{top}.jpg"
                picture.crop((left, top, left + half, top + half)).save(Path("training") / kind / name, quality=92)
"""
# Commands of borrowed libraries, which pip did not install here.
BORROW_COMMANDS = """
import sys
from importlib.metadata import entry_points
from pathlib import Path
for command in entry_points(group="console_scripts"):
    file = Path(sys.executable).parent / command.name
    if not file.exists():
        call = f"import sys\\nfrom {command.module} import {command.attr}\\nsys.exit({command.attr}())\\n"
        file.write_text(f"#!{sys.executable}\\n{call}")
        file.chmod(0o755)
"""
CALL_DETECT = """
import json, sys
from gradio_client import Client, handle_file
row = Client(sys.argv[1], verbose=False).predict(handle_file("photo.jpg"), None, api_name="/detect")
print(json.dumps(row))
"""
SERVED = re.compile(r"http://[\w.:]+\d/?")
KEPT = re.compile(r"(HOME|LANG|TMPDIR|PIP_.*|.*_proxy)$", re.IGNORECASE)  # of the variables of this process
NEWLINE = "\n"
START_SECONDS, STOP_SECONDS, STEP_SECONDS = 300, 30, 3600


class PathBlocked(Exception):
    """A step did not do what the README says."""


def commands_of(readme: str) -> list[list[str]]:
    """Return the commands of all bash blocks as words, in their order; `a && b` are two, comments are left out."""
    found = []
    for block in BLOCK.findall(readme):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                place = words.index("&&")
                found.append(words[:place])
                words = words[place + 1 :]
            found.append(words)
    return [words for words in found if words]


def steps_of(readme: str) -> dict[str, list[str]]:
    """Return the command of each step, as words.

    Raises:
        PathBlocked: naming every step for which the README has no command.
    """
    commands = commands_of(readme)
    found = {
        step: next((words for words in commands if words[: len(start.split())] == start.split()), None)
        for step, start in STEPS.items()
    }
    if missing := [f"{step} ({STEPS[step]} ...)" for step, words in found.items() if words is None]:
        raise PathBlocked(f"The README has no command for: {', '.join(missing)}.")
    return {step: words for step, words in found.items() if words is not None}


def option(words: list[str], name: str) -> str:
    """Return what follows an option in a command."""
    if name not in words[:-1]:
        raise PathBlocked(f"The command has no {name}: {shlex.join(words)}")
    return words[words.index(name) + 1]


@dataclass
class Stranger:
    """A person with a new folder, a new environment and the README.

    Attributes:
        folder: empty at first; holds the environment, the clone and all that is written.
        readme: text of the README.
        borrow: site-packages folder that the environment sees, or `None`.
        port: of the page, where the one of the README is taken by somebody else.
    """

    folder: Path
    readme: str
    borrow: Path | None = None
    port: int | None = None
    place: Path = field(init=False)
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.folder
        binaries = self.folder / "environment" / "bin"
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        kept |= {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()
        }
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "VIRTUAL_ENV": str(binaries.parent), "OMP_NUM_THREADS": "1"}

    def walk(self) -> Iterator[tuple[str, str]]:
        """Go every step; yield its name and what came out of it.

        Raises:
            PathBlocked: at the first step that fails.
        """
        steps = steps_of(self.readme)
        checks: dict[str, Callable[[list[str]], str]] = {
            "install": self.install,
            "judge a picture": self.detect,
            "examine a clip": self.examine,
            "open the page": self.page,
            "evaluate two folders": self.evaluate,
            "fine-tune a miniature": self.train,
            "publish a dry run": self.publish,
        }
        for step, check in checks.items():
            yield step, check(steps[step])

    def type(self, words: list[str]) -> str:
        """Run a command where the person is now; return its standard output.

        Raises:
            PathBlocked: if it fails, with the end of what it printed.
        """
        say(f"$ {shlex.join('...' if NEWLINE in word else word for word in words)}")
        try:
            done = subprocess.run(
                words, cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=STEP_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PathBlocked(f"{shlex.join(words)}: {error}") from error
        if done.returncode != 0:
            tail = f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
            raise PathBlocked(f"exit code {done.returncode} of: {shlex.join(words)}\n{tail}")
        return done.stdout

    def install(self, words: list[str]) -> str:
        """Make the environment, clone if the README does, install, and prepare the pictures it speaks of."""
        self.type([sys.executable, "-m", "venv", str(self.folder / "environment")])
        if self.borrow is not None:
            (packages,) = (self.folder / "environment").glob("lib/python*/site-packages")
            (packages / "borrowed.pth").write_text(f"{self.borrow.resolve()}\n")
        if any(command[:2] == ["git", "clone"] for command in commands_of(self.readme)):
            self.type(["git", "clone", "--quiet", str(ROOT), "deepfake-detectors"])
            self.place = self.folder / "deepfake-detectors"
        typed = [self.from_checkout(word) for word in words]
        if typed == words:
            raise PathBlocked(f"This installs something else than deepfake-detectors: {shlex.join(words)}")
        self.type(typed)
        if self.borrow is not None:
            self.type(["python", "-c", BORROW_COMMANDS])
        self.environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hub")}
        shutil.copyfile(PICTURES / "real_astronaut_whole.jpg", self.place / "photo.jpg")
        for kind, name in {"real": "photos", "fake": "forgeries"}.items():
            (self.place / name).mkdir()
            (self.place / "training" / kind).mkdir(parents=True)
            for path in PICTURES.glob(f"{kind}_*.jpg"):
                shutil.copyfile(path, self.place / name / path.name)
        self.type(["python", "-c", PREPARE])
        where = self.type(["python", "-I", "-c", "import deepfake_detectors; print(deepfake_detectors.__file__)"])
        return f"installed in {where.strip()}"

    def from_checkout(self, word: str) -> str:
        """Return the word of an installation, with the distribution replaced by this checkout or its clone."""
        found = DISTRIBUTION.match(word)
        return word if found is None else f"{self.place if self.place != self.folder else ROOT}{found[1] or ''}"

    def detect(self, words: list[str]) -> str:
        row = json.loads(self.type(words).splitlines()[0])
        return _probability(row)

    def examine(self, words: list[str]) -> str:
        self.type(words)
        folder = self.place / option(words, "--output") / "clip"
        record = _json(folder / "examination.json")
        _require(folder / "sheet.html")
        if record["kind"] != "video" or not record["frames"]:
            raise PathBlocked(f"{folder} holds no frames of a video.")
        return f"{record['decision']}, {len(record['frames'])} frames, {len(record['tracks'])} faces"

    def page(self, words: list[str]) -> str:
        """Start the page, fetch it, judge a picture through it, stop it as Ctrl+C does."""
        words = words if self.port is None else [*words, "--port", str(self.port)]
        say(f"$ {shlex.join(words)}")
        log = self.folder / "page.log"
        with log.open("w") as output:
            server = subprocess.Popen(words, cwd=self.place, env=self.environment, stdout=output, stderr=output)
            try:
                url = _wait_for_address(server, log)
                with urllib.request.urlopen(url, timeout=60) as answer:
                    if "gradio" not in answer.read().decode().lower():
                        raise PathBlocked(f"{url} serves something else than the page.")
                row = json.loads(self.type(["python", "-c", CALL_DETECT, url]).splitlines()[-1])
                server.send_signal(signal.SIGINT)
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise PathBlocked(f"The page does not stop.\n{log.read_text()[-3000:]}") from error
            finally:
                server.kill()
                server.wait()
        return f"{url}: {_probability(row)}"

    def evaluate(self, words: list[str]) -> str:
        self.type(words)
        folder = self.place / option(words, "--output")
        results = _json(folder / "results.json")
        _require(folder / "report.md")
        counts = {kind: len(list(PICTURES.glob(f"{kind}_*.jpg"))) for kind in ("real", "fake")}
        if (results["num_real"], results["num_fake"]) != (counts["real"], counts["fake"]):
            raise PathBlocked(f"Not all pictures were evaluated: {results['num_real']}, {results['num_fake']}.")
        return f"AUC {results['metrics']['auc']['value']:.3f}"

    def train(self, words: list[str]) -> str:
        self.type(words)
        folder = self.place / option(words, "--output_dir")
        _require(folder / "model.safetensors")
        return f"{_json(folder / 'validation.json')['steps']} steps"

    def publish(self, words: list[str]) -> str:
        self.type(words)
        folder = self.place / option(words, "--dry-run")
        _require(folder / "README.md")
        _require(folder / "model.safetensors")
        return f"{len(list(folder.iterdir()))} files"


def _wait_for_address(server: subprocess.Popen[Any], log: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if found := SERVED.search(log.read_text()):
            return found[0]
        if server.poll() is not None:
            break
        time.sleep(0.5)
    raise PathBlocked(f"The page did not start.\n{log.read_text()[-3000:]}")


def _probability(row: dict[str, Any]) -> str:
    if row.get("label") not in ("real", "fake") or not 0.0 <= row.get("fake_probability", -1.0) <= 1.0:
        raise PathBlocked(f"This is not a verdict: {row}")
    return f"{row['label']}, P(fake) {row['fake_probability']:.3f}, {row['decision']}"


def _require(path: Path) -> None:
    if not path.is_file():
        raise PathBlocked(f"{path} was not written.")


def _json(path: Path) -> dict[str, Any]:
    _require(path)
    return json.loads(path.read_text(encoding="utf-8"))


def say(text: str) -> None:
    """Print a line at once: installing takes minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="new or empty folder outside the repository")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="page to type from")
    parser.add_argument("--borrow", type=Path, help="site-packages folder that the environment sees")
    parser.add_argument("--port", type=int, help="port of the page, where the usual one is taken")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="stranger-"))).resolve()
    if folder.is_relative_to(ROOT) or (folder.is_dir() and any(folder.iterdir())):
        parser.error(f"{folder} must be a new or empty folder outside the repository.")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"In {folder}, from {arguments.readme}")
    stranger = Stranger(folder, arguments.readme.read_text(encoding="utf-8"), arguments.borrow, arguments.port)
    done, start = 0, time.monotonic()
    try:
        for step, outcome in stranger.walk():
            done += 1
            say(f"[{done} of {len(STEPS)}] {step}: {outcome}")
    except PathBlocked as error:
        say(f"[{done + 1} of {len(STEPS)}] FAILED: {error}")
        return 1
    say(f"All {done} steps done in {time.monotonic() - start:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
