"""What every verb of a steward's has to be told, whatever it does (Q19)."""

from __future__ import annotations

import pytest

from identity_graphql.domain.decide import Command
from identity_graphql.errors import InvalidInput, Refused
from tests.support.stewards import Steward

A, B, C, D = (f"{name}@example.com" for name in "abcd")


async def test_every_command_says_who_why_and_what_was_seen(steward: Steward) -> None:
    await steward.requests((A, None), (B, None))
    service = steward.steward

    for command in (
        Command("", "why", 1, 1),
        Command("who", " \n", 1, 1),
        Command("who", "a\0b", 1, 1),
        Command("who", "why"),
    ):
        with pytest.raises(InvalidInput):
            await service.merge_clusters(1, 2, command)
    for command in (Command("who", "why", 2, 1), Command("who", "why", 1, 2)):
        with pytest.raises(Refused, match="Look again"):
            await service.merge_clusters(1, 2, command)
    assert await steward.clusters() == [[1], [2]]
