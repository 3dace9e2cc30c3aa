"""Errors as a caller sees them: every one with a code, and nothing of what went on inside."""

from __future__ import annotations

from collections.abc import Sequence

from graphql import GraphQLError, GraphQLSyntaxError

from identity_graphql.api.names import wire_names
from identity_graphql.errors import Gone, IdentityError, InvalidInput, Unexpected
from identity_graphql.observability import describe, log, note, request_id

LONGEST_MESSAGE = 300  # characters


def coded(errors: Sequence[GraphQLError]) -> list[GraphQLError]:
    """The errors of one operation, with codes. What the program did not raise on purpose is masked and logged,
    once, however many fields it hit."""
    logged: set[int] = set()
    shown = []
    for error in errors:
        origin = _origin(error)
        if origin is not None and not isinstance(origin, IdentityError | GraphQLError):
            identity = request_id.get()
            if id(origin) not in logged:
                logged.add(id(origin))
                log.error("graphql.failed", path=error.path, request_id=identity, **describe(origin))
            origin = Unexpected(identity)
        if isinstance(origin, IdentityError):
            note(origin)
        shown.append(_coded(error, origin))
    return shown


def field_of(error: IdentityError) -> str | None:
    """The first field that an input error is about; None for the input as a whole, or another error."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return next((wire_names(problem.path) for problem in problems if problem.path != "root"), None)


def _origin(error: GraphQLError) -> Exception | None:
    origin = error.original_error
    while isinstance(origin, GraphQLError) and origin.original_error is not None:
        origin = origin.original_error
    return origin


def _coded(error: GraphQLError, origin: Exception | None) -> GraphQLError:
    if isinstance(origin, IdentityError):
        return _replaced(error, wire_names(origin.message), _extensions(origin))
    if isinstance(error, GraphQLSyntaxError):
        code = "GRAPHQL_PARSE_FAILED"
    else:
        # What the library says of the document is the caller's to read; of the variables too.
        code = "BAD_USER_INPUT" if origin is not None or error.path else "GRAPHQL_VALIDATION_FAILED"
    return _replaced(error, _shortened(error.message), {"code": code, **(error.extensions or {})})


def _shortened(message: str) -> str:
    """The message of the library, which may quote what the caller sent, whatever its length."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE - 100]} … {message[-90:]}"


def _extensions(error: IdentityError) -> dict[str, object]:
    extensions: dict[str, object] = {"code": error.code}
    if isinstance(error, InvalidInput):
        extensions["field"] = field_of(error)
        extensions["details"] = [{"path": wire_names(p.path), "message": wire_names(p.message)} for p in error.problems]
    if isinstance(error, Gone):
        extensions["at"] = error.at.isoformat()
        extensions["how"] = error.how
    if isinstance(error, Unexpected):
        extensions["requestId"] = error.request_id
    return extensions


def _replaced(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
