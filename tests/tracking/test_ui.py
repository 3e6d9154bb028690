"""MLflow's own pages over the runs of a loop, in a browser: what a person sees of the project, and finds in it.

With CINETUNE_PICTURED=<project> they look at that project's runs, and put their pictures into docs/ (`make pictures`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders.projects import ROOT, Project, environment

pytestmark = [pytest.mark.experience, pytest.mark.slow, pytest.mark.nightly]

PICTURED = os.environ.get("CINETUNE_PICTURED", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZE = {"width": 1280, "height": 800}
MOST_PICTURE_BYTES = 150_000
# What a person would close at the first visit.
CLOSED = (
    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
)
TIMEOUT_MS = 60_000
LOOP = "CinePile-mini (main)"


@dataclass(frozen=True)
class Pages:
    """The UI over one project, and where its pictures go."""

    root: Path
    address: str
    browser: Any
    pictures: Path

    def rows(self, query: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self.root / "mlflow.db")) as database:
            return database.execute(query, values).fetchall()

    def run(self, name: str) -> str:
        """The id of the first run of this name."""
        [(run_id,), *_] = self.rows("SELECT run_uuid FROM runs WHERE name = ? ORDER BY start_time", name)
        return run_id

    def runs_of(self, stage: str, status: str = "FINISHED") -> list[str]:
        """Ids of a stage's runs, oldest first."""
        query = (
            "SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
            "WHERE tags.key = 'stage' AND tags.value = ? AND runs.status = ? ORDER BY start_time"
        )
        return [run_id for (run_id,) in self.rows(query, stage, status)]

    def open(self, path: str) -> Any:
        page = self.browser.new_page(viewport=SIZE)
        page.set_default_timeout(TIMEOUT_MS)
        page.add_init_script(CLOSED)
        page.goto(f"{self.address}/#{path}{'&' if '?' in path else '?'}workflowType=machine_learning")
        return page

    def picture(self, page: Any, name: str) -> None:
        # Animations of charts have no end that can be waited for.
        page.wait_for_timeout(1500)
        path = self.pictures / f"ui-{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < MOST_PICTURE_BYTES, path


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest) -> Path:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: install it (Debian: `apt install chromium`)")
    if PICTURED:
        project = Project(Path(PICTURED).resolve())
    else:
        project, done = request.getfixturevalue("looped")
        assert done.returncode == 0, done.stderr[-3000:]
    add_runs(project)
    return project.root


def add_runs(project: Project) -> None:
    """What people do beside the loop: trainings to compare with its own, one that fails, one that is only planned."""
    stages = [(stage, status) for stage, status, tags in project.runs() if "mlflow.parentRunId" not in tags]
    if stages.count(("train", "FINISHED")) < 2:
        for changes in ({"learning_rate": "1e-3"}, {"lora_rank": "4"}):
            done = project.mlflow_run("train", epochs="1", **changes)
            assert done.returncode == 0, done.stderr[-3000:]
    if ("train", "FAILED") not in stages:
        assert project.cinetune("train", "--resume", "--seed", "99").returncode == 2
    if not any(stage == "dry run" for stage, _ in stages):
        assert project.mlflow_run("train", dry_run="true").returncode == 0


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    log = tmp_path_factory.mktemp("ui") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "ui", *store, "--port", str(port), "--workers", "1"],
            cwd=root,
            env=environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer: {log.read_text()}")


