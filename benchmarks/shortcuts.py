"""What readers without eyes get right: percent of the test questions by category, those marked visual and all.

option words in subtitles      the option of which the largest share of words is spoken
never spoken                   the option of which the smallest share is
same line as the name          the option whose words stand in a line with the most words of the question
spoken last                    the option whose words are spoken last
longest                        the longest option
usual answer                   the option that was right most often, of the times that it was offered, in training
logistic regression            on all of that, on the option's words, and on pairs of a word of the question and one of
                               the option, fitted on the training questions

None sees a frame. Where several options come first, each counts for its share. Takes `questions/` of --root:

    python benchmarks/shortcuts.py --root data

The last line is JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression

from cinetune.task import questions
from cinetune.task.questions import ClipQuestions, Question
from evaluation import machine

VISUAL = "1"
# Words that stand in every option of a kind and in most lines.
COMMON = frozenset(["the", "a", "to", "in", "on", "at", "of", "is", "it", "one", "by", "with", "and"])
Asked = tuple[ClipQuestions, Question]
Reader = Callable[[ClipQuestions, Question], np.ndarray]


def words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in COMMON]


@functools.cache
def lines_of(subtitles: str) -> list[frozenset[str]]:
    return [frozenset(words(line.removeprefix("<subtitle>"))) for line in subtitles.splitlines()]


def each_option(score: Callable[[ClipQuestions, Question, list[str]], float]) -> Reader:
    return lambda clip, question: np.array([score(clip, question, words(option)) for option in question.choices])


def spoken(clip: ClipQuestions, _: Question, option: list[str]) -> float:
    """The share of an option's words that are spoken."""
    said = {word for line in lines_of(clip.subtitles) for word in line}
    return sum(word in said for word in option) / max(1, len(option))


def beside_the_question(clip: ClipQuestions, question: Question, option: list[str]) -> float:
    """The most words that a line with a word of the option has in common with the question."""
    asked = set(words(question.text))
    return max((len(asked & line) for line in lines_of(clip.subtitles) if line & set(option)), default=0)


def last_place(clip: ClipQuestions, _: Question, option: list[str]) -> float:
    return max((place for place, line in enumerate(lines_of(clip.subtitles), 1) if line & set(option)), default=0)


READERS: dict[str, Reader] = {
    "option words in subtitles": each_option(spoken),
    "never spoken": each_option(lambda *given: -spoken(*given)),
    "same line as the name": each_option(beside_the_question),
    "spoken last": each_option(last_place),
    "longest": lambda clip, question: np.array([len(option) for option in question.choices]),
}


def usual_answer(asked: Sequence[Asked]) -> Reader:
    offered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for _, question in asked:
        offered.update(question.choices)
        right[question.choices[question.answer]] += 1
    return lambda clip, question: np.array([(right[o] + 0.2) / (offered[o] + 1) for o in question.choices])


def regression(asked: Sequence[Asked], others: Sequence[Reader]) -> Reader:
    """Each option is a row, right or not, with what the other readers make of it; the most probable one is chosen."""

    def features(clip: ClipQuestions, question: Question) -> Iterator[dict[str, float]]:
        columns = [reader(clip, question) for reader in others]
        kind = [word for word in words(question.text) if word.islower()]
        for place, option in enumerate(question.choices):
            found = {f"reader {number}": float(column[place]) for number, column in enumerate(columns)}
            found |= {f"best {number}": float(column[place] == column.max()) for number, column in enumerate(columns)}
            found |= {f"option {word}": 1.0 for word in words(option)}
            yield found | {f"{asked} {word}": 1.0 for asked in kind for word in words(option)}

    hasher = FeatureHasher(1 << 16)
    rows = [row for pair in asked for row in features(*pair)]
    right = [place == question.answer for _, question in asked for place in range(len(question.choices))]
    fitted = LogisticRegression(C=0.1, solver="liblinear").fit(hasher.transform(rows), right)
    return lambda clip, question: fitted.decision_function(hasher.transform(features(clip, question)))


def share_right(reader: Reader, asked: Sequence[Asked]) -> float:
    found = []
    for clip, question in asked:
        scores = reader(clip, question)
        first = scores == scores.max()
        found.append(first[question.answer] / first.sum())
    return 100 * float(np.mean(found))


def asked_of(root: Path, split: str) -> list[Asked]:
    return [(clip, question) for clip in questions.load(root, split) for question in clip.questions if question.choices]


def measure(root: Path) -> dict[str, dict[str, float]]:
    """Percent right of each reader, by category among those marked visual, and of `visual` and `all` questions."""
    train, test = asked_of(root, "train"), asked_of(root, "test")
    groups: dict[str, list[Asked]] = defaultdict(list)
    for pair in test:
        groups["all"].append(pair)
        if pair[1].visual_reliance == VISUAL:
            groups["visual"].append(pair)
            groups[" ".join(pair[1].category.split())].append(pair)
    readers = READERS | {"usual answer": usual_answer(train)}
    readers["logistic regression"] = regression(train, list(readers.values()))
    return {
        name: {group: share_right(reader, members) for group, members in groups.items()}
        for name, reader in readers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"), help="a folder with questions/")
    found = measure(parser.parse_args().root)
    groups = list(next(iter(found.values())))
    print(f"{'reader':28}" + "".join(f"{group[:12]:>14}" for group in groups))
    for name, shares in found.items():
        print(f"{name:28}" + "".join(f"{shares[group]:14.1f}" for group in groups))
    visual = {group: max(shares[group] for shares in found.values()) for group in groups if group != "all"}
    print(
        json.dumps(
            {"benchmark": "shortcuts", "machine": machine(), "figures": {"max_visual_accuracy": max(visual.values())}}
        )
    )


if __name__ == "__main__":
    main()
