"""The registered model: the evaluation's answers, one sentence for a bad row, no pickle, no other base."""

import base64
import dataclasses
import io
import json
import os
import shutil
import socket
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from transformers import VideoLlavaForConditionalGeneration

from builders.clips import write_clip
from builders.projects import ROOT
from cinetune.artifacts import Adapter
from cinetune.errors import InputError
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import FrameSettings
from cinetune.inference import scoring
from cinetune.inference.scoring import QuestionPrompt, Reply
from cinetune.model.base import load_base
from cinetune.model.encoder import encoder_for
from cinetune.model.lora import load_adapter
from cinetune.serving import batching, packaging, pyfunc, service, sources
from cinetune.serving.batching import Clip
from cinetune.serving.pools import ClipCache
from cinetune.serving.requests import form
from cinetune.serving.server import listener
from cinetune.serving.server.deadline import Deadline
from cinetune.stages import serve
from cinetune.task import prompts
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.serving

CHOICES = ["on the beach", "in the city", "at the castle", "on the farm", "in the desert"]
SUBTITLES = "<subtitle> Ana has the red coat.\n<subtitle> It is the key that Bela wants."


def row(**values):
    return {
        "video": "clip:clip0",
        "question": "Where are they?",
        "choices": CHOICES,
        "subtitles": SUBTITLES,
    } | values


def predict(model, rows, params=None):
    return model.predict(rows, params=params).to_dict("records")


def upload(root, name="clip0"):
    return base64.b64encode((root / "data" / "clips" / f"{name}.mp4").read_bytes()).decode()


def test_answers_are_those_of_the_evaluation(served_folder, served):
    """Served rows, uploads among them, against frames decoded and scored directly."""
    root, params = served_folder
    base, tokenizer = load_base(dataclasses.replace(params.model, base=str(root / "base-model")), "cpu")
    adapted = load_adapter(base, root / "adapter")
    encoder = encoder_for(base.config, tokenizer, params.frames.num_frames, params.prompt.max_subtitle_tokens)
    with Decoder(Limits.of(params.frames)) as decoder:
        settings = FrameSettings.of(params.frames)
        seen = [decoder.read(root / "data" / "clips" / f"clip{i}.mp4", settings).frames for i in range(2)]
    asked = [QuestionPrompt("Where are they?", tuple(CHOICES)), QuestionPrompt("Who is it?", None)]
    direct = [scoring.reply(adapted, encoder, SUBTITLES, frames, asked, 6) for frames in seen]

    rows = [
        row(),
        row(video="clip:clip1"),
        row(question="Who is it?", choices=None),
        row(video=upload(root, "clip1"), question="Who is it?", choices=None),
    ]
    expected = [direct[0][0], direct[1][0], direct[0][1], direct[1][1]]
    found = predict(served, rows)
    assert [item["raw"] for item in found] == [reply.raw for reply in expected]
    for item, reply in zip(found[:2], expected[:2], strict=True):
        assert item["confidence"] == pytest.approx(
            reply.probabilities[CINEPILE.letters.index(item["choice"])], abs=1e-5
        )
        assert item["answer"] == CHOICES[CINEPILE.letters.index(item["choice"])]
    for item in found[2:]:
        assert item["answer"] and item["choice"] is None and item["confidence"] is None
    assert all(item["error"] is None for item in found)
    json.dumps(found, allow_nan=False)


def test_words_decide_and_the_likeliest_option_stands_in_where_they_name_none():
    asked, shares = QuestionPrompt("?", tuple(CHOICES)), (0.1, 0.2, 0.4, 0.2, 0.1)
    words = service.answered(asked, Reply("The answer is B.", shares), "lenient")
    assert (words["choice"], words["answer"], words["confidence"]) == ("B", "in the city", 0.2)
    silent = service.answered(asked, Reply("hm", shares), "lenient")
    assert (silent["choice"], silent["answer"], silent["raw"]) == ("C", "at the castle", "hm")
    with pytest.raises(RuntimeError):
        service.answered(asked, Reply("", (float("nan"),) * 5), "lenient")


