"""`deepfake-detectors chat`: ask about one image in several turns."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from deepfake_detectors_cli.console import OutputFormat, hide_loading_bars, say, show, wants_table, work
from deepfake_detectors_cli.options import Device, Dtype, DtypeName, Family, Format, Model, Quiet

__all__ = ["chat"]


def chat(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="File or http(s) URL to talk about.")],
    model: Model = None,
    family: Family = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest answer. [default: the detector's own]")
    ] = None,
    format: Format = OutputFormat.auto,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
    quiet: Quiet = False,
) -> None:
    """Ask a detector that has a language model about an image, in several turns.

    \b
    Examples:
      deepfake-detectors chat face.jpg --model m2f2-det-mini
      printf 'Is it real?\\nWhy?\\n' | deepfake-detectors chat face.jpg --model fakevlm

    Each line of standard input is a question; the model sees the earlier questions and answers. An empty line or the
    end of the input ends the conversation. In a pipe the answers are JSON lines {"question", "answer"}.
    """
    from deepfake_detectors.modeling.detection import require_ability
    from deepfake_detectors.modeling.image_loading import load_image
    from deepfake_detectors.pipelines import load_detector

    hide_loading_bars()
    image = load_image(picture)
    detector = load_detector(model, device, dtype.value, family)
    require_ability(detector.model, "converse")
    generation = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    table = wants_table(format)
    with work():
        conversation = detector.converse(image)
    if not quiet:
        say(
            f"P(fake) {conversation.detection.fake_probability.item():.4f}. Type a question; an empty line ends the "
            "conversation."
        )
    history: list[tuple[str, str]] = []
    while question := _next_question(table):
        with work():
            answer = conversation.ask(question, history, **generation)
        if table:
            show(answer)
        else:
            show(json.dumps({"question": question, "answer": answer}, ensure_ascii=False))
        history.append((question, answer))


def _next_question(table: bool) -> str:
    if table and sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    return sys.stdin.readline().strip()
