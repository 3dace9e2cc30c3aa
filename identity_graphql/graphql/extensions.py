"""What every operation goes through: one document cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import graphql
from graphql import DocumentNode, GraphQLError, OperationDefinitionNode
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from identity_graphql.graphql.limits import Limits, limits_rule

MOST_TOKENS = 1000
MOST_DOCUMENTS = 512
LARGEST_CACHED = 20_000  # characters
MOST_ERRORS = 5


def document_cache() -> type[SchemaExtension]:
    """Parse, validate and measure a document once per text; keep only good ones, so that bad cannot evict them.

    Called once per schema: a rule class made per request would be a new one each time.
    """
    rules = (
        *graphql.specified_rules,
        # Strawberry adds these two itself, unless somebody else validates.
        MaybeNullValidationRule,
        OneOfInputValidationRule,
        limits_rule(Limits()),
    )
    documents: OrderedDict[str, DocumentNode] = OrderedDict()

    class DocumentCache(SchemaExtension):
        def on_parse(self) -> Iterator[None]:
            context = self.execution_context
            context.parse_options["max_tokens"] = MOST_TOKENS
            self.known = documents.get(context.query or "")
            if self.known is not None:
                documents.move_to_end(context.query or "")
                context.graphql_document = self.known
            yield

        def on_validate(self) -> Iterator[None]:
            context = self.execution_context
            document, query = context.graphql_document, context.query or ""
            assert document is not None, "validation comes after parsing"
            errors: list[GraphQLError] = []
            if self.known is None:
                errors = graphql.validate(context.schema._schema, document, rules, max_errors=MOST_ERRORS)  # noqa: SLF001
                if not errors and len(query) <= LARGEST_CACHED:
                    documents[query] = document
                    if len(documents) > MOST_DOCUMENTS:
                        documents.popitem(last=False)
            operations = sum(isinstance(d, OperationDefinitionNode) for d in document.definitions)
            if operations > 1 and not context._provided_operation_name and not errors:  # noqa: SLF001
                errors = [GraphQLError("The document has several operations; say which by operationName.")]
            context.pre_execution_errors = errors
            yield

    return DocumentCache