def test_another_scorer_decides_in_its_own_way(served):
    asked, shares = QuestionPrompt("?", tuple(CHOICES)), (0.1, 0.2, 0.4, 0.2, 0.1)
    found = {
        scorer: service.answered(asked, Reply("The answer is B.", shares), scorer)["choice"] for scorer in form.SCORERS
    }
    assert found == {"lenient": "B", "strict": None, "logit": "C"}
    (answer,) = predict(served, [row()], params={"scorer": "logit"})
    assert answer["raw"] == "" and answer["choice"] and answer["error"] is None
    (words,) = predict(served, [row(choices=None)], params={"scorer": "logit"})
    assert words["raw"]


def test_fewer_frames_may_be_looked_at(served):
    whole, few = (predict(served, [row()], params={"frames": n})[0] for n in (8, 2))
    assert few["error"] is None and few["confidence"] != whole["confidence"]


def test_a_bad_row_has_its_own_error_and_the_others_are_answered_in_order(served_folder, served):
    broken = base64.b64encode((served_folder[0] / "data" / "clips" / "clip0.mp4").read_bytes()[:300]).decode()
    bad = [
        row(choices=CHOICES[:4]),
        row(choices=[*CHOICES, "nowhere"]),
        row(choices=[]),
        row(choices=["a", "a", "b", "c", "d"]),
        row(question=" "),
        row(question="why " * 3000),
        row(question="so " * 2000),
        row(video=""),
        row(video=base64.b64encode(b"just words").decode()),
        row(video=broken),
        row(subtitles="x" * 300_000),
    ]
    good = predict(served, [row(), row(video="clip:clip1")])
    mixed = predict(served, [row(), *bad, row(video="clip:clip1")])
    assert [mixed[0], mixed[-1]] == [
        item | {"confidence": pytest.approx(item["confidence"], abs=1e-5)} for item in good
    ]
    for item in mixed[1:-1]:
        assert item["error"].endswith(".") and len(item["error"]) < 400
        assert (item["answer"], item["choice"], item["confidence"], item["raw"]) == ("", None, None, "")
    json.dumps(mixed, allow_nan=False)


def test_missing_values_are_read_as_absent(served):
    rows = [row(subtitles=None), row(question=None), row(video=None)]
    plain, no_question, no_video = predict(served, rows)
    assert plain["error"] is None
    assert plain["raw"] == predict(served, [row(subtitles="")])[0]["raw"]
    assert no_question["error"].startswith("question must be text")
    assert no_video["error"].startswith("video must be text")
    (only,) = predict(served, [{"video": "clip:clip0", "question": "Who is it?"}])
    assert only["error"] is None and only["choice"] is None


def test_images_are_shown_in_the_place_of_a_video(served):
    def image(level):
        file = io.BytesIO()
        Image.new("RGB", (80, 60), (level, 90, 200)).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def shown(images, **values):
        return {name: value for name, value in row(images=images).items() if name != "video"} | values

    images = [image(level) for level in (0, 60, 120)]
    rows = [shown(images), shown([f"data:image/png;base64,{images[0]}", *images[1:]]), shown(images[::-1]), row()]
    plain, from_link, turned, video = predict(served, rows)
    assert {item["error"] for item in (plain, from_link, turned, video)} == {None}
    assert plain == from_link and plain["confidence"] != turned["confidence"] != video["confidence"]
    svg = base64.b64encode(b"<svg/>").decode()
    bad = [shown([]), shown(images * 50), shown(images, video="clip:clip0"), shown([images[0], "no!"]), shown([svg])]
    bad += [shown("text"), shown([3]), shown(["https://example.org/a.png"])]
    errors = [item["error"] for item in predict(served, [*bad, row()])]
    told = [
        "a list of base64 texts", "may be 128, got 150", "leave one out", "image 2 must be the base64", "is an SVG",
        "a list of base64 texts", "image 1 must be text", "image 1 must be the base64",
    ]  # fmt: skip
    for error, words in zip(errors, told, strict=False):
        assert words in error and error.endswith("."), error
    assert errors[-1] is None


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd", "data/clips/clip0.mp4", "file:///etc/passwd", "https://example.org/a.mp4", "pipe:0",
        "concat:a|b", "data:video/mp4;base64,AAAA", "clip:", "clip:../../secret", "clip:../clips/clip0",
        "clip:/etc/passwd", "clip:clip0.mp4", "clip:clip0\n", "clip:clip0\x00", "clip:nothing", "clip:leaves",
        "clip:loops", "clip:waits", "clip:folder", "clip:" + "a" * 400, "clip:ｃlip0", "CLIP:clip0",
    ],
)  # fmt: skip
def test_nothing_but_served_clips_and_uploads_is_opened(served_folder, served, source):
    root, _ = served_folder
    clips = root / "data" / "clips"
    if not (clips / "leaves.mp4").is_symlink():
        (clips / "leaves.mp4").symlink_to(root / "secret.mp4")
        (clips / "loops.mp4").symlink_to(clips / "loops.mp4")
        os.mkfifo(clips / "waits.mp4")
        (clips / "folder.mp4").mkdir()
    (answer,) = predict(served, [row(video=source)])
    assert answer["error"] and answer["choice"] is None
    assert str(root) not in answer["error"] and "Traceback" not in answer["error"]


