"""What DVC holds is not given up without a word."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.projects import Project, environment
from builders.refusals import sentence
from cinetune import provenance
from cinetune.errors import InputError

pytestmark = pytest.mark.experience


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with a folder of five files under DVC's control, and a stage that reads it."""
    project = Project(tmp_path_factory.mktemp("pinned"))
    folder = project.root / "data" / "clips"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.mp4").write_text(f"clip {number}")
    (project.root / "dvc.yaml").write_text(
        "stages: {frames: {cmd: ls data/clips > out, deps: [data/clips], outs: [out]}}"
    )
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["git", "init", "-q"], [*dvc(), "init", "-q"], [*dvc(), "add", "-q", "data"], ["git", "add", "-A"]):
        assert project.run(words).returncode == 0
    assert project.run(["git", *identity, "commit", "-q", "-m", "Pin"]).returncode == 0
    return project


def dvc() -> list[str]:
    return [sys.executable, "-m", "dvc"]


@pytest.fixture
def restored(pinned: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a copy that may be broken."""
    root = shutil.copytree(pinned.root, tmp_path / "copy")
    monkeypatch.chdir(root)
    return root / "data"


def test_a_folder_that_lacks_files_is_refused_before_dvc_records_what_is_left(restored: Path) -> None:
    provenance.check_complete("data")
    for number in (1, 3):
        (restored / "clips" / f"{number}.mp4").unlink()
    text = sentence(lambda: provenance.check_complete("data"))
    assert "lacks 2 of the 5 files" in text and "'clips/1.mp4'" in text and "dvc pull data.dvc" in text


def test_an_emptied_folder_is_refused_also_where_dvcs_cache_is_gone(restored: Path) -> None:
    shutil.rmtree(".dvc/cache")
    provenance.check_complete("data")
    for path in restored.rglob("*.mp4"):
        path.unlink()
    text = sentence(lambda: provenance.check_complete("data"))
    assert "lacks 5 of the 5 files" in text and "dvc pull data.dvc" in text
    shutil.rmtree(restored)
    assert "lacks 5 of the 5 files" in sentence(lambda: provenance.check_complete("data"))


def test_what_dvc_has_recorded_of_a_folder_that_lacks_files_is_refused_as_well(restored: Path) -> None:
    """`dvc repro` by hand rewrites data.dvc before any stage of ours is started."""
    (restored / "clips" / "1.mp4").unlink()
    subprocess.run([*dvc(), "repro", "-q"], check=True, env=environment())
    text = sentence(lambda: provenance.check_complete("data"))
    assert "1 files fewer" in text and "'clips/1.mp4'" in text and "git checkout data.dvc" in text


def test_what_dvc_has_recorded_without_the_clips_is_refused_where_their_frames_are_enough(restored: Path) -> None:
    (restored / "card.json").write_text("{}")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in ([*dvc(), "add", "-q", "data"], ["git", *identity, "commit", "-q", "-a", "-m", "Pin with a card"]):
        subprocess.run(words, check=True, env=environment())
    shutil.rmtree(restored / "clips")
    provenance.check_complete("data", "clips")
    assert subprocess.run([*dvc(), "repro", "-q"], env=environment()).returncode
    text = sentence(lambda: provenance.check_complete("data", "clips"))
    assert "5 files fewer" in text and "run `git checkout data.dvc`, or commit" in text
    subprocess.run(["git", "checkout", "-q", "data.dvc"], check=True, env=environment())
    provenance.check_complete("data", "clips")


def test_dvc_itself_says_how_far_it_is_and_why_it_cannot_pin(restored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (restored / "clips" / "new.mp4").write_text("a clip")
    provenance.dvc_add(restored.relative_to(Path.cwd()))
    provenance.check_complete("data")
    assert "for the reason above" in sentence(lambda: provenance.dvc_add(Path("nowhere")))
    assert "nowhere" in capfd.readouterr().err


def test_data_that_was_made_anew_is_taken_as_it_is(restored: Path) -> None:
    (restored / "clips" / "1.mp4").unlink()
    (restored / "clips" / "new.mp4").write_text("a clip")
    subprocess.run([*dvc(), "add", "-q", "data"], check=True, env=environment())
    provenance.check_complete("data")


def test_a_folder_that_dvc_does_not_know_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    provenance.check_complete("data")
    (tmp_path / "data.dvc").write_text("outs: [{md5: 1234.dir, path: data}]\n")
    provenance.check_complete("data")


@pytest.mark.parametrize("folder", ["../elsewhere", ".", "data/clips/deeper", "ignored/a", "tracked"])
def test_a_folder_that_dvc_cannot_pin_is_refused_before_it_is_filled(restored: Path, folder: str) -> None:
    (restored.parent / "tracked").mkdir()
    (restored.parent / "tracked" / "a").write_text("a")
    (restored.parent / ".git" / "info" / "exclude").write_text("ignored/\n")
    subprocess.run(["git", "add", "tracked"], check=True, env=environment())
    with pytest.raises(InputError, match="cannot pin"):
        provenance.check_addable(Path(folder))
    provenance.check_addable(Path("cinepile"))
