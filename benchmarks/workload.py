"""What is asked: the same requests for every system that is measured, and who is known before.

Customer ``j`` of the first ``customers`` has the email ``u{j}@example.com`` and a phone number; every third has a
secondary with another email.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from identity_graphql.domain.identifiers import Given
from identity_graphql.errors import IdentityError
from identity_graphql.services.identify import LARGEST_BATCH, IdentityService

KINDS = ("repeat", "new", "link", "mix")
MIX = {"repeat": 70, "new": 15, "link": 13, "merge": 2}
"""Of a hundred requests"""

Item = tuple[str, str]


def email(j: int) -> str:
    return f"u{j}@example.com"


def phone(j: int) -> str:
    return f"+1555{j:07}"


def requests(kind: str, customers: int, label: str) -> Iterator[Item]:
    """Endless requests of a kind; ``label``, up to three digits, keeps what is new apart from that of other runs.

    repeat: a known pair; hot: always the same; new: nobody knows either; link: a new email with a known number; hot
    link: always the same number; merge: two customers' identifiers together; mix: all of them.
    """
    count, kinds, weights = 0, list(MIX), list(MIX.values())

    def any_customer() -> int:
        return random.randrange(customers)

    while True:
        count += 1
        what = random.choices(kinds, weights)[0] if kind == "mix" else kind
        if what == "repeat":
            j = any_customer()
            yield email(j), phone(j)
        elif what == "hot":
            yield email(0), phone(0)
        elif what == "new":
            yield f"n{count}-{label}@example.com", f"+1{label}{count:09}"
        elif what in ("link", "hot link"):
            yield f"l{count}-{label}@example.com", phone(any_customer() if what == "link" else 0)
        else:
            yield email(any_customer()), phone(any_customer())


def known(customers: int) -> Iterator[Item]:
    """The requests that make the customers known."""
    for j in range(customers):
        yield email(j), phone(j)
        if j % 3 == 0:
            yield f"s{j}@example.com", phone(j)


async def preload(service: IdentityService, customers: int, progress: Callable[[int], None]) -> None:
    """Make the customers known through the service itself; ``progress`` hears how many requests were answered."""
    items = known(customers)
    while batch := list(itertools.islice(items, LARGEST_BATCH)):
        results = await service.identify_many([Given(*said) for said in batch])
        assert not any(isinstance(result, IdentityError) for result in results)
        progress(len(batch))