def test_a_link_within_the_served_folder_is_followed(served_folder, served):
    clips = served_folder[0] / "data" / "clips"
    (clips / "again.mp4").symlink_to(clips / "clip0.mp4")
    (link,), (plain,) = predict(served, [row(video="clip:again")]), predict(served, [row()])
    assert link == plain


def test_a_video_above_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(sources, "MAX_VIDEO_BYTES", 1000)
    monkeypatch.setattr(sources, "MAX_SPACE_CHARS", 1000)
    with pytest.raises(InputError, match="above the limit"):
        sources.read_upload("A" * 20_000)
    with pytest.raises(InputError, match="above the limit"):
        sources.read_upload(base64.b64encode(bytes(1001)).decode())
    assert sources.read_upload(base64.encodebytes(bytes(1000)).decode()) == bytes(1000)


def test_rows_on_one_clip_are_read_together_and_decoded_once(served_folder, served, monkeypatch):
    root, _ = served_folder
    inner = served.unwrap_python_model().service
    write_clip(root / "data" / "clips" / "fresh.mp4", 33)
    packs = []
    monkeypatch.setattr(scoring, "answer", _counting(scoring.answer, packs, lambda args: len(args[3])))
    before = inner.counts()
    fresh = row(video="clip:fresh")
    rows = [
        fresh,
        row(),
        {**fresh, "question": "Who?"},
        row(video=upload(root, "fresh")),
        {**fresh, "subtitles": ""},
    ]
    predict(served, rows)
    assert sorted(packs) == [1, 1, 3]
    assert inner.counts()["clips_decoded"] - before["clips_decoded"] == 1


def _counting(function, seen, what):
    def counted(*args):
        seen.append(what(args))
        return function(*args)

    return counted


def test_many_long_questions_do_not_make_one_endless_pack(served, monkeypatch):
    packs = []
    monkeypatch.setattr(scoring, "answer", _counting(scoring.answer, packs, lambda args: len(args[3])))
    monkeypatch.setattr(batching, "MAX_PACK_TOKENS", 200)
    found = predict(served, [row(question=f"Where is {name}?") for name in "pqrstu"], params={"max_new_tokens": 2})
    assert sum(packs) == 6 and len(packs) > 1
    assert all(item["error"] is None for item in found)


def test_frames_of_old_clips_are_forgotten():
    cache, decoded = ClipCache(2), []

    def read(name):
        return cache.read(name, lambda: decoded.append(name) or Clip(name, None), Deadline(None)).digest

    assert [read(name) for name in "abacab"] == list("abacab")
    assert decoded == ["a", "b", "c", "b"] and len(cache) == 2


def test_what_several_want_at_once_is_decoded_by_one_and_a_failure_is_not_kept():
    cache, decoded, release = ClipCache(2), [], threading.Event()

    def decode():
        decoded.append(1)
        release.wait(5)
        if len(decoded) == 1:
            raise InputError("broken.")
        return Clip("a", None)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.read, "a", decode, Deadline(10)) for _ in range(4)]
        time.sleep(0.2)
        assert len(decoded) == 1
        release.set()
        assert all(isinstance(future.exception(60), InputError) for future in waiting)
    assert cache.read("a", decode, Deadline(10)).digest == "a"


