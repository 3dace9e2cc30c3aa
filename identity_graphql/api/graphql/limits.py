"""Bounds of what a document may hold and ask for, checked in linear time. Each says what to do instead.

The usual limiters walk every spread of every fragment, so that a short document whose fragments spread each
other twice costs seconds. Here each fragment is measured once; the totals are those of the full expansion.

What a document asks for grows by its lists: three lists inside each other, of a customer with 100 contacts, are
a million answers to 60 characters. So list items are counted too, those of inner lists once per outer item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Token,
    TokenKind,
)
from graphql.validation import ASTValidationContext

from identity_graphql.api.graphql.connections import DEFAULT_PAGE, LARGEST_PAGE
from identity_graphql.api.graphql.scalars import LONGEST_NUMBER
from identity_graphql.errors import InvalidInput

SEVERAL = "ask in several requests; `identifyMany` takes up to 1,000 customers at once"
LONGEST_NAME = 255
"""Characters. An alias comes back with every item of a list: 200 KB of it, a thousand times."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a document may hold in tokens, and one operation of it, fragments expanded."""

    tokens: int = 1000
    depth: int = 12
    fields: int = 500
    aliases: int = 30
    directives: int = 20
    root_fields: int = 20
    operations: int = 10
    items: int = 25_000


PAGED = frozenset({"contacts", "clusters", "history", "bridges", "events", "withheld", "bans"})
"""Lists with `first`; and, by its name, the short one of what a request wrote into the log."""
WHOLE = {"secondaries": 200, "identifyMany": 100, "evidence": 200, "steps": 20, "holders": 2}
"""Lists that come whole, and for how many items they count: how many there will be is not known before."""


@dataclass(slots=True)
class _Cost:
    """What a selection costs; ``here``: its fields on its own level."""

    here: int = 0
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    items: int = 0

    def add(self, other: _Cost) -> None:
        self.here += other.here
        self.depth = max(self.depth, other.depth)
        self.fields += other.fields
        self.aliases += other.aliases
        self.directives += other.directives
        self.items += other.items


class _Measure:
    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        self._known: dict[str, _Cost] = {}

    def selections(self, selected: SelectionSetNode | None) -> _Cost:
        cost = _Cost()
        for selection in selected.selections if selected else ():
            cost.directives += len(selection.directives or ())
            if isinstance(selection, FieldNode):
                cost.add(self._field(selection))
            elif isinstance(selection, FragmentSpreadNode):
                cost.add(self._fragment(selection.name.value))
            else:
                cost.add(self.selections(getattr(selection, "selection_set", None)))
        return cost

    def _field(self, field: FieldNode) -> _Cost:
        # The library bounds introspection by a rule of its own.
        introspects = field.name.value.startswith("__")
        cost = _Cost() if introspects else self.selections(field.selection_set)
        length = _length(field)
        return replace(
            cost,
            here=1,
            depth=cost.depth + (not introspects),
            fields=cost.fields + 1,
            aliases=cost.aliases + (field.alias is not None),
            items=length * (1 + cost.items) if length else cost.items,
        )

    def _fragment(self, name: str) -> _Cost:
        if name not in self._known:
            self._known[name] = _Cost()  # while it is measured: a cycle, which another rule reports
            fragment = self._fragments.get(name)
            self._known[name] = self.selections(fragment.selection_set) if fragment else _Cost()
        return self._known[name]


def _length(selection: FieldNode) -> int:
    """For how many items a list counts; 0 for what is none."""
    name = selection.name.value
    if name not in PAGED:
        return WHOLE.get(name, 0)
    for argument in selection.arguments or ():
        if argument.name.value == "first":
            value = argument.value
            # A variable may be anything up to the largest page; what is more is refused when it is asked for.
            number = int(value.value[:4]) if isinstance(value, IntValueNode) else LARGEST_PAGE
            return max(0, min(number, LARGEST_PAGE))
    return DEFAULT_PAGE


def limits_rule(limits: Limits) -> type[ASTValidationRule]:
    """A validation rule that refuses documents beyond these limits with code QUERY_TOO_COMPLEX."""

    class LimitsRule(ASTValidationRule):
        def __init__(self, context: ASTValidationContext) -> None:
            super().__init__(context)
            operations = [d for d in context.document.definitions if isinstance(d, OperationDefinitionNode)]
            self._check("operations", len(operations), limits.operations, "send each in a document of its own")
            measure = _Measure(context.document)
            for operation in operations[: limits.operations]:
                cost = measure.selections(operation.selection_set)
                directives = cost.directives + len(operation.directives or ())
                self._check("root fields", cost.here, limits.root_fields, SEVERAL)
                self._check("levels", cost.depth, limits.depth, "ask for what is deeper in another request, by its id")
                self._check("fields", cost.fields, limits.fields, "ask in several requests")
                self._check("aliases", cost.aliases, limits.aliases, SEVERAL)
                self._check("directives", directives, limits.directives, "leave out what is not wanted")
                self._check(
                    "list items, those of lists inside lists multiplied",
                    cost.items,
                    limits.items,
                    "ask for smaller pages by `first`, or for the inner lists in other requests",
                )

        def _check(self, what: str, number: int, limit: int, advice: str) -> None:
            if number > limit:
                message = f"The document asks for too many {what}: the limit is {limit:,}; {advice}."
                self.report_error(too_complex(message))

    return LimitsRule


def too_complex(message: str, **place: Any) -> GraphQLError:
    """The refusal of a document for its size; the message says what to do instead."""
    return GraphQLError(message, extensions={"code": "QUERY_TOO_COMPLEX"}, **place)


def overlong(document: DocumentNode) -> Iterator[GraphQLError]:
    """The names and numbers that are too long to be read, or to be repeated in an answer."""
    assert document.loc is not None
    token: Token | None = document.loc.start_token
    while token is not None:
        place: dict[str, Any] = {"source": document.loc.source, "positions": [token.start]}
        length = len(token.value or "")
        if token.kind is TokenKind.NAME and length > LONGEST_NAME:
            yield too_complex(f"A name may have at most {LONGEST_NAME} characters; use a shorter one.", **place)
        elif token.kind in (TokenKind.INT, TokenKind.FLOAT) and length > LONGEST_NUMBER:
            message = f"A number may have at most {LONGEST_NUMBER} characters."
            yield GraphQLError(message, extensions={"code": InvalidInput.code}, **place)
        token = token.next
