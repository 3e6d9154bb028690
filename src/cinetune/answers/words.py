"""The closed sets of words that hold statements about options together."""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"[.!?](?=\W|$)|[。！？\n]")
CLAUSE_END = re.compile(
    r"[.!?](?=\W|$)|[。！？\n;,、]| - |[()]"
    r"|\b(?:but|however|so|therefore|thus|hence|because|since|although|though|while|whereas|even though|aber|mais|pero"
    r"|mas|sondern|sino|yet)\b",
    re.IGNORECASE,
)
# A capital letter behind one of these is an option; behind any other word it is a name ("Vitamin C").
FRAME = re.compile(
    r"(?i:antwort|lösung|réponse|respuesta|resposta|risposta|is|was|be|been|are|it|its|isn|wasn|being|answer|answers"
    r"|ans|solution|choose|chose|choosing|chosen|pick|picked"
    r"|picking|select|selected|selecting|say|saying|guess|think|believe|prefer|go|going|opt|settle|to|leaves|leave"
    r"|leaving|matches"
    r"|match|mean|meant|probably|definitely|maybe|perhaps|possibly|certainly|clearly|likely|therefore|so|thus|hence"
    r"|boxed"
    r"|not|never|nor|or|and|neither|either|both|between|than|over|with|for|on|no|that|that's|it's|but|except|correct"
    r"|right"
    r"|best|final|wait|sorry|actually|correction|instead|rather|of|as|out|eliminate|eliminates|exclude|excludes|reject"
    r"|rejects|discard|dismiss|doubt|from|if|because|since|while|although|though|whether|hardly|cannot|can't|isn't|also"
    r"|even|only|just|then|still|like|unlike|us|vs|versus|beats|s|t|ist|wäre|lautet|est|es|é|è|e|är|er|la|le|el|en|het"
    r"|que|che|sia|sei|soit|sea|seja|jest|to|adalah|это|la|oder|ou|o|u|und|y|et|nicht|pas|não|non|nein|wähle|nehme"
    r"|choisis|elijo|escolho|scelgo|dirais"
    r"|favou?rs?|makes?|towards?|find|them|all|these|vote|rather|supports|support|suggests|indicates|against|make"
    r"|unless|true"
    r"|wrong|incorrect|false|hmm|why|again|he)"
    r"|\w*[^\x00-\x7f]\w*"
)
FUNCTION_WORD = re.compile(
    r"(?i:and|or|but|nor|is|was|are|were|isn|wasn|as|because|since|where|when|while|which|that|who|with|in|on|at|to"
    r"|from"
    r"|by|for|not|so|if|he|she|they|it|there|then|than|rather|instead|after|before|during|seems|looks|fits|would|can"
    r"|could|may|might|does|do|must|should|has|have|the|a|an|most|best|probably|likely|together|now|again|here|of|be"
    r"|being"
    r"|talking|sitting|standing|having|and)"
)
# Words that cannot follow an article: "A because" names option A, "A man" does not.
NOT_AFTER_ARTICLE = re.compile(
    r" (?:a|an|the|this|that|these|those|he|she|it|they|there|i|we|you|his|her|their|its|because|since|as"
    r"|for|is|isn't|was|wasn't|are|were|or|and|but|nor|in|on|at|to|from|by|with|would|seems|looks|fits|fit|fails"
    r"|makes|can|can't|cannot|could|may|might|does|doesn't|do|did|didn't|not|instead|if|when|which|who|matches|wins|has"
    r"|should|must|describes|explains|remains|contradicts|misses|lacks|works|over|than|rather|though|although|while|vs"
    r"|versus|ist|est|es|é|è|です|입니다|beats|appears|sounds|shows|says|goes|holds|after|before|happens|happened)"
    r"(?![\w'])",
    re.IGNORECASE,
)
NO_DOUBT = re.compile(
    r"\b(?:no doubt|(?:by |process of |through )+elimination|without (?:a |any )?doubt|beyond (?:a )?doubt|not only"
    r"|no wonder|why not|nothing but|none other than"
    r"|if i'?m not (?:wrong|mistaken)|cannot be denied|never mind)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|none|cannot|cant|isnt|doesnt|dont|wont|wrong|incorrect|false|except|unlike|unlikely"
    r"|impossible|improbable|implausible|unsupported|irrelevant|inconsistent|exclud\w+|eliminat\w+|reject\w*|discard\w*"
    r"|dismiss\w*|rul(?:e|ed|es|ing)(?: (?:it|them))? out|cross(?:ed)? out|rather than|other than|instead of"
    r"|far from|doubt\w*"
    r"|hardly|barely|scarcely|no way|against|fails?|failed|failing|lacks?|lacking|contradict\w*|misses|nowhere"
    r"|nobody|no one|disagree\w*|avoid\w*|ignor(?:e|ing)|skip|nothing"
    r"|no sense|no|nope|nah|too (?:\w+ )?(?:far|vague|broad|narrow|specific|general)|out of the question"
    r"|falls? short|(?:is|are|was|were|be|falls?|drops?) out(?! of)|less"
    r"|worse|weak|weaker|least|bad|mistaken|mistake|unrelated|absent|anything but|everything but|all but|nicht"
    r"|kein\w*|falsch"
    r"|pas|faux|fausse|incorrecta?|incorrecto|não|errad[ao]|falso|niet|inte|ikke|nie|sbagliat[ao]|не|неверн\w+)\b"
    r"|n't\b|不是|不对|错|ありません|ではない|じゃない|아니|아닙|✗",
    re.IGNORECASE,
)
NOUN = (
    r"answers?|ans|solution|choice|alternativa|verdict|conclusion|decision|selection|pick|guess|bet|prediction"
    r"|response|result|output|key|label|vote|selected|chosen|option"
    r"|antwort|lösung|réponse|reponse|respuesta|resposta|risposta|antwoord|svar|svaret|odpowiedź|odpověď|ответ"
    r"|відповідь"
    r"|答え|答案|回答|正解|정답|답"
    r"|الإجابة|الجواب|cevap|yanıt|jawaban\w*|đáp án|απάντηση|उत्तर|raspuns|vastaus|válasz|jawapan"
    r"|correct(?: (?:one|letter|statement))?|(?:right|best) (?:one|letter|statement)|letter|boxed"
)