def test_threads_get_the_answers_of_one_thread(served):
    rows = [row(question=f"Where is {name}?") for name in ("Ana", "Bela", "Cora", "Dario")]
    alone = [predict(served, [item])[0]["raw"] for item in rows]
    found = [None] * len(rows)

    def ask(number):
        found[number] = predict(served, [rows[number]])[0]["raw"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == alone


def test_a_bad_request_is_refused_as_a_whole(served):
    from mlflow.exceptions import MlflowException

    for params, reason in (
        ({"max_new_tokens": 0}, "max_new_tokens must be between 1 and 256, got 0"),
        ({"frames": 9}, "frames must be between 1 and the 8 that the model was trained on, got 9"),
        ({"scorer": "mine"}, "scorer must be one of lenient, strict, logit, got 'mine'"),
    ):
        with pytest.raises(MlflowException, match=reason) as caught:
            predict(served, [row()], params)
        assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="missing inputs"):
        predict(served, [{"video": "clip:clip0"}])


@pytest.mark.parametrize("name", ["max_new_tokens", "scorer", "frames"])
def test_a_parameter_that_is_null_is_the_versions(served, name):
    assert predict(served, [row()], {name: None}) == predict(served, [row()])


def test_rows_are_limited_in_a_server_and_nowhere_else(served, monkeypatch):
    from mlflow.exceptions import MlflowException

    many = [row(choices=CHOICES[:4])] * 1440
    assert len(predict(served, many)) == 1440
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(MlflowException, match="may hold 256 rows, got 1440"):
        predict(served, many)


def test_length_of_answers_is_a_parameter(served):
    short, long = (predict(served, [row(choices=None)], params={"max_new_tokens": n})[0]["raw"] for n in (1, 6))
    assert len(short) < len(long) and long.startswith(short)


def test_failures_of_the_model_and_of_the_clock_show_no_trace(served, monkeypatch):
    from mlflow.exceptions import MlflowException

    for error, status in ((RuntimeError("CUDA, line 7 of /secret.py"), 500), (TimeoutError(), 504)):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(scoring, "answer", fail)
        with pytest.raises(MlflowException) as caught:
            predict(served, [row()])
        assert caught.value.get_http_status_code() == status
        assert "secret" not in caught.value.message and caught.value.__suppress_context__


def test_a_request_of_a_client_that_has_gone_is_given_up(served, monkeypatch):
    inner = served.unwrap_python_model().service
    deadline = Deadline(60)
    asked = []

    def count(*args):
        asked.append(args)
        deadline.cancel()
        return whole(*args)

    whole = scoring.answer
    monkeypatch.setattr(scoring, "answer", count)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            inner.answer([row()], inner.defaults, deadline)
    assert len(asked) == 1, "what was cancelled before it began costs nothing"
    assert predict(served, [row()])[0]["error"] is None


def test_an_altered_adapter_is_refused(served_folder, logged, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(served_folder[0])
    folder = tmp_path / "version"
    shutil.copytree(logged.folder, folder)
    weights = folder / "artifacts" / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="not those that were registered"):
        mlflow.pyfunc.load_model(str(folder))


def load(logged):
    import mlflow

    return mlflow.pyfunc.load_model(str(logged.folder))


def test_another_base_than_that_of_training_is_refused(served_folder, logged, tmp_path, monkeypatch):
    root, _ = served_folder
    other = tmp_path / "other"
    shutil.copytree(root / "base-model", other)
    monkeypatch.setenv("CINETUNE_BASE_MODEL", str(other))
    load(logged).unwrap_python_model().service.close()
    with (other / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="is not the one that this adapter was trained on"):
        load(logged)
    monkeypatch.setenv("CINETUNE_BASE_MODEL", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"is not there: .*dvc pull base-model\.dvc"):
        load(logged)


