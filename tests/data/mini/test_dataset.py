"""CinePile-mini: the same films from the same seed, true answers, and nothing to be had without watching."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from builders.projects import ROOT
from cinetune import params as params_module
from cinetune.data.mini import ask, dataset, draw, story
from cinetune.frames.decoder import Decoder
from cinetune.frames.encoding import encode
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import FrameSettings
from cinetune.params import MiniParams
from cinetune.task import questions

pytestmark = pytest.mark.data

PARAMS = params_module.load(ROOT / "params.yaml")
SMALL = MiniParams(train_films=2, test_films=1, clips_per_film=2, seed=5)
CHANCE, MOST_BY_READING = 1 / 5, 0.27

Chooser = Callable[[str, list[str]], int]


def tables(params: MiniParams) -> dict[str, pd.DataFrame]:
    return {split: dataset.table(clips, params.seed) for split, clips in dataset.invent(params).items()}


@pytest.fixture(scope="module")
def shipped() -> dict[str, pd.DataFrame]:
    """What the code makes of the project's own parameters: 90 films to train on, 30 to test on."""
    return tables(PARAMS.mini)


@pytest.fixture(scope="module")
def rows(shipped: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(shipped.values(), ignore_index=True)


# ---- the same bytes


def test_a_seed_gives_the_same_questions_and_another_seed_others() -> None:
    for split, table in tables(SMALL).items():
        pd.testing.assert_frame_equal(table, tables(SMALL)[split])
        other = tables(MiniParams(SMALL.train_films, SMALL.test_films, SMALL.clips_per_film, seed=6))[split]
        assert not table["answer_key"].equals(other["answer_key"])
        assert not table["subtitles"].equals(other["subtitles"])


def test_a_seed_gives_the_same_frames_and_another_seed_others() -> None:
    def look(seed: int) -> np.ndarray:
        clip = story.make_clip(seed, story.make_film(seed, 0, story.FILM), 0)
        return np.stack([draw.render(clip, frame) for frame in range(0, clip.num_frames, 10)])

    assert look(5).shape == (12, 120, 160, 3) and look(5).dtype == np.uint8
    np.testing.assert_array_equal(look(5), look(5))
    assert (look(5) != look(6)).mean() > 0.2


def test_a_clip_encoded_twice_is_the_same_file(tmp_path: Path) -> None:
    clip = dataset.invent(SMALL)["test"][0]
    for name in ("once.mp4", "twice.mp4"):
        encode(tmp_path / name, (draw.render(clip, frame) for frame in range(clip.num_frames)), story.FPS)
    assert (tmp_path / "once.mp4").read_bytes() == (tmp_path / "twice.mp4").read_bytes()


def test_making_a_dataset_writes_what_the_tables_say(tmp_path: Path) -> None:
    one_clip_each = MiniParams(train_films=1, test_films=1, clips_per_film=1, seed=5)
    counts = dataset.make(tmp_path, one_clip_each, workers=1)
    assert counts == {"clips": 2, "train_questions": 16, "test_questions": 16}
    for split, table in tables(one_clip_each).items():
        (clip,) = questions.load(tmp_path, split)
        assert clip == questions.clips_of(table, "made")[0]
        assert (tmp_path / "clips" / f"{clip.clip_id}.mp4").is_file()
    manifest = pd.read_parquet(tmp_path / "clips.parquet")
    assert sorted(manifest["clip_id"]) == sorted(path.stem for path in (tmp_path / "clips").iterdir())
    assert set(manifest["status"]) == {"ok"}


needs_data = pytest.mark.skipif(
    not (ROOT / "data" / "clips.parquet").is_file(), reason="data/ is not pulled: run `dvc pull data.dvc`"
)


def read_back(table: pd.DataFrame) -> pd.DataFrame:
    """Through a file, for Parquet turns lists into arrays."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return pd.read_parquet(buffer)


@needs_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_shipped_questions_are_what_the_code_makes(shipped: dict[str, pd.DataFrame], split: str) -> None:
    held = pd.read_parquet(ROOT / "data" / "questions" / f"{split}.parquet")
    pd.testing.assert_frame_equal(held, read_back(shipped[split]))


@needs_data
def test_the_shipped_clips_are_those_of_the_questions() -> None:
    clips = [clip for members in dataset.invent(PARAMS.mini).values() for clip in members]
    held = pd.read_parquet(ROOT / "data" / "clips.parquet")
    pd.testing.assert_frame_equal(held, read_back(dataset.manifest(clips)))
    assert {path.stem for path in (ROOT / "data" / "clips").glob("*.mp4")} == set(held["clip_id"])


@needs_data
def test_the_shipped_pictures_are_what_the_code_draws() -> None:
    settings = FrameSettings("uniform", num_frames=6, size=120, cut_threshold=30.0, min_shot_frames=8)
    clips = [clip for members in dataset.invent(PARAMS.mini).values() for clip in members]
    with Decoder(Limits.of(PARAMS.frames)) as decoder:
        for clip in clips[:: len(clips) // 5]:
            seen = decoder.read(ROOT / "data" / "clips" / f"{dataset.clip_id(clip.film, clip.index)}.mp4", settings)
            drawn = np.stack([draw.render(clip, int(time * story.FPS)) for time in seen.times])[:, :, 20:140]
            neighbours = np.roll(drawn, 1, axis=0)
            assert np.abs(seen.frames.astype(int) - drawn).mean() < 8
            assert np.abs(seen.frames.astype(int) - neighbours).mean() > 16


# ---- the form is CinePile's


def test_rows_have_cinepiles_columns_and_types(rows: pd.DataFrame) -> None:
    assert list(rows.columns) == [
        "movie_name", "year", "genre", "yt_clip_title", "yt_clip_link", "movie_scene", "subtitles", "question",
        "choices", "answer_key", "answer_key_position", "question_category", "hard_split", "visual_reliance", "clip_id",
    ]  # fmt: skip
    assert rows["year"].dtype == rows["answer_key_position"].dtype == np.int64
    texts = set(rows.columns) - {"year", "answer_key_position", "genre", "choices"}
    for name in texts:
        assert rows[name].map(type).eq(str).all() and rows[name].str.strip().ne("").all(), name
    for name in ("genre", "choices"):
        assert rows[name].map(lambda value: isinstance(value, list) and {type(v) for v in value} == {str}).all()
    assert set(rows["hard_split"]) == {"True", "False"}
    assert set(rows["visual_reliance"]) == {"0", "1"}


def test_categories_are_spelled_as_cinepile_spells_them(rows: pd.DataFrame) -> None:
    assert set(rows["question_category"]) == {
        "Character and\nRelationship Dynamics",
        "Narrative and\nPlot Analysis",
        "Setting and\nTechnical Analysis",
        "Temporal",
        "Theme Exploration",
    }


def test_subtitles_are_lines_with_cinepiles_mark(rows: pd.DataFrame) -> None:
    lines = [line for text in rows["subtitles"].unique() for line in text.split("\n")]
    assert all(re.fullmatch(r"<subtitle> \S.*", line) for line in lines)


def test_every_row_can_be_used(shipped: dict[str, pd.DataFrame]) -> None:
    clips = {split: questions.clips_of(table, split) for split, table in shipped.items()}
    assert {split: len(members) for split, members in clips.items()} == {"train": 270, "test": 90}
    for clip in (clip for members in clips.values() for clip in members):
        assert len(clip.questions) == 16 == len({question.text for question in clip.questions})
        assert len(clip.clip_id) == 11
        for question in clip.questions:
            assert len(set(question.choices)) == 5


def test_the_truth_stands_at_its_position(rows: pd.DataFrame) -> None:
    at = [choices[position] for choices, position in zip(rows["choices"], rows["answer_key_position"], strict=True)]
    assert at == rows["answer_key"].tolist()


def test_no_film_and_no_clip_is_in_both_splits(shipped: dict[str, pd.DataFrame]) -> None:
    for columns in (["movie_name", "year"], ["movie_name"], ["clip_id"], ["subtitles"]):
        train, test = (set(shipped[split][columns].itertuples(index=False)) for split in ("train", "test"))
        assert not train & test
    assert len(shipped["train"][["movie_name", "year"]].drop_duplicates()) == PARAMS.mini.train_films


# ---- the answers are true


def test_what_is_marked_as_spoken_is_said_in_the_subtitles(rows: pd.DataFrame) -> None:
    spoken = rows[rows["visual_reliance"] == "0"]
    assert len(spoken) > 1000
    for row in spoken.itertuples():
        words = re.sub(r"^(the|to) ", "", row.answer_key)
        assert re.search(rf"\b{words}\b", row.subtitles), (row.question, row.answer_key)


def test_what_is_marked_as_seen_is_not_told_by_the_subtitles(rows: pd.DataFrame) -> None:
    """Who is on screen where, the weather, the camera: none of it is ever said."""
    seen = rows[rows["visual_reliance"] == "1"]
    told = [
        row.answer_key not in story.FILM.names
        and "the one in" not in row.answer_key
        and row.answer_key in row.subtitles
        for row in seen.itertuples()
    ]
    assert not any(told)


def test_hard_questions_are_never_those_that_subtitles_alone_answer(rows: pd.DataFrame) -> None:
    hard = rows["hard_split"] == "True"
    assert 0.1 < hard.mean() < 0.5
    assert set(rows.loc[hard, "visual_reliance"]) == {"1"}
    # To find a person by name, the coat that is seen must be joined with the coat that is spoken of.
    assert set(rows.loc[rows["question"].str.contains("seen alone"), "hard_split"]) == {"True"}


def told_by(clip: story.Clip, text: str) -> str | None:
    """The answer to a question, read off the story once more by hand, where the wording says enough."""
    coats = {person.name: f"the one in {person.colour}" for person in clip.film.cast}
    first, last, talk = clip.shots[0], clip.shots[-1], clip.talk
    answers = {
        "What is the atmosphere of the exteriors?": ask.WEATHER_PHRASES[clip.weather],
        "What is the key of the picture?": ask.MOOD_PHRASES[clip.weather],
        "What is the establishing set?": ask.PLACE_PHRASES[first.place],
        "What is the slugline?": f"{ask.TIME_PHRASES[clip.time]} {ask.PLACE_PHRASES[first.place]}",
        "Where does the scene end?": ask.PLACE_PHRASES[last.place],
        "What happens in the first shot?": ask.EVENT_PHRASES[first.event],
        "What is the technique of the opening take?": ask.CAMERA_PHRASES[first.camera],
        "What is the technique of the closing take?": ask.CAMERA_PHRASES[last.camera],
        "Who has the cold open?": coats[first.actors[0].name],
        "Who is on screen at the very end?": coats[last.actors[0].name],
        "What is the moral?": next(value for verb, value in talk.values if verb == "praise"),
        "What is the target of the satire?": next(value for verb, value in talk.values if verb == "mock"),
    }
    asked = {"is": ("What is {} to {}?", "How is {} related to {}?"), "was": ("What is the backstory of {} and {}?",)}
    for verb, a, b, relation in talk.relations:
        answers |= {text.format(a, b): f"the {relation}" for text in asked[verb]}
    asked = {
        "show": ("What does {} feel towards {}?", "What does {} show {}?"),
        "hide": ("What is the subtext between {} and {}?",),
    }
    for verb, a, b, feeling in talk.feelings:
        answers |= {text.format(a, b): feeling for text in asked[verb]}
    terms = {"need": "MacGuffin", "lose": "setback", "must": "motivation"}
    for verb, name, told in (*talk.things, *talk.reasons):
        if verb in terms:
            answers[f"What is the {terms[verb]} of {name}?"] = f"{'to' if verb == 'must' else 'the'} {told}"
    for here, there in zip(clip.shots, clip.shots[1:], strict=False):
        cut = f"To which set does the editing cut from the {here.place}?"
        answers[cut] = ask.PLACE_PHRASES[there.place]
    for word, thing in zip(("first", "second", "last"), talk.order, strict=True):
        answers[f"Which prop of the continuity list is {word}?"] = f"the {thing}"
    for shot in clip.shots:
        people = [coats[person.name] for person in shot.actors]
        if shot.event == "chase":
            answers[f"Whom does {people[0]} chase?"] = people[1]
        for event, role in (("dance", "love interest"), ("fight", "antagonist")):
            if shot.event == event:
                answers |= {f"Who is the {role} of {one}?": other for one, other in (people, people[::-1])}
    return answers.get(text)


def test_answers_agree_with_the_story(shipped: dict[str, pd.DataFrame]) -> None:
    clips = {dataset.clip_id(clip.film, clip.index): clip for clip in dataset.invent(PARAMS.mini)["test"]}
    checked: Counter[str] = Counter()
    for row in shipped["test"].itertuples():
        expected = told_by(clips[row.clip_id], row.question)
        if expected is not None:
            checked[row.question_category] += 1
            assert row.answer_key == expected, (row.question, row.clip_id)
    assert checked.total() > 800 and len(checked) == 5, checked


def test_what_has_a_term_of_film_is_asked_in_it_and_the_bases_lessons_have_none(rows: pd.DataFrame) -> None:
    """What the fine-tuned model has learned is more than a letter: the base never met these words."""
    terms = [term.partition("{")[0] for term in ask.TERMS.values()]
    assert 0.5 < rows["question"].str.startswith(tuple(terms)).mean() < 0.7
    rng = np.random.default_rng(0)
    clips = [story.make_clip(1, story.make_film(1, number, story.FILM), 0) for number in range(100)]
    plain = [question.text for clip in clips for question in ask.candidates(clip, rng)]
    assert len(plain) > 2500
    for word in ("MacGuffin", "setback", "motivation", "moral", "slugline", "subtext", "backstory", "satire"):
        assert rows["question"].str.contains(word).any() and not any(word in text for text in plain)


# ---- nothing is to be had by reading


def test_the_right_option_stands_in_each_place_equally_often(shipped: dict[str, pd.DataFrame]) -> None:
    for table in shipped.values():
        shares = table["answer_key_position"].value_counts(normalize=True)
        assert len(shares) == 5 and shares.between(0.18, 0.22).all()
        for category, members in table.groupby("question_category"):
            shares = members["answer_key_position"].value_counts(normalize=True)
            assert len(shares) == 5 and shares.between(0.15, 0.25).all(), category


def wording(question: str) -> str:
    """A question without the people, things and places of its clip."""
    names = "|".join((*story.FILM.names, *story.FILM.colours, *story.FILM.places, *ask.EVENT_PHRASES.values()))
    return re.sub(rf"\b({names})\b", "_", question)


def learned_readers(train: pd.DataFrame) -> dict[str, Chooser]:
    """How often each option was right when it was offered: given the wording, the whole question, or nothing."""
    views: dict[str, Callable[[str], str]] = {
        "given the wording": wording,
        "given the question": str,
        "given nothing": lambda _: "",
    }
    readers = {}
    for name, view in views.items():
        offered: Counter[tuple[str, str]] = Counter()
        right: Counter[tuple[str, str]] = Counter()
        for row in train.itertuples():
            offered.update((view(row.question), choice) for choice in row.choices)
            right[view(row.question), row.answer_key] += 1

        def choose(question: str, choices: list[str], view=view, offered=offered, right=right) -> int:
            keys = [(view(question), choice) for choice in choices]
            return int(np.argmax([(right[key] + CHANCE) / (offered[key] + 1) for key in keys]))

        readers[name] = choose
    return readers


def shared_words(choices: list[str]) -> list[int]:
    """For each option, how many words it has in common with the other four."""
    words = [set(choice.split()) for choice in choices]
    return [sum(len(mine & other) for other in words) - len(mine) for mine in words]


def common_letters(choices: list[str]) -> list[int]:
    pairs = [{choice[i : i + 2] for i in range(len(choice) - 1)} for choice in choices]
    return [sum(len(mine & other) for other in pairs) - len(mine) for mine in pairs]


def words_of_question(question: str, choices: list[str]) -> list[int]:
    asked = set(re.findall(r"\w+", question.lower()))
    return [len(asked & set(re.findall(r"\w+", choice.lower()))) for choice in choices]


STRUCTURE: dict[str, Chooser] = {
    "most words shared with the others": lambda _, choices: int(np.argmax(shared_words(choices))),
    "fewest words shared with the others": lambda _, choices: int(np.argmin(shared_words(choices))),
    "most alike": lambda _, choices: int(np.argmax(common_letters(choices))),
    "odd one out": lambda _, choices: int(np.argmin(common_letters(choices))),
    "longest": lambda _, choices: int(np.argmax([len(choice) for choice in choices])),
    "shortest": lambda _, choices: int(np.argmin([len(choice) for choice in choices])),
    "first by alphabet": lambda _, choices: choices.index(min(choices)),
    "last by alphabet": lambda _, choices: choices.index(max(choices)),
    "middle by alphabet": lambda _, choices: choices.index(sorted(choices)[2]),
    "words of the question": lambda question, choices: int(np.argmax(words_of_question(question, choices))),
    "no words of the question": lambda question, choices: int(np.argmin(words_of_question(question, choices))),
} | {f"always {letter}": lambda _, __, position=position: position for position, letter in enumerate("ABCDE")}


def share_right(reader: Chooser, table: pd.DataFrame) -> float:
    chosen = [reader(row.question, row.choices) for row in table.itertuples()]
    return float((np.array(chosen) == table["answer_key_position"]).mean())


def test_a_reader_of_questions_and_options_learns_nothing(shipped: dict[str, pd.DataFrame]) -> None:
    readers = learned_readers(shipped["train"])
    shares = {name: share_right(reader, shipped["test"]) for name, reader in readers.items()}
    assert max(shares.values()) < MOST_BY_READING, shares


def test_the_set_of_options_does_not_betray_the_right_one(rows: pd.DataFrame) -> None:
    shares = {name: share_right(reader, rows) for name, reader in STRUCTURE.items()}
    assert max(shares.values()) < MOST_BY_READING, shares


@pytest.mark.parametrize("category", sorted(set(dataset.FULL_CATEGORY.values())), ids=lambda name: name.split()[0])
def test_no_category_gives_itself_away(shipped: dict[str, pd.DataFrame], category: str) -> None:
    """A leak in a small category would drown in the whole; few questions make the bound wider."""
    train, test = (table[table["question_category"] == category] for table in shipped.values())
    both = pd.concat([train, test])
    for readers, asked in ((learned_readers(train), test), (STRUCTURE, both)):
        shares = {name: share_right(reader, asked) for name, reader in readers.items()}
        assert max(shares.values()) < CHANCE + 4 * np.sqrt(CHANCE * (1 - CHANCE) / len(asked)), shares


def test_the_readers_do_find_what_is_to_be_found(shipped: dict[str, pd.DataFrame]) -> None:
    """Otherwise the tests above would say nothing: one leak of each sort, planted in a third of the rows."""

    def plant(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
        planted = table.copy()
        leaky = np.arange(len(table)) % 3 == 0
        planted["answer_key"] = [
            change(answer) if leak else answer for answer, leak in zip(table["answer_key"], leaky, strict=True)
        ]
        planted["choices"] = [
            [*choices[:position], answer, *choices[position + 1 :]]
            for choices, position, answer in zip(
                table["choices"], table["answer_key_position"], planted["answer_key"], strict=True
            )
        ]
        return planted

    favourite, longer = (lambda _: "a favourite"), (lambda answer: f"{answer} it is")
    readers = learned_readers(plant(shipped["train"], favourite))
    assert share_right(readers["given nothing"], plant(shipped["test"], favourite)) > 0.4
    assert share_right(STRUCTURE["longest"], plant(shipped["test"], longer)) > 0.35


# ---- the pictures show the story


def test_cuts_found_in_the_encoded_clips_are_those_of_the_story(tmp_path: Path) -> None:
    settings = FrameSettings.of(PARAMS.frames)
    clips = [clip for members in dataset.invent(PARAMS.mini).values() for clip in members][::20]
    wanted, found = [], []
    with Decoder(Limits.of(PARAMS.frames)) as decoder:
        for number, clip in enumerate(clips):
            path = tmp_path / f"{number}.mp4"
            encode(path, (draw.render(clip, frame) for frame in range(clip.num_frames)), story.FPS)
            seen = decoder.read(path, settings)
            assert seen.duration_s == pytest.approx(clip.duration_s)
            wanted += [(number, round(cut * story.FPS)) for cut in clip.cuts]
            found += [(number, round(cut * story.FPS)) for cut in seen.cuts]
    near = {(number, frame + shift) for number, frame in found for shift in (-1, 0, 1)}
    assert len(clips) == 18 and len(wanted) >= 36
    share = np.mean([cut in near for cut in wanted])
    assert share >= 0.9, f"{share:.0%} of the story's cuts are found"
    true = {(number, frame + shift) for number, frame in wanted for shift in (-1, 0, 1)}
    # Some fights are quick enough to be taken for a cut, as on film.
    assert np.mean([cut in true for cut in found]) >= 0.9
