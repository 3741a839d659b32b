# SPDX-License-Identifier: BSD-3-Clause
"""One-line changes: comparisons, arithmetic, conditions, constants, calls left out."""

import hashlib
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mutation.sources import Statement, Token, statements

COMPARISONS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "^": "|",
    "//": "*",
}
ASSIGNMENTS = {"+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=", "^=": "|="}
LOGIC = {"and": "or", "or": "and"}
HEADERS = {"if", "elif", "while"}
#: Calls that only checked builds, memory checkers and compilers see.
UNSEEN = {
    "require",
    "claim",
    "assume",
    "store_barrier",
    "checker_pause",
    "checker_resume",
    "memory_open",
    "memory_close",
}
#: Statements that are left alone.
LEFT = {
    "import",
    "from",
    "cimport",
    "raise",
    "assert",
    "del",
    "pass",
    "global",
    "nonlocal",
    "with",
    "try",
    "except",
    "finally",
    "else",
    "class",
    "def",
    "cpdef",
    "async",
    "ctypedef",
    "@",
    "case",
    "match",
    "yield",
}
INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)\Z")

Edit = tuple[int, int, str]


@dataclass(frozen=True)
class Mutant:
    """A changed statement. ``whole`` is how much of the text is replaced in a copy."""

    path: str
    function: str
    line: int
    operator: str
    #: How the original and the change live side by side: see `tree.woven`.
    kind: str
    start: int
    end: int
    original: str
    changed: str
    name: str = ""

    @property
    def is_single(self) -> bool:
        """Whether it has to be compiled by itself."""
        return self.kind == "single"


def groups(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, ...]]:
    """The tokens as a whole, and those within each grouping parenthesis."""
    yield tokens
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.text in "([{":
            opened.append(i)
        elif token.text in ")]}" and opened:
            start = opened.pop()
            if tokens[start].text == "(" and (
                start == 0 or not tokens[start - 1].ends_operand
            ):
                yield tokens[start + 1 : i]


def at_depth_0(tokens: tuple[Token, ...], texts: set[str]) -> list[int]:
    """Indices of tokens outside all parentheses."""
    depth = 0
    found = []
    for i, token in enumerate(tokens):
        depth += (token.text in "([{") - (token.text in ")]}")
        if depth == 0 and token.text in texts:
            found.append(i)
    return found


def dropped_parts(tokens: tuple[Token, ...]) -> Iterator[Edit]:
    """Leave out one side of an ``and`` or ``or``."""
    for group in groups(tokens):
        if at_depth_0(group, {",", "if", "else", "lambda", "for", "="}):
            continue
        cuts = at_depth_0(group, set(LOGIC))
        if not cuts or len({group[cut].text for cut in cuts}) != 1:
            continue
        ends = [-1, *cuts, len(group)]
        for i in range(len(ends) - 1):
            part = group[ends[i] + 1 : ends[i + 1]]
            if i < len(cuts):
                yield part[0].start, group[cuts[i] + 1].start, ""
            else:
                yield group[cuts[-1] - 1].end, part[-1].end, ""


def is_cast(tokens: tuple[Token, ...], i: int) -> bool:
    """Whether a ``<`` opens a cast of Cython."""
    return tokens[i].text == "<" and (i == 0 or not tokens[i - 1].ends_operand)


def swaps(tokens: tuple[Token, ...]) -> Iterator[tuple[str, Edit]]:
    """Changes of single tokens in an expression."""
    casting = False
    for i, token in enumerate(tokens):
        if is_cast(tokens, i):
            casting = True
        if casting:
            casting = token.text != ">"
            continue
        is_binary = i > 0 and tokens[i - 1].ends_operand
        new = None
        if is_binary and token.text in COMPARISONS:
            new = "comparison", COMPARISONS[token.text]
        elif is_binary and token.text in ARITHMETIC:
            new = "arithmetic", ARITHMETIC[token.text]
        elif token.text in LOGIC:
            new = "logic", LOGIC[token.text]
        elif token.text == "not" and not (tokens[i - 1].text == "is" if i else False):
            if i + 1 < len(tokens) and tokens[i + 1].text != "in" and not is_binary:
                new = "logic", ""
        elif INTEGER.match(token.text) and token.kind == tokenize.NUMBER:
            new = "number", str(int(token.text, 0) + 1)
        elif token.text in ("True", "False"):
            new = "logic", str(token.text == "False")
        if new is not None:
            yield new[0], (token.start, token.end, new[1])


def applied(text: str, start: int, end: int, edit: Edit) -> str:
    """The text from ``start`` to ``end`` with one edit."""
    return text[start : edit[0]] + edit[2] + text[edit[1] : end]


