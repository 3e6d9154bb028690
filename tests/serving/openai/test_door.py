"""OpenAI's protocol in front of the service, over HTTP and with OpenAI's own client."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from builders.chats import CLIP, message, request
from builders.gateways import listening
from builders.serving import CHOICES
from cinetune.artifacts import Adapter
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import FrameSettings
from cinetune.inference.scoring import Reply
from cinetune.serving.openai import completion
from cinetune.serving.openai.completion import Served
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.service import Service

pytestmark = pytest.mark.serving

KEY = b"s3cret-key"


@pytest.fixture(scope="module")
def service(served_folder: tuple[Path, Any]) -> Iterator[Service]:
    root, params = served_folder
    params = params.override("model", {"base": str(root / "base-model")}).override("data", {"root": str(root / "data")})
    service = Service.of_adapter(Adapter.open(root / "adapter"), params)
    yield service
    service.close()


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with listening(service) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


def send(port: int, content: Any, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any, Any]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, given)
    answer = connection.getresponse()
    return answer.status, answer.headers, json.loads(answer.read())


def upload(root: Path, name: str = "clip0") -> dict[str, Any]:
    content = base64.b64encode((root / "data" / "clips" / f"{name}.mp4").read_bytes()).decode()
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{content}"}}


def test_models_are_listed_and_found_by_their_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["clips"]
    assert client.models.retrieve("clips").owned_by == "cinetune"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt")
    assert caught.value.code == "model_not_found"


def test_words_and_letters_are_those_of_the_other_door(
    client: openai.OpenAI, service: Service, served_folder: tuple[Path, Any]
) -> None:
    row = {"video": "clip:clip0", "question": "Where are they?", "choices": CHOICES, "subtitles": "Look."}
    [expected] = service.answer([row], replace(service.defaults, scorer="logit"), Deadline(None))
    [words] = service.answer([row], service.defaults, Deadline(None))
    for media in (CLIP, upload(served_folder[0])):
        found = client.chat.completions.create(
            model="clips", messages=[message(media=[media])], temperature=0, logprobs=True, top_logprobs=5
        )
        [choice] = found.choices
        assert choice.message.content == words["raw"] and choice.message.role == "assistant"
        [first] = choice.logprobs.content
        shares = {item.token: math.exp(item.logprob) for item in first.top_logprobs}
        assert first.token == expected["choice"] and sorted(shares) == list("ABCDE")
        assert shares[first.token] / sum(shares.values()) == pytest.approx(expected["confidence"], abs=1e-5)
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
        assert found.usage.prompt_tokens > 100 and 0 < found.usage.completion_tokens <= 6


def test_words_end_at_max_tokens_and_it_is_told(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="clips", messages=[message(choices=None)], max_tokens=4)
    first = client.chat.completions.create(model="clips", messages=[message(choices=None)], max_tokens=1)
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 4
    assert first.usage.completion_tokens == 1 and whole.choices[0].logprobs is None
    assert whole.choices[0].message.content.startswith(first.choices[0].message.content)


def test_a_stream_holds_the_same(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "clips", "messages": [message()], "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *told, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert told[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert told[1].choices[0].logprobs.model_dump() == whole.choices[0].logprobs.model_dump()
    assert last.choices == [] and last.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    plain = list(client.chat.completions.create(**asked, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)


BAD_VIDEOS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "ten bytes": (b"0123456789", "upload"),
    "a page": (b"<html><body>Before you continue</body></html>", "upload"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "upload"),
    "a playlist": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "upload"),
    "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd\n", "upload"),
}


@pytest.mark.parametrize("name", list(BAD_VIDEOS))
def test_what_is_no_video_is_refused_in_openais_shape(port: int, name: str) -> None:
    content, reason = BAD_VIDEOS[name]
    url = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
    status, _, answer = send(port, request(message(media=[{"type": "video_url", "video_url": {"url": url}}])))
    assert status == 400 and reason in refusal(answer)


def refusal(answer: Any) -> str:
    """The sentence of an error in OpenAI's shape."""
    assert answer.keys() == {"error"} and answer["error"].keys() == {"message", "type", "param", "code"}
    sentence = answer["error"]["message"]
    assert sentence.endswith(".") and not sentence.endswith("..") and "\n" not in sentence and len(sentence) < 310
    assert not any(word in sentence for word in ("Traceback", "passwd", ".py"))
    return sentence


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "another model": (request() | {"model": "gpt-4"}, 404, "ask for clips"),
    "a clip that is not there": (
        request(message(media=[{"type": "video_url", "video_url": {"url": "clip:nowhere"}}])), 400, "is not among"
    ),
    "a way out": (
        request(message(media=[{"type": "video_url", "video_url": {"url": "clip:../secret"}}])), 400, "names no clip"
    ),
    "a host": (
        request(message(media=[{"type": "video_url", "video_url": {"url": "http://localhost/a.mp4"}}])),
        400, "addresses are not opened",
    ),
    "base64 garbage": (
        request(message(media=[{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,A*="}}])),
        400, "must be the base64",
    ),
    "two choices alike": (request(message(choices=["a", "a", "b", "c", "d"])), 400, "must differ"),
    "a choice too many": (
        request(
            {"role": "user", "content": [CLIP, {"type": "text", "text": "Who?\n" + "\n".join(
                f"{letter}. {letter * 2}" for letter in "ABCDEFGHIJKL"
            )}]}
        ),
        400, "12",
    ),
    "a question too long": (request(message("why " * 3000)), 400, "may hold 10000 characters"),
    "too many tokens": (request(message("so " * 2000)), 400, "tokens"),
    "half a character": (request(message("Who \ud83d?", choices=None)), 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_wrong_values_are_refused_in_openais_shape(port: int, name: str) -> None:
    content, status, reason = BAD[name]
    found, _, answer = send(port, content)
    if status:
        assert found == status and reason in refusal(answer)
    else:
        assert found == 200


def test_a_page_of_other_paths_and_methods_is_refused_in_the_shape_of_its_door(port: int) -> None:
    for path, status in (("/v1/completions", 404), ("/v1/embeddings", 404), ("/v1/models", 405), ("/v1/", 404)):
        found, headers, answer = send(port, request(), path)
        assert found == status and refusal(answer)
        assert status != 405 or headers["Allow"] == "GET, HEAD"
    found, _, answer = send(port, b"{}", "/nothing")
    assert found == 404 and isinstance(answer["error"], str)
    found, _, answer = send(port, b"a,b", Content_Type="text/csv")
    assert found == 415 and "send application/json" in refusal(answer)
    found, headers, answer = send(port, b"{", X_Request_Id="mine")
    assert found == 400 and headers["X-Request-Id"] == "mine" and "not JSON" in refusal(answer)


def test_both_doors_open_with_the_key_alone(service: Service) -> None:
    row = {"inputs": [{"video": "clip:clip0", "question": "Who?"}]}
    with listening(service, key=KEY) as port:
        for shown, word in (
            ({}, "missing"), ({"Authorization": "Bearer "}, "missing"), ({"Authorization": "Bearer s3cret"}, "wrong"),
            ({"Authorization": "Basic s3cret-key"}, "wrong"), ({"Authorization": "s3cret-key"}, "missing"),
        ):  # fmt: skip
            status, headers, answer = send(port, request(), **shown)
            assert status == 401 and answer["error"]["code"] == "invalid_api_key"
            assert word in refusal(answer) and headers["WWW-Authenticate"] == "Bearer"
            status, _, answer = send(port, row, "/invocations", **shown)
            assert status == 401 and word in answer["error"] and "s3cret" not in json.dumps(answer)
        right = {"Authorization": f"bearer {KEY.decode()}"}
        assert send(port, request(), **right)[0] == send(port, row, "/invocations", **right)[0] == 200
        strangers = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="other", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            strangers.models.list()
        friends = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY.decode(), max_retries=0)
        assert friends.models.list().data[0].id == "clips"


class Asked:
    """The parts of a chat that decide the response's shape."""

    top_logprobs, is_streamed, shows_usage = 5, False, False


@pytest.mark.parametrize(
    ("shares", "mass"), [((0.5, 0.5, 0.0), 0.9), ((0.2, 0.3, 0.5), 0.0), ((1.0, 0.0, 0.0), 1e-40), ((0.3, 0.4, 0.3), 1)]
)
def test_logprobs_are_numbers_that_give_the_shares_back(shares: tuple[float, ...], mass: float) -> None:
    reply = Reply("A", shares, mass, 10, 1)
    content = json.loads(completion.completion(Asked(), reply, 6, Served("clips", 0), "x").body)  # type: ignore[arg-type]
    [first] = content["choices"][0]["logprobs"]["content"]
    found = {item["token"]: item["logprob"] for item in first["top_logprobs"]}
    weights = [math.exp(found[letter] - first["logprob"]) for letter in "ABC"]
    assert [weight / sum(weights) for weight in weights] == pytest.approx(shares, abs=1e-12)
    assert first["token"] == "ABC"[shares.index(max(shares))] and all(map(math.isfinite, found.values()))


def picture(content: bytes, kind: str = "png") -> dict[str, Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_frames_as_pictures_give_the_answer_to_their_video(service: Service, port: int) -> None:
    """Lossless ones of the model's own size are its frames to the bit."""
    path = service.clips_folder / "clip0.mp4"
    with Decoder(Limits.of(service.frames)) as decoder:
        frames = decoder.read(path, FrameSettings.of(service.frames)).frames
    pictures = [picture(encoded(Image.fromarray(frame))) for frame in frames]
    asked = {"logprobs": True, "top_logprobs": 5}
    _, _, video = send(port, request(**asked))
    _, _, images = send(port, request(message(media=pictures), **asked))
    assert images["choices"] == video["choices"] and images["usage"] == video["usage"]
    _, _, other = send(port, request(message(media=pictures[::-1]), **asked))
    assert other["choices"][0]["logprobs"] != video["choices"][0]["logprobs"]
    for few in (1, 3, 20):
        status, _, answer = send(port, request(message(media=(pictures * 3)[:few])))
        assert status == 200 and answer["usage"] == video["usage"]


SQUARE = Image.new("RGB", (32, 32), "red")
BAD_PICTURES: dict[str, list[dict[str, Any]]] = {
    "nothing": [picture(b"")],
    "ten bytes": [picture(b"0123456789")],
    "garbage in base64": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,A*="}}],
    "half of one": [picture(encoded(Image.effect_noise((64, 64), 90))[:2000])],
    "a drawing": [picture(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')],
    "a moving GIF": [
        picture(encoded(SQUARE, "GIF", save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")]))
    ],
    "100 megapixels": [picture(encoded(Image.new("1", (10_000, 10_000))))],
    "a video": [picture(b"\x00\x00\x00\x18ftypmp42" + bytes(100), "jpeg")],
    "129 of them": [picture(encoded(SQUARE))] * 129,
    "a host": [{"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}],
}


@pytest.mark.parametrize("name", list(BAD_PICTURES))
def test_what_is_no_picture_is_refused_in_openais_shape(port: int, name: str) -> None:
    status, _, answer = send(port, request(message(media=BAD_PICTURES[name])))
    assert status == 400 and re.match(r"images? ", refusal(answer))
    assert send(port, request())[0] == 200
