"""What is said in a clip, as CinePile's subtitles: one `<subtitle> ` line after another, no speakers named."""

from __future__ import annotations

import numpy as np

from cinetune.data.mini.story import Clip

INTRODUCED = ("{name} wears {colour}.", "{name} is in {colour}.", "{name} is all in {colour}.")
RELATIONS = {
    "is": (
        "{first} is the {relation} of {second}.",
        "{first} became the {relation} of {second}.",
        "{second} calls {first} the {relation}.",
    ),
    "was": (
        "{first} was the {relation} of {second}.",
        "{first} was once the {relation} of {second}.",
        "{second} had {first} as {relation} then.",
    ),
}
FEELINGS = {
    "show": (
        "{first} feels {feeling} towards {second}.",
        "{first} shows {feeling} towards {second}.",
        "{first} lets {second} see {feeling}.",
    ),
    "hide": (
        "{first} hides {feeling} from {second}.",
        "{first} keeps {feeling} from {second}.",
        "{first} buries {feeling} towards {second}.",
    ),
}
THINGS = {
    "need": ("{name} needs the {thing}.", "{name} wants the {thing}.", "{name} came for the {thing}."),
    "lose": ("{name} has lost the {thing}.", "The {thing} of {name} is gone.", "{name} left the {thing} behind."),
}
REASONS = {
    "must": ("{name} must {reason}.", "{name} has to {reason}.", "{name} leaves to {reason}."),
    "refuse": ("{name} will never {reason}.", "{name} has no wish to {reason}.", "To {reason} is not for {name}."),
}
ORDER = (
    "First bring the {0}, then the {1}, and last the {2}.",
    "We need the {0}, after that the {1}, in the end the {2}.",
    "Start with the {0}, go on with the {1}, finish with the {2}.",
)
VALUES = {
    "praise": ("Nothing counts more than {value}.", "All we have is {value}.", "The old song is about {value}."),
    "mock": ("Who needs {value} here?", "They laugh about {value}.", "Do not come to me with {value}."),
}
# Said by the way, and asked for by nobody.
CHATTER = (
    "Have you seen the {thing}?", "The {thing} is old.", "Nobody touches the {thing}.", "Where is the {thing}?",
    "{name} slept badly.", "I met {name} at noon.", "Do you hear {name}?", "{name} laughs again.",
    "People speak of {value}.", "My father taught me {value}.", "So much for {value}.", "What is {value} to you?",
)  # fmt: skip
MOST_CHATTER = 3
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

    said = [pick(INTRODUCED).format(name=person.name, colour=person.colour) for person in talk.introduced]
    for verb, first, second, relation in talk.relations:
        said.append(pick(RELATIONS[verb]).format(first=first, second=second, relation=relation))
    for verb, first, second, feeling in talk.feelings:
        said.append(pick(FEELINGS[verb]).format(first=first, second=second, feeling=feeling))
    said += [pick(THINGS[verb]).format(name=name, thing=thing) for verb, name, thing in talk.things]
    said += [pick(REASONS[verb]).format(name=name, reason=reason) for verb, name, reason in talk.reasons]
    said.append(pick(ORDER).format(*talk.order))
    said += [pick(VALUES[verb]).format(value=value) for verb, value in talk.values]
    words = {
        "thing": clip.film.world.objects,
        "name": [person.name for person in clip.film.cast],
        "value": clip.film.world.values,
    }
    for _ in range(rng.integers(MOST_CHATTER + 1)):
        said.append(pick(CHATTER).format(**{kind: rng.choice(pool) for kind, pool in words.items()}))
    said.append(pick(TONE[talk.tone]))
    return [said[i] for i in rng.permutation(len(said))]


def subtitles(clip: Clip) -> str:
    """The clip's talk in CinePile's form."""
    return "\n".join(f"<subtitle> {line}" for line in lines(clip))