@pytest.fixture
def own_store(served_folder, tmp_path, monkeypatch):
    """A store of the test's own, in the project's root, with a run open."""
    import mlflow

    monkeypatch.chdir(served_folder[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("embedded", artifact_location=f"{tmp_path}/mlruns")
    try:
        with mlflow.start_run(experiment_id=experiment):
            yield mlflow
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.slow
def test_a_version_that_embeds_its_base_in_shards_needs_no_other(served_folder, own_store, tmp_path, monkeypatch):
    root, params = served_folder
    sharded = tmp_path / "sharded"
    shutil.copytree(root / "base-model", sharded)
    model = VideoLlavaForConditionalGeneration.from_pretrained(sharded, dtype=torch.bfloat16)
    (sharded / "model.safetensors").unlink()
    model.save_pretrained(sharded, max_shard_size="1MB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    params = params.override("model", {"base": str(sharded)})
    info = packaging.log_model(Adapter.open("adapter"), params, None, {}, embed_base=True)
    folder = own_store.artifacts.download_artifacts(info.model_uri)
    shutil.rmtree(sharded)
    loaded = own_store.pyfunc.load_model(folder)
    assert predict(loaded, [row()])[0]["error"] is None
    loaded.unwrap_python_model().service.close()


@pytest.mark.parametrize("broken", ["load", "answer"])
def test_a_version_that_cannot_answer_its_own_example_is_not_registered(
    served_folder, own_store, tmp_path, monkeypatch, broken
):
    """MLflow only warns of it."""

    def fail(*_, **__):
        raise InputError("it is broken.")

    monkeypatch.setattr(service.Service, "load" if broken == "load" else "_read_row", fail)
    with pytest.raises(InputError, match=r"cannot answer its own example, so it is not registered: .*it is broken"):
        packaging.log_model(Adapter.open("adapter"), served_folder[1], None, {})


def test_another_prompt_than_that_of_training_is_refused(logged, monkeypatch):
    monkeypatch.setattr(prompts, "ASKING", "USER: Look.")
    with pytest.raises(InputError, match="another prompt template"):
        load(logged)


def test_limits_are_the_versions_unless_the_server_changes_them(served, monkeypatch):
    inner = served.unwrap_python_model().service
    config = {"serve": dataclasses.asdict(inner.limits)}
    assert service.limits_of(config) == inner.limits
    monkeypatch.setenv("CINETUNE_SERVE", "timeout_s=5; cached_clips=3")
    changed = service.limits_of(config)
    assert (changed.timeout_s, changed.cached_clips, changed.decoders) == (5.0, 3, inner.limits.decoders)
    monkeypatch.setenv("CINETUNE_SERVE", "timeout=5")
    with pytest.raises(InputError, match="'timeout' is not known"):
        service.limits_of(config)


def test_a_version_that_was_registered_with_keys_that_are_renamed_now_keeps_its_limits(served, monkeypatch):
    limits = served.unwrap_python_model().service.limits
    kept = dataclasses.asdict(limits)
    older = {"most_waiting": kept.pop("max_waiting"), "most_body_mb": kept.pop("max_body_mb"), **kept}
    assert service.limits_of({"serve": older}) == limits
    monkeypatch.setenv("CINETUNE_SERVE", "most_waiting=5")
    with pytest.raises(InputError, match="it is called 'max_waiting' now"):
        service.limits_of({"serve": older})


def test_the_code_of_a_version_that_was_registered_by_0_1_0_still_finds_its_model():
    # The whole of its `serving_model.py`, but for handing the model to MLflow.
    names = {}
    exec("from cinetune.serving import ClipModel", names)
    assert names["ClipModel"] is pyfunc.ClipModel


def test_served_clips_may_lie_elsewhere(served_folder, tmp_path, monkeypatch):
    root, _ = served_folder
    config = {"clips": "data/clips", "root": str(root)}
    monkeypatch.chdir(tmp_path)
    assert sources.find_clips(config) == root / "data" / "clips"
    (tmp_path / "data" / "clips").mkdir(parents=True)
    assert sources.find_clips(config).samefile(tmp_path / "data" / "clips")
    monkeypatch.setenv("CINETUNE_CLIPS", str(root))
    assert sources.find_clips(config) == root


def test_a_version_says_what_it_is(logged):
    folder = logged.folder
    card = (folder / "artifacts" / "README.md").read_text()
    assert "base-model" in card and "| logit | 70.0 | 40.0 to 90.0 | 10 | 0 |" in card and "| strict | - |" in card
    assert not list(folder.rglob("*.pkl"))
    assert (folder / "code" / "cinetune" / "serving" / "pyfunc.py").is_file()
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = set(content["project"]["dependencies"])
    named = {line for line in (folder / "requirements.txt").read_text().splitlines() if line}
    assert named <= wanted and any(line.startswith("torch==") for line in named)
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert list(example) == ["dataframe_split"]


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} on 127.0.0.1 cannot be used \(Address already"):
            serve.main(["models:/none@champion", "--port", str(port)])
    with pytest.raises(InputError, match="port 70000"):
        listener.bind("127.0.0.1", 70000)
    with pytest.raises(InputError, match=r"host 'nowhere\.invalid'"):
        listener.bind("nowhere.invalid", 0)
    assert listener.is_loopback("127.0.0.1") and listener.is_loopback("::1") and not listener.is_loopback("0.0.0.0")
