"""The page: its parts and the calls that connect them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from deepfake_detectors.app.guard import workspace
from deepfake_detectors.app.limits import Limits
from deepfake_detectors.app.models import Models
from deepfake_detectors.app.parts import TITLE, AnyFile, App, gr, plainly
from deepfake_detectors.app.tab import Tab
from deepfake_detectors.app.talk import Chat
from deepfake_detectors.app.work import Worker

__all__ = ["App", "build"]

EXAMPLE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def build(
    model: str | Path | Sequence[str | Path] | None = None,
    *,
    family: str | None = None,
    examples: str | Path | None = None,
    limits: Limits | None = None,
    device: str | None = None,
    dtype: str = "auto",
) -> App:
    """Build the page.

    ```python
    import deepfake_detectors as dfd

    dfd.app.build("m2f2-det-mini").launch()
    ```

    Args:
        model: folder, Hub id or name of a built-in checkpoint, or several: the first is selected at the start, and the
            built-in ones are always available.
        family: family of the stock folders in `model`, as in `pipeline`.
        examples: a folder of images to try; by default those in the package.
        limits: limits of uploads, queue and time.
        device, dtype: as in `pipelines.load_detector`.

    Returns:
        Gradio Blocks. `launch()` serves them on 127.0.0.1 by default; the page does not load anything from other
        hosts.

    Raises:
        ValueError, OSError: for a model that does not exist.
        ImportError: if Gradio is not installed.
    """
    limits = limits or Limits()
    given = [] if model is None else [model] if isinstance(model, (str, Path)) else list(model)
    models = Models(given, device, dtype, family)
    folder = workspace()
    worker = Worker(models, limits, folder)
    pictures = Path(str(files(__package__))) / "pictures" if examples is None else Path(examples)
    with App(limits, folder) as page:
        _draw(worker, sorted(str(path) for path in pictures.iterdir() if path.suffix.lower() in EXAMPLE_SUFFIXES))
    page.queue(max_size=limits.queue, default_concurrency_limit=1)
    return page


def _draw(worker: Worker, examples: list[str]) -> None:
    gr.Markdown(f"# {TITLE}\nDrop an image or a video. The answer is an indication, not proof.")
    names = worker.models.names
    model = gr.Dropdown(names, value=names[0], label="Detector", elem_id="model", filterable=False)
    with gr.Tabs():
        with gr.Tab("Picture", id="picture"):
            picture = Tab(worker, "picture", examples)
            chat = Chat(worker, picture.examined)
        with gr.Tab("Video", id="video"):
            video = Tab(worker, "video", [])
        with gr.Tab("About this detector", id="about") as about:
            card = gr.Markdown(elem_id="card", latex_delimiters=[])

    def show_card(name: str) -> str:
        with plainly():
            return worker.models.card(name)

    about.select(show_card, model, card, api_visibility="private")
    model.input(show_card, model, card, api_visibility="private")
    for tab in (picture, video):
        examination = gr.on(
            [tab.upload.change, model.input],
            tab.run,
            [tab.upload, model, tab.examined],
            tab.outputs,
            concurrency_id="work",
            api_visibility="private",
        )
        if tab is picture:
            examination.then(chat.begin, tab.examined, chat.outputs, api_visibility="private")
    _draw_endpoints(worker)


def _draw_endpoints(worker: Worker) -> None:
    """Add the calls for programs: `/detect`, `/examine`, `/chat`."""
    limits = worker.limits

    def detect(file: str, model: str) -> dict[str, Any]:
        """Score one whole image and return the row of the pipeline."""
        with plainly(file):
            return worker.detect(_given(file), model)

    def examine(file: str, model: str) -> dict[str, Any]:
        """Examine an image or a video and return the record of `examine()`."""
        with plainly(file):
            return worker.examine(_given(file), model).record

    def chat(
        file: str, question: str, history: list[Any], model: str, temperature: float, top_p: float, max_tokens: float
    ) -> str:
        """Answer a question about an image; `history` has earlier [question, answer] pairs."""
        with plainly(file):
            examined = worker.examine(_given(file), model, again=False)
            return [*worker.answer(examined, question, history or [], temperature, top_p, int(max_tokens))][-1]

    with gr.Group(visible=False):
        file = AnyFile(label="file")
        model = gr.Dropdown(worker.models.names, value=worker.models.names[0], label="model")
        question = gr.Textbox(label="question")
        history = gr.JSON([], label="history")
        temperature = gr.Number(0, label="temperature")
        top_p = gr.Number(1, label="top_p")
        max_tokens = gr.Number(256, label="max_tokens", maximum=limits.answer_tokens)
        found, answer, call = gr.JSON(label="result"), gr.Textbox(label="answer"), gr.Button("call")
    common: dict[str, Any] = {"concurrency_id": "work", "api_visibility": "public"}
    call.click(detect, [file, model], found, api_name="detect", **common)
    call.click(examine, [file, model], found, api_name="examine", **common)
    call.click(
        chat, [file, question, history, model, temperature, top_p, max_tokens], answer, api_name="chat", **common
    )


def _given(file: str | None) -> str:
    if not file:
        raise ValueError("No file was given.")
    return file