@pytest.fixture(scope="module")
def pages(root: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    from playwright.sync_api import sync_playwright

    pictures = ROOT / "docs" if PICTURED else tmp_path_factory.mktemp("pictures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Pages(root, address, browser, pictures)
        browser.close()


def until(holds: Callable[[], bool], page: Any) -> None:
    for _ in range(TIMEOUT_MS // 500):
        if holds():
            return
        page.wait_for_timeout(500)
    pytest.fail(f"not in time; the page says: {page.inner_text('body')[:2000]}")


def run_names(page: Any) -> list[str]:
    return page.locator("[role=row] [col-id='attributes.`Run Name`'] a").all_inner_texts()


def test_the_table_of_runs_has_readable_names_figures_and_the_runs_below(pages: Pages) -> None:
    page = pages.open("/experiments/0/runs?viewStateShareKey=overview")
    until(lambda: LOOP in run_names(page), page)
    header = page.locator(".ag-header-cell").all_inner_texts()
    for column in (
        "Dataset",
        "Duration",
        "base/accuracy",
        "finetuned/accuracy",
        "test/accuracy",
        "validation/accuracy",
    ):
        assert column in header
    loop = page.locator(f"[role=row][row-id='{pages.run(LOOP)}']")
    figures = loop.locator("[col-id*='accuracy']").all_inner_texts()
    assert sum(re.fullmatch(r"0\.\d+", figure.strip()) is not None for figure in figures) == 2
    loop.locator("[col-id='attributes.`Run Name`'] button").first.click()
    stages = {"frames", "train", "base (evaluate)", "finetuned (evaluate)", "report", "version 1 (register)"}
    until(lambda: stages <= set(run_names(page)), page)
    assert not [name for name in run_names(page) if re.fullmatch(r"[a-z]+-[a-z]+-\d+", name)]
    pages.picture(page, "runs")


def test_the_curves_of_a_training_are_drawn(pages: Pages) -> None:
    run = pages.run("train")
    page = pages.open(f"/experiments/0/runs/{run}/model-metrics")
    # A training of fewer steps than are logged at once has no loss to draw; others in this store may be longer.
    has_loss = pages.rows(f"SELECT 1 FROM metrics WHERE key = 'train/loss' AND run_uuid = '{run}'")
    title = re.compile("^train" if has_loss else "^validation/accuracy")
    section = page.get_by_test_id("experiment-view-compare-runs-section-header").filter(has_text=title)
    section.wait_for()
    section.evaluate("found => found.scrollIntoView()")
    until(lambda: page.locator(".js-plotly-plot .points path, .js-plotly-plot path.js-line").count() >= 3, page)
    pages.picture(page, "training")


def test_a_run_says_what_it_made_and_from_what(pages: Pages) -> None:
    page = pages.open(f"/experiments/0/runs/{pages.run('train')}")
    page.get_by_text(re.compile(r"outputs/adapter, validation accuracy [\d.]+% at step \d+ of \d+")).wait_for()
    page.get_by_text(re.compile(r"Trained on \d+ clips, validated on \d+")).wait_for()
    page.get_by_role("link", name=LOOP).wait_for()
    page.get_by_text(re.compile("^CinePile-mini train")).first.click()
    page.get_by_text(re.compile("Data source|Dataset source|Source", re.I)).first.wait_for()
    digest = pages.rows("SELECT digest FROM datasets WHERE name = 'CinePile-mini train'")[0][0]
    assert digest[:8] in page.inner_text("body")
    for told in ("rows: ", "clips: ", "films: ", "question_category"):
        page.get_by_text(told).first.wait_for()
    [(of_test,)] = pages.rows("SELECT DISTINCT digest FROM datasets WHERE name = 'CinePile-mini test'")
    assert of_test != digest
    loop = pages.open(f"/experiments/0/runs/{pages.run(LOOP)}")
    loop.get_by_text("Show more").first.click()
    link = loop.get_by_role("link", name=pages.run("train")).first.get_attribute("href")
    assert link.endswith(f"#/experiments/0/runs/{pages.run('train')}")


@pytest.mark.parametrize(("view", "stage"), [("trainings", "train"), ("evaluations", "evaluate")])
def test_a_view_shows_the_loops_own_runs_and_those_by_hand(pages: Pages, view: str, stage: str) -> None:
    page = pages.open(f"/experiments/0/runs?viewStateShareKey={view}")
    rows, ids = page.locator("[role=row][row-id]"), "found => found.map(row => row.getAttribute('row-id'))"
    until(lambda: set(pages.runs_of(stage)) <= set(rows.evaluate_all(ids)), page)
    chart = pages.open(f"/experiments/0/runs?viewStateShareKey={view}&compareRunsMode=CHART")
    until(lambda: chart.locator(".js-plotly-plot").count() > 0, chart)
    assert "No charts in this section" not in chart.inner_text("body")


def test_trainings_are_compared_by_what_people_changed(pages: Pages) -> None:
    # The loop's own, and the last two by hand.
    first, *_, one, other = pages.runs_of("train")
    chosen = [first, one, other]
    page = pages.open(f"/compare-runs?runs={json.dumps(chosen)}&experiments={json.dumps(['0'])}")
    page.get_by_text("Parallel Coordinates Plot").first.wait_for()
    until(lambda: page.locator(".js-plotly-plot .axis-title").count() >= 2, page)
    axes = page.locator(".js-plotly-plot .axis-title").all_text_contents()
    parameters = [axis for axis in axes if "/" not in axis]
    assert {"Learning rate", "Lora rank"} <= set(parameters) <= {"Epochs", "Learning rate", "Lora rank"}
    assert not [axis for axis in axes if axis.startswith("system/")]
    assert "unknown" not in page.locator(".js-plotly-plot").first.text_content()
    pages.picture(page, "trainings")


def test_a_failed_run_says_why_first_and_a_dry_run_what_it_would_take(pages: Pages) -> None:
    failed = pages.open(f"/experiments/0/runs/{pages.runs_of('train', 'FAILED')[0]}")
    failed.get_by_text(re.compile("^Failed:")).first.wait_for()
    planned = pages.open(f"/experiments/0/runs/{pages.run('train (dry run)')}")
    planned.get_by_text(re.compile(r"\d+ (clips|packs|steps)")).first.wait_for()


def test_two_runs_are_compared_side_by_side(pages: Pages) -> None:
    names = ("base (evaluate)", "finetuned (evaluate)")
    page = pages.open(f'/compare-runs?runs=["{pages.run(names[0])}","{pages.run(names[1])}"]&experiments=["0"]')
    for name in names:
        page.get_by_text(name).first.wait_for()
    page.get_by_role("rowheader", name="evaluate.model").wait_for()
    text = page.inner_text("body")
    for figure in ("test/accuracy", "test/lenient/accuracy", "test/calibration_error"):
        assert figure in text
    page.get_by_text("Visualizations").click()
    page.get_by_text("Show diff only").first.click()
    pages.picture(page, "comparison")


def test_a_model_leads_to_its_run_its_data_and_its_version(pages: Pages) -> None:
    [(model,), *_] = pages.rows("SELECT model_id FROM logged_models ORDER BY creation_timestamp_ms DESC")
    page = pages.open(f"/experiments/0/models/{model}")
    page.get_by_role("heading", name="cinepile-video-llava").first.wait_for()
    page.get_by_text("Video-LLaVA fine-tuned on movie scenes").wait_for()
    page.get_by_role("link", name="version 1 (register)").first.wait_for()
    page.get_by_text(re.compile("CinePile-mini test")).first.wait_for()
    page.get_by_text("test/strict/accuracy").first.wait_for()
    page.get_by_role("link", name="cinepile-video-llava").first.click()
    page.get_by_text("@ champion").first.wait_for()


def test_the_registered_model_has_aliases_a_description_and_its_card(pages: Pages) -> None:
    page = pages.open("/models/cinepile-video-llava")
    for text in ("is the newest version", "@ challenger", "@ champion"):
        page.get_by_text(text).first.wait_for()
    card = pages.open("/models/cinepile-video-llava/versions/1")
    for text in ("Video-LLaVA fine-tuned on movie scenes: accuracy", "Data and licence", "Results", "Reproducing it"):
        card.get_by_text(text).first.wait_for()
    query = "SELECT key FROM model_version_tags WHERE name = ? AND version = 1 ORDER BY key"
    tags = pages.rows(query, "cinepile-video-llava")
    assert [key for (key,) in tags] == ["accuracy", "champion_reason", "data", "licence", "prompt"]
    link = card.get_by_role("link", name=pages.run("train")).first.get_attribute("href")
    assert link.endswith(f"#/experiments/0/runs/{pages.run('train')}")
    pages.picture(card, "model")


def test_a_trace_shows_the_frames_and_what_was_said(pages: Pages) -> None:
    run = pages.run("finetuned (evaluate)")
    query = "SELECT request_id FROM trace_request_metadata WHERE key = 'mlflow.sourceRun' AND value = ?"
    [(trace,), *_] = pages.rows(query, run)
    page = pages.open(f"/experiments/0/traces?selectedEvaluationId={trace}")
    page.get_by_text("Assistant", exact=True).first.wait_for()
    drawn = "found => found.filter(image => image.src.startsWith('blob:') && image.naturalWidth > 0).length"
    until(lambda: page.locator("img").evaluate_all(drawn) > 0, page)
    pages.picture(page, "trace")
    page.get_by_text("Attributes", exact=True).first.click()
    for told in ("probabilities", "gold", "choice"):
        page.get_by_text(told).first.wait_for()


def test_the_report_fits_a_laptops_screen_and_opens_on_the_result(pages: Pages) -> None:
    page = pages.browser.new_page(viewport=SIZE)
    page.goto((pages.root / "outputs/report/report.html").as_uri())
    for heading in ("By category", "Three ways to read an answer", "What the fine-tune changed"):
        page.get_by_role("heading", name=heading).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZE["width"]
    broken = "found => found.filter(image => !image.naturalWidth).length"
    assert page.locator("img").count() > 5 and page.locator("img").evaluate_all(broken) == 0
    path = pages.pictures / "report.png"
    page.screenshot(path=path)
    assert path.stat().st_size < MOST_PICTURE_BYTES


def test_reports_charts_and_tables_are_shown_among_the_artifacts(pages: Pages) -> None:
    page = pages.open(f"/experiments/0/runs/{pages.run(LOOP)}/artifacts")
    page.get_by_text("report", exact=True).first.click()
    page.get_by_text("report.html").first.click()
    until(lambda: any("CinePile-mini" in frame.content() for frame in page.frames[1:]), page)
    page.get_by_text("chart.png").first.click()
    until(lambda: any(page.locator("img").evaluate_all("found => found.map(image => image.naturalWidth > 600)")), page)
    # A picture in docs/ is not to tell where its maker keeps things.
    shown = page.get_by_text(f"{pages.root}/").first
    shown.evaluate("(found, root) => { found.textContent = found.textContent.replace(root, '') }", f"{pages.root}/")
    pages.picture(page, "report")
    table = pages.open(f"/experiments/0/runs/{pages.run('finetuned (evaluate)')}/artifacts/predictions.json")
    for column in ("question_id", "clip_id", "film"):
        table.get_by_text(column, exact=True).first.wait_for()
