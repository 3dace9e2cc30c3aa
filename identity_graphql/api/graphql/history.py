"""What happened, and what holds a cluster together: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

import strawberry
from strawberry import ID

from identity_graphql.api.graphql.connections import Connection, page_size, position_of
from identity_graphql.api.graphql.context import Info
from identity_graphql.api.graphql.identifiers import Identifier
from identity_graphql.api.graphql.scalars import id_of, seq_of
from identity_graphql.domain import events as domain
from identity_graphql.domain import explain, sentences
from identity_graphql.domain.contacts import PROVISIONAL
from identity_graphql.domain.erasure import is_token
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.state import Ban as Row
from identity_graphql.domain.state import Node as NodeId


@strawberry.enum(description="What was done: a request, or one of a steward's verbs.")
class EventKind(Enum):
    IDENTIFY = strawberry.enum_value("IDENTIFY", description="A request taught something.")
    MERGE_CLUSTERS = strawberry.enum_value("MERGE_CLUSTERS", description="Two clusters were joined by hand.")
    SPLIT_CLUSTER = strawberry.enum_value("SPLIT_CLUSTER", description="Contacts were taken out of a cluster.")
    UNDO = strawberry.enum_value("UNDO", description="An event was taken back.")
    BAN_LINK = strawberry.enum_value("BAN_LINK", description="Two contacts are never to be linked.")
    UNBAN_LINK = strawberry.enum_value("UNBAN_LINK", description="A ban was lifted.")
    ACCEPT_WITHHELD = strawberry.enum_value("ACCEPT_WITHHELD", description="A withheld pair was accepted.")
    REJECT_WITHHELD = strawberry.enum_value("REJECT_WITHHELD", description="A withheld pair was rejected.")
    DELETE_CONTACT = strawberry.enum_value("DELETE_CONTACT", description="A contact and its evidence were taken out.")
    RESTORE_CONTACT = strawberry.enum_value("RESTORE_CONTACT", description="A deleted contact came back.")
    ERASE = strawberry.enum_value("ERASE", description="Values were erased for good.")
    BLOCK_IDENTIFIER = strawberry.enum_value("BLOCK_IDENTIFIER", description="An identifier counts as not given.")
    UNBLOCK_IDENTIFIER = strawberry.enum_value("UNBLOCK_IDENTIFIER", description="It counts again.")


def event_filter(
    kinds: Sequence[EventKind] | None, actor: str | None, since: datetime | None, until: datetime | None
) -> domain.EventFilter:
    """Which events are asked for."""
    named = None if kinds is None else frozenset(domain.EventKind[kind.name] for kind in kinds)
    return domain.EventFilter(named, actor, since, until)


@strawberry.enum(description="What a request came to.")
class Outcome(Enum):
    CREATED = strawberry.enum_value("CREATED", description="Nothing was known: a new cluster.")
    LINKED = strawberry.enum_value("LINKED", description="A secondary was added to a cluster.")
    MERGED = strawberry.enum_value("MERGED", description="Two clusters or more were joined; the oldest primary stays.")
    OBSERVED = strawberry.enum_value(
        "OBSERVED", description="Two or more identifiers of one cluster were seen together for the first time."
    )
    UNCHANGED = strawberry.enum_value("UNCHANGED", description="Nothing new; nothing was written.")
    WITHHELD = strawberry.enum_value(
        "WITHHELD",
        description="A ban or a limit forbids to link all of it: the cluster of the first identifier by priority is"
        " answered, and pairs wait.",
    )


@strawberry.type(description="One entry of the log: a request that taught something, or a steward's verb.")
class Event:
    seq: ID | None = strawberry.field(description="Its number; `undo` and `asOfSeq` take it. Null in a dry run.")
    at: datetime = strawberry.field(description="When it was settled; later for every next event of a cluster.")
    kind: EventKind = strawberry.field(description="What was done.")
    outcome: Outcome | None = strawberry.field(description="What a request came to; null for a steward's verb.")
    summary: str = strawberry.field(description="For people.")
    email: str | None = strawberry.field(description="Its first email, as it is compared; null if it was erased.")
    phone_number: str | None = strawberry.field(
        description="Its first phone number, as it is compared; null if it was erased."
    )
    identifiers: list[Identifier] = strawberry.field(description="All that the request brought, as it is compared.")
    source: str | None = strawberry.field(description="Which system said so; null if the request did not tell.")
    occurred_at: datetime | None = strawberry.field(description="When it was true, if the request told.")
    exceeded: list[str] = strawberry.field(description="The kinds of which the cluster got more than their limit.")
    given_email: str | None = strawberry.field(description="The email as it was typed.")
    given_phone_number: str | None = strawberry.field(description="The phone number as it was typed.")
    redacted: bool = strawberry.field(description="Whether something that it brought was erased since.")
    contact_id: ID | None = strawberry.field(description="The contact that it created; null if it created none.")
    primary_contact_id: ID | None = strawberry.field(
        description="The cluster that it ended in, by its primary then. Null if it is about an identifier that nobody"
        " had."
    )
    demoted_contact_ids: list[ID] = strawberry.field(description="The primaries that it made secondaries.")
    version_before: int = strawberry.field(description="The version of that cluster before it.")
    version_after: int = strawberry.field(description="The version of that cluster after it.")
    actor: str | None = strawberry.field(description="The steward; null for a request.")
    reason: str | None = strawberry.field(description="Why the steward did it; null for a request.")
    request_id: str | None = strawberry.field(description="The HTTP request that it came with.")
    undone_by: ID | None = strawberry.field(description="The undo that took it back; null if it counts.")

    @classmethod
    def from_domain(
        cls,
        event: domain.Event,
        history: ClusterHistory | None = None,
        *,
        undone_by: int | None = None,
    ) -> Event:
        """With the log that it is from, it is told what became of it; without, what is given here."""
        request = event if isinstance(event, domain.IdentifyEvent) else None
        verb = event if isinstance(event, domain.VerbEvent) else None
        undo = undone_by if history is None else history.undone_by.get(event.seq)
        shown = [] if request is None else [Identifier.from_domain(identifier) for identifier in request.identifiers]
        return cls(
            seq=seq_of(event.seq),
            at=event.at,
            kind=EventKind[event.kind.name],
            outcome=None if request is None else Outcome[request.outcome.name],
            summary=sentences.summary(event),
            email=None if request is None or is_token(request.email) else request.email,
            phone_number=None if request is None or is_token(request.phone_number) else request.phone_number,
            identifiers=shown,
            source=None if request is None else request.source,
            occurred_at=None if request is None else request.occurred_at,
            exceeded=[] if request is None else list(request.exceeded),
            given_email=_given(request, "email"),
            given_phone_number=_given(request, "phoneNumber"),
            redacted=any(identifier.value is None for identifier in shown),
            contact_id=id_of(request.contact_id) if request is not None and request.contact_id is not None else None,
            primary_contact_id=id_of(event.primary_id) if event.primary_id > 0 else None,
            demoted_contact_ids=[] if request is None else [id_of(demotion.id) for demotion in request.demoted],
            version_before=event.version_before,
            version_after=event.version_after,
            actor=None if verb is None else verb.actor,
            reason=None if verb is None else verb.reason,
            request_id=event.request_id,
            undone_by=None if undo is None else ID(str(undo)),
        )


def _given(request: domain.IdentifyEvent | None, name: str) -> str | None:
    given = None if request is None else request.raw.get(name)
    return None if given is None else str(given)


def page_of(
    events: Sequence[domain.Event], history: ClusterHistory, *, first: int, after: str | None
) -> Connection[Event]:
    """One page of a history, in the order in which it happened."""
    size, last = page_size(first), position_of(after)
    # What the dry run of a verb would write has no number at all: it comes last.
    page = [event for event in events if (event.seq or _LAST) > last][: size + 1]
    nodes = [Event.from_domain(event, history) for event in page]
    return Connection.of(nodes, [event.seq or _LAST for event in page], first=size, after=after)


_LAST = PROVISIONAL - 1


@strawberry.enum(description="Whether a pair is evidence.")
class PairStanding(Enum):
    LIVE = strawberry.enum_value("LIVE", description="It is: its two identifiers are one customer's.")
    WITHHELD = strawberry.enum_value(
        "WITHHELD", description="It is not: a ban or a limit kept it back, and perhaps still does."
    )
    BANNED = strawberry.enum_value("BANNED", description="It is not: the pair itself is banned.")


@strawberry.enum(description="What keeps a pair from being evidence.")
class WithheldBy(Enum):
    BAN = strawberry.enum_value("BAN", description="A ban: between the two clusters, or on the pair itself.")
    LIMIT = strawberry.enum_value("LIMIT", description="The limit of a kind: together, the two have too many values.")
    NOTHING = strawberry.enum_value(
        "NOTHING",
        description="Nothing any more: neither a ban nor a limit stands between its clusters. It waits for somebody to"
        " decide, or to come again.",
    )


@strawberry.type(
    description="Two contacts whose clusters are never to be one. Where a cluster was divided, each part has the ban."
)
class Ban:
    seq: strawberry.Private[int]
    history: strawberry.Private[ClusterHistory | None]
    contact_id: ID = strawberry.field(description="The one.")
    other_id: ID = strawberry.field(description="The other.")
    event: ID = strawberry.field(description="The `seq` of the event that banned them.")

    @classmethod
    def from_domain(cls, ban: Row, history: ClusterHistory | None = None) -> Ban:
        """``history``: the log that it is from, which spares a look-up."""
        return cls(seq=ban[2], history=history, contact_id=id_of(ban[0]), other_id=id_of(ban[1]), event=ID(str(ban[2])))

    @strawberry.field(description="The event that banned them: a split, a ban, or an undo.")
    async def decision(self, info: Info) -> Event:
        return Event.from_domain(await self._decision(info))

    @strawberry.field(description="The steward who banned them.")
    async def actor(self, info: Info) -> str | None:
        return (await self._decision(info)).actor

    @strawberry.field(description="Why.")
    async def reason(self, info: Info) -> str | None:
        return (await self._decision(info)).reason

    async def _decision(self, info: Info) -> domain.VerbEvent:
        found = None if self.history is None else self.history.by_seq.get(self.seq)
        found = found or await info.context.events.load(self.seq)
        assert isinstance(found, domain.VerbEvent), "whoever banned them is in the log"
        return found


def _key(node: NodeId) -> str:
    return f"contact:{id_of(node)}" if isinstance(node, int) else explain.key(node)


@strawberry.enum(description="What holds two nodes together.")
class EvidenceKind(Enum):
    PAIR = strawberry.enum_value("PAIR", description="Two identifiers were seen together.")
    LINK = strawberry.enum_value("LINK", description="A steward said that two contacts belong together.")
    CLAIM = strawberry.enum_value("CLAIM", description="A contact brought an identifier.")


@strawberry.type(description="A contact or an identifier: one of the two is set.")
class Node:
    key: str = strawberry.field(
        description='Unique: "contact:5", "email:a@example.com", "customer_id:42"; of an erased value, a token.'
    )
    contact_id: ID | None = strawberry.field(description="The contact.")
    kind: str | None = strawberry.field(description="Of an identifier, its kind.")
    value: str | None = strawberry.field(description="Of an identifier, its value; null if it was erased.")

    @classmethod
    def from_domain(cls, node: NodeId) -> Node:
        if isinstance(node, int):
            return cls(key=_key(node), contact_id=id_of(node), kind=None, value=None)
        shown = Identifier.from_domain(node)
        return cls(key=_key(node), contact_id=None, kind=shown.kind, value=shown.value)


@strawberry.type(description="What holds two nodes of a cluster together.")
class EvidenceEdge:
    kind: EvidenceKind = strawberry.field(description="What it is.")
    source: str = strawberry.field(description="The key of one node: the first of a pair, the contact of a claim.")
    target: str = strawberry.field(description="The key of the other.")
    event: ID | None = strawberry.field(description="The event that said so. Null for what a dry run would write.")


@strawberry.type(description="All that holds a cluster together, to be drawn.")
class Evidence:
    nodes: list[Node] = strawberry.field(description="Its contacts, then its identifiers.")
    edges: list[EvidenceEdge] = strawberry.field(description="What holds them together.")

    @classmethod
    def from_domain(cls, graph: explain.Graph) -> Evidence:
        edges = [
            EvidenceEdge(
                kind=EvidenceKind[edge.kind.name],
                source=_key(edge.source),
                target=_key(edge.target),
                event=None if edge.seq is None else seq_of(edge.seq),
            )
            for edge in graph.edges
        ]
        return cls(nodes=[Node.from_domain(node) for node in graph.nodes], edges=edges)


@strawberry.type(description="A single piece of evidence without which its cluster would fall apart.")
class Bridge:
    entity: strawberry.Private[explain.Bridge]
    kind: EvidenceKind = strawberry.field(description="PAIR or LINK.")
    source: Node = strawberry.field(description="One end.")
    target: Node = strawberry.field(description="The other end.")
    event: Event | None = strawberry.field(description="The event that brought it.")
    part_sizes: list[int] = strawberry.field(description="The contacts in the parts; that with the primary first.")

    @classmethod
    def from_domain(cls, bridge: explain.Bridge, history: ClusterHistory) -> Bridge:
        beyond = bridge.end - bridge.first
        return cls(
            entity=bridge,
            kind=EvidenceKind[bridge.kind.name],
            source=Node.from_domain(bridge.source),
            target=Node.from_domain(bridge.target),
            event=Event.from_domain(bridge.event, history) if bridge.event else None,
            part_sizes=[len(bridge.walk) - beyond, beyond],
        )

    @strawberry.field(description="The contacts of the parts; that with the primary first.")
    def parts(self, info: Info) -> list[list[ID]]:
        info.context.charge(len(self.entity.walk))
        return [[id_of(contact_id) for contact_id in part] for part in self.entity.parts]


@strawberry.type(description="One step of an explanation.")
class Step:
    kind: EvidenceKind = strawberry.field(description="What it goes by; CLAIM between a contact and an identifier.")
    source: Node = strawberry.field(description="From here ...")
    target: Node = strawberry.field(description="... to here.")
    event: Event | None = strawberry.field(description="The event that brought it.")
    words: str = strawberry.field(description="For people.")

    @classmethod
    def from_domain(cls, step: explain.Step, history: ClusterHistory) -> Step:
        kind = EvidenceKind.CLAIM if step.kind is explain.StepKind.CONTACT else EvidenceKind[step.kind.name]
        return cls(
            kind=kind,
            source=Node.from_domain(step.source),
            target=Node.from_domain(step.target),
            event=Event.from_domain(step.event, history) if step.event else None,
            words=sentences.step(step),
        )


@strawberry.type(description="Why two contacts or identifiers are one customer, or why they are not.")
class Explanation:
    connected: bool = strawberry.field(description="Whether they are one customer.")
    steps: list[Step] = strawberry.field(description="The shortest chain of evidence between them; else empty.")
    words: list[str] = strawberry.field(description="The same for people, a sentence for every step.")
    bans: list[Ban] = strawberry.field(description="Where they are not connected: the bans between them.")
    undone: list[Event] = strawberry.field(description="Where they are not connected: what linked them and was undone.")
    waiting: int = strawberry.field(
        description="Where they are not connected: how many pairs are withheld, by a ban or a limit, or waiting for a"
        " decision."
    )

    @classmethod
    def from_domain(cls, explained: explain.Explanation) -> Explanation:
        chain, between, history = explained.chain, explained.between, explained.history
        return cls(
            connected=chain is not None,
            steps=[] if chain is None else [Step.from_domain(step, history) for step in chain.steps],
            words=sentences.explanation(explained),
            bans=[Ban.from_domain(ban, history) for ban in between.bans],
            undone=[Event.from_domain(event, history) for event in between.undone],
            waiting=len(between.withheld),
        )
