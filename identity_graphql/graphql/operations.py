"""Run operations: each document is parsed, validated and measured once per text, and executed as often as it comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

import graphql
import strawberry
from graphql import DocumentNode, ExecutionResult, GraphQLError, OperationDefinitionNode, OperationType
from msgspec import Struct
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from identity_graphql.graphql.context import Context
from identity_graphql.graphql.limits import Limits, limits_rule

MOST_TOKENS = 1000
MOST_DOCUMENTS = 512
LARGEST_CACHED = 20_000  # characters
MOST_ERRORS = 5

# Made once: a rule class per request would be a new one each time, and no cache would know it again.
_RULES = (
    *graphql.specified_rules,
    # Strawberry adds these two itself where it validates.
    MaybeNullValidationRule,
    OneOfInputValidationRule,
    limits_rule(Limits()),
)


class NotRun(Exception):
    """The operation was not run; ``errors`` say why."""

    def __init__(self, *errors: GraphQLError) -> None:
        self.errors = errors


class Operation(Struct, frozen=True):
    """One operation of a document that may be run."""

    document: DocumentNode
    node: OperationDefinitionNode

    @property
    def only_reads(self) -> bool:
        return self.node.operation is OperationType.QUERY


class Operations:
    """The operations that a schema can run.

    graphql-core executes them, without Strawberry's own way there: it makes a context, extensions and a runner for
    each, which cost as much as the execution (decision 0012). The resolvers are the same.
    """

    def __init__(self, schema: strawberry.Schema) -> None:
        self._schema = schema._schema  # noqa: SLF001 - graphql-core's, which Strawberry's describes
        self._known: OrderedDict[str, DocumentNode] = OrderedDict()

    def find(self, query: str, name: str | None) -> Operation:
        """The operation of this name, or the only one. Raises NotRun for what is no valid document, or has it not."""
        document = self._known.get(query)
        if document is None:
            node = _operation(parsed := _parsed(query), name)
            self._check(parsed)
            self._remember(query, parsed)
            return Operation(parsed, node)
        self._known.move_to_end(query)
        return Operation(document, _operation(document, name))

    async def run(self, operation: Operation, variables: Mapping[str, Any] | None, context: Context) -> ExecutionResult:
        """Execute it. What goes wrong in a resolver is in the result."""
        name = operation.node.name.value if operation.node.name else None
        result = graphql.execute(
            self._schema,
            operation.document,
            context_value=context,
            variable_values=dict(variables) if variables else None,
            operation_name=name,
        )
        return await result if isawaitable(result) else result

    def _check(self, document: DocumentNode) -> None:
        if errors := graphql.validate(self._schema, document, _RULES, max_errors=MOST_ERRORS):
            raise NotRun(*errors)

    def _remember(self, query: str, document: DocumentNode) -> None:
        """Only what is good, so that bad documents cannot evict good ones."""
        if len(query) <= LARGEST_CACHED:
            self._known[query] = document
            if len(self._known) > MOST_DOCUMENTS:
                self._known.popitem(last=False)


def _parsed(query: str) -> DocumentNode:
    try:
        return graphql.parse(query, max_tokens=MOST_TOKENS)
    except GraphQLError as error:
        raise NotRun(error) from None


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    node = graphql.get_operation_ast(document, name)
    if node is not None:
        return node
    count = sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions)
    if name is None and count > 1:
        raise NotRun(GraphQLError("The document has several operations; say which by operationName."))
    message = "The document has no operation." if name is None else "The document has no operation of this name."
    raise NotRun(GraphQLError(message, extensions={"code": "BAD_REQUEST"}))
