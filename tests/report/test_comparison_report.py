"""A page on two models side by side, which links clips and lets no markup in."""

from __future__ import annotations

import pytest

from builders.evaluations import SAMPLES, SEED, base_and_finetuned, evaluated
from cinetune.evaluation import comparison
from cinetune.report import comparison_report

pytestmark = pytest.mark.evaluation


@pytest.fixture(scope="module")
def pair():
    return base_and_finetuned()


def test_the_report_links_clips_and_keeps_markup_out(pair, tmp_path):
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    comparison_report.write(tmp_path, pair, measured, ["they differ in x."], "v1", lambda url: url)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<a href="https://example.org/a?b=%3Cc%3E">' in page and "<b>is" not in page
    for words in ("finetuned against base", "disagree", "they differ in x.", "not comparable", "parsers_hash"):
        assert words in page
    assert "https://example.org/a?b=%3Cc%3E" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_change_is_told_under_each_scorer(pair, tmp_path):
    measured = comparison.measure(pair, "logit", SAMPLES, SEED, "clips")
    comparison_report.write(tmp_path, pair, measured, [], "none", lambda url: url)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| Category | Questions | Strict | Lenient | Logit |" in text and "few clips" in text
    (line,) = comparison_report.headlines(measured)
    assert "+0.0" in line
    for words in ("by strict", "by lenient", "by logit", "sign flips of clips", "differing answers"):
        assert words in line


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "JavaScript:x"])
def test_a_link_that_could_run_something_leads_nowhere(pair, tmp_path, url):
    changed = [evaluated(e.name, e.predictions.assign(url=url)) for e in pair]
    measured = comparison.measure(changed, "logit", 10, SEED, "clips")
    comparison_report.write(tmp_path, changed, measured, [], "none", lambda url: url)
    assert "<a " not in (tmp_path / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count("](<") == text.count("![") == 2, "two pictures, and no link"
