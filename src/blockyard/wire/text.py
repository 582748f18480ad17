"""The door for text of users: what an exception, a program or a foreign worker says, made safe for all who show it.

Whatever goes out (terminal, log line, JSON, page, report, Redis) may then take it as it is: it can be encoded, moves no
cursor, begins no line that we did not begin, and has a bounded length.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f"  # control characters but tab and end of line: ESC moves the cursor, CR hides what stood there
    "\x7f-\x9f"  # DEL, and those of ISO 6429 as one character
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of writing, and so what a line seems to say
    "\u2028\u2029"  # end a line for str.splitlines and in some viewers
    "\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"  # tags: text that nobody sees
    "\ud800-\udfff"  # lone surrogates, such as of a file name that is not UTF-8: no encoder takes them
    "]"
)
SHORTEST = 60
"""From this length on it is said how much was left out."""


def clean(text: str) -> str:
    r"""Return `text` with each character that does more than to be seen written as Python writes it.

    Tabs and ends of lines stay.

    >>> print(clean("mean\x1b[31m of \udcf6: \u202e0\r\ndone\r"))
    mean\x1b[31m of \udcf6: \u202e0
    done\r
    """
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""Return cleaned text with all white space as single blanks.

    >>> one_line(" no\n  such\tluck \x07")
    'no such luck \\x07'
    """
    return " ".join(clean(text).split())


def indented(text: str, by: str = "  | ") -> str:
    r"""Return cleaned text of which no line but the first begins at the left: it can't be taken for a line of ours.

    >>> print(indented("no such luck\n12:00:00 INFO all is well"))
    no such luck
      | 12:00:00 INFO all is well
    """
    return clean(text).rstrip("\n").replace("\n", "\n" + by)


def shorten(text: str, longest: int) -> str:
    """Return `text` with its middle left out where it is longer than `longest`: both ends tell the most.

    >>> shorten("one two three four five six seven eight", 20)
    'one two ... n eight'
    >>> shorten("0123456789" * 1000, 60)
    '01234567890 ... (9,978 characters left out) ... 90123456789'
    """
    if len(text) <= longest:
        return text
    words = f" ... ({len(text):,} characters left out) ... " if longest >= SHORTEST else " ... "
    keep = max(longest - len(words), 0) // 2
    if longest >= SHORTEST:
        words = f" ... ({len(text) - 2 * keep:,} characters left out) ... "
    return text[:keep] + words + (text[-keep:] if keep else "")


def bounded(text: str, longest: int) -> str:
    """Return cleaned text of at most so many characters. What is so already stays as it is."""
    return shorten(clean(shorten(text, longest)), longest)
