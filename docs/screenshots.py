"""Take the screenshots of the documentation: `python docs/screenshots.py`. Needs Playwright and a Chromium on PATH."""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from deepfake_detectors import examine

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "examples/pictures/fake_astronaut_face_swap.jpg"


def main() -> None:
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sheet = examine(PICTURE).save(Path(folder) / "sheet") / "sheet.html"
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, size in (("sheet", (1000, 1300)), ("sheet_phone", (390, 844))):
            page = browser.new_page(viewport={"width": size[0], "height": size[1]})
            page.goto(sheet.as_uri())
            page.screenshot(path=HERE / "images" / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
