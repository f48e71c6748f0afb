"""Quote untrusted text in a prompt."""

import hashlib


def quote_untrusted(name: str, text: str) -> str:
    """Quote a text between a BEGIN and an END line that carry a hash of the text, so that nothing in the text can be its END line.

    >>> print(quote_untrusted("ATTEMPT", "4"))
    BEGIN ATTEMPT 5c7651fb4838b651
    4
    END ATTEMPT 5c7651fb4838b651
    """
    mark = _hashed(text)
    while mark in text:
        mark = _hashed(mark + text)
    return f"BEGIN {name} {mark}\n{text}\nEND {name} {mark}"


def _hashed(text: str) -> str:
    return hashlib.blake2b(ascii(text).encode(), digest_size=8).hexdigest()
