"""What is said in a clip, as CinePile's subtitles: one `<subtitle> ` line after another, no speakers named."""

from __future__ import annotations

import numpy as np

from cinetune.data.mini.story import Clip

INTRODUCED = ("{name} wears {colour}.", "{name} is in {colour}.", "{name} is all in {colour}.")
RELATION = (
    "{first} is the {relation} of {second}.",
    "{first} was the {relation} of {second}.",
    "{first} became the {relation} of {second}.",
)
FEELING = (
    "{first} feels {feeling} towards {second}.",
    "{first} shows {feeling} towards {second}.",
    "{first} knows {feeling} towards {second}.",
)
QUEST = ("{name} needs the {thing}.", "{name} wants the {thing}.", "{name} came for the {thing}.")
ERRAND = ("{name} must {reason}.", "{name} has to {reason}.", "{name} leaves to {reason}.")
ORDER = (
    "First bring the {0}, then the {1}, and last the {2}.",
    "We need the {0}, after that the {1}, in the end the {2}.",
    "Start with the {0}, go on with the {1}, finish with the {2}.",
)
VALUE = (
    "Nothing counts more than {value}.",
    "All we have is {value}.",
    "The old song is about {value}.",
)
TONE = {
    "kind": (
        "I forgive you with all my heart.",
        "You are dear to me, my friend.",
        "It is warm and good to be here.",
    ),
    "bitter": ("I will never forgive you.", "You are dead to me, liar.", "It is cold and cruel out here."),
}


def lines(clip: Clip) -> list[str]:
    """The spoken lines of a clip in the order in which they are said."""
    talk = clip.talk
    rng = np.random.default_rng(talk.wording_seed)

    def pick(wordings: tuple[str, ...]) -> str:
        return wordings[rng.integers(len(wordings))]

    first, second, relation = talk.relation
    said = [pick(INTRODUCED).format(name=person.name, colour=person.colour) for person in talk.introduced]
    said.append(pick(RELATION).format(first=first, second=second, relation=relation))
    said += [pick(FEELING).format(first=a, second=b, feeling=feeling) for a, b, feeling in talk.feelings]
    said += [pick(QUEST).format(name=name, thing=thing) for name, thing in talk.quests]
    said += [pick(ERRAND).format(name=name, reason=reason) for name, reason in talk.errands]
    said.append(pick(ORDER).format(*talk.order))
    said.append(pick(VALUE).format(value=talk.value))
    said.append(pick(TONE[talk.tone]))
    return [said[i] for i in rng.permutation(len(said))]


def subtitles(clip: Clip) -> str:
    """The clip's talk in CinePile's form."""
    return "\n".join(f"<subtitle> {line}" for line in lines(clip))
