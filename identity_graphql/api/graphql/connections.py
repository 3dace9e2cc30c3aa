"""Lists, page by page. A cursor names the last item seen, so that nothing is skipped when others come in between."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

import strawberry

from identity_graphql.domain.contacts import PROVISIONAL
from identity_graphql.errors import InvalidInput, Problem

Node = TypeVar("Node")
First = Annotated[int, strawberry.argument(description="How many at most: 1 to 100; `after` asks for what follows.")]
After = Annotated[
    str | None, strawberry.argument(description="The `endCursor` of the page before; left out for the first page.")
]
DEFAULT_PAGE = 20
LARGEST_PAGE = 100


def page_size(first: int) -> int:
    """``first``, if it is one of 1..100."""
    if not 1 <= first <= LARGEST_PAGE:
        raise InvalidInput(
            Problem("first", f"first must be between 1 and {LARGEST_PAGE}; `after` asks for what follows")
        )
    return first


def cursor_of(*numbers: int) -> str:
    """An opaque cursor for the item with this id, or with this key of several numbers."""
    return base64.urlsafe_b64encode(f"id:{':'.join(map(str, numbers))}".encode()).decode()


def position_of(cursor: str | None) -> int:
    """The id that `cursor_of` was given; 0, before all, for no cursor."""
    return key_of(cursor, 1)[0]


def key_of(cursor: str | None, length: int) -> tuple[int, ...]:
    """The numbers that `cursor_of` was given, so many; zeros, before all, for no cursor."""
    if cursor is None:
        return (0,) * length
    try:
        numbers = tuple(map(int, base64.urlsafe_b64decode(cursor).removeprefix(b"id:").split(b":")))
        if len(numbers) == length and all(0 < n < PROVISIONAL for n in numbers) and cursor_of(*numbers) == cursor:
            return numbers
    except ValueError:  # no base64, or no number
        pass
    raise not_of_this_list()


def not_of_this_list() -> InvalidInput:
    return InvalidInput(Problem("after", "after must be a cursor of this list"))


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there is more after this page.")
    has_previous_page: bool = strawberry.field(description="Whether this page was asked for with `after`.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first edge; null for an empty page.")
    end_cursor: str | None = strawberry.field(description="Give it as `after` for the next page.")


@strawberry.type(description="One item of a page, and its place in the list.")
class Edge(Generic[Node]):
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this item.")
    node: Node = strawberry.field(description="The item itself.")


@strawberry.type(description="One page of a list, and how to get the next.")
class Connection(Generic[Node]):
    edges: list[Edge[Node]] = strawberry.field(description="The items of this page, in order.")
    page_info: PageInfo = strawberry.field(description="Whether and how the list goes on.")

    @classmethod
    def of(
        cls, nodes: Sequence[Node], ids: Sequence[int | tuple[int, ...]], *, first: int, after: str | None
    ) -> Connection[Node]:
        """A page of at most ``first`` of these nodes; one more of them tells that there is a next page."""
        keys = ((key,) if isinstance(key, int) else key for key in ids)
        edges = [Edge(cursor=cursor_of(*key), node=node) for node, key in zip(nodes[:first], keys, strict=False)]
        return cls(
            edges=edges,
            page_info=PageInfo(
                has_next_page=len(nodes) > first,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )
