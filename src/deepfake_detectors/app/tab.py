"""One tab of the page: an upload and its results."""

from __future__ import annotations

from typing import Any

from deepfake_detectors.app.parts import Clip, Picture, gr, plainly
from deepfake_detectors.app.views import blended, view_of
from deepfake_detectors.app.work import Examined, Worker
from deepfake_detectors.examination.record import RECORD_FILE
from deepfake_detectors.examination.sheet import SHEET_FILE

__all__ = ["Tab"]


class Tab:
    """Draws one tab into the open Blocks.

    Args:
        worker: handles the requests.
        kind: `"picture"` or `"video"`.
        examples: files to try.

    Attributes:
        upload: the upload component.
        examined: state with the last `Examined`, or `None`.
        outputs: the components that `show` returns values for.
    """

    def __init__(self, worker: Worker, kind: str, examples: list[str]) -> None:
        self.worker, self.kind = worker, kind
        self.examined = gr.State(None, time_to_live=int(worker.limits.keep_seconds))
        with gr.Row():
            with gr.Column():
                self.upload: Any = self._draw_upload(examples)
            with gr.Column():
                self._summary = gr.HTML(elem_id=f"{kind}-summary")
                self._timeline = gr.HTML(elem_id=f"{kind}-timeline", elem_classes="dfd-timeline", visible=False)
                with gr.Row():
                    self._sheet = gr.DownloadButton("Download the sheet", visible=False, elem_id=f"{kind}-sheet")
                    self._record = gr.DownloadButton("Download the record", visible=False, elem_id=f"{kind}-record")
        self._boxes = gr.AnnotatedImage(
            label="Faces (choose one to see its crop)", visible=False, elem_id=f"{kind}-boxes", height=420
        )
        self._crops = gr.Gallery(
            label="Crops of faces",
            visible=False,
            elem_id=f"{kind}-crops",
            columns=4,
            height=290,
            interactive=False,
            elem_classes="dfd-crops",
        )
        self._frames = gr.Gallery(
            label="Worst frames",
            visible=False,
            elem_id=f"{kind}-frames",
            columns=3,
            height=290,
            interactive=False,
            elem_classes="dfd-crops",
        )
        with gr.Group(visible=False) as self._marks:
            self._overlay = gr.Image(
                label="Manipulated area", interactive=False, elem_id=f"{kind}-mask", height=420, buttons=["fullscreen"]
            )
            self._strength = gr.Slider(
                0, 1, 0.8, step=0.05, label="Strength of the overlay", elem_id=f"{kind}-strength"
            )
        self._boxes.select(self._select_crop, None, self._crops, api_visibility="private")
        self._strength.release(self._blend, [self.examined, self._strength], self._overlay, api_visibility="private")
        self.outputs: list[Any] = [
            *(self.examined, self._summary, self._timeline, self._sheet, self._record),
            *(self._boxes, self._crops, self._frames, self._marks, self._overlay),
        ]

    def _draw_upload(self, examples: list[str]) -> Any:
        if self.kind == "video":
            return Clip(label="Video", sources=["upload"], height=320, elem_id="video-upload")
        upload = Picture(
            label="Picture",
            type="filepath",
            sources=["upload", "clipboard"],
            height=320,
            elem_id="picture-upload",
            buttons=["fullscreen"],
        )
        if examples:
            gr.Examples([[path] for path in examples], [upload], label="Examples")
        return upload

    def run(
        self,
        path: str | None,
        model: str,
        examined: Examined | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[Any, Any]:
        """Examine an upload and return the values of `outputs`."""
        if path is None:
            return self.show(None)
        if examined is not None and (str(examined.source), examined.model) == (path, model):
            return {self.examined: examined}  # the browser reports one choice several times

        def report(done: int, total: int | None) -> None:
            progress((done, total), desc="Looking at frames", unit="frames")

        with plainly(path):
            return self.show(self.worker.examine(path, model, report))

    def show(self, examined: Examined | None) -> dict[Any, Any]:
        """Return the values of `outputs`, which are empty for `None`."""
        if examined is None:
            hidden = (self._timeline, self._sheet, self._record, self._boxes, self._crops, self._frames, self._marks)
            return {
                **{part: gr.update(visible=False) for part in hidden},
                self._summary: "",
                self._overlay: None,
                self.examined: None,
            }
        view = view_of(examined.record, examined.folder, examined.source)
        whole = None if view.picture is None else (view.picture, view.boxes)
        overlay = None if view.mask is None else blended(view.mask, 0.8)
        return {
            self.examined: examined,
            self._summary: view.summary,
            self._timeline: gr.update(value=view.timeline, visible=bool(view.timeline)),
            self._sheet: gr.update(value=str(examined.folder / SHEET_FILE), visible=True),
            self._record: gr.update(value=str(examined.folder / RECORD_FILE), visible=True),
            self._boxes: gr.update(value=whole, visible=bool(view.boxes)),
            self._crops: gr.update(value=view.crops, visible=bool(view.crops), selected_index=None),
            self._frames: gr.update(value=view.frames, visible=bool(view.frames)),
            self._marks: gr.update(visible=overlay is not None),
            self._overlay: overlay,
        }

    def _select_crop(self, event: gr.SelectData) -> Any:
        return gr.update(selected_index=event.index)

    def _blend(self, examined: Examined | None, strength: float) -> Any:
        if examined is None:
            return None
        mask = view_of(examined.record, examined.folder, examined.source).mask
        return None if mask is None else blended(mask, strength)
