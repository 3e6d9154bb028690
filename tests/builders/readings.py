"""Texts of models, and what the two parsers read in them."""

from __future__ import annotations

RAMBLE = ("The scene opens on a street and people talk about many things for a while. " * 140)[:10_000]


# text, strict, lenient
READINGS = [
    ("", None, None),
    (" ", None, None),
    ("\n\n\n", None, None),
    ("B", "B", "B"),
    (" B", "B", "B"),
    ("b", "B", "B"),
    ("(B)", None, "B"),
    ("b.", None, "B"),
    ("B)", None, "B"),
    ("**B**", "B", "B"),
    ("Answer: B", "B", "B"),
    ("**Answer:** B", "B", "B"),
    ("**Answer:** B).", "B", "B"),
    ("answer:b", "B", "B"),
    ("Answer: B) A man walks in", "B", "B"),
    ("Answer: B) a MAN walks in", "B", "B"),
    ("Answer: B) The dog barks", None, None),
    ("Answer: B because of the dog", None, "B"),
    ("A man walks in", "B", "B"),
    ("a man walks in.", None, "B"),
    ("The answer is B", None, "B"),
    (" I think it is B.", None, "B"),
    ("The answer is not A, it is C", None, "C"),
    ("A or B", None, None),
    ("Either B or C.", None, None),
    ("A/B", None, None),
    ("between A and B", None, None),
    ("AB", None, None),
    ("None", None, None),
    ("I think ...", None, None),
    ("Based on ...", None, None),
    ("Based on the video, C", None, "C"),
    ("Answer: A\nAnswer: C", None, "C"),
    ("Answer: A\n\nThe dog barks", "A", "A"),
    ("The answer is A. No, the answer is D.", None, "D"),
    ("A. No, B.", None, "B"),
    ("Ｂ", None, "B"),
    ("Answer: Ｂ", None, "B"),
    ("В", None, "B"),
    ("Ⓑ", None, "B"),
    ("\u200bB\u200b", None, "B"),
    (RAMBLE, None, None),
    (RAMBLE + " So the answer is D.", None, "D"),
]
