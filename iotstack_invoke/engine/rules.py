"""Rules: patterns of files, their inputs, and the steps that make them.

A rule is a plain value; a RuleBook lists the rules of one task and finds the one for a file.
Not for: deciding what has to run (plan.py) or running it (executor.py).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from typing import Any

from ..core.dataclass import dataclass
from ..core.errors import RuleError
from .steps import File, Step

Body = Callable[["Job"], Iterator[Step]]
Inputs = Callable[[Mapping[str, str], Any], Iterable[str]]
"""Called with the wildcards and the facts: returns the inputs of a rule that depend on these."""


@dataclass(frozen=True)
class Wildcard:
    """One kind of name in patterns: it matches its grammar and nothing else."""

    takes: Callable[[str], bool]
    shown: Callable[[str], str] = str
    """How a value is shown in titles."""


Wildcards = Mapping[str, Wildcard]
"""The wildcards that the patterns of a rulebook may have, by name."""
_NONE: Wildcards = {}


@dataclass(frozen=True)
class Pattern:
    """A file name with wildcards: `pi:backups/{runtag}.influx-backup.tar`."""

    text: str
    expression: str
    wildcards: Mapping[str, Wildcard]
    ending: str
    """The text after the last wildcard: it distinguishes most patterns."""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The regular expression of matching names."""
        return re.compile(self.expression, re.DOTALL)

    @classmethod
    def read(cls, text: str, known: Wildcards) -> Pattern:
        """Return the pattern that `text` describes; raises RuleError for an unknown wildcard."""
        expression, seen = "", set[str]()
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise RuleError(
                f"{text}: {error}. Write {{{{ and }}}} for braces of a name."
            ) from error
        for literal, name, form, conversion in pieces:
            expression += re.escape(literal)
            if name is None:
                continue
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise RuleError(f"{text}: there is no wildcard {{{name}}}; there are: {there}.")
            if form or conversion:
                raise RuleError(f"{text}: write {{{name}}} with nothing behind the name.")
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
        ending = pieces[-1][0] if pieces and pieces[-1][1] is None else ""
        return cls(text, expression, {name: known[name] for name in seen}, ending)

    def match(self, name: str) -> dict[str, str] | None:
        """Return the value of each wildcard for `name`, or None."""
        found = self.regex.fullmatch(name) if name.endswith(self.ending) else None
        if not found:
            return None
        values = found.groupdict()
        taken = all(self.wildcards[key].takes(value) for key, value in values.items())
        return values if taken else None

    def refused_wildcard(self, name: str) -> str:
        """Return which wildcard keeps `name` from matching ('' if the shape differs too)."""
        found = self.regex.fullmatch(name)
        values = found.groupdict() if found else {}
        return next((k for k, v in values.items() if not self.wildcards[k].takes(v)), "")


@dataclass(frozen=True)
class Rule:
    """How one kind of file is made.

    `inputs` are files that must exist first; a newer one makes the rule run again.
    `ancient` ones only have to exist. `retries`: how often a step that failed for a temporary
    reason is retried. `always`: runs when its inputs are settled, made or not. A
    `transaction` changes state: it makes no file and runs whenever its output is requested.
    `resumes`: a later attempt continues the partial file left by a lost connection or a signal.
    `elsewhere`: it writes to a target whose slowness must not delay others: their jobs run
    beside it when it takes long. `title`: what users read while it runs, with wildcards as
    they are shown.
    """

    name: str
    outputs: tuple[str, ...]
    body: Body
    inputs: tuple[str, ...] | Inputs = ()
    ancient: tuple[str, ...] = ()
    retries: int = 0
    always: bool = False
    transaction: bool = False
    resumes: bool = False
    elsewhere: bool = False
    title: str = ""

    def inputs_for(self, wildcards: Mapping[str, str], facts: Any) -> tuple[str, ...]:
        """Return its inputs with the wildcards filled in."""
        inputs = tuple(self.inputs(wildcards, facts) if callable(self.inputs) else self.inputs)
        try:
            return tuple(each.format_map(wildcards) for each in inputs)
        except (KeyError, ValueError) as error:
            raise RuleError(f"Rule '{self.name}': its inputs name no wildcard {error}.") from error

    @property
    def sentence(self) -> str:
        """Its purpose in one sentence: the first line of its body's docstring."""
        return (self.body.__doc__ or self.name).strip().splitlines()[0]


def rule(
    *outputs: str,
    input: str | Iterable[str] | Inputs = (),  # noqa: A002 - the word of every Make-like tool
    ancient: str | Iterable[str] = (),
    retries: int = 0,
    always: bool = False,
    transaction: bool = False,
    resumes: bool = False,
    elsewhere: bool = False,
    name: str = "",
    title: str = "",
) -> Callable[[Body], Rule]:
    """Return a decorator that makes a Rule of a body; it registers nothing.

    Without a `name` the rule has the name of the body.
    """

    def make(body: Body) -> Rule:
        return Rule(
            name=name or getattr(body, "__name__", "rule"),
            outputs=outputs,
            body=body,
            inputs=input if callable(input) else _listed(input),
            ancient=_listed(ancient),
            retries=retries,
            always=always,
            transaction=transaction,
            resumes=resumes,
            elsewhere=elsewhere,
            title=title,
        )

    return make


