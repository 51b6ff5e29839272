"""Take the pictures of the documentation again: `python docs/screenshots.py`.

Needs the extra `[test]` and a Chromium on PATH. The heat map needs `DEEPFAKE_DATA`, the folder that holds ddvqa/.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from deepfake_detectors import evaluate, examine

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "examples/pictures/fake_astronaut_face_swap.jpg"


def take_sheet(folder: Path) -> None:
    """The sheet of one picture, on a desk and on a phone."""
    sheet = examine(PICTURE).save(folder / "sheet") / "sheet.html"
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, size in (("sheet", (1000, 1300)), ("sheet_phone", (390, 844))):
            page = browser.new_page(viewport={"width": size[0], "height": size[1]})
            page.goto(sheet.as_uri())
            page.screenshot(path=HERE / "images" / f"{name}.png")
        browser.close()


def take_app() -> None:
    """The app in a browser, by the test that uses it."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/app/test_app_browser.py"]
    subprocess.run(command, check=True, cwd=HERE.parent, env={**os.environ, "DEEPFAKE_SCREENSHOTS": str(HERE / "app")})


def draw_robustness(folder: Path) -> None:
    """The heat map of a robustness sweep."""
    results = evaluate("m2f2-det-mini", dataset="ddvqa", robustness="light")
    results.save(folder / "robustness")
    shutil.copy(folder / "robustness" / "robustness.png", HERE / "images")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        take_sheet(Path(name))
        take_app()
        if os.environ.get("DEEPFAKE_DATA"):
            draw_robustness(Path(name))


if __name__ == "__main__":
    main()
