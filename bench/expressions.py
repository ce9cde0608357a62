"""Claims as text, such as "ged(probunet) < ged(ensemble) - 0.02": a small parser, and no code of anybody's is run.

claim      side < side, side > side, or |side| < number
side       terms and numbers, added and subtracted
term       figure(label), or a number times one, as 1.02 * brier(unet); with [condition, …] of the cases that count:
           marked=4, subtlety<3, split=train
A bracket at the end of a claim holds for every term that has none of its own; before that end, for its own term alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from uqseg.errors import UsageError

Expected = Literal["above", "below", "within"]
NUMBER = re.compile(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+")
NAME = re.compile(r"[A-Za-z_][\w.@]*")
CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<|>|=)\s*(.+?)\s*")
GRAMMAR = 'expected something like "ged(probunet) < ged(ensemble) - 0.02" or "|dice@0.1(unet) - dice@0.5(unet)| < 0.02"'


class Condition(NamedTuple):
    """Of a case: a column of cases.parquet, a relation, and what stands on its other side."""

    column: str
    relation: str
    value: str


class Term(NamedTuple):
    """A figure of a label over the cases that meet all conditions."""

    figure: str
    label: str
    conditions: tuple[Condition, ...] = ()

    @property
    def split(self) -> str:
        """The split that a condition names; test where none does."""
        return next((c.value for c in self.conditions if c.column == "split" and c.relation == "="), "test")


@dataclass(frozen=True)
class Claim:
    """Terms times their factors plus a constant are above 0, below 0, or within `margin` of 0."""

    text: str
    terms: tuple[tuple[float, Term], ...]
    constant: float
    expected: Expected
    margin: float = 0.0

    @property
    def compared(self) -> str:
        """What is compared with 0, in words."""
        apart = len({term.conditions for _, term in self.terms}) > 1
        parts = [(by, f"{_times(by)}{t.figure} of {t.label}{_on(t) if apart else ''}") for by, t in self.terms]
        parts += [(self.constant, f"{abs(self.constant):g}")] if self.constant else []
        text = " ".join(f"{'+' if by > 0 else '−'} {part}" for by, part in parts)
        where = "" if apart or not self.terms else _on(self.terms[0][1])
        return text.removeprefix("+ ") + where


def _times(factor: float) -> str:
    return "" if abs(factor) == 1 else f"{abs(factor):g} × "


def _on(term: Term) -> str:
    words = [c.value if c[:2] == ("split", "=") else "".join(c) for c in term.conditions]
    return f" on {', '.join(words)}" if words else ""


def parse(text: str) -> Claim:
    """The claim that a text makes. Raises UsageError showing where it is not understood."""
    return _Parser(text).claim()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def claim(self) -> Claim:
        if self._next("|"):
            left, constant = self._side()
            self._expect("|")
            self._expect("<")
            self._next("=")
            margin = self._number()
            claim = Claim(self.text, tuple(left), constant, "within", margin)
        else:
            left, constant = self._side()
            relation = "below" if self._next("<") else "above" if self._next(">") else None
            if relation is None:
                raise self._wrong()
            self._next("=")
            right, other = self._side()
            terms = (*left, *((-factor, term) for factor, term in right))
            claim = Claim(self.text, terms, constant - other, "below" if relation == "below" else "above")
        last = self._conditions()
        self._skip()
        if self.place < len(self.text) or not claim.terms:
            raise self._wrong()
        if not last and self.text.rstrip().endswith("]"):  # the last term's own bracket ends the claim
            last = claim.terms[-1][1].conditions
        everywhere = tuple((by, t if t.conditions else t._replace(conditions=last)) for by, t in claim.terms)
        return replace(claim, terms=everywhere)

    def _side(self) -> tuple[list[tuple[float, Term]], float]:
        """Terms with their factors, and the sum of the numbers."""
        terms, constant = [], 0.0
        sign = -1.0 if self._next("-") or self._next("−") else 1.0
        while True:
            self._skip()
            is_number = NUMBER.match(self.text, self.place)
            number = sign * self._number() if is_number else sign
            if not is_number or self._next("*"):
                terms.append((number, self._term()))
            else:
                constant += number
            if self._next("+"):
                sign = 1.0
            elif self._next("-") or self._next("−"):
                sign = -1.0
            else:
                return terms, constant

    def _term(self) -> Term:
        self._skip()
        match = NAME.match(self.text, self.place)
        if match is None:
            raise self._wrong()
        self.place = match.end()
        label = self._enclosed("(", ")").strip()
        if not label:
            raise self._wrong()
        return Term(match[0], label, self._conditions())

    def _conditions(self) -> tuple[Condition, ...]:
        self._skip()
        if not self.text.startswith("[", self.place):
            return ()
        conditions = []
        for part in self._enclosed("[", "]").split(","):
            match = CONDITION.fullmatch(part)
            if match is None:
                raise UsageError(f"claim: expected a condition such as marked=4 or split=train, got '{part.strip()}'.")
            conditions.append(Condition(*match.groups()))
        return tuple(conditions)

    def _enclosed(self, opening: str, closing: str) -> str:
        """The text between two brackets, in which others may be nested."""
        self._expect(opening)
        start, depth = self.place, 1
        while depth:
            if self.place == len(self.text):
                raise self._wrong()
            letter = self.text[self.place]
            depth += (letter == opening) - (letter == closing)
            self.place += 1
        return self.text[start : self.place - 1]

    def _number(self) -> float:
        self._skip()
        match = NUMBER.match(self.text, self.place)
        if match is None:
            raise self._wrong()
        self.place = match.end()
        return float(match[0])

    def _skip(self) -> None:
        while self.text[self.place : self.place + 1].isspace():
            self.place += 1

    def _next(self, letter: str) -> bool:
        self._skip()
        there = self.text.startswith(letter, self.place)
        self.place += there
        return there

    def _expect(self, letter: str) -> None:
        if not self._next(letter):
            raise self._wrong()

    def _wrong(self) -> UsageError:
        rest = self.text[self.place : self.place + 20].strip()
        where = f"at '{rest}'" if rest else "at its end"
        return UsageError(f"claim: not understood {where}: {GRAMMAR}.")
