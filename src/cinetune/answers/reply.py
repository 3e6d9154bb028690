"""A model's own turn in what it generated."""

from __future__ import annotations

import re

SPECIAL_TOKENS = re.compile(r"<s>|<pad>|<unk>|<video>|<image>|<\|[^|<>\s]{1,40}\|>|\[/?INST\]", re.IGNORECASE)
END_OF_TEXT = re.compile(r"</s>|<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>", re.IGNORECASE)
TURN = re.compile(r"\b(USER|ASSISTANT)[ \t]*:")


def reply_of(text: str) -> str:
    """The model's own turn: without the echoed prompt, later invented turns and special tokens."""
    # A lost EOS token lets a model go on with an invented turn: only what stands before it was the reply.
    parts = [part for part in END_OF_TEXT.split(text) if SPECIAL_TOKENS.sub(" ", part).strip()]
    reply = SPECIAL_TOKENS.sub(" ", parts[0] if parts else "")
    turns = TURN.split(reply)
    if turns[0].strip() and turns[1:2] != ["ASSISTANT"]:
        return turns[0]
    for speaker, words in zip(turns[1::2], turns[2::2], strict=True):
        if speaker == "ASSISTANT" and words.strip():
            return words
    return turns[0] if len(turns) == 1 else ""
