"""What the lenient parser looks for around a letter or an option's text: cues, denials, lists, refusals."""

from __future__ import annotations

import re

# Greek, Cyrillic, Cherokee and Lisu letters that look like A to E; NFKC folds full-width and circled ones.
LOOK_ALIKES = str.maketrans(
    "ΑΒΕАВСЕасеԁᎪᏴᏟᎠᎬꓮꓐꓚꓓꓰ’‘“”«»",
    'ABEABCEacedABCDEABCDE\'\'""""',
)
LISTED_OPTION = re.compile(r"^[ \t]*(?:[-•*][ \t]*)?\(?([A-E])[ \t]*[).:][ \t]*\S")
LETTER = re.compile(r"(?<![\w'+.])(?<!\w-)[A-Ea-e](?![\w+#]|'\w|-\w|\.\w\b|\. ?[A-Z]\.(?= ?\w))")
INITIAL_BEFORE, NAME_AFTER = re.compile(r"\b[A-Z]\. ?$"), re.compile(r"\. ?[A-Z]\w")
SENTENCE_END = re.compile(r"[.!?](?=\W|$)|[。！？\n]")
CLAUSE_END = re.compile(
    r"[.!?](?=\W|$)|[。！？\n;,]"
    r"|\b(?:but|however|so|therefore|thus|hence|because|since|although|while)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|except|unlike|unlikely|impossible"
    r"|exclud\w+|eliminat\w+|reject\w*|rul(?:e|ed|es|ing)(?: it)? out"
    r"|rather than|other than|instead of)\b|n't\b",
    re.IGNORECASE,
)
DECLARING = re.compile(
    r"(?:\b(?:answer|ans|solution|choose|chose|choosing|pick|picked|select|selected|say|guess|think"
    r"|believe|prefer|go|going|opt|settle|points? to|leaves|match(?:es)?|is|be|was|it's|that's|no|wait"
    r"|sorry|correction|actually|instead|rather|mean|probably|definitely|maybe|perhaps|therefore|so"
    r"|thus|hence|boxed)\b|[:=→>])[ ,:=>-]*"
    r"(?:(?:the|my|your|final|correct|best|right|most|likely|probably|perhaps|maybe|definitely|clearly"
    r"|simply|actually|of course|to be|that|for|with|on|option|choice|letter|answer)\b[ ,:]*)*"
    r"[ \"'(\[{-]*$",
    re.IGNORECASE,
)
NAMING = re.compile(r"\b(?:option|choice|letter)s?[ :]*[\"'(\[{]*$", re.IGNORECASE)
PREDICATE = re.compile(
    r"[)\]}\"' ]*,?[ ]*(?:(?:which|that)[ ])?"
    r"(?:is|are|was|were|can|cannot|could|may|might|does|do|did|seems?|looks?|would|should|must|has|fits?"
    r"|makes?)(?:n't)?\b",
    re.IGNORECASE,
)
APPROVAL = re.compile(
    r"\b(?:correct|right|best|true|answer|fits?|choice|likely|makes?|wrong|incorrect|false)\b", re.IGNORECASE
)
REASON = re.compile(r"[)\]}.:\"' ]*,?[ ]*(?:because|since|as|for)\b", re.IGNORECASE)
# Words that cannot follow an article: "A because" names option A, "A man" does not.
NOT_AFTER_ARTICLE = re.compile(
    r" (?:a|an|the|this|that|these|those|he|she|it|they|there|i|we|you|his|her|their|its|because|since|as"
    r"|for|is|isn't|was|wasn't|are|were|or|and|but|nor|in|on|at|to|from|by|with|would|seems|looks|fits"
    r"|makes|can|can't|cannot|could|may|might|does|doesn't|do|did|didn't|not|instead|if|when|which|who)"
    r"(?![\w'])",
    re.IGNORECASE,
)
CONJUNCTION = r"(?:and/or|or|and|nor|versus|vs)"
JOINED = re.compile(
    rf"[)\]}}\"' ]*(?:[ ,/&]|\b{CONJUNCTION}\b)*(?:(?:maybe|perhaps|possibly|even|also) )?"
    r"(?:option|choice)?[(\[{\"' ]*"
)
JOINED_BEFORE = re.compile(rf"(?<![\w'])[A-E][)\]]?(?:,? {CONJUNCTION} | ?[,/&] ?| )(?:option |choice )?[(\[]?$")
JOINED_AFTER = re.compile(rf"(?:,? {CONJUNCTION} | ?[,/&] ?)(?:option |choice )?[A-E](?![\w'])")
ENUMERATED = re.compile(r"[)\]}\"' ]*[.:][ ]*")
BEFORE_OWN_TEXT = re.compile(r"[()\]}.:,–—\" -]*")
REFUSAL = re.compile(
    r"\b(?:none|neither|unclear|unknown|unable to|n/a|don't know|impossible to|(?:all|both) of (?:the|them)"
    r"|no (?:idea|answer|option|choice)|can(?:not|'t) (?:be|say|tell|determine|answer|know|choose)"
    r"|not (?:sure|certain|enough|clear|know|given|mentioned|provided|possible))\b",
    re.IGNORECASE,
)
ONLY_LETTERS = re.compile(r"\W*[A-E]{2,5}\W*")
