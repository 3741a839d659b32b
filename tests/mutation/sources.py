# SPDX-License-Identifier: BSD-3-Clause
"""The statements of a Cython or Python file, one for each logical line.

Python's tokenizer reads Cython well enough: all that is needed are tokens with their
places, logical lines and indentation.
"""

import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

#: Tokens that are no part of a statement.
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
#: What may start the header of a function.
DEFINES = {"def", "cdef", "cpdef", "async"}


@dataclass(frozen=True)
class Token:
    """A token and its place in the text of the file."""

    text: str
    kind: int
    start: int
    end: int

    @property
    def is_name(self) -> bool:
        """Whether it is an identifier and not a keyword."""
        return self.kind == tokenize.NAME and not keyword.iskeyword(self.text)

    @property
    def ends_operand(self) -> bool:
        """Whether an operator behind it takes two operands."""
        return (
            self.is_name
            or self.kind in (tokenize.NUMBER, tokenize.STRING)
            or self.text in (")", "]", "True", "False", "None")
        )


@dataclass(frozen=True)
class Statement:
    """A logical line: its tokens, and the function that it stands in, or ''."""

    function: str
    line: int
    indent: int
    tokens: tuple[Token, ...]
    is_in_enum: bool

    @property
    def start(self) -> int:
        """Place of its first character."""
        return self.tokens[0].start

    @property
    def end(self) -> int:
        """Place behind its last character."""
        return self.tokens[-1].end


def tokens_of(text: str) -> Iterator[Token | int]:
    """Tokens, +1 for an indent, -1 for a dedent, 0 for the end of a logical line."""
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    for found in tokenize.generate_tokens(io.StringIO(text).readline):
        if found.type == tokenize.INDENT:
            yield 1
        elif found.type == tokenize.DEDENT:
            yield -1
        elif found.type == tokenize.NEWLINE:
            yield 0
        elif found.type not in LAYOUT and found.string.strip():
            yield Token(
                found.string,
                found.type,
                starts[found.start[0] - 1] + found.start[1],
                starts[found.end[0] - 1] + found.end[1],
            )


def opened_by(words: list[str]) -> tuple[str, str]:
    """What a header opens: 'function', 'class', 'enum', 'other', and its name."""
    if words[-1] != ":":
        return "", ""
    if words[0] in DEFINES and "(" in words and "extern" not in words:
        return "function", words[words.index("(") - 1]
    if words[0] == "class" or words[:2] == ["cdef", "class"]:
        return "class", words[words.index("class") + 1]
    return ("enum" if "enum" in words else "other"), ""


def statements(text: str) -> list[Statement]:
    """All statements of a file, in order, except docstrings."""
    found: list[Statement] = []
    line: list[Token] = []
    # One entry for each level of indentation: what opened it, and its name.
    levels: list[tuple[str, str]] = []
    opened = ("", "")
    for token in tokens_of(text):
        if isinstance(token, Token):
            line.append(token)
        elif token == 1:
            levels.append(opened)
        elif token == -1:
            levels.pop()
        elif line:
            words = [one.text for one in line]
            is_inside = any(kind == "function" for kind, _ in levels)
            names = [name for kind, name in levels if kind in ("function", "class")]
            opened = opened_by(words)
            if any(one.kind != tokenize.STRING for one in line):
                column = line[0].start - (text.rfind("\n", 0, line[0].start) + 1)
                found.append(
                    Statement(
                        ".".join(names) if is_inside else "",
                        text.count("\n", 0, line[0].start) + 1,
                        column,
                        tuple(line),
                        bool(levels) and levels[-1][0] == "enum",
                    )
                )
            line = []
    return found


def end_of_head(text: str) -> int:
    """Place behind docstring and future imports, where definitions may be put."""
    at = 0
    line: list[Token] = []
    for token in tokens_of(text):
        if isinstance(token, Token):
            line.append(token)
        elif token == 0 and line:
            is_future = len(line) > 1 and line[1].text == "__future__"
            if line[0].kind != tokenize.STRING and not is_future:
                break
            at = text.index("\n", line[-1].end) + 1
            line = []
    return at


def read(path: Path) -> list[Statement]:
    """The statements of a file."""
    return statements(path.read_text())
