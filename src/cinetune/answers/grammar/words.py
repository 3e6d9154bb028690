"""The closed sets of words that hold statements about options together."""

from __future__ import annotations

import re

ANSWER_NOUN = r"antwort|réponse|respuesta|resposta|risposta|antwoord|odpowiedź|odpověď|ответ|cevap|yanıt|svaret"
OPTION_NOUN = (
    r"option|alternative|opci[oó]n|opção|opzione|optie|opcja|alternativa|вариант|seçene[kğ]\w*"
    r"|şık|विकल्प|الخيار|选项|選項|選択肢|선택지|보기"
)
LETTER_NOUN = r"choice|letter|letra|lettre|lettera|buchstabe|bokstav|буква"
NOUN = (
    rf"{OPTION_NOUN}|answers?|ans|solution|choice|alternativa|verdict|conclusion|decision|selection|pick|guess|bet"
    rf"|prediction"
    r"|response|result|output|key|label|vote|selected|chosen|option"
    r"|antwort|lösung|réponse|reponse|respuesta|resposta|risposta|antwoord|svar|svaret|odpowiedź|odpověď|ответ"
    r"|відповідь"
    r"|答え|答案|回答|正解|정답|답"
    r"|الإجابة|الجواب|cevab?p?\w*|yanıt\w*|jawaban\w*|đáp án|απάντηση|उत्तर|r[aă]spuns\w*|vastaus|válasz|jawapan"
    r"|final(?= ?[:=-])|correct(?: (?:one|letter|statement))?|(?:right|best) (?:one|letter|statement)|letter|boxed"
)
CHOOSE = (
    r"wähl\w*|nehme|chois\w*|elij\w*|eleg\w*|elig\w*|escolh\w*|scelg\w*|sceglier\w*|kies|kiez\w*|wybier\w*|wybr\w*"
    r"|välj\w*|vælg\w*|velg\w*|dirais|diría|diria|direi|opto|opte"
)
CONJUNCTION = (
    r"(?:and/or|or|and|nor|versus|vs\.?|oder|und|ou|et|y|e|o|en|of|och|eller|i|lub|albo|czy|sau|vagy|tai|atau|nebo"
    r"|ve|veya|и|или|або"
    r"|または|と|か|和|与|或者?|또는|및|أو|या|और)"
)
MAYBE = (
    r"vielleicht|wahrscheinlich|peut-être|probablement|quizás?|probablemente|talvez|provavelmente|forse"
    r"|probabilmente|misschien|waarschijnlijk|może|belki|muhtemelen|vermutlich|wohl|seguramente|sans doute|chyba"
)
SENTENCE_END = re.compile(r"[.!?](?=\W|$)|[。！？।؟۔\n]")
CLAUSE_END = re.compile(
    r"[.!?](?=\W|$)|[。！？।؟۔\n;,、،؛]| - |[()]|(?<=아니라)|(?<=아니고)|(?<=而是)|(?<=ではなく)|بل|(?<=じゃなく)"
    r"|\b(?:but|however|so|therefore|thus|hence|because|since|although|though|while|whereas|even though|aber|mais|pero"
    r"|mas|sondern|sino|yet|and (?=neither|nor)|maar|lecz|ma|а|но)\b",
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
    r"|que|che|sia|sei|soit|sea|seja|jest|to|adalah|это|la|oder|ou|o|u|und|y|et|nicht|pas|não|non|nein|ich|werde"
    r"|würde|lean|leaning|tend"
    r""
    r"|favou?rs?|makes?|towards?|find|them|all|these|vote|rather|supports|support|suggests|indicates|against|make"
    r"|unless|true"
    r"|wrong|incorrect|false|hmm|why|again|he|statt|anstatt|alternativa"
    r"|reflection|consideration|conclusion|summary|overall|ultimately|finally|end|balance"
    rf"|ceva[bp]\w*|seçenek|zou|dass|dat|antwoord|svar|svaret|jawaban\w*|raspuns|vastaus|rate|deem|seria|sarebbe"
    rf"|serait|auf|initially"
    r"|originally|voor|por|per|put|rank|este|je|zdaniem|meinung|mening|opini[oó]n|opinião|avis"
    rf"|{CHOOSE}"
    rf"|{MAYBE}|{CONJUNCTION}"
    r")"
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
    rf" (?:{CONJUNCTION}(?= (?-i:[A-J])\b)|most likely|a|an|the|this|that|these|those"
    r"|he|she|it|they|there|i|we|you|his|her|their|its|because|since"
    r"|as"
    r"|for|is|isn't|was|wasn't|are|were|or|and|but|nor|in|on|at|to|from|by|with|would|seems|looks|fits|fit|fails"
    r"|makes|can|can't|cannot|could|may|might|does|doesn't|do|did|didn't|not|instead|if|when|which|who|matches|wins|has"
    r"|should|must|describes|explains|remains|contradicts|misses|lacks|works|over|than|rather|though|although|while|vs"
    r"|versus|ist|est|es|é|è|jest|je|este|です|입니다|beats|appears|sounds|shows|says|goes|holds|after|before|happens"
    r"|happened|würde"
    r"|wäre|passt|serait|sería|sarebbe)"
    r"(?![\w'])",
    re.IGNORECASE,
)
NO_DOUBT = re.compile(
    r"\b(?:no doubt|(?:by |process of |through )+elimination|without (?:a |any )?doubt|beyond (?:a )?doubt"
    r"|not only"
    r"|no wonder|why not|(?:nothing|none) but|none other than"
    r"|if i'?m not (?:wrong|mistaken)|cannot be denied|never mind)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|none|cannot|cant|isnt|doesnt|dont|wont|wrong|incorrect|false|except|unlike|unlikely"
    r"|impossible|improbable|implausible|unsupported|irrelevant|inconsistent|exclud\w+|eliminat\w+|reject\w*|discard\w*"
    r"|dismiss\w*|rul(?:e|ed|es|ing)(?: (?:it|them))? out|cross(?:ed)? out|rather than|other than|instead of|statt"
    r"|anstatt|plutôt que|au lieu de|en (?:lugar|vez) de|em vez de|invece di|zamiast|вместо"
    r"|far from|doubt\w*"
    r"|hardly|barely|scarcely|no way|against|fails?|failed|failing|lacks?|lacking|contradict\w*|misses|nowhere"
    r"|nobody|no one|disagree\w*|avoid\w*|ignor(?:e|ing)|skip|nothing"
    r"|değil|no sense|no|nope|nah|too (?:\w+ )?(?:far|vague|broad|narrow|specific|general)|out of the question"
    r"|falls? short|(?:is|are|was|were|be|falls?|drops?) out(?! of)|less"
    r"|worse|weak|weaker|least|bad|mistaken|mistake|unrelated|absent|anything but|everything but|all but|nicht"
    r"|kein\w*|falsch"
    r"|pas|faux|fausse|incorrecta?|incorrecto|não|errad[ao]|falso|niet|inte|ikke|nie|sbagliat[ao]|не|неверн\w+)\b"
    r"|n't\b|不是|不对|错|ありません|では?な[いく]|じゃな[いく]|아니|아닙|नहीं|ليس|✗",
    re.IGNORECASE,
)