def _listed(text: str | Iterable[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


@dataclass(frozen=True)
class Job:
    """A rule with its wildcards bound: the argument of the rule's body."""

    rule: Rule
    wildcards: Mapping[str, str]
    outputs: tuple[File, ...]
    inputs: tuple[File, ...]
    ancient: tuple[File, ...] = ()
    facts: Any = None
    """Facts gathered before the plan was made; the rulebook defines their type."""
    title: str = ""
    """What a user reads while it runs: `copy the general part to nas`."""

    @property
    def name(self) -> str:
        """Its name for users: the rule's name with its wildcards."""
        values = " ".join(self.wildcards.values())
        return f"{self.rule.name} {values}".rstrip()

    @property
    def identity(self) -> str:
        """A file that no other job makes; it identifies the job in a plan."""
        return str(self.outputs[0])

    @property
    def output(self) -> File:
        """The only output."""
        (only,) = self.outputs
        return only

    @property
    def input(self) -> File:
        """The only input."""
        (only,) = self.inputs
        return only

    @property
    def runtag(self) -> str:
        """The value of the wildcard {runtag}."""
        return self.wildcards["runtag"]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Its steps, in order; the body is pure, so asking changes nothing."""
        return tuple(self.rule.body(self))


def _refuse_unbound(each: Rule, patterns: Iterable[Pattern], known: Wildcards) -> None:
    """Raise RuleError if one output does not determine the wildcards of the other files."""
    inputs = () if callable(each.inputs) else each.inputs
    for pattern in patterns:
        for text in (*each.outputs, *inputs, *each.ancient):
            unbound = sorted(Pattern.read(text, known).wildcards.keys() - pattern.wildcards.keys())
            if unbound:
                raise RuleError(
                    f"Rule '{each.name}': {text} has {{{unbound[0]}}}, which {pattern.text} does "
                    "not tell. Every output must have all wildcards of its rule."
                )


@dataclass(frozen=True)
class RuleBook:
    """The rules of one task, in the order of the source file."""

    rules: tuple[Rule, ...]
    wildcards: Wildcards
    _literal: dict[str, list[Rule]] = field(init=False, repr=False, compare=False)
    _wild: tuple[tuple[Pattern, Rule], ...] = field(init=False, repr=False, compare=False)

    def __init__(self, *rules: Rule, wildcards: Wildcards = _NONE) -> None:
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "wildcards", wildcards)
        literal: dict[str, list[Rule]] = {}
        wild: list[tuple[Pattern, Rule]] = []
        for each in rules:
            patterns = [Pattern.read(output, wildcards) for output in each.outputs]
            _refuse_unbound(each, patterns, wildcards)
            for pattern in patterns:
                if pattern.wildcards:
                    wild.append((pattern, each))
                else:
                    literal.setdefault(pattern.text.format(), []).append(each)
        object.__setattr__(self, "_literal", literal)
        object.__setattr__(self, "_wild", tuple(wild))

    def find(self, name: str) -> tuple[Rule, dict[str, str]] | None:
        """Return the rule that makes `role:path`, with its wildcards, or None.

        Raises RuleError if two rules make the same file.
        """
        found: list[tuple[Rule, dict[str, str]]] = [(r, {}) for r in self._literal.get(name, ())]
        for pattern, each in self._wild:
            values = pattern.match(name)
            if values is not None:
                found.append((each, values))
        if len(found) > 1:
            both = " and ".join(f"'{r.name}' ({', '.join(r.outputs)})" for r, _ in found)
            raise RuleError(
                f"Two rules make {name}: {both}. Narrow the pattern of one of them, or leave one "
                "out of the rulebook."
            )
        return found[0] if found else None

    def title(self, each: Rule, values: Mapping[str, str]) -> str:
        """Return what a user reads while a rule with these wildcards runs."""
        title = each.title or each.name
        for name, value in values.items():
            title = title.replace(f"{{{name}}}", self.wildcards[name].shown(value))
        return title

    def named(self, name: str) -> Rule:
        """Return a rule by its name."""
        for each in self.rules:
            if each.name == name:
                return each
        raise RuleError(f"There is no rule '{name}'; there are: {', '.join(self._names())}.")

    def nearest(self, name: str) -> str:
        """Return a sentence on the rule that nearly makes `name`, or on all rules."""
        for pattern, each in self._wild:
            refused = pattern.refused_wildcard(name)
            if refused:
                return (
                    f"Rule '{each.name}' makes {pattern.text}, but what stands for "
                    f"{{{refused}}} is not a valid {refused}."
                )
        return f"The rules make: {', '.join(o for r in self.rules for o in r.outputs)}."

    def _names(self) -> list[str]:
        return [each.name for each in self.rules]
