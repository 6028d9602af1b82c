"""The grammar of Neurosynth's expressions over features, and what it says of wrong ones."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from nimare_dask.errors import CorpusWarning, SettingsError

if TYPE_CHECKING:
    from lark import Lark, Token, UnexpectedInput

#: A longer expression is refused; one of this length takes ten seconds on 100,000 analyses.
MOST_CHARACTERS = 50_000

_QUOTED = r'"([^"\\]|\\.)*"' r"|'([^'\\]|\\.)*'"
# Every operator between two sets takes all that follows it, as in Neurosynth's parser.
_GRAMMAR = (
    r"""
?start: chain
?chain: unit | unit OPERATOR chain -> both
?unit: compared | "~" unit -> complement
?compared: closed | compared COMPARISON NUMBER -> compare
?closed: term | "(" chain ")" -> group
term: WORD+ | QUOTED

OPERATOR: "&~" | "&" | "|"
COMPARISON: "<=" | ">=" | "<" | ">"
NUMBER: /[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?/
WORD: /[^\s&|~()<>="'][^\s&|~()<>=]*/
QUOTED: /"""
    + _QUOTED
    + r"""/s
%ignore /\s+/
"""
)

_EXPECTED = {
    "WORD": "a feature",
    "QUOTED": "a feature",
    "LPAR": "'('",
    "TILDE": "'~'",
    "OPERATOR": "one of & | &~",
    "COMPARISON": "one of < <= > >=",
    "NUMBER": "a number",
    "RPAR": "')'",
    "$END": "the end",
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """Part of an expression.

    Attributes
    ----------
    kind
        ``term``, ``~``, ``()``, ``& | &~`` or ``< <= > >=``.
    parts
        What it is made of.
    need
        How many arrays must be held at once to work it out.
    text, quoted, at
        Of a term: its name or pattern, whether it was in quotes, and where it stands.
    number
        What a comparison compares with; of a term, what takes the place of the threshold.
    strict
        Of a term: whether weights must be above `number`, not at least as high.
    unclear
        Where an operator stands that people may take for another grouping; -1 where none does.
    operators
        Those that no parentheses hold together.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    need: int = 1
    text: str = ""
    quoted: bool = False
    at: int = 0
    number: float | None = None
    strict: bool = False
    unclear: int = -1
    operators: frozenset[str] = frozenset()


class _Build:
    """What each rule of the grammar becomes, from the nodes and tokens that it has."""

    def term(self, tokens: list[Token]) -> Node:
        first = tokens[0]
        if first.type == "QUOTED":
            name = re.sub(r"\\(.)", r"\1", first[1:-1], flags=re.DOTALL)
            return Node("term", text=name, quoted=True, at=first.start_pos or 0)
        return Node("term", text=" ".join(tokens), at=first.start_pos or 0)

    def group(self, parts: list[Node]) -> Node:
        # A node of its own, so that a comparison sees a set and not a term.
        return Node("()", (parts[0],), parts[0].need, unclear=parts[0].unclear)

    def complement(self, parts: list[Node]) -> Node:
        if parts[0].kind == "~" and parts[0].parts[0].kind == "~":
            return parts[0].parts[0]  # as ~~~a is ~a
        return Node("~", (parts[0],), parts[0].need, unclear=parts[0].unclear)

    def compare(self, parts: list[Any]) -> Node:
        of: Node = parts[0]
        comparison, number = str(parts[1]), float(parts[2])
        if of.kind == "term" and of.number is None and comparison.startswith(">"):
            return replace(of, number=number, strict=comparison == ">")
        return Node(comparison, (of,), of.need, number=number, unclear=of.unclear)

    def both(self, parts: list[Any]) -> Node:
        left, operator, right = parts
        unclear = right.unclear if left.unclear < 0 else left.unclear
        if (operator == "&~" and right.operators) or (operator == "&" and "|" in right.operators):
            unclear = operator.start_pos
        needs = left.need, right.need
        return Node(
            str(operator),
            (left, right),
            max(needs) if left.need != right.need else left.need + 1,
            unclear=unclear,
            operators=right.operators | {str(operator)},
        )


def parse(text: str) -> Node:
    """Read an expression; SettingsError points at the character where it ends to be one."""
    from lark.exceptions import UnexpectedInput

    if len(text) > MOST_CHARACTERS:
        raise SettingsError(
            f"The expression has {len(text):,} characters; expected at most {MOST_CHARACTERS:,}. "
            "Combine several with & and | in Python."
        )
    if not text.strip():
        raise SettingsError("The expression is empty; expected one such as 'emo* &~ reward*'.")
    try:
        root: Node = _parser().parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        raise SettingsError(_say_unexpected(text, error)) from None
    return root


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", transformer=_Build())


def _say_unexpected(text: str, error: UnexpectedInput) -> str:
    token = getattr(error, "token", None)
    ended = token is not None and token.type == "$END"
    at = len(text.rstrip()) if ended else int(getattr(error, "pos_in_stream", 0))
    rules = getattr(error, "allowed", None) or getattr(error, "expected", None) or ()
    expected = list(dict.fromkeys(said for rule, said in _EXPECTED.items() if rule in rules))
    before = re.sub(_QUOTED, "", text[:at], flags=re.DOTALL)
    is_open = before.count("(") > before.count(")")
    expected = [said for said in expected if is_open or said != _EXPECTED["RPAR"]]
    if ended:
        found = "it ends"
    elif token is None and text[at] in "\"'":
        found = f"the quote {text[at]} has no end"
    elif text[at] == ")" and not is_open:
        found = "')' closes nothing that is open"
    else:
        found = f"there is {str(token or text[at])[:40]!r}"
    said = f"The expression goes wrong at character {at + 1:,}: {found}"
    if expected:
        said += f"; expected {', '.join(expected[:-1]) + ' or ' if expected[1:] else ''}"
        said += expected[-1]
    return point(text, at, f"{said}.")


def point(text: str, at: int, said: str, *, around: int = 40) -> str:
    """A message, the expression around a character of it on one line, and a caret below."""
    start, stop = max(0, at - around), at + around
    shown = "".join(char if char.isprintable() else " " for char in text[start:stop])
    left, right = "…" if start else "", "…" if stop < len(text) else ""
    width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown[: at - start])
    return f"{said}\n    {left}{shown.rstrip()}{right}\n    {' ' * (len(left) + width)}^"


def warn_of_grouping(text: str, at: int) -> None:
    """Warn of an operator that takes more than people may expect."""
    operator = "&~" if text.startswith("&~", at) else "&"
    warnings.warn(
        point(
            text,
            at,
            f"{operator} at character {at + 1:,} takes all that follows it in the same "
            "parentheses, as in Neurosynth; put parentheses where it should take less.",
        ),
        CorpusWarning,
        stacklevel=3,  # the caller of expression()
    )


def nodes(root: Node) -> Iterator[Node]:
    """Every node, from left to right."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.parts))