def expression_changes(
    text: str, tokens: tuple[Token, ...]
) -> Iterator[tuple[str, str]]:
    """Operator and changed text of an expression."""
    start, end = tokens[0].start, tokens[-1].end
    for operator, edit in swaps(tokens):
        yield operator, applied(text, start, end, edit)
    for edit in dropped_parts(tokens):
        yield "condition", applied(text, start, end, edit)


def changes_of(
    text: str, one: Statement, is_c: bool
) -> Iterator[tuple[str, str, int, int, str]]:
    """Operator, kind, extent and changed text of each change of a statement."""
    tokens = one.tokens
    first = tokens[0].text
    start, end = one.start, one.end
    equals = at_depth_0(tokens, {"="})
    if any(token.text in UNSEEN for token in tokens) or '"""' in text[start:end]:
        return
    if not one.function:
        # Only constants: those of C are compiled in, those of Python are statements.
        if one.is_in_enum or (first.isupper() and first.isidentifier()):
            kind = "single" if one.is_in_enum else "statement"
            value = tokens[equals[0] + 1 :] if equals else ()
            for operator, edit in swaps(tuple(value)):
                if operator == "number":
                    yield "constant", kind, start, end, applied(text, start, end, edit)
        return
    if first == "for" and tokens[-1].text == ":":
        for operator, (at, to, new) in swaps(tokens):
            if operator == "number" and "range" in text[start:end]:
                yield "bound", "single" if is_c else "value", at, to, new
        return
    if first in HEADERS and tokens[-1].text == ":":
        inner = tokens[1:-1]
        at, to = inner[0].start, inner[-1].end
        for operator, changed in expression_changes(text, inner):
            yield operator, "header", at, to, changed
        yield "condition", "header", at, to, "False"
        if first != "while":
            yield "condition", "header", at, to, "True"
        return
    if first == "cdef":
        names = at_depth_0(tokens, {","})
        if len(equals) == 1 and not names and tokens[-1].text != ":":
            inner = tokens[equals[0] + 1 :]
            at, to = inner[0].start, inner[-1].end
            for operator, changed in expression_changes(text, inner):
                yield operator, "value", at, to, changed
        return
    if first in LEFT or tokens[-1].text == ":":
        return
    yield from simple_changes(text, one, is_c, equals)


def simple_changes(
    text: str, one: Statement, is_c: bool, equals: list[int]
) -> Iterator[tuple[str, str, int, int, str]]:
    """Changes of an assignment, a call, a return, a break."""
    tokens = one.tokens
    start, end = one.start, one.end
    inner = tokens[equals[0] + 1 :] if equals else tokens
    if tokens[0].text == "return":
        inner = tokens[1:]
    if inner:
        for operator, changed in expression_changes(text, inner):
            whole = text[start : inner[0].start] + changed
            yield operator, "statement", start, end, whole
    for token in tokens:
        if token.text in ASSIGNMENTS:
            edit = (token.start, token.end, ASSIGNMENTS[token.text])
            yield (
                "arithmetic",
                "statement",
                start,
                end,
                applied(text, start, end, edit),
            )
            yield "deletion", "statement", start, end, "pass"
            return
    is_call = not equals and tokens[-1].text == ")" and tokens[0].is_name
    is_store = bool(equals) and (is_c or tokens[equals[0] - 1].text == "]")
    is_member = bool(equals) and len(tokens) > 1 and tokens[1].text == "."
    if is_call or is_store or is_member or tokens[0].text in ("break", "continue"):
        yield "deletion", "statement", start, end, "pass"


def mutants_of(path: str, text: str) -> list[Mutant]:
    """Every change of a file, each with a name that outlives changes elsewhere."""
    is_c = path.endswith(".pxd")
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for one in statements(text):
        if one.tokens[0].text == "cdef" and "extern" in [
            token.text for token in one.tokens
        ]:
            continue
        original = text[one.start : one.end]
        for operator, kind, start, end, changed in changes_of(text, one, is_c):
            if changed == text[start:end]:
                continue
            whole = text[one.start : start] + changed + text[end : one.end]
            key = "\0".join(
                " ".join(part.split()) for part in (path, one.function, original, whole)
            )
            seen[key] += 1
            key += f"\0{seen[key]}"
            found.append(
                Mutant(
                    path,
                    one.function,
                    one.line,
                    operator,
                    kind,
                    start,
                    end,
                    text[start:end],
                    changed,
                    hashlib.sha256(key.encode()).hexdigest()[:10],
                )
            )
    return found
