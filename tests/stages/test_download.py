"""The download command."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from builders.downloads import Script, files
from builders.projects import ROOT, Project, environment
from builders.servers import ClipServer
from cinetune import __main__ as command_line

pytestmark = pytest.mark.data


QUESTION = {
    "year": 2001, "genre": ["Drama"], "movie_scene": "", "subtitles": "", "question": "Who is there?",
    "choices": list("abcde"), "answer_key": "c", "answer_key_position": 2, "question_category": "Temporal",
    "hard_split": "False", "visual_reliance": "0",
}  # fmt: skip


def ask(path: Path, addresses: list[str], film: str = "Film") -> Path:
    rows = [
        QUESTION | {"yt_clip_link": address, "yt_clip_title": "T", "movie_name": f"{film} {number % 3}"}
        for number, address in enumerate(addresses)
    ]
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def command(questions: Path | str, folder: Path, *more: str) -> list[str]:
    flags = ["--pause_s", "0", "--backoff_s", "0.01", "--retries", "1", "--stall_s", "2", *more]
    return ["download", "--questions", str(questions), "--data_dir", str(folder), *flags]


@pytest.mark.usefixtures("apart")
def test_a_run_in_which_everything_fails_is_no_success_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CINETUNE_UNTRACKED", "1")
    script = Script(monkeypatch)
    questions = ask(tmp_path / "train.parquet", [f"https://clips.test/ok/{number}.mp4" for number in range(40)])
    words = command(questions, tmp_path / "data")

    script.refusal = ("client_error", 1000)
    assert command_line.main(words) == 2
    assert "clips in a row failed" in capsys.readouterr().err and script.asked["ok"] < 40
    script.refusal = ("", 0)
    assert command_line.main(words) == 0
    assert "40 ok" in capsys.readouterr().out
    before = files(tmp_path / "data")

    # Neither a list of links, nor a smaller selection, nor a file that cannot be used takes anything away.
    links = tmp_path / "links.csv"
    links.write_text("url,title\nhttps://clips.test/ok/7.mp4,A Film (2001) - Fog Scene\n")
    unusable = tmp_path / "unusable.json"
    unusable.write_text('{"data": []}')
    for changed, status in ((command(links, tmp_path / "data"), 0), ([*words, "--max_clips", "1"], 0)):
        assert command_line.main(changed) == status
    assert command_line.main(command(unusable, tmp_path / "data")) == 2
    assert files(tmp_path / "data") == before


@pytest.mark.slow
def test_the_entry_point_fills_a_folder_once_and_keeps_secrets(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    jar = tmp_path / "jar"
    jar.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tCRUMBS\n")
    train = ask(tmp_path / "train.parquet", [f"{server.root}/whole/{i}?key=SECRET" for i in range(4)])
    test = ask(tmp_path / "test.parquet", [f"{server.root}/{k}/9?key=SECRET" for k in ("404", "whole")] + ["nowhere:"])
    given = {"questions": f"{train}|{test}", "data_dir": str(tmp_path / "data"), "max_clips": "5", "cookies": str(jar)}
    first = bare_project.mlflow_run("download", **given, pause_s="0.01")
    assert first.returncode == 0, first.stderr[-3000:]
    assert "5 clips" in first.stdout and "4 ok, 1 unavailable; 5 of them now" in first.stdout
    assert "1 of 7 rows cannot be used" in first.stderr and "2 films are in training and test" in first.stdout
    hits = server.hits.copy()
    second = bare_project.mlflow_run("download", **given, pause_s="0.01")
    assert second.returncode == 0 and "0 of them now" in second.stdout and server.hits == hits
    assert "clips/s" in first.stderr
    logged = [path for path in (bare_project.root / "mlruns").rglob("*") if path.is_file()]
    [report] = {path.read_text() for path in logged if path.name == "attrition.json"}
    assert json.loads(report)["splits"]["test"] == {
        "clips": 2, "clips_by_status": {"ok": 1, "unavailable": 1}, "questions": 2, "questions_lost": 1,
    }  # fmt: skip
    for path in (*logged, bare_project.root / "mlflow.db"):
        assert b"SECRET" not in path.read_bytes() and b"CRUMBS" not in path.read_bytes(), path
    assert not (bare_project.root / "data").exists()


@pytest.mark.slow
def test_a_folder_of_other_things_is_not_touched_and_ours_can_be_pinned(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    questions = ask(tmp_path / "test.parquet", [f"{server.root}/whole/1"])
    (tmp_path / "other" / "clips").mkdir(parents=True)
    for folder, more, named in (
        (tmp_path / "other", [], "name another folder"),
        (tmp_path / "new", ["--cookies", "nowhere.txt"], "'nowhere.txt'"),
        (tmp_path / "new", ["--pin", "yes"], "true or false"),
        (tmp_path / "new", ["--questions", "gone.csv"], "twice"),
    ):
        done = bare_project.cinetune(*command(questions, folder, *more))
        assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = bare_project.cinetune(*command(questions, Path("pinned"), "--pin", "true"))
    assert done.returncode == 0, done.stderr
    assert (bare_project.root / "pinned.dvc").is_file() and "/pinned" in (bare_project.root / ".gitignore").read_text()


@pytest.mark.slow
@pytest.mark.nightly
def test_killed_twenty_times_it_ends_with_the_bytes_of_an_undisturbed_run(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    questions = ask(tmp_path / "train.parquet", [f"{server.root}/slow/{number}" for number in range(24)])

    def start(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "cinetune", *command(questions, folder)]
        variables = environment() | {"CINETUNE_UNTRACKED": "1", "PYTHONPATH": str(bare_project.root / "src")}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(words, cwd=bare_project.root, env=variables, **quiet)

    began = time.monotonic()
    assert start(tmp_path / "whole").wait(timeout=120) == 0
    undisturbed, lasting = files(tmp_path / "whole"), time.monotonic() - began
    rng = random.Random(0)
    num_killed = 0
    while num_killed < 20:
        process = start(tmp_path / "killed")
        try:
            process.wait(timeout=rng.uniform(0.3, 0.9) * lasting)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            num_killed += 1
        else:
            # It came to its end before it was to be killed: the next one begins anew.
            assert files(tmp_path / "killed") == undisturbed
            shutil.rmtree(tmp_path / "killed")
            continue
        partly = files(tmp_path / "killed")
        for name in partly:
            if name.startswith("clips/"):
                assert partly[name] == undisturbed[name]
    assert start(tmp_path / "killed").wait(timeout=120) == 0
    assert files(tmp_path / "killed") == undisturbed
