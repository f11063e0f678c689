"""IAM's wildcards, ``*`` for any characters and ``?`` for one.

There is no regular expression here: to compile one takes longer than to compare, for each pattern of a caller.
"""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Tell whether ``pattern`` takes the whole of ``text``; case counts.

    Each ``*`` takes as little as it can. Where what follows it fails, the last ``*`` takes one character more;
    those before never have to. So the steps are at most the two lengths multiplied.
    """
    at, reached, star, retry = 0, 0, -1, 0
    while reached < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, retry = at, reached
            at += 1
            if at == len(pattern):
                return True
        elif at < len(pattern) and pattern[at] in ("?", text[reached]):
            at += 1
            reached += 1
        elif star >= 0:
            retry += 1
            at, reached = star + 1, retry
        else:
            return False
    return not pattern[at:].strip("*")
