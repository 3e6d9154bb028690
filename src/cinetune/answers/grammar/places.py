"""Where a reply names an option by its place among the options, or by the number that the option itself bears."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cinetune.answers.grammar import options
from cinetune.answers.grammar.words import ANSWER_NOUN, FRAME, OPTION_NOUN
from cinetune.answers.letters import readable
from cinetune.task.description import LETTERS

Place = tuple[int, int, str]  # start, end, letter: "" where it cannot be told

NUMBERS = r"10|[1-9]"
NUMBERED = re.compile(
    rf"\b(?:answer|choice|{OPTION_NOUN})s?"
    rf" (?:no\. ?|number |número |numero |nummer )?({NUMBERS}|{'|'.join(options.NUMBER_WORDS[1:11])})\b(?![.,]\d|%)",
    re.IGNORECASE,
)
# A number alone, or behind "answer", where no option speaks of numbers; one in JSON may count from 0.
LONE_NUMBER = re.compile(
    rf"\A[^\w-]*(?:number |n[or]\. ?)?({NUMBERS})\W*\Z|(?<!{{)\b(?:answer|option"
    rf"|choice)(?: is)?[ :]+({NUMBERS})(?=[^\w}}]*$)"
    rf"|\b(?:choose|pick|select|with|say) number ({NUMBERS})(?=[^\w}}]*$)",
    re.IGNORECASE | re.MULTILINE,
)
ORDINALS = (
    r"first|1st|primer[ao]?|primeir[ao]|premi[eè]re?|erste[nrs]?|prim[ao]|eerste|pierwsz[aąy]|перв(?:ый|ая|ое)",
    r"second|2nd|segund[ao]|seconde|deuxi[eè]me|zweite[nrs]?|second[ao]|tweede|drug[aąi]|втор(?:ой|ая|ое)",
    r"third|3rd|tercer[ao]?|terceir[ao]|troisi[eè]me|dritte[nrs]?|terz[ao]|derde|trzeci[aą]?|трет(?:ий|ья|ье)",
    r"fourth|4th|cuart[ao]|quart[ao]|quatri[eè]me|vierte[nrs]?|vierde|czwart[aąy]|четв[её]рт(?:ый|ая|ое)",
    r"fifth|5th|quint[ao]|cinqui[eè]me|fünfte[nrs]?|vijfde|piąt[aąy]|пят(?:ый|ая|ое)",
    *(r"sixth|6th", r"seventh|7th", r"eighth|8th", r"ninth|9th", r"tenth|10th"),
)
LAST_BUT_ONE = r"last but one|second[- ]to[- ]last|next[- ]to[- ]last|second[- ]last|penultimate"
LAST = r"last|última|último|ultima|derni[eè]re?|letzte[nrs]?|laatste|ostatni[aą]?|последн(?:ий|яя)"
ORDINAL_WORD = rf"({LAST_BUT_ONE}|{'|'.join(ORDINALS)}|{LAST})"
IS_JUDGED = (
    r" (?:(?:is|isn't|was|seems|looks|sounds|would be)(?: not| the| clearly| more| most)*"
    r" (?:correct|right|wrong|incorrect|out|best|better|true|false|answer|likely|plausible)"
    r"|fits|matches|describes|explains|makes (?:the |more |most )*sense|works|wins)\b"
)
ORDINAL = re.compile(
    rf"\b(?:the )?(?:very )?{ORDINAL_WORD} (?:answer )?(?:{OPTION_NOUN}|{ANSWER_NOUN})\b"
    rf"|\bthe {ORDINAL_WORD} (?:choice|one|answer|statement)\b(?=[.!,;:)]|$|{IS_JUDGED})"
    rf"|\bthe {ORDINAL_WORD}(?= of (?:the|these|those)(?: \w+)? (?:options|choices|answers)\b|{IS_JUDGED})",
    re.IGNORECASE | re.MULTILINE,
)
EAST_ASIAN_PLACE = re.compile(
    r"第 ?([一二三四五六七八九十1-9]) ?(?:个|個|项|項)?(?:选项|選項|答案|選択肢)"
    r"|(?:选项|選項|選択肢|선택지|보기) ?([一二三四五1-9])(?![\w.,%])"
    r"|([一二三四五1-9]) ?(?:番目|つ目)(?:の ?(?:選択肢|答え)|(?= ?(?:です|だ|$)))"
    r"|([첫두세네])(?:째| ?번째)(?: ?(?:선택지|보기|옵션|답)|(?= ?(?:입니다|이다|$)))",
    re.MULTILINE,
)
EAST_ASIAN_NUMBERS = ("一첫", "二두", "三세", "四네", "五", "六", "七", "八", "九", "十")
OWNER_BEFORE = re.compile(r"\b(?:my|your|his|her|our|their) $", re.IGNORECASE)
WORD_BEFORE = re.compile(r"(\w+)[ :\"']*$")


def find_places(text: str, choices: Sequence[str]) -> Iterator[Place]:
    """Where "the second option", "option 2" and "(ii)" stand; "option 2" may mean either where options are numbers."""
    yield from _by_own_label(text, choices)
    has_numbers, known = options.has_numbers(choices), readable(choices)
    for found in NUMBERED.finditer(text):
        place = int(found[1]) if found[1].isdigit() else options.NUMBER_WORDS.index(found[1].lower())
        yield *found.span(), "" if has_numbers or place > len(known) else known[place - 1]
    for found in () if has_numbers else LONE_NUMBER.finditer(text):
        number = found.lastindex or 0
        # What stands before the number is left to tell how it is meant.
        yield *found.span(0 if number == 1 else number), known[int(found[number]) - 1 :][:1]
    for found in ORDINAL.finditer(text):
        if not OWNER_BEFORE.search(text[max(0, found.start() - 6) : found.start()]):
            yield *found.span(), _letter_of((found[1] or found[2] or found[3]).lower(), len(choices), known)
    for found in EAST_ASIAN_PLACE.finditer(text):
        sign = found[found.lastindex or 1]
        place = int(sign) if sign.isdigit() else 1 + [sign in signs for signs in EAST_ASIAN_NUMBERS].index(True)
        yield *found.span(), known[place - 1 :][:1]


def _letter_of(ordinal: str, count: int, known: str) -> str:
    if re.fullmatch(LAST_BUT_ONE, ordinal):
        place = count - 1
    elif re.fullmatch(LAST, ordinal):
        place = count
    else:
        place = 1 + [bool(re.fullmatch(words, ordinal)) for words in ORDINALS].index(True)
    return known[place - 1] if 0 < place <= len(known) else ""


def _by_own_label(text: str, choices: Sequence[str]) -> Iterator[Place]:
    """The labels that the options bear, at the head of a line, in brackets, or where an answer is expected."""
    labels = options.own_labels(choices)
    if not labels:
        return
    signs = "|".join(sorted(labels, key=len, reverse=True))
    for found in re.finditer(rf"(?<![\w.,'/-])(\(?)({signs})(?:([).:])(?!\d)|(?![\w%'/]|[.,:]\d|-\w))", text, re.I):
        opening, label, closing = found.groups()
        before, after = text[max(0, found.start() - 20) : found.start()].rpartition("\n")[2], text[found.end() :][:2]
        is_head = not before.strip() and (bool(closing) or not after.strip(" ") or after[0] == "\n")
        word = WORD_BEFORE.search(before)
        is_named = word is not None and word[1].lower() in {"number", "no", "option", "choice"}
        is_expected = bool(word and FRAME.fullmatch(word[1])) and not re.match(r" ?\w", after)
        if label.lower() == "i" and not closing and text.strip() != label:
            continue
        if is_head or (opening and closing == ")") or is_named or is_expected:
            yield *found.span(), LETTERS[labels.index(label.lower())]
