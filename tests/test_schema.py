from __future__ import annotations

from identity_graphql.api.graphql.schema import build_schema
from tests.support.serving import ROOT


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    written = (ROOT / "schema.graphql").read_text()

    assert written == build_schema().as_str() + "\n", "run: make schema"
