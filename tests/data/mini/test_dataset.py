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
        clip = story.make_clip(seed, story.make_film(seed, 0), 0)
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
        row.answer_key not in story.NAMES and "the one in" not in row.answer_key and row.answer_key in row.subtitles
        for row in seen.itertuples()
    ]
    assert not any(told)


def test_hard_questions_are_never_those_that_subtitles_alone_answer(rows: pd.DataFrame) -> None:
    hard = rows["hard_split"] == "True"
    assert 0.1 < hard.mean() < 0.5
    assert set(rows.loc[hard, "visual_reliance"]) == {"1"}
    # To name a person, the coat that is seen must be joined with the coat that is spoken of.
    assert set(rows.loc[rows["answer_key"].isin(story.NAMES), "hard_split"]) == {"True"}


def test_answers_agree_with_the_story(shipped: dict[str, pd.DataFrame]) -> None:
    """Read off the story once more, by hand, for the questions whose wording says enough."""
    clips = {dataset.clip_id(clip.film, clip.index): clip for clip in dataset.invent(PARAMS.mini)["test"]}
    checked: Counter[str] = Counter()
    for row in shipped["test"].itertuples():
        clip, text = clips[row.clip_id], row.question
        coats = {person.name: f"the one in {person.colour}" for person in clip.film.cast}
        first, last = clip.shots[0], clip.shots[-1]
        expected: str | None = None
        if "weather" in text:
            expected = ask.WEATHER_PHRASES[clip.weather]
        elif text in ("Where does the scene begin?", "Where is the first shot set?"):
            expected = ask.PLACE_PHRASES[first.place]
        elif text in ("Where does the scene end?", "Where is the last shot set?"):
            expected = ask.PLACE_PHRASES[last.place]
        elif "camera" in text:
            expected = ask.CAMERA_PHRASES[(first if "first" in text else last).camera]
        elif text in ("Who is seen last?", "Who is on screen at the very end?"):
            expected = coats[last.actors[0].name]
        elif found := re.fullmatch(r"(?:Whom does|Who runs away from) (.+?)(?: chase)?\?", text):
            chase = clip.shot_of("chase")
            if "chase" in text or "runs" in text:
                assert coats[chase.actors[0].name] == found[1]
                expected = coats[chase.actors[1].name]
        elif found := re.fullmatch(r"What does (\w+) feel towards (\w+)\?", text):
            expected = next(feeling for a, b, feeling in clip.talk.feelings if (a, b) == (found[1], found[2]))
        elif found := re.fullmatch(r"What did (\w+) come for\?", text):
            expected = "the " + dict(clip.talk.quests)[found[1]]
        elif found := re.fullmatch(r"(?:Which place comes right after the|Where do we go from the) (\w+)\?", text):
            places = [shot.place for shot in clip.shots]
            expected = ask.PLACE_PHRASES[places[places.index(found[1]) + 1]]
        if expected is not None:
            checked[re.sub(r"\W.*", "", text)] += 1
            assert row.answer_key == expected, (text, row.clip_id)
    assert checked.total() > 300, checked


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
    names = "|".join((*story.NAMES, *story.COLOURS, *story.PLACES, *ask.EVENT_PHRASES.values()))
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
    assert share_right(STRUCTURE["longest"], plant(shipped["test"], longer)) > 0.4


# ---- the pictures show the story


def test_cuts_found_in_the_encoded_clips_are_those_of_the_story(tmp_path: Path) -> None:
    settings = FrameSettings.of(PARAMS.frames)
    clips = [clip for members in dataset.invent(PARAMS.mini).values() for clip in members][::60]
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
    assert len(clips) == 6 and len(wanted) >= 12
    share = np.mean([cut in near for cut in wanted])
    assert share >= 0.9, f"{share:.0%} of the story's cuts are found"
    true = {(number, frame + shift) for number, frame in wanted for shift in (-1, 0, 1)}
    assert np.mean([cut in true for cut in found]) >= 0.95
