"""The turns of phrase around a mention (MARK, "§") that tell what is said of it."""

from __future__ import annotations

import re

from cinetune.answers.words import NOUN

FILLER = (
    r"(?:(?:the|my|your|final|correct|best|right|most|likely|probable|probably|perhaps|maybe|definitely|clearly|simply"
    r"|actually|of course|to be|be|that|for|with|on|option|choice|letter|answer|number|as follows|given by|indeed|still"
    r"|therefore|thus|then|just|it is|it's|la|le|el|die|der|das|a|o|het|de|letra|lettre|lettera|buchstabe|opci[oó]n"
    r"|opção"
    r"|option|вариант|буква|選項|选项|entweder)(?!\w)[ ,:]*)*"
)
COPULA = (
    r"(?:is|are|was|be|would be|must be|should be|has to be|will be|seems to be|appears to be|remains|est|es|é|è|ist"
    r"|lautet"
    r"|wäre|är|er|jest|to|adalah|là|είναι|هي|هو|है|serait|sería|seria|sarebbe|as|be)(?!\w)|是|为|為|は|은|는|が|[:=→-]|->|=>"
)
QUOTES = r"[ \"'(\[{<:=>-]*"
ANSWER = re.compile(
    # "The answer is", "Final answer:", "Die Antwort lautet", "答えは"
    rf"(?:(?<![\w-])(?:{NOUN})|答案|正解|回答|答え)(?:应该|應該)?(?:\(s\)|'s)?(?: (?:here|now|to this(?: question)?"
    rf"|to the question|for me|correcta|correcte|correta|corretta"
    rf"|juste|richtig|certa|giusta|prawidłowa))?[ \"')]*(?:(?:{COPULA})[ ]*)*{FILLER}{QUOTES}$"
    # "I choose", "going with"
    r"|(?:^|[,.;:!] ?|\b(?:i|we|i'd|i'll|i'm|i am|i would|i will|let's|let us|i must|i have to|you should|should"
    r"|you must|so|then|and)[ ])"
    r"(?:(?:would|will|now|do|going to|have to|must|go and|therefore|thus|rather|probably|still|definitely)[ ])*"
    r"(?:choose|chose|choosing|pick|picked|picking|select|selected|selecting|go(?: (?:with|for))?|going(?: (?:with"
    r"|for))?"
    rf"|went with|opt(?: for)?|settle on|say|prefer|vote(?: for)?|lean(?: towards?)?"
    rf"|leaning towards?)[ ,:]*{FILLER}{QUOTES}$"
    rf"|(?:wähle|nehme|choisis|dirais|elijo|escolho|scelgo|kies|выбираю|选择|选|選ぶ|選)[ ]*{FILLER}{QUOTES}$"
    rf"|\b(?:the )?(?:correct|right|best|proper|richtig|richtige|correcto|correcta|correto)(?: (?:is|one is|ist|es|é"
    rf"|est))?[: ]+{QUOTES}$",
    re.IGNORECASE,
)
MODAL_ANSWER = re.compile(
    r"\b(?:could|might|may)(?: (?:also|well|either|possibly))* be\b|\b(?:others?|some|many|people)\b[^.§]{0,20}$",
    re.IGNORECASE,
)
MODAL = re.compile(
    r"\b(?:may|might|could) (?:look|seem)\b|\b(?:could|might|may|can)(?: (?:also|well|either|possibly))* be\b"
    r"|\b(?:possible|possibly|plausible|alternatively)\b",
    re.IGNORECASE,
)
JUDGED = re.compile(
    r"(?:\b(?:it|this|that|which|there|i think|i believe|i guess|i suppose|i'd say|must|should|would|has|points?"
    r"|leaves?"
    r"|so|therefore|thus|hence|probably|definitely|certainly|clearly|surely|obviously|most likely|likely|maybe"
    r"|perhaps|is|are|was|be"
    r"|it's|that's|leads? to|leading to|points? to|points? towards?|pointing to|correspond\w* to|leaving|es ist"
    r"|das ist|c'est|es|é|è|think|believe|guess|suppose|matches|favou?rs?|supports|suggests|indicates|only|looks? like"
    r"|seems? like|rather|sia|sei|soit|sea|seja|que|che|dass|是|应该是|это|adalah)(?!\w)|[:=→是は]|->|=>)"
    rf"(?: (?:is|be|was|to|us|would|must|should|has|have|can only|only)(?!\w))*[ ,:]*{FILLER}{QUOTES}$|^\W*(?:(?:la"
    rf"|le|el|die|o|the)\b\W*)?$",
    re.IGNORECASE,
)
SURE_OF_TEXT = re.compile(
    r"\b(?:i think|i believe|i guess|i'd say|must be|should be|would be|probably|definitely|clearly|most likely"
    r"|maybe|perhaps)\b",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"(?:^|[\s,;:(-])(?:(?:oh |oops|hmm|ah )?[, ]*(?:no\b[ ]*[,:.!-]|nope\b|wait\b|hold on\b|sorry\b|correction\b"
    r"|actually\b"
    r"|scratch that|"
    r"make (?:that|it)\b|my (?:mistake|bad)|i (?:mean|meant)\b|or rather\b|rather[,:]|on second thoughts?"
    r"|let me correct"
    r"(?: (?:that|myself|it))?|i correct myself|excuse me|pardon|instead,?|better:|oops\b|i misread|on reflection"
    r"|upon (?:reflection|review)|looking again|after (?:all|reconsidering|a second look)|i(?:'ve)? changed? my mind"
    r"|(?:chang|switch|revis)\w* [^§.]{0,20}(?:from § )?to)[ ,:.!-]*)+"
    rf"(?:(?:it|that|this|the|my|answer|is|it's|that's|should|would|be|must|i'd|i|say|think|to|must be|go|with"
    rf"|choose|correct"
    rf"|final|option|choice|am|changing|now|no|right|one|pick)(?!\w)[ ,:]*)*{QUOTES}$",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r"(?:(?<=[.!?\n] )|(?<=\n))(?:(?:oh|hmm|oops|but|wait|hold on|ah)[,. ]*)*(?:no[,. ]*wait|wait[,. ]*no|scratch that|"
    r"that(?:'s| is|'s all| was) (?:wrong|incorrect|not right|a mistake)|i was wrong|no)[.!](?=\s|$)",
    re.IGNORECASE,
)
HEDGED = re.compile(
    r"(?:\b(?:maybe|perhaps|probably|possibly|i think|i guess|guess|answer|i'd say)\b[ :,]*(?:it's|it is|is|option)?"
    r"|\b(?:not (?:sure|certain)|unsure|don't know|no idea)[,.: ]+)[ ]*$",
    re.IGNORECASE,
)
YES_OR_NO = re.compile(
    r"(?:(?P<yes>i think so|yes|yeah|yep|correct|right|exactly|definitely(?! not)|certainly(?! not)|indeed|✓)"
    r"|(?P<no>no|nope|not|unlikely|wrong|incorrect|hardly|doubtful|impossible|never|false|nah|i doubt|i don't think"
    r"|can't be"
    r"|cannot be|definitely not|certainly not|✗))(?!\w)",
    re.IGNORECASE,
)
LABEL_VERDICT = re.compile(
    r" ?[:=.,→-]* ?\(?(?:(?P<no>no way|not at all|nope|never|doubtful|hardly|no|not?(?: \w+)? (?:correct|right"
    r"|possible|likely|supported|shown|the answer)|wrong"
    r"|incorrect"
    r"|false|✗|eliminated|excluded|ruled out|rejected|unlikely|impossible|x|distractor|trap)"
    r"|(?P<yes>yes|correct|right|true|✓|best|this is (?:it|correct|right)|the (?:(?:correct|right|best) )?(?:answer"
    r"|one|choice)))\)?(?=\s*(?:$|[,.;§(-]))",
    re.IGNORECASE,
)
PREDICATE = re.compile(
    r"[ ]*,?[ ]*(?:(?:which|that|clearly|definitely|certainly|probably|also|both|all|just|simply|really|obviously"
    r"|alone|still|therefore)[ ])*"
    r"(?:(?:is|are|was|were|can|cannot|could|may|might|does|do|did|seem|look|appear|would|should|must|has|have|had"
    r"|fit|make"
    r"|fail|match|work|lack|miss|contradict|hold|stand|win|remain|describe|explain|beat|goes?|went|happen|sound|say"
    r"|show"
    r"|come|take|make|feel|get|occur|involve|mention|refer|describe|contain|suggest|imply|only|never|more|less"
    r"|falls?|better|best|wins"
    r"|misses|won|stay|ist|est|es|é|è|requires?|needs?|assumes?|ignores?|captures?|reflects?|summari[sz]es?"
    r"|represents?)(?:s|es|ed)?(?:n't)?(?!\w)"
    r"|(?:ではありません|ではない|じゃない|가|이|が|は|是|不|out\b|wrong\b|incorrect\b|unlikely\b|hardly\b|not\b|no\b(?=\s*$)))",
    re.IGNORECASE,
)
MODAL_PREDICATE = re.compile(
    r"[ ]*(?:also |both |all )?(?:(?:could|might|may|can)(?: (?:also|well))* be\b|(?:is|are|seems?|looks?|sounds?"
    r"|appears?)(?: to be)?"
    r" (?:also |a |quite |somewhat |very |equally )*(?:possible|plausible|good|a candidate)\W*$)",
    re.IGNORECASE,
)
APPROVED = re.compile(
    r"\b(?:correct|right|true|wrong|incorrect|false|richtig|correcte?|correcta|correta)(?:\s*(?:here|too|one|answer"
    r"|option|choice|best))*\W*$",
    re.IGNORECASE,
)
IS_ANSWER = re.compile(
    r"\b(?:is|as|be|was)\b[^§]{0,30}\b(?:answer|the (?:correct|right|best|only|most)[\w -]{0,20}(?:option|choice|one"
    r"|description|explanation|candidate|fit|match|remaining)|my (?:final )?(?:pick|choice|answer|guess|bet)"
    r"|what i(?:'d| would| will)? (?:choose|pick|say|go with|select))\b|정답|正し|正解|正确|答案",
    re.IGNORECASE,
)
FITS = re.compile(
    r"\b(?:fits?|match(?:es)?|works?|makes? (?:the )?(?:most )?sense|holds|stands|wins?|won|remains?|best|most"
    r"|likely|describes?"
    r"|explains?|captures?|reflects?|summari[sz]es?|supported|left|is it|preferable|closest|strongest|safest|likeliest"
    r"|nearest|probable|consistent|clear|only|obvious|right|correct)\b",
    re.IGNORECASE,
)
COMPARATIVE = re.compile(
    r"\b(?:better|more|likelier|stronger|closer|less|worse|weaker|beats?|outweighs?|superior|preferable)\b",
    re.IGNORECASE,
)
LESS = re.compile(r"\b(?:less|worse|weaker|not)\b|n't\b", re.IGNORECASE)
COMPARED_TO = re.compile(
    r"(?:\b(?:than|over|instead of|beats|versus|vs\.?|compared (?:to|with)|in place of)|(?<=§)>"
    r"|(?<=§ )>)[ ]*(?:the )?[\"'(]*$|\bprefer(?:able)?\b[^§]*§ to $",
    re.IGNORECASE,
)
WINNER_PRECEDES = re.compile(r" ?(?:>|\b(?:over|rather than|instead of|beats)\b) ?§", re.IGNORECASE)
LOSER_FOLLOWS = WINNER_PRECEDES
NEUTRAL = re.compile(
    r" (?:was|were|happens|happened|comes|came|shows|is (?:shown|seen|mentioned|close|tempting|where|when|only|also"
    r"|what))\b",
    re.IGNORECASE,
)
NOR = re.compile(r"^\W*(?:and|or|nor|,)\b", re.IGNORECASE)
ALL_BUT = re.compile(r"\b(?:anything|everything|all|any|every option|none) but ", re.IGNORECASE)
REASON = re.compile(
    r"[)\]}.:\"' ]*,?[ ]*(?:because|since|as|for|due to|given|i think|i believe|i guess|probably|most likely"
    r"|definitely|obviously|clearly)\b",
    re.IGNORECASE,
)
DASHED_REASON = re.compile(r" ?(?:[-:,)(]|->) ?[\w§]")
HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|unless|thought|initially|originally|at first|first (?:i|it|we)|would have|was going|were going"
    r"|tempted|tempting"
    r"|(?:some|many|people|others|one|someone|anyone|you(?! (?:should|must|have)))(?: \w+)? (?:could|might|may|would"
    r"|can|think|say|choose"
    r"|pick)|why"
    r"|looked like|as if|compare|compared|consider\w*|considering"
    r"|not sure|unsure|regarding|about|unlike|similar to|confus\w+|torn|decide|choose between|pick between"
    r"|look(?:ing)? at)\b(?![^§]*\b(?:i|the answer)\b)",
    re.IGNORECASE,
)
OTHER_RANK = re.compile(
    r"\b(?:runner[- ]?up|second(?:[- ](?:best|choice|place|guess|option))|next best|close second|alternative(?:ly)?"
    r"|other (?:option|answer|choice|candidate|possibility)"
    r"|distractor|trap|tempting|plausible|possible|worst|least|backup|fallback|mistake|close|similar|almost|nearly"
    r"|initial|previous|earlier|original|preliminary)\b[^.§]{0,25}$",
    re.IGNORECASE,
)
LABEL = re.compile(r"(?:^|[.!?;(] ?|^\W+|[-•] )([^\W\d§][^:.!?;§()]{0,40}):", re.MULTILINE)
ANSWER_LABEL = re.compile(
    rf"^(?!.*\b(?:wrong|incorrect|other|alternative|second|possible|plausible|worst|false|eliminated|rejected"
    rf"|excluded|not|previous"
    rf"|earlier|all|answer (?:options|choices)|question|options|choices)\b).*(?:(?<!\w)(?:{NOUN}|final|most likely"
    rf"|likeliest|elimination|so|therefore|thus|hence|correction|is|"
    r"assistant|my|wait|sorry|actually|no|best|correct|right|would|be|say|it|think|go with|choose|summary|hence"
    r"|a)(?!\w)|答|解|选|选)",
    re.IGNORECASE,
)
BEFORE_OWN_TEXT = re.compile(r"[()\]}.:,\" -]*(?:that |because |is that |is )?")
PHRASE_END = re.compile(
    r"[\"')\]}]*\s*(?:$|[.!?,;:\n(✓✗-]|(?:because|since|as|is|and|or|but|was|fits|seems|would)\b)", re.IGNORECASE
)
CONJUNCTION = r"(?:and/or|or|and|nor|versus|vs\.?|oder|und|ou|et|y|o|または|か|和|或)"
JOINED = re.compile(
    rf"[)\]}}\"' ]*(?:[ ,/&+]|\b{CONJUNCTION}(?!\w)|(?<= ){CONJUNCTION}(?= ))*(?:(?:maybe|perhaps|possibly|even|also"
    rf"|either) )?[(\[{{\"' ]*",
    re.IGNORECASE,
)
JOINED_ON = re.compile(rf"[)\]}}\"' ]*(?:,|,? {CONJUNCTION} )", re.IGNORECASE)
ENUMERATED = re.compile(r"[)\]}\"' ]*[.:][ ]*")
CONTRASTED = re.compile(r"\b(?:not|isn't|no|rather than|instead of)\s$", re.IGNORECASE)
TEMPTING = re.compile(
    r"\b(?:tempting|close|similar|interesting|attractive|a trap|a distractor|next|second|at first(?: sight| glance)?"
    r"|first (?:guess|thought|impression|instinct|idea)"
    r"|too|as well)\b\W*$",
    re.IGNORECASE,
)
EQUAL = re.compile(r"[^§]*\b(?:as \w+ as|equal(?:ly)?|the same as|just as)\b", re.IGNORECASE)
FREE = re.compile(r"^\W*$|\b(?:maybe|perhaps|probably|option|but|except|[a-h])\W*$", re.IGNORECASE)
RANGE, FROM = (
    re.compile(r" ?(?:to|through|-) ?"),
    re.compile(r"\b(?:from|prefer\w*|compared) (?:the )?$", re.IGNORECASE),
)
TOO = re.compile(r" (?:too|as well|neither|also|second)\b", re.IGNORECASE)
ELLIPSIS = re.compile(r" (?:is|does|was)\W*", re.IGNORECASE)
LISTED = re.compile(r"\b(?:and|or|nor)\b", re.IGNORECASE)
IF = re.compile(r"\b(?:if|whether|unless)\b", re.IGNORECASE)
