"""A detector on an OpenAI-compatible server, whose answers are parsed by the family's rule."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub.utils import httpx

from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols.fakevlm import fakevlm_verdict
from deepfake_detectors.evaluation.scoring import (
    DetectorError,
    OutsideDetector,
    Progress,
    Scored,
    batchwise,
    describe_set,
    score_pictures,
)
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.configuration_chat_vlm import QUESTION as CHAT_VLM_QUESTION
from deepfake_detectors.modeling.image_downloading import RequestClock
from deepfake_detectors.modeling.image_loading import MAX_PIXELS, InputImageError, load_image
from deepfake_detectors.modeling.image_sources import without_credentials
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.verdict_parsing import parse_verdict

__all__ = ["CHAT_VLM", "FAKEVLM", "REQUEST_TIMEOUT", "EndpointDetector", "ServedFamily", "one_kind"]

REQUEST_TIMEOUT = 120.0  # seconds for one answer, from connecting to the last byte
MAX_NEW_TOKENS = 256
TOP_LOGPROBS = 20  # the maximum of the protocol
MAX_ANSWER_BYTES = 16 * 2**20
SHOWN = 300  # maximum length of a server's error message
CLASSES = ("real", "fake")


@dataclass(frozen=True)
class ServedFamily:
    """The question for servers with a checkpoint of the family, and how to parse answers.

    Attributes:
        question: question about every image, in the model's own chat template.
        read: returns the verdict in an answer, `"real"`, `"fake"` or `None`.
    """

    question: str
    read: Callable[[str], str | None]


FAKEVLM = ServedFamily(FAKEVLM_QUESTION, fakevlm_verdict)
CHAT_VLM = ServedFamily(CHAT_VLM_QUESTION, parse_verdict)


class EndpointDetector(OutsideDetector):
    """A server in place of a checkpoint.

    Requests use greedy decoding and ask for log-probabilities. If the server returns them, P(fake) is the share of
    "fake" in the total probability of "real" and "fake" at the token with the verdict. A word that is not among the
    listed alternatives gets the smallest listed probability, which is its upper limit. Without log-probabilities a
    prediction only has a text.

    Args:
        endpoint: URL of the server, with or without `/v1`.
        model_name: name of the model on the server.
        family: family whose question and rule are used; by default that of the Hub id `model_name`, or else of any
            chat model.
        batch_size: number of parallel requests.
        max_pixels: largest width times height to decode.
        timeout: seconds for one answer.

    Raises:
        ValueError: for an invalid http(s) URL, a family that servers cannot run, or a timeout that is not positive.
    """

    def __init__(
        self,
        endpoint: str,
        model_name: str,
        family: str | None = None,
        batch_size: int = 8,
        max_pixels: int | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"`request_timeout` is {timeout}, expected a positive number of seconds.")
        self.url, self.model_name, self.family = _completions_url(endpoint), model_name, _family(model_name, family)
        self.served: ServedFamily = FAMILIES[self.family].load("served")
        self.batch_size, self.timeout = batch_size, timeout
        self.max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
        self.shown = without_credentials(endpoint)
        self.source = f"{model_name} at {self.shown}"

    def score(
        self,
        pictures: PictureSet,
        folder: Path | None = None,
        explain: bool = False,
        max_new_tokens: int | None = None,
        progress: Progress | None = None,
        head: str | None = None,
    ) -> Scored:
        """Score all readable images; arguments as in `scoring.Detector.score`.

        Raises:
            ValueError: for a folder of another run or one in use by another process, and for `head`.
            DetectorError: if the server cannot be reached, refuses, takes too long, or returns an answer without text.
        """
        if head is not None:
            raise ValueError(f"{self.source} is a server and does not have heads: leave out `head`.")
        longest = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        run = {
            "model": {"name": self.source, "family": self.family, "question": self.served.question},
            "set": describe_set(pictures),
            "explain": explain,
            "max_new_tokens": longest,
        }

        def judge(images: list[Any]) -> list[dict[str, Any]]:
            # The pool waits for running requests, whose time is limited.
            with ThreadPoolExecutor(max(1, len(images))) as pool, httpx.Client(limits=_NOTHING_KEPT) as client:
                return list(pool.map(lambda image: self._judge(client, image, longest), images))

        judging = batchwise(judge, self.batch_size)
        return score_pictures(judging, pictures, run, folder, self.batch_size, progress=progress)

    def _judge(self, client: httpx.Client, image: Any, longest: int) -> dict[str, Any]:
        try:
            picture = load_image(image, max_pixels=self.max_pixels)
        except InputImageError as error:
            return {"error": str(error)}
        stored = io.BytesIO()
        picture.save(stored, "PNG")
        address = f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode('ascii')}"
        shown = {"type": "image_url", "image_url": {"url": address}}
        content = [shown, {"type": "text", "text": self.served.question}]
        request = {
            "model": self.model_name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": longest,
            "temperature": 0,
            "stream": False,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        text, tokens = self._answer(self._post(client, request))
        return {"fake_probability": _fake_probability(text, tokens, self.served.read), "explanation": text}

    def _post(self, client: httpx.Client, request: Mapping[str, Any]) -> bytes:
        """Return the body of the server's response."""
        clock, content = RequestClock(self.timeout), bytearray()
        try:
            with client.stream(
                "POST", self.url, json=request, extensions={"trace": clock.trace}, timeout=clock.left
            ) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise DetectorError(f"{self.shown} returned more than {MAX_ANSWER_BYTES} bytes.")
                if clock.is_over:
                    raise TimeoutError
                if response.status_code != 200:
                    said = " ".join(content.decode("utf-8", "replace").split())[:SHOWN]
                    raise DetectorError(
                        f"{self.shown} returned {response.status_code} {response.reason_phrase} for the model "
                        f"{self.model_name!r}: {said or 'no details'}"
                    )
        except (httpx.HTTPError, OSError) as error:
            if clock.is_over or isinstance(error, (httpx.TimeoutException, TimeoutError)):
                raise DetectorError(
                    f"{self.shown} did not answer within {self.timeout:g} seconds; increase `request_timeout`."
                ) from None
            # From None, because httpx's message about a URL may contain its credentials.
            fault = without_credentials(str(error))
            raise DetectorError(
                f"{self.shown} cannot be reached ({fault}). Check that the server is running."
            ) from None
        finally:
            clock.stop()
        return bytes(content)

    def _answer(self, content: bytes) -> tuple[str, list[Any]]:
        """Return the text, and its tokens with log-probabilities if the server returns them."""
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DetectorError(f"{self.shown} did not return JSON ({type(error).__name__}).") from error
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(choice, dict) or not isinstance(text, str):
            shown = content.decode("utf-8", "replace")[:SHOWN]
            raise DetectorError(f"{self.shown} returned no text in `choices`: {shown}")
        told = choice.get("logprobs")
        tokens = told.get("content") if isinstance(told, dict) else None
        return text.strip(), tokens if isinstance(tokens, list) else []


