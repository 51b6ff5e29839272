"""A guard between the network and Gradio: allowed routes, upload limits, and the location of files."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from deepfake_detectors.app.limits import MIB, Limits

__all__ = ["Guard", "lifespan", "workspace"]

FILE_ROUTE = "/gradio_api/file="
UPLOAD_ROUTE = "/gradio_api/upload"
# Prefixes of the routes that a page and a client need. Gradio's other routes (proxy, streams, deep links, history of
# runs, monitoring, reloading) are not needed here.
ROUTES = (
    "/assets/",
    "/config",
    "/favicon.ico",
    "/gradio_api/app_id",
    "/gradio_api/call/",
    "/gradio_api/cancel",
    "/gradio_api/heartbeat/",
    "/gradio_api/info",
    "/gradio_api/login_check",
    "/gradio_api/openapi.json",
    "/gradio_api/queue/",
    "/gradio_api/reset",
    "/gradio_api/run/",
    "/gradio_api/startup-events",
    "/gradio_api/theme.css",
    "/gradio_api/token",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/user",
    "/login",
    "/logout",
    "/manifest.json",
    "/pwa_icon",
    "/robots.txt",
    "/static/",
    "/svelte/",
    "/theme.css",
)
MESSAGE_BYTES = 2 * MIB  # limit for a request that is not an upload
SWEEP_SECONDS = 60.0
_workspace: Path | None = None
_running = 0  # number of apps of this process, which share the workspace


def workspace() -> Path:
    """Return this process's private folder for uploads and results, which is deleted when the process ends.

    It is created in `GRADIO_TEMP_DIR` if that is set. Gradio reads the variable at each request, so it is then set to
    the new folder for the rest of the process.
    """
    global _workspace
    if _workspace is None or not _workspace.is_dir():
        given = os.environ.get("GRADIO_TEMP_DIR")
        if given and _workspace is None:
            Path(given).mkdir(parents=True, exist_ok=True)
        parent = given if _workspace is None else None
        _workspace = Path(tempfile.mkdtemp(prefix="deepfake-detectors-app-", dir=parent or None)).resolve()
        atexit.register(shutil.rmtree, _workspace, ignore_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = str(_workspace)
    return _workspace


class Guard:
    """ASGI middleware: refuses routes, files outside the workspace, and bodies that are too large or too slow.

    Args:
        app: the wrapped app.
        limits: limits of the app.
        folder: the workspace.
    """

    def __init__(self, app: Any, limits: Limits, folder: Path) -> None:
        self.app, self.limits, self.folder = app, limits, folder
        self.receiving = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = None if scope["type"] == "http" else PlainTextResponse("Not found.", 404)
        refusal = refusal or self._refused(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        if self.receiving >= self.limits.uploads:
            await _busy(scope, receive, send)
            return
        upload = scope["path"].startswith(UPLOAD_ROUTE)
        if upload and await anyio.to_thread.run_sync(_bytes_in, self.folder) > self.limits.disk_bytes:
            await _busy(scope, receive, send)
            return
        self.receiving += 1
        body = _Body(receive, (self.limits.file_bytes if upload else 0) + MESSAGE_BYTES, self.limits.upload_seconds)
        try:
            await self.app(scope, body.receive, body.watched(send))
            if body.fault is not None and not body.answered:
                await PlainTextResponse(body.fault.detail, body.fault.status_code)(scope, receive, send)
        except HTTPException as error:  # raised by `body`, if the application let it through
            if body.answered:
                raise
            await PlainTextResponse(error.detail, error.status_code)(scope, receive, send)
        finally:
            self.receiving -= 1

    def _refused(self, scope: dict[str, Any]) -> Any:
        path = scope["path"]
        if path == "/" or path.startswith(ROUTES):
            return None
        if path.startswith(FILE_ROUTE):
            try:
                asked = Path(path.removeprefix(FILE_ROUTE)).resolve(strict=True)
            except (OSError, ValueError, RuntimeError):
                return PlainTextResponse("Not allowed.", 403)
            if asked.is_file() and asked.is_relative_to(self.folder):
                return None
            return PlainTextResponse("Not allowed.", 403)
        return PlainTextResponse("Not found.", 404)


async def _busy(scope: dict[str, Any], receive: Any, send: Any) -> None:
    response = PlainTextResponse("Busy. Please try again in a minute.", 503, headers={"Retry-After": "60"})
    await response(scope, receive, send)


class _Body:
    """The body of one request, limited in size and time."""

    def __init__(self, receive: Any, most: int, seconds: float) -> None:
        self._receive, self._left, self._deadline = receive, most, time.monotonic() + seconds
        self._complete = False
        self.fault: HTTPException | None = None
        self.answered = False

    async def receive(self) -> Any:
        if self._complete:  # waits for the caller to disconnect
            return await self._receive()
        if self.fault is not None:
            raise self.fault
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            self.fault = HTTPException(408, "The upload took too long.")
            raise self.fault from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._left < 0:
                self.fault = HTTPException(413, "The upload is too large.")
                raise self.fault
        return message

    def watched(self, send: Any) -> Callable[[Any], Any]:
        async def watch(message: Any) -> None:
            self.answered = self.answered or message["type"] == "http.response.start"
            await send(message)

        return watch


def lifespan(limits: Limits, folder: Path, kept: Callable[[], set[str]]) -> Any:
    """Return an ASGI lifespan that removes old files while the app runs, and all of them when the last app ends.

    Args:
        limits: limits of the app, including how long files are kept.
        folder: the workspace.
        kept: returns files to keep, such as examples, for every app of this process.
    """

    @asynccontextmanager
    async def handler(app: Any) -> AsyncIterator[None]:
        global _running

        async def sweep() -> None:
            while True:
                await asyncio.sleep(min(SWEEP_SECONDS, limits.keep_seconds))
                await anyio.to_thread.run_sync(remove_old, folder, limits.keep_seconds, kept())

        _running += 1
        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            _running -= 1
            if not _running:
                remove_old(folder, -1.0, kept())

    return handler


def remove_old(folder: Path, seconds: float, kept: set[str]) -> None:
    """Remove older files below a folder, and folders that become empty."""
    now = time.time()
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place) / name
            try:
                if str(path) not in kept and now - path.lstat().st_mtime > seconds:
                    path.unlink()
            except FileNotFoundError:
                continue
        if Path(place) != folder and not any(Path(place).iterdir()):
            shutil.rmtree(place, ignore_errors=True)


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
