"""The page in a real Chromium: what a person does, and what is there to be read then.

The pictures in `docs/app` are made by these tests, with `DEEPFAKE_SCREENSHOTS=docs/app`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from deepfake_detectors import examine
from support.app_page import MODEL, PICTURES, PORTRAIT, portrait_clip, served

pytest.importorskip("gradio", reason="the app needs the extra [app]")
playwright = pytest.importorskip("playwright.sync_api", reason="the tests in a browser need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
SECONDS = 60_000  # for an examination, in milliseconds


@pytest.fixture(scope="module")
def url():
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("DEEPFAKE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def opened(browser, url, **context):
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **context})
    page.set_default_timeout(SECONDS)
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(url)
    page.wait_for_selector("#picture-upload input[type=file]", state="attached")
    return page


def upload(page, path, kind="picture"):
    page.set_input_files(f"#{kind}-upload input[type=file]", str(path))
    page.wait_for_selector(f"#{kind}-summary .dfd-decision")


def answers(page):
    return [each.inner_text().strip() for each in page.query_selector_all("#conversation [data-testid=bot]")]


def ask(page, question):
    before = len(answers(page))
    page.fill("#question textarea, #question input", question)
    page.click("#ask")
    wait_for_answer(page, before + 1)
    return answers(page)[-1]


def wait_for_answer(page, count):
    """Until so many answers stand there and nothing is being written any more."""
    page.wait_for_function(
        "count => document.querySelectorAll('#conversation [data-testid=bot]').length === count", arg=count
    )
    previous = None
    while previous != (previous := answers(page)) or not previous[-1]:
        page.wait_for_timeout(700)


def no_overflow(page):
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_picture_is_uploaded_and_its_decision_read(browser, url):
    page = opened(browser, url)
    upload(page, PORTRAIT)
    found = examine(PORTRAIT, MODEL)
    text = page.inner_text("#picture-summary")
    assert f"{found.fake_probability:.3f}" in text and "threshold 0.5" in text and "non-commercial" in text
    page.wait_for_selector("#picture-boxes img")
    assert f"{found.fake_probability:.3f}" in page.inner_text("#picture-boxes")
    page.wait_for_selector("#ask")
    with page.expect_download() as download:
        page.click("#picture-record")
    assert found.record["source"]["sha256"] in Path(download.value.path()).read_text()
    with page.expect_download() as download:
        page.click("#picture-sheet")
    assert found.record["source"]["sha256"] in Path(download.value.path()).read_text()
    assert all(request.startswith((url, "data:", "blob:")) for request in page.requested)
    page.close()


def test_three_turns_and_the_last_one_again(browser, url, shots):
    page = opened(browser, url)
    upload(page, PICTURES / "fake_astronaut_face_swap.jpg")
    page.wait_for_selector("#ask")
    said = [ask(page, question) for question in ("Is it fake?", "What about the eyes?", "And the nose?")]
    assert all(said) and answers(page) == said
    page.screenshot(path=shots / "chat.jpg", full_page=True, quality=82)
    page.click("#conversation button[title='Retry'], #conversation button[aria-label='Retry']")
    page.wait_for_timeout(1500)
    wait_for_answer(page, 3)
    assert answers(page) == said, "greedy decoding gives the same text again"
    page.click("#clear")
    page.wait_for_function("() => document.querySelectorAll('#conversation [data-testid=bot]').length === 0")
    assert ask(page, "Is it fake?") == said[0]
    page.close()


def test_an_example_is_chosen_by_keyboard_and_another_detector(browser, url, shots):
    page = opened(browser, url)
    page.locator("button.gallery-item, .gallery button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture-summary .dfd-decision")
    before = page.inner_text("#picture-summary")
    page.click("#model input")
    page.get_by_role("option", name="clip-probe-mini").click()
    page.wait_for_function("text => document.querySelector('#picture-summary').innerText !== text", arg=before)
    page.wait_for_function("() => document.querySelector('#picture-summary').innerText.includes('Whole image')")
    page.wait_for_selector("#ask", state="hidden")  # it does not write
    page.wait_for_timeout(2500)
    page.screenshot(path=shots / "picture.jpg", full_page=True, quality=82)
    page.get_by_role("tab", name="About this detector").click()
    page.wait_for_selector("#card h2")
    assert "clip-probe-mini" in page.inner_text("#card")
    page.close()


def test_a_clip_shows_its_timeline(browser, url, shots, tmp_path):
    clip = portrait_clip(tmp_path / "clip.mp4")
    page = opened(browser, url)
    page.get_by_role("tab", name="Video").click()
    page.wait_for_selector("#video-upload input[type=file]", state="attached")
    upload(page, clip, "video")
    page.wait_for_selector("#video-timeline svg polyline")
    found = examine(clip, MODEL)
    assert f"{found.fake_probability:.3f}" in page.inner_text("#video-summary")
    assert len(page.query_selector_all("#video-timeline svg circle")) == len(found.frames)
    page.wait_for_selector("#video-frames img")
    page.screenshot(path=shots / "video.jpg", full_page=True, quality=82)
    page.close()


def test_a_broken_file_gets_a_plain_sentence(browser, url, tmp_path):
    broken = tmp_path / "holiday.jpg"
    broken.write_bytes(PORTRAIT.read_bytes()[:5000])
    page = opened(browser, url)
    page.set_input_files("#picture-upload input[type=file]", str(broken))
    text = page.wait_for_selector("[data-testid=toast-body], .toast-body").inner_text()
    assert "This file" in text
    assert not any(word in text for word in ("/tmp", "Traceback", "OSError", "Exception", "None"))
    upload(page, PORTRAIT)  # and the page goes on
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_overflows(browser, url, shots, scheme):
    page = opened(
        browser, url, viewport={"width": 390, "height": 844}, color_scheme=scheme, is_mobile=True, has_touch=True
    )
    assert no_overflow(page)
    upload(page, PORTRAIT)
    page.wait_for_selector("#ask")
    page.wait_for_timeout(500)
    assert no_overflow(page)
    if scheme == "dark":
        page.screenshot(path=shots / "phone.jpg", quality=82)
    page.close()


def test_every_control_has_a_name(browser, url):
    """What a screen reader says of a control that can be reached."""
    page = opened(browser, url)
    upload(page, PORTRAIT)
    page.wait_for_selector("#ask")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select')].filter(e => {
            if (!e.offsetParent || e.type === 'file') return false;
            const label = e.closest('label') || (e.id && document.querySelector(`label[for='${e.id}']`));
            return !(e.getAttribute('aria-label') || e.title || e.innerText.trim() || label
                     || e.querySelector('img[alt]:not([alt=""])') || e.getAttribute('aria-labelledby'));
        }).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    page.close()