_NOTHING_KEPT = httpx.Limits(max_keepalive_connections=0)  # each connection must be registered with its time limit


def one_kind(rows: list[Prediction]) -> tuple[list[Prediction], list[str]]:
    """Return predictions of which all or none have a score, with a note about it.

    An answer without a verdict has no score. Leaving it out would make the detector look better, so in that case all
    answers are parsed as words, and it counts as wrong.
    """
    without = sum(row.score is None for row in rows)
    if not without:
        return rows, []
    if without == len(rows):
        return rows, [
            "The server did not return probabilities of verdicts: answers are parsed as words, without an AUC."
        ]
    told = (
        f"{without} of {len(rows)} answers have no probability of a verdict: all are parsed as words, and an answer "
        "without a verdict counts as wrong."
    )
    return [replace(row, score=None) for row in rows], [told]


def _completions_url(endpoint: str) -> str:
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(
            f"`endpoint` is {without_credentials(endpoint)!r}, expected the http(s) URL of a server, such as "
            "'http://localhost:8000/v1'."
        )
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return str(url.copy_with(path=f"{path if path.endswith('/v1') else path + '/v1'}/chat/completions"))


def _family(model_name: str, family: str | None) -> str:
    served = [name for name, row in FAMILIES.items() if row.served is not None]
    if family is None:
        released = (name for name in served if any(item["id"] == model_name for item in FAMILIES[name].official))
        return next(released, next(name for name in served if FAMILIES[name].any_chat_model))
    if family not in served:
        raise ValueError(f"`family` is {family!r}, but servers are supported only for: {', '.join(served)}.")
    return family


def _fake_probability(text: str, tokens: Sequence[Any], read: Callable[[str], str | None]) -> float | None:
    """Return P(fake) at the token with the verdict; `None` without such a token."""
    verdict, before = read(text), ""
    for token in tokens if verdict is not None else ():
        if not isinstance(token, dict) or not isinstance(token.get("token"), str):
            return None
        piece = token["token"]
        if _word(piece) in CLASSES and not (before[-1:].isalnum() and piece[:1].isalnum()):
            return _share(token) if _word(piece) == verdict else None
        before += piece
    return None


def _word(piece: str) -> str:
    return piece.strip(" \n\t▁Ġ.,:;!*\"'").lower()


def _share(token: Mapping[str, Any]) -> float | None:
    """Return the share of "fake" among the alternatives for this token."""
    listed: dict[str, float] = {}
    for item in [token, *(token.get("top_logprobs") or [])]:
        value = item.get("logprob") if isinstance(item, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value <= 1e-3:
            return None
        listed[str(item.get("token"))] = math.exp(value)
    if len(listed) < 2:
        return None  # only the chosen token, without alternatives to compare
    sums = {name: sum(value for piece, value in listed.items() if _word(piece) == name) for name in CLASSES}
    real, fake = (sums[name] or min(listed.values()) for name in CLASSES)
    return fake / (real + fake) if real + fake > 0 else None
