"""GraphQL over HTTP as others check it: the audits of the npm package `graphql-http`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.audit import LOCK, Unavailable, audit, install


@pytest.fixture(scope="module")
def audits() -> None:
    """Skips for want of Node.js, or fails where REQUIRE_AUDIT=1 says that it must be there."""
    try:
        install()
    except Unavailable as reason:
        if os.environ.get("REQUIRE_AUDIT") == "1":
            pytest.fail(f"REQUIRE_AUDIT=1, but: {reason}")
        pytest.skip(str(reason))


@pytest.mark.usefixtures("audits")
async def test_every_audit_of_graphql_over_http_is_ok(tmp_path: Path) -> None:
    report = await audit(tmp_path)

    assert report.text == "61 audits: ok=61 notice=0 warn=0 error=0"
    assert report.ok


def test_the_lock_of_the_audits_holds_hashes_and_no_addresses() -> None:
    packages = {name: package for name, package in json.loads(LOCK.read_text())["packages"].items() if name}

    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
