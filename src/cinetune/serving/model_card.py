"""What a version is, how good it was, what its limits are, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinetune.task import description


def accuracy(metrics: Mapping[str, Any]) -> str:
    """How good, in words: by the first scorer, on the evaluation that metrics.json is of."""
    name, scorer = next(iter(metrics["scorers"].items()))
    overall = scorer["overall"]
    share = "unknown" if overall["accuracy"] is None else f"{100 * overall['accuracy']:.1f} %"
    interval = " to ".join(f"{100 * edge:.1f}" for edge in overall["ci95"] or ())
    edges = f" ({interval})" if interval else ""
    return f"{share}{edges} of {overall['n']} questions of {metrics['dataset']} {metrics['split']}, by {name}"


def text(config: Mapping[str, Any], metrics: Mapping[str, Any] | None, tags: Mapping[str, str]) -> str:
    """config: as the version holds it; metrics: what metrics.json holds; tags: what the version is made from."""
    base, frames = config["model"], config["frames"]
    revision = f" at {base['revision']}" if base["revision"] else ""
    place = "It is in this version." if config["embeds_base"] else "It is not included: it is looked up at load."
    licence = tags.get("licence", "unknown")
    task = description.saved(config.get("task"))
    terms = f"\n\n{task.terms}" if task.terms and licence == task.licence else ""
    language = f" in {task.language}" if task.language else ""
    seen = "a few frames and the subtitles" if task.subtitles else "a few frames"
    good = f"accuracy {accuracy(metrics)}" if metrics else "not evaluated"
    return f"""# Video-LLaVA fine-tuned on {task.subject}: {good}

A LoRA adapter for the base model `{base["base"]}`{revision}, quantisation `{base["quantization"]}`,
computed in `{base["dtype"]}`. {place} It must have the digest `{config["base_sha256"]}`.

A clip is seen as {frames["num_frames"]} frames of {frames["size"]} pixels a side (settings
`{config["frame_settings"]}`), and asked about with the prompt template `{config["prompt_hash"]}`.

## Data and licence

Trained on {tags.get("data", "data of unknown name")}. Licence of the adapter: {licence}.{terms}

{_hashes(tags)}

## Results

{_results(metrics)}

## Limits

It answers about {task.subject}{language}, from {seen}; it hears nothing. A multiple-choice answer, of
{task.counted} options, is always one of these, also where none is right. `confidence` is the share of probability that
the model gives the option among them, not a promise.

## Reproducing it

`python -m cinetune reproduce models:/{tags.get("model", "<name>")}/<version>` prints the commands, after checking
that the commit and the data are to be had. By hand: check out the commit above, `dvc pull data.dvc base-model.dvc`,
then `mlflow run . -P params=params.yaml` with the `params.yaml` of this version.
"""


def _hashes(tags: Mapping[str, str]) -> str:
    rows = [
        f"| {name} | {_shown(name, tags)} |"
        for name in sorted(tags)
        if name.startswith(("git.", "dvc.", "run.")) or name.endswith("_digest")
    ]
    return (
        "\n".join(["| made from | |", "| --- | --- |", *rows]) if rows else "Nothing is known of what it was made from."
    )


def _shown(name: str, tags: Mapping[str, str]) -> str:
    """A run as a link within MLflow's UI."""
    value = tags[name]
    is_linked = name.startswith("run.") and "experiment" in tags
    return f"[{value}](#/experiments/{tags['experiment']}/runs/{value})" if is_linked else f"`{value}`"


def _results(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not evaluated when this version was logged."
    resampled = metrics.get("resampled", "clips")
    lines = [
        f"On the {metrics['split']} split of {metrics['dataset']}; intervals are 95 %, over {resampled}.",
        "",
        "| scorer | accuracy in % | interval | questions | unparsed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, scorer in metrics["scorers"].items():
        overall = scorer["overall"]
        accuracy = "-" if overall["accuracy"] is None else f"{100 * overall['accuracy']:.1f}"
        interval = " to ".join(f"{100 * edge:.1f}" for edge in overall["ci95"] or ()) or "-"
        lines.append(f"| {name} | {accuracy} | {interval} | {overall['n']} | {scorer['unparsed']} |")
    return "\n".join(lines)
