"""Run operations: each document is parsed, validated and measured once per text, and executed as often as it comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from inspect import isawaitable
from itertools import islice
from typing import Any

import graphql
import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    ValuesOfCorrectTypeRule,
)
from msgspec import Struct
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from identity_graphql.api.graphql.context import Context
from identity_graphql.api.graphql.limits import Limits, limits_rule, overlong, too_complex
from identity_graphql.errors import InvalidInput

LIMITS = Limits()
MOST_DOCUMENTS = 512
LARGEST_CACHED = 20_000  # characters
MOST_ERRORS = 5


class ValuesRule(ValuesOfCorrectTypeRule):
    """What is wrong with a value is told by the same code, whether it is written into the document or a variable."""

    def report_error(self, error: GraphQLError) -> None:
        error.extensions = {"code": InvalidInput.code, **(error.extensions or {})}
        super().report_error(error)


# Made once: a rule class per request would be a new one each time, and no cache would know it again.
_RULES = (
    *(ValuesRule if rule is ValuesOfCorrectTypeRule else rule for rule in graphql.specified_rules),
    # Strawberry adds these two itself where it validates.
    MaybeNullValidationRule,
    OneOfInputValidationRule,
    limits_rule(LIMITS),
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
            document = self._read(query)
        else:
            self._known.move_to_end(query)
        node = graphql.get_operation_ast(document, name)
        if node is None and name is None:
            raise NotRun(GraphQLError("The document has several operations; say which by operationName."))
        if node is None:
            raise NotRun(_bad("The document has no operation of this name."))
        return Operation(document, node)

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

    def _read(self, query: str) -> DocumentNode:
        try:
            document = graphql.parse(query, max_tokens=LIMITS.tokens)
        except GraphQLSyntaxError as error:
            raise NotRun(_beyond_limits(error) if error.message.endswith("Parsing aborted.") else error) from None
        if errors := list(islice(overlong(document), MOST_ERRORS)):
            raise NotRun(*errors)
        if not any(isinstance(definition, OperationDefinitionNode) for definition in document.definitions):
            raise NotRun(_bad("The document has no operation."))
        if errors := graphql.validate(self._schema, document, _RULES, max_errors=MOST_ERRORS):
            raise NotRun(*errors)
        if len(query) <= LARGEST_CACHED:  # only good ones are kept, so that bad ones cannot evict them
            self._known[query] = document
            if len(self._known) > MOST_DOCUMENTS:
                self._known.popitem(last=False)
        return document


def _beyond_limits(error: GraphQLSyntaxError) -> GraphQLError:
    """What the parser aborts for is the number of tokens, or of levels."""
    what = f"has more than {LIMITS.tokens:,} tokens, which are names, values and punctuation marks"
    if "nested too deeply" in error.message:
        what = "is nested too deeply"
    advice = "give values as variables, such as the items of `identifyMany`, or ask in several requests"
    return too_complex(f"The document {what}: {advice}.", source=error.source, positions=error.positions)


def _bad(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_REQUEST"})
