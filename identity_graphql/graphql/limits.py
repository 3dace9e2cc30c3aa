"""One validation rule that bounds what a document may ask for, in linear time.

The usual limiters walk every spread of every fragment, so that a short document whose fragments spread each
other twice costs seconds. Here each fragment is measured once; the totals are those of the full expansion.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
)
from graphql.validation import ASTValidationContext


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one operation may hold, fragments expanded."""

    depth: int = 12
    fields: int = 500
    aliases: int = 30
    directives: int = 20
    root_fields: int = 20
    operations: int = 10


@dataclass(slots=True)
class _Cost:
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0

    def add(self, other: _Cost, *, levels: int = 0) -> None:
        self.depth = max(self.depth, other.depth + levels)
        self.fields += other.fields
        self.aliases += other.aliases
        self.directives += other.directives


class _Measure:
    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        self._known: dict[str, _Cost] = {}

    def selections(self, selected: SelectionSetNode | None) -> _Cost:
        cost = _Cost()
        for selection in selected.selections if selected else ():
            cost.directives += len(selection.directives or ())
            if isinstance(selection, FieldNode):
                cost.fields += 1
                cost.aliases += selection.alias is not None
                # The library bounds introspection by a rule of its own.
                if not selection.name.value.startswith("__"):
                    cost.add(self.selections(selection.selection_set), levels=1)
            elif isinstance(selection, FragmentSpreadNode):
                cost.add(self._fragment(selection.name.value))
            else:
                cost.add(self.selections(getattr(selection, "selection_set", None)))
        return cost

    def _fragment(self, name: str) -> _Cost:
        if name not in self._known:
            self._known[name] = _Cost()  # while it is measured: a cycle, which another rule reports
            fragment = self._fragments.get(name)
            self._known[name] = self.selections(fragment.selection_set) if fragment else _Cost()
        return self._known[name]


def limits_rule(limits: Limits) -> type[ASTValidationRule]:
    """A validation rule that refuses documents beyond these limits with code QUERY_TOO_COMPLEX."""

    class LimitsRule(ASTValidationRule):
        def __init__(self, context: ASTValidationContext) -> None:
            super().__init__(context)
            operations = [d for d in context.document.definitions if isinstance(d, OperationDefinitionNode)]
            self._check("operations", len(operations), limits.operations)
            measure = _Measure(context.document)
            for operation in operations[: limits.operations]:
                cost = measure.selections(operation.selection_set)
                self._check("root fields", len(operation.selection_set.selections), limits.root_fields)
                self._check("levels", cost.depth, limits.depth)
                self._check("fields", cost.fields, limits.fields)
                self._check("aliases", cost.aliases, limits.aliases)
                self._check("directives", cost.directives + len(operation.directives or ()), limits.directives)

        def _check(self, what: str, number: int, limit: int) -> None:
            if number > limit:
                self.report_error(
                    GraphQLError(
                        f"The operation has too many {what}; the limit is {limit}.",
                        extensions={"code": "QUERY_TOO_COMPLEX"},
                    )
                )

    return LimitsRule
