"""`deepfake-detectors app`: serve the web page on a local port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfake_detectors_cli.console import fail, hide_loading_bars, say
from deepfake_detectors_cli.options import Device, Dtype, DtypeName, Family

__all__ = ["app"]

ADDRESS = "127.0.0.1"  # this machine only


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Folder, Hub id, or name of a built-in detector; repeatable. The first is selected at the start; "
            "the built-in ones are always available.",
        ),
    ] = None,
    family: Family = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = ADDRESS,
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also open a public address through Gradio's tunnel.")
    ] = False,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:FILE", help="Require a login with this user and the password in the first line of FILE."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
) -> None:
    """Serve a page on which people drop an image or a video, read the decision, and ask about it.

    \b
    Examples:
      deepfake-detectors app
      deepfake-detectors app --model m2f2-det-mini
      deepfake-detectors app --host 0.0.0.0 --port 80 --auth maria:password.txt

    The page is reachable only from this machine unless --host says otherwise. Uploads are limited in size, removed
    after an hour, and never leave the machine. Stop the server with Ctrl+C.
    """
    credentials = None if auth is None else _credentials(auth)

    from deepfake_detectors.app import build

    hide_loading_bars()
    page = build(model, family=family, device=device, dtype=dtype.value)
    _, local, shared = page.launch(
        server_name=host, server_port=port, share=share, auth=credentials, quiet=True, prevent_thread_lock=True
    )
    say(f"The page is at {local}" + (f" and at {shared}" if shared else "") + " (Ctrl+C stops it).")
    page.block_thread()


def _credentials(auth: str) -> tuple[str, str]:
    """Return user and password; end the command if the text is not `USER:FILE`."""
    user, colon, file = auth.partition(":")
    if not colon or not user or not file:
        fail(f"--auth {auth}: expected USER:FILE, with the password in the file.")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--auth: the file {file} cannot be read ({error}).")
    if not lines or not lines[0]:
        fail(f"--auth: the first line of {file} is empty; it must be the password.")
    return user, lines[0]
