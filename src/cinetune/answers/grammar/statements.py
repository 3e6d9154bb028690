"""What a reply says of the options that it names: declared, corrected, denied, compared, or explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cinetune.answers.grammar import cues
from cinetune.answers.grammar.mentions import CONTEXT_CHARS, Mention, find_mentions
from cinetune.answers.grammar.options import is_number
from cinetune.answers.grammar.words import CLAUSE_END, NEGATION, NO_DOUBT, SENTENCE_END


class Force(IntEnum):
    """How much a statement commits to its option."""

    EXPLAINED = -1  # spoken of, and no more
    IN_WORDS = 0  # an option's words occur
    NAMED = 1
    JUDGED = 2  # "it is B", "I think B", "B fits best"
    WHOLE = 3  # the letter is a sentence of its own, or opens the reply with its reason
    APPROVED = 4  # "B is correct"
    ANSWER = 5  # "the answer is B", "I choose B"
    CORRECTED = 6  # "no, wait: B"


@dataclass(frozen=True)
class Statement:
    """What is said of the options in `letters`; `is_affirmed` is False where they are denied."""

    letters: str
    force: Force
    is_affirmed: bool = True


RETRACTION = Statement("", Force.CORRECTED, False)
MARK = "§"  # stands for a mention in the text that cues are looked for in; folding has removed it from replies


def read_statements(text: str, choices: Sequence[str]) -> list[Statement]:
    """Every statement in order. Time is linear in the text: each mention is read within CONTEXT_CHARS."""
    groups = _grouped(text, find_mentions(text, choices), len(choices))
    pieces, places, end, length = [], [], 0, 0
    for group in groups:
        pieces += [text[end : group[0].start], MARK]
        length += group[0].start - end
        places.append(length)
        length += 1
        end = max(mention.end for mention in group)
    marked = "".join([*pieces, text[end:]])
    listed = _analysed(marked, places, groups)
    statements = []
    retractions = [
        found.start() for found in cues.RETRACTED.finditer(marked) if not _answers_question(marked, found.start())
    ]
    for index, (group, place) in enumerate(zip(groups, places, strict=True)):
        while retractions and retractions[0] < place:
            retractions.pop(0)
            statements.append(RETRACTION)
        statements.append(_read(Context(marked, place, text[group[0].start : group[-1].end]), group, index in listed))
    return statements + [RETRACTION for _ in retractions]


def _answers_question(marked: str, start: int) -> bool:
    return bool(re.search(r"\?\s*$", marked[max(0, start - 5) : start]))


def _grouped(text: str, mentions: Sequence[Mention], count: int) -> list[list[Mention]]:
    """Mentions that are said together: "A or B", "B) the option's text"; count: of options."""
    groups: list[list[Mention]] = []
    for mention in mentions:
        if groups and _belong_together(text, groups[-1], mention, count):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return groups


def _belong_together(text: str, group: Sequence[Mention], right: Mention, count: int) -> bool:
    left = group[-1]
    gap = text[left.end : right.start]
    if len(gap) > CONTEXT_CHARS or "\n" in gap:
        return False
    before, after = text[max(0, group[0].start - 14) : group[0].start], text[right.end : right.end + 40]
    if right.is_text and not left.is_text:
        # An option's words behind a letter are its own text only as a phrase of their own.
        is_phrase = cues.PHRASE_END.match(after) or is_number(text[right.start : right.end])
        return bool(cues.BEFORE_OWN_TEXT.fullmatch(gap)) and bool(is_phrase)
    if left.is_text and not right.is_text and re.fullmatch(r" ?\(?", gap) and (right.is_marked or gap.endswith("(")):
        return True
    if cues.RANGE.fullmatch(gap) and bool(cues.FROM.search(text[max(0, left.start - 20) : left.start])) == left.is_text:
        return True
    is_spliced = cues.SPLICED.fullmatch(gap) and cues.SINGULAR.match(after)
    if is_spliced or (left.is_text and not right.is_text and gap.strip() == ","):
        return False
    if cues.JOINED.fullmatch(gap) and not (not gap.strip() and text[right.start] == "(" and not left.is_marked):
        # "Not A, B": the comma parts what is denied from what is meant.
        is_contrast = len(group) == 1 and bool(cues.CONTRASTED.search(before)) and not cues.JOINED_ON.match(after)
        listed = text[max(group[0].start, left.start - CONTEXT_CHARS) : left.start]
        is_complete = bool(cues.LISTED.search(listed))
        is_again = is_complete or right.letter in {mention.letter for mention in group[-count:]}
        return gap.strip() != "," or not (is_contrast or is_again)
    if cues.CONTRASTED.search(before):
        return False
    is_list = left.is_text == right.is_text and not (left.is_text and cues.WITHIN_SENTENCE.search(before))
    return bool(cues.ENUMERATED.fullmatch(gap)) and after[:1] in {"", ".", ":", "\n"} and is_list


def _analysed(marked: str, places: Sequence[int], groups: Sequence[Sequence[Mention]]) -> set[int]:
    """The groups that head a line of an analysis, "A: ...", "B: ...": two or more with different letters."""
    heads: list[int] = []
    for index, place in enumerate(places):
        head = marked[max(0, place - 4) : place].rpartition("\n")[2]
        follows = marked[place + 1 : place + 8]
        if (
            re.fullmatch(r"\W*|\d[.)] ?", head)
            and re.match(r" ?[.:)-] ?[^\s.:]" if not groups[index][0].is_marked else r" ?[.:)-]? ?[^\s.:§]", follows)
            and not groups[index][0].is_text
        ):
            heads.append(index)
    letters = {mention.letter for index in heads for mention in groups[index]}
    return set(heads) if len(letters) > 1 else set()


class Context:
    """The words around one mention, within its sentence and its clause; other mentions are MARKs."""

    def __init__(self, marked: str, place: int, words: str) -> None:
        self.words = words
        before, after = marked[max(0, place - CONTEXT_CHARS) : place], marked[place + 1 : place + 1 + CONTEXT_CHARS]
        stop = SENTENCE_END.search(after)
        self.sentence_before = SENTENCE_END.split(before)[-1]
        self.sentence_after = after[: stop.start()] if stop else after
        self.stop = stop[0] if stop else ""
        self.next_sentence = after[stop.end() :].lstrip() if stop else ""
        self.clause_before = CLAUSE_END.split(cues.ALL_BUT.sub("except ", self.sentence_before))[-1]
        self.clause_after = CLAUSE_END.split(self.sentence_after)[0]
        self.earlier = before
        self.opens_reply = place < CONTEXT_CHARS and not re.search(r"\w|§|✗|✓", marked[:place])
        self.is_whole = not re.search(r"[\w§]", self.sentence_before) and not re.search(r"[\w§✓✗]", self.sentence_after)
        self.line_before = marked[max(0, place - 3 * CONTEXT_CHARS) : place].rpartition("\n")[2]


def _read(context: Context, group: Sequence[Mention], is_listed: bool) -> Statement:
    letters = "".join(sorted({letter for mention in group for letter in mention.letter}))
    denied = _is_denied(context)
    force = _force(context, group, is_listed)
    if context.stop == "?" and cues.TAGGED.search(context.sentence_after):
        return Statement(letters, force, not denied)
    if context.stop == "?":
        reply = cues.YES_OR_NO.match(context.next_sentence)
        if reply:
            return Statement(letters, Force.JUDGED, reply["yes"] is not None)
        if SENTENCE_END.split(context.next_sentence)[0].strip() and NEGATION.search(
            SENTENCE_END.split(context.next_sentence)[0]
        ):
            return Statement(letters, Force.JUDGED, False)
    if context.stop == "?" and not cues.HEDGED.search(context.sentence_before):
        force = force if context.is_whole and not context.next_sentence else Force.EXPLAINED
    return Statement(letters, force, not denied)


def _is_denied(context: Context) -> bool:
    """An odd number of negations in the clause before the mention and in what is said of it."""
    before = NO_DOUBT.sub(" ", context.clause_before)
    if cues.COMPARED_TO.search(before):
        # "B rather than C", "C > A": the second one is passed over, unless "less likely than" prefers it.
        _, _, comparison = before.rpartition("§")
        return bool(cues.AMOUNT.search(before)) or not cues.LESS.search(comparison)
    # What is denied of an earlier mention in the same clause is not denied of this one: "B is not C".
    _, joined, own = before.rpartition("§")
    denials = len(NEGATION.findall(own if joined and not cues.NOR.search(own) else before))
    if cues.CORRECTION.search(context.sentence_before):
        denials = 0
    predicate = cues.PREDICATE.match(context.clause_after)
    if predicate and not cues.LOSER_FOLLOWS.match(context.clause_after):
        said = NO_DOUBT.sub(" ", context.clause_after.partition("§")[0])
        if cues.COMPARATIVE.search(said):
            denials += bool(cues.LESS.search(said)) or bool(re.search(r"\bnot\b|n't\b", said))
        else:
            denials += len(NEGATION.findall(said))
    elif verdict := cues.LABEL_VERDICT.match(context.sentence_after):
        # "No, never" denies no option "No".
        denials += bool(verdict["no"]) and not NEGATION.fullmatch(context.words)
    return denials % 2 == 1


def _force(context: Context, group: Sequence[Mention], is_listed: bool) -> Force:
    before, clause = context.sentence_before, context.clause_before
    if cues.CORRECTION.search(before) and not cues.NEUTRAL.match(context.clause_after):
        return Force.CORRECTED
    is_text = all(mention.is_text for mention in group)
    if cues.CASES.search(f"{before}§{context.sentence_after}") or cues.CONDITION.match(before):
        return Force.EXPLAINED
    if is_text and (cues.IN_REASON.search(before) or cues.BOTH.search(before)):
        return Force.EXPLAINED if cues.BOTH.search(before) else Force.IN_WORDS
    if cues.COMPARED_TO.search(clause):
        return Force.JUDGED
    is_answer = cues.ANSWER.search(before) and not cues.MODAL_ANSWER.search(clause)
    if is_text:
        clause = cues.OF_LETTERS.sub("", clause)
    is_hypothetical = bool(cues.HYPOTHETICAL.search(clause) or cues.OTHER_RANK.search(clause))
    is_aside = is_hypothetical or (not is_answer and _is_behind_other_label(context))
    said = _said_after(context)
    if said == Force.EXPLAINED and is_text:
        said = None
    if said is not None and (said >= Force.JUDGED or not cues.ANSWER.search(before)):
        return Force.EXPLAINED if said == Force.NAMED and is_aside else said
    if is_aside:
        return Force.EXPLAINED
    return Force.ANSWER if is_answer else _unannounced_force(context, group, is_listed)


def _unannounced_force(context: Context, group: Sequence[Mention], is_listed: bool) -> Force:
    """How much a mention commits that no cue of an answer, a predicate or a label speaks of."""
    clause = context.clause_before
    is_text = all(mention.is_text for mention in group)
    opens = context.opens_reply and not is_listed
    if context.is_whole and not is_listed:
        return Force.JUDGED if is_text else Force.WHOLE
    if opens and (cues.FRAGMENT_REASON if is_text else cues.REASON).match(context.sentence_after):
        return Force.JUDGED if is_text else Force.WHOLE
    if cues.MODAL.search(clause):
        return Force.NAMED
    is_head = is_listed and not is_text and not re.search(r"\w", clause)
    if not is_head and cues.JUDGED.search(clause) and (not is_text or cues.SURE_OF_TEXT.search(clause)):
        return Force.JUDGED
    if is_text:
        return Force.IN_WORDS
    if opens and cues.DASHED_REASON.match(context.sentence_after):
        return Force.WHOLE
    # Words that are not understood may say anything of the letter; nothing is guessed.
    is_free = opens or cues.FREE.search(context.sentence_before) or len(group) > 1
    return Force.NAMED if is_free and not is_listed else Force.EXPLAINED


def _said_after(context: Context) -> Force | None:
    """What a predicate says of the mention: "B is the answer", "B fits better", "B was shown later"."""
    after = context.clause_after
    said = after.partition("§")[0]
    if cues.LABEL_VERDICT.match(context.sentence_after):
        return Force.APPROVED
    is_conditional = cues.ONLY_IF.search(f"{context.clause_before}§{said}")
    if cues.IF.search(context.clause_before) or cues.CONCEDED.match(after) or is_conditional:
        return Force.EXPLAINED
    if cues.WINNER_PRECEDES.match(context.sentence_after):
        return Force.JUDGED
    if not cues.PREDICATE.match(after):
        return Force.EXPLAINED if cues.TOO.match(after) else None
    if cues.TEMPTING.search(said) or cues.EQUAL.search(after):
        return Force.EXPLAINED
    return _approval(said)


def _approval(predicate: str) -> Force:
    is_compared = cues.COMPARATIVE.search(predicate)
    denials = len(NEGATION.findall(predicate))
    is_denied = denials > 0
    if denials > 1:
        return Force.EXPLAINED  # "B is not wrong", "B cannot be ruled out": granted, and no more
    if cues.MODAL_PREDICATE.match(predicate) and not is_denied:
        return Force.JUDGED if is_compared else Force.NAMED
    if cues.APPROVED.search(predicate) or cues.IS_ANSWER.search(predicate):
        return Force.APPROVED
    fits = cues.FITS.search(predicate) or cues.ELLIPSIS.fullmatch(predicate)
    return Force.JUDGED if fits or is_compared or is_denied else Force.EXPLAINED


def _is_behind_other_label(context: Context) -> bool:
    """Does the mention stand behind a label that announces no answer ("Note:", "Evidence:")?"""
    labels = cues.LABEL.findall(context.line_before)
    return bool(labels) and not cues.ANSWER_LABEL.search(labels[-1])
