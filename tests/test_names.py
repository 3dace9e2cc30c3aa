"""Names on the wire: arguments in camel case, and names of kinds as they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import identity_graphql
from identity_graphql.api.names import ARGUMENTS, wire_names
from identity_graphql.domain.identifiers import BUILT_IN

PACKAGE = Path(identity_graphql.__file__).parent
SNAKE_CASE = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+\b")
EXAMPLE = "customer_id"
"""The kind that a text has as its example."""
SHOWN = {"Problem", "InvalidInput", "NotFound", "Refused", "Outdated", "TooComplex"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("contact_ids", "contactIds"),
        ("expected_other_version is 3, as_of_seq too", "expectedOtherVersion is 3, asOfSeq too"),
        ("a.customer_id", "a.customer_id"),
        ("customer_id is too long; dry_run", "customer_id is too long; dryRun"),
        ("my_contact_ids", "my_contact_ids"),
        ("identifiers.dry_run", "identifiers.dry_run"),
    ],
)
def test_names_of_arguments_are_shown_in_camel_case_and_those_of_kinds_as_they_are(text: str, shown: str) -> None:
    assert wire_names(text) == shown


def test_every_name_that_an_error_may_show_is_known() -> None:
    """A new argument in an error belongs into `ARGUMENTS`."""
    found = {word for text in shown_texts() for word in SNAKE_CASE.findall(text)}

    assert found - ARGUMENTS - set(BUILT_IN) - {EXAMPLE} == set()
    assert found >= ARGUMENTS, "no name is there for nothing"


def test_every_name_is_that_of_an_argument_of_the_schema() -> None:
    schema = (PACKAGE.parent / "schema.graphql").read_text()

    assert [name for name in sorted(ARGUMENTS) if f"{wire_names(name)}: " not in schema] == []


def shown_texts() -> Iterator[str]:
    """The texts of the package that errors are made of.

    Of a function that makes one of a variable, every text that it has, and every text that it is called with.
    """
    trees = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        if called(call) in SHOWN:
            yield from texts(call)
    for function in (node for tree in trees for node in ast.walk(tree) if isinstance(node, Function)):
        if any(
            called(call) in SHOWN and has_variable(call) for call in ast.walk(function) if isinstance(call, ast.Call)
        ):
            for part in (function.args, *function.body[ast.get_docstring(function) is not None :]):
                yield from texts(part)
            for call in calls:
                if called(call) == function.name:
                    yield from texts(call)


def called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def has_variable(call: ast.Call) -> bool:
    return any(isinstance(node, ast.Name) for argument in call.args for node in ast.walk(argument))


def texts(part: ast.AST) -> Iterator[str]:
    return (node.value for node in ast.walk(part) if isinstance(node, ast.Constant) and isinstance(node.value, str))
