"""What the language's view of a line lacks for the screen: what stands behind the cursor, and how
an offer is written where a quote is open. Pure.
"""

from __future__ import annotations

from shell.language.cursor import Cursor
from shell.language.words import Word, quoted, tokens


def rest_of_word(line: str, cursor: Cursor, at: int) -> str:
    """What of the word that is being typed stands behind the cursor."""
    if cursor.begin == at:
        return ""
    for token in tokens(line, cursor.begin):
        return line[at : max(token.end, at)] if isinstance(token, Word) else ""
    return ""


def written(text: str, quote: str, *, goes_on: bool = False) -> str:
    """The text as it is written in a line, in the quotes that are open; not closed if more of the
    same word follows."""
    match quote:
        case "'":
            inner, end = text.replace("'", "'\"'\"'"), "'"
        case '"':
            inner, end = text.replace("\\", "\\\\").replace('"', '\\"'), '"'
        case _:
            if goes_on and quoted(text) != text:
                return quoted(text)[:-1]
            return quoted(text) if text else ""
    return f"{quote}{inner}{'' if goes_on else end}"
