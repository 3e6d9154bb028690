"""The turns of phrase around a mention (MARK, "§") that tell what is said of it."""

from __future__ import annotations

import re

from cinetune.answers.grammar.words import CHOOSE, CONJUNCTION, LETTER_NOUN, MAYBE, NOUN, OPTION_NOUN

FILLER = (
    r"(?:(?:the|my|your|final|correct|best|right|most|likely|probable|probably|perhaps|maybe|definitely|clearly|simply"
    r"|actually|of course|to be|be|that|for|with|on|option|choice|letter|answer|number|as follows|given by|indeed|still"
    r"|therefore|thus|then|just|it is|it's|la|le|el|die|der|das|a|o|het|de"
    rf"|{OPTION_NOUN}|{LETTER_NOUN}|entweder|voor|por|pour|per|für|{MAYBE})(?!\w)[ ,:]*)*"
)
COPULA = (
    r"(?:is|are|was|(?:(?:would|will|must|should|has|have|seems?|appears?|needs)(?: (?:have|to|probably|likely"
    r"|then))* )?be"
    r"|remains|est|es|é|è|ist"
    r"|lautet"
    r"|wäre|är|er|jest|to|este|je|on|adalah|là|είναι|هي|هو|है|serait|sería|seria|sarebbe|as|be)(?!\w)|是|为|為|は|은|는|が"
    r"|[:=→-]|->|=>"
)
QUOTES = r"[ \"'(\[{}<:=>-]*"
ANSWER = re.compile(
    # "The answer is", "Final answer:", "Die Antwort lautet", "答えは"
    rf"(?:(?<![\w-])(?:{NOUN})|答案|正解|回答|答え)(?:应该|應該)?(?:\(s\)|'s)?(?: (?:here|now|to this(?: question)?"
    rf"|to the question|for me|correcta|correcte|correta|corretta"
    rf"|juste|richtig|certa|giusta|prawidłowa|corect|الصحيحة|الصحيح))?[ \"')]*(?:(?:{COPULA})[ ]*)*{FILLER}{QUOTES}$"
    # "I choose", "going with"
    r"|(?:^|[,.;:!] ?|\b(?:i|we|i'd|i'll|i'm|i am|i would|i will|let's|let us|i must|i have to|you should|should"
    r"|you must|so|then|and)[ ])"
    r"(?:(?:would|will|now|do|going to|have to|must|go and|therefore|thus|rather|probably|still|definitely|just"
    r"|simply|inclined to)[ ])*"
    r"(?:choose|chose|choosing|pick|picked|picking|select|selected|selecting|go(?: (?:with|for))?|going(?: (?:with"
    r"|for))?"
    rf"|went with|opt(?: for)?|settle on|say|prefer|vote(?: for)?|lean(?: towards?)?"
    rf"|leaning(?: towards?)?|put me down for)[ ,:]*{FILLER}{QUOTES}$"
    rf"|(?<!\w)(?:{CHOOSE}|tippe auf|zou)[ ]*{FILLER}{QUOTES}$"
    rf"|(?:أختار|выбираю|选择|选|選ぶ"
    rf"|選)[ ]*{FILLER}{QUOTES}$"
    rf"|\b(?:the )?(?:correct|right|best|proper|सही|doğru|richtig|richtige|correcto|correcta|correto)(?: (?:is"
    rf"|one is|ist|es|é"
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
    rf"(?:\b(?:{MAYBE}|it|this|that|which|there|i think|i believe|i guess|i suppose|i'd say|must|should|would|has"
    rf"|points?"
    r"|leaves?"
    r"|so|therefore|thus|hence|probably|definitely|certainly|clearly|surely|obviously|most likely|likely|maybe"
    r"|perhaps|is|are|was|be"
    r"|it's|that's|left with|agree with|means?|meaning|leads? to|leading to|points? to|points? towards?|pointing to"
    r"|correspond\w* to|leaving"
    r"|es ist"
    r"|das ist|c'est|es|é|è|think|believe|guess|suppose|matches|favou?rs?|supports|suggests|indicates|only|looks? like"
    r"|seems? like|rather|sia|sei|soit|sea|seja|que|che|dass|że to|zdaniem|ich bin für|أنها|أنه|würde ich|werde ich"
    r"|würde|werde|是|应该是|это"
    r"|adalah)(?!\w)|[:=→是は는은]|->|=>)"
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
    r"(?:^|[\s,;:(-])(?:(?:oh |oops|hmm|ah )?[, ]*(?:no\b[ ]*[,:.!-]|nope\b|wait\b|h(?:old|ang) on\b|sorry\b"
    r"|correction\b"
    r"|(?:edit|edited|update|updated|erratum):"
    r"|actually\b"
    r"|scratch that|"
    r"make (?:that|it)\b|my (?:mistake|bad)|i (?:mean|meant)\b|or rather\b|rather[,:]|on second thoughts?"
    r"|let me correct"
    r"(?: (?:that|myself|it))?|i correct myself|excuse me|pardon|instead,?|better:|oops\b|i misread|on reflection"
    r"|upon (?:reflection|review)|looking again|after (?:all|reconsidering|a second look)|i(?:'ve)? changed? my mind"
    r"|(?:chang|switch|revis)\w* [^§.]{0,20}(?:from § )?to)[ ,:.!-]*)+"
    rf"(?:(?:it|that|this|the|my|answer|is|it's|that's|should|would|be|must|i'd|i|say|think|to|must be|go|with"
    rf"|choose|correct"
    rf"|final|option|choice|am|changing|now|no|right|one|pick|maybe|perhaps|probably)(?!\w)[ ,:]*)*{QUOTES}$",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r"(?:(?<=[.!?\n] )|(?<=\n))(?:(?:oh|hmm|oops|but|wait|h(?:old|ang) on|ah|no|nope|sorry|well)[,. ]+)*(?:wait"
    r"|h(?:old|ang) on|scratch that|"
    r"that(?:'s| is|'s all| was) (?:wrong|incorrect|not right|a mistake)|i was wrong|no)[.!](?=\s|$)",
    re.IGNORECASE,
)
TAGGED = re.compile(
    r", ?(?:right|correct|no|don't you think|(?:is|does|would|has|must)n't (?:it|that|he|she))$", re.IGNORECASE
)
HEDGED = re.compile(
    r"(?:\b(?:hmm|well|um|maybe|perhaps|probably|possibly|i think|i guess|guess|answer|i'd say)\b[ :,]*(?:it's|it is"
    r"|is|option)?"
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
    r" ?[:=.,→-]* ?\(?(?:(?P<no>(?:the )?least (?:likely|probable|plausible|convincing|fitting)|no way|not at all"
    r"|nope|never|doubtful|hardly|no|not?(?: \w+)? (?:correct|right"
    r"|possible|likely|supported|shown|the answer)|wrong"
    r"|incorrect"
    r"|false|✗|eliminated|excluded|ruled out|rejected|unlikely|impossible|x|distractor|trap)"
    r"|(?P<yes>yes|correct|right|true|✓|(?:the )?most (?:likely|probable|plausible|convincing|fitting)|likeliest"
    r"|best|as (?:the )?(?:most \w+|best|correct|right)(?: (?:answer|option|choice|one))?|this is (?:it|correct"
    r"|right)|the (?:(?:correct|right|best) )?(?:answer"
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
    r"|misses|won|stay|ist|est|es|é|è|jest|stimmt|passt|requires?|needs?|assumes?|ignores?|captures?|reflects?"
    r"|summari[sz]es?"
    r"|represents?)(?:s|es|ed)?(?:n't)?(?!\w)"
    r"|(?:ではありません|では?な[いく]|じゃな[いく]|नहीं|değil(?!\w)|です|だと|입니다|예요|이에요|이다|चुन|सही|هو|هي|가|이|が|は|是|不|out\b|wrong\b"
    r"|incorrect\b"
    r"|unlikely\b|hardly\b|not\b"
    r"|no\b(?=\s*$)))",
    re.IGNORECASE,
)
MODAL_PREDICATE = re.compile(
    r"[ ]*(?:also |both |all )?(?:(?:could|might|may|can)(?: (?:also|well))* be\b|(?:is|are|seems?|looks?|sounds?"
    r"|appears?)(?: to be)?"
    r" (?:also |a |quite |somewhat |very |equally )*(?:possible|plausible|good|a candidate)\W*$)",
    re.IGNORECASE,
)
APPROVED = re.compile(
    r"\b(?:correct|right|true|wrong|incorrect|false|richtig|correcte?|correcta|correta|corretta|giusta|stimmt|passt"
    r"|poprawna|prawidłowa|doğru|верно|الصحيحة?|सही है)(?:\s*(?:here|too"
    r"|one|answer"
    r"|option|choice|best))*\W*$",
    re.IGNORECASE,
)
IS_ANSWER = re.compile(
    r"\b(?:is|as|be|was)\b[^§]{0,30}\b(?:answer|the (?:correct|right|best|only|most)[\w -]{0,20}(?:option|choice|one"
    r"|description|explanation|candidate|fit|match|remaining)|the (?:natural|obvious|logical|safest|clear|sensible"
    r"|strongest|likeliest|winning|remaining|preferred|intended) \w+|my (?:final )?(?:pick|choice|answer|guess|bet)"
    r"|what i(?:'d| would| will)? (?:choose|pick|say|go with|select)|the one(?=\W*$| (?:that )?(?:i|we)\b))\b|정답|正し"
    r"|正解|正确|答案",
    re.IGNORECASE,
)
FITS = re.compile(
    r"\b(?:fits?|match(?:es)?|works?|makes? (?:the )?(?:most )?sense|holds|stands|wins?|won|remains?|best|most"
    r"|likely|describes?"
    r"|explains?|captures?|reflects?|summari[sz]es?|supported|(?:is|are|one|only) left|is it"
    r"|preferable|closest|strongest|safest|likeliest"
    r"|nearest|my vote|probable|consistent|clear|only|obvious|right|correct)\b"
    r"|^ ?(?:です|だと|입니다|예요|이에요|이다|चुन)",
    re.IGNORECASE,
)
COMPARATIVE = re.compile(
    r"\b(?:better|more|likelier|stronger|closer|less|worse|weaker|beats?|outweighs?|superior|preferable)\b",
    re.IGNORECASE,
)
LESS = re.compile(r"\b(?:less|worse|weaker|not)\b|n't\b", re.IGNORECASE)
COMPARED_TO = re.compile(
    r"(?:\b(?:than|over|ahead of|instead of|beats|versus|vs\.?|compared (?:to|with)|in place of)|(?<=§)>"
    r"|(?<=§ )>)[ ]*(?:the )?[\"'(]*$|\bprefer(?:able)?\b[^§]*§ to $",
    re.IGNORECASE,
)
AMOUNT = re.compile(r"(?<!§ )\b(?:less|more|fewer|longer|shorter|earlier|later) than (?:the |an? )?$", re.IGNORECASE)
WINNER_PRECEDES = re.compile(r" ?(?:>|\b(?:over|ahead of|rather than|instead of|beats)\b) ?§", re.IGNORECASE)
LOSER_FOLLOWS = WINNER_PRECEDES
NEUTRAL = re.compile(
    r" (?:was|were|happens|happened|comes|came|shows|is (?:shown|seen|mentioned|close|tempting|where|when|only|also"
    r"|what))\b",
    re.IGNORECASE,
)
NOR = re.compile(r"^\W*(?:and|or|nor|,)\b", re.IGNORECASE)
ALL_BUT = re.compile(r"\b(?:anything|everything|all|any|every option) but ", re.IGNORECASE)
REASON = re.compile(
    r"[)\]}.:\"' ]*,?[ ]*(?:because|since|as|for|due to|given|i think|i believe|i guess|probably|most likely"
    r"|definitely|obviously|clearly)\b",
    re.IGNORECASE,
)
DASHED_REASON = re.compile(r" ?(?:[-:,)(]|->) ?[\w§]")
HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|unless|thought|initially|originally|at first|first (?:i|it|we)|would have(?! to)|was going"
    r"|were going"
    r"|tempted|tempting"
    r"|(?:some|many|people|others|one|someone|anyone|you(?! (?:should|must|have)))(?: \w+)? (?:could|might|may|would"
    r"|can|think|say|choose"
    r"|pick)|why"
    r"|looked like|as if|compare|compared|consider\w*|considering"
    r"|not sure|unsure|regarding|about|unlike|similar to|confus\w+|torn|decide|choose between|pick between"
    r"|look(?:ing)? at)\b(?![^§]*\b(?:i|the answer)\b)",
    re.IGNORECASE,
)
# These tell a first thought of a letter; of an option's words, the first of two events, or what is spoken of.
OF_LETTERS = re.compile(r"\b(?:initially|originally|at first|about)\b", re.IGNORECASE)
OTHER_RANK = re.compile(
    r"\b(?:runner[- ]?up|second(?:[- ](?:best|choice|place|guess|option))|next best|close second|alternative(?:ly)?"
    r"|other (?:option|answer|choice|candidate|possibility)"
    r"|distractor|trap|tempting|plausible|possible|pretend\w*|feign\w*|worst|least|backup|fallback|mistake|close"
    r"|similar|almost"
    r"|nearly"
    r"|initial|previous|earlier|original|preliminary)\b[^.§]{0,25}$",
    re.IGNORECASE,
)
LABEL = re.compile(r"(?:^|[.!?;(\[] ?|^[^\w§]+|[-•] )([^\W\d§][^:.!?;§()]{0,40}):", re.MULTILINE)
ANSWER_LABEL = re.compile(
    rf"^(?!.*\b(?:wrong|incorrect|other|alternative|second|possible|plausible|worst|false|eliminated|rejected"
    rf"|excluded|not|previous"
    rf"|earlier|all|answer (?:options|choices)|question|options|choices)\b).*(?:(?<!\w)(?:{NOUN}|final|most likely"
    rf"|likeliest|elimination|so|therefore|thus|hence|correction|is|"
    r"assistant|my|wait|sorry|actually|no|best|correct|right|would|be|say|it|think|go with|choose|summary|hence"
    r"|sagen|dirais|diría|diria|direi"
    r"|a)(?!\w)|答|解|选|选)",
    re.IGNORECASE,
)
BEFORE_OWN_TEXT = re.compile(r"[()\]}.:,\" -]*(?:that |because |is that |is )?")
PHRASE_END = re.compile(
    r"[\"')\]}]*\s*(?:$|[.!?,;:\n(✓✗-]|(?:because|since|as|is|and|or|but|was|fits|seems|would)\b)", re.IGNORECASE
)
JOINED = re.compile(
    rf"[)\]}}\"' ]*(?:[ ,/&+]|\b{CONJUNCTION}(?!\w)|(?<= ){CONJUNCTION}(?= ))*(?:(?:maybe|perhaps|possibly|even|also"
    rf"|either) )?[(\[{{\"' ]*",
    re.IGNORECASE,
)
# "A, and B is wrong" and "A, B is wrong": the verb is the last one's alone.
SPLICED = re.compile(r"[)\]}\"' ]*, ?(?:and |but )?[(\[{\"' ]*")
SINGULAR = re.compile(
    r"[)\]}\"' ]*(?:is|isn't|was|wasn't|does|doesn't|has|hasn't|fits|fails|seems|makes|contradicts)\b"
)
JOINED_ON = re.compile(rf"[)\]}}\"' ]*(?:,|,? {CONJUNCTION} )", re.IGNORECASE)
ENUMERATED = re.compile(r"[)\]}\"' ]*[.:][ ]*")
WITHIN_SENTENCE = re.compile(r"\w[\"' ]*$")
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
CASES = re.compile(r"\bif\b.*\b(?:otherwise|else|if not|if)\b", re.IGNORECASE)
# "If he lies, the answer is B"; "if I had to guess" and "if we look closer" are no conditions.
CASE = r"(?!(?:i|we|you|one|forced|asked|pressed|anything|so|that|not (?:mistaken|wrong)|there|it (?:has|had|must))\b)"
CONDITION = re.compile(rf"^\W*(?:and |but |so |or )?(?:if|unless|in case) {CASE}", re.IGNORECASE)
ONLY_IF = re.compile(rf"\b(?:would|could|might)\b.*\bif {CASE}|\bonly (?:if|when)\b|\bunless\b", re.IGNORECASE)
# "Both the music and a fight": the first of two need not be an option.
BOTH = re.compile(r"\bboth\b[^§]* and (?:also )?$", re.IGNORECASE)
# What is only granted: "B might seem right".
CONCEDED = re.compile(
    r"[ ]*(?:also |first |at first |initially )?(?:may|might|could|can)(?: \w+)? (?:seem|look|appear|sound|feel)\b",
    re.I,
)
IN_REASON = re.compile(r"\b(?:because|since|given that|seeing that|weil|denn|porque|parce que|perché)\b[^,;:§]*$", re.I)
FRAGMENT_REASON = re.compile(r"[\"')\]]*, (?:because|since|as|given that)\b", re.IGNORECASE)
IF = re.compile(r"\b(?:if|whether|unless)\b", re.IGNORECASE)
