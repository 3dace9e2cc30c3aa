"""What a data steward can do: see what a verb would change, do it, and take it back."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence

from msgspec import Struct

from identity_graphql.domain import bans, history, undo, verbs
from identity_graphql.domain.contacts import LARGEST_ID, no_contact
from identity_graphql.domain.decide import Command, ResolvedVerb, VerbResult, decide, decide_erasure, expected_versions
from identity_graphql.domain.erasure import ERASED, is_token
from identity_graphql.domain.events import Event, EventKind, IdentifyEvent, VerbEvent
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier, Normalisation, is_readable, pairs_of
from identity_graphql.domain.kinds import Kinds
from identity_graphql.domain.state import Bond, Node, Pair, bond
from identity_graphql.domain.undo import RuleSets
from identity_graphql.errors import Conflict, IdentityError, InvalidInput, NotFound, Problem
from identity_graphql.observability import log, request_id
from identity_graphql.services.retry import Deadline
from identity_graphql.storage import Storage
from identity_graphql.storage.event_log import LogSearch
from identity_graphql.storage.log_session import LogSession, Place

LONGEST_ACTOR = 254
LONGEST_REASON = 2_000

Resolve = Callable[[ClusterHistory], ResolvedVerb]
Find = Callable[[], Awaitable[Collection[int]]]


class _Wanted(Struct, frozen=True):
    """What an erasure is to erase, for the log at hand: identifiers, and contacts as a whole."""

    subject: int
    identifiers: frozenset[Identifier]
    contact_ids: tuple[int, ...] = ()


class StewardService:
    """A steward's verbs. Each is one transaction, and an event of the log with its actor and reason.

    They raise InvalidInput, NotFound, Outdated (another version than expected), Refused (a ban in the way, other
    evidence) and Busy, and then nothing has changed.
    """

    def __init__(self, storage: Storage, normalisation: Normalisation, *, timeout: float = 10.0) -> None:
        self._storage = storage
        self._normalisation = normalisation
        self._deadline = Deadline(timeout, storage.outage)
        self._rule_sets: RuleSets = {}
        self._rule_sets_are_stale = False

    async def close(self) -> None:
        """Finish what is in flight. The storage may be closed afterwards."""
        await self._deadline.close()

    async def merge_clusters(self, one: int, other: int, command: Command) -> VerbResult:
        """Make one cluster of two contacts' clusters, whatever the evidence says."""
        resolved = ResolvedVerb(verbs.MergeClusters(one, other), subject=one, other=other)
        return await self._do([one, other], command, lambda known: resolved)

    async def split_cluster(
        self, contact_ids: Sequence[int], command: Command, *, identifiers: Sequence[Identifier] = (), ban: bool = True
    ) -> VerbResult:
        """Take contacts out of their cluster: they become one of their own. See `verbs.SplitCluster`."""
        if not contact_ids:
            raise InvalidInput(Problem("contact_ids", "contact_ids must name at least one contact."))
        ids = tuple(sorted(set(contact_ids)))
        verb = verbs.SplitCluster(ids, tuple(sorted(set(identifiers))), ban)
        return await self._do(ids, command, lambda known: ResolvedVerb(verb, subject=ids[0], about=ids))

    async def undo(self, seq: int, command: Command, *, then_ban: bool = False) -> VerbResult:
        """Take one event back: the state as if it had never come, later requests kept and judged again."""
        _refuse_impossible([seq], "event")
        event = await self._deadline.retrying(lambda: self._storage.event(seq))
        if event is None:
            raise NotFound(f"There is no event {seq}.")
        if event.kind is EventKind.ERASE:
            raise InvalidInput(Problem("event", "An erasure cannot be undone: what it erased is nowhere any more."))

        def resolve(known: ClusterHistory) -> ResolvedVerb:
            expected_versions(known.state, command, event.primary_id)
            if seq in undo.undone(known.events):
                raise InvalidInput(Problem("event", f"Event {seq} is undone already; undo that undo to bring it back."))
            undone = known.by_seq[seq]
            pairs, contacts = _bannable(undone) if then_ban else ((), None)
            return ResolvedVerb(verbs.Undo(seq, pairs, contacts), subject=undone.primary_id)

        async def find() -> Collection[int]:
            if isinstance(event, VerbEvent) and isinstance(event.verb, verbs.BlockIdentifier | verbs.UnblockIdentifier):
                return {event.primary_id, *await self._lineages(event.verb.identifier)}
            return [event.primary_id]

        return await self._do((), command, resolve, by_value=True, find=find)

    async def ban_link(self, a: Node, b: Node, command: Command) -> VerbResult:
        """Never link these two customers again. What bridges them later is withheld, and its sender is warned."""
        one, other = await self._contact(a, "a"), await self._contact(b, "b")
        if one == other:
            raise InvalidInput(Problem("b", f"a and b are one contact, {one}: a ban needs two."))
        verb = verbs.BanLink(*bond(one, other))
        return await self._do([one, other], command, lambda known: ResolvedVerb(verb, one, other, (one, other)))

    async def unban_link(self, a: Node, b: Node, command: Command, *, rejudge: bool = False) -> VerbResult:
        """Lift all bans between two customers. With ``rejudge``, what they kept back is evidence from now on."""
        pair = _pair(a, b)
        if pair is None:
            contacts = [await self._contact(a, "a"), await self._contact(b, "b")]
        else:  # of a banned pair, one may be nobody's
            contacts = [found for end in (a, b) if (found := await self._claimant(end)) is not None]
        known = contacts or await self._deadline.retrying(lambda: self._storage.withheld_by(pair or ()))
        if not known:
            raise InvalidInput(Problem("root", "There is no ban between these two."))
        one, other = known[0], known[-1]

        def resolve(found: ClusterHistory) -> ResolvedVerb:
            if pair is not None and (len(contacts) < 2 or not bans.between(found.state, (one, other))):
                return ResolvedVerb(verbs.UnbanLink(pair=pair), subject=one, about=tuple(known))
            return ResolvedVerb(verbs.UnbanLink(contacts=bond(one, other), rejudge=rejudge), one, other, (one, other))

        # Bans on pairs between them may be of events that another customer had.
        return await self._do(known, command, resolve, by_value=True)

    async def accept_withheld(self, pair: Pair, command: Command) -> VerbResult:
        """Count a pair that is kept back as evidence, in spite of the limit or the ban."""
        return await self._decide_withheld(verbs.AcceptWithheld(pair), pair, command)

    async def reject_withheld(self, pair: Pair, command: Command) -> VerbResult:
        """Ban a pair that is kept back for good, and its two customers from each other: it leaves the queue."""
        return await self._decide_withheld(verbs.RejectWithheld(pair), pair, command)

    async def _decide_withheld(self, verb: verbs.Verb, pair: Pair, command: Command) -> VerbResult:
        contacts = [found for end in pair if (found := await self._claimant(end)) is not None]
        known = contacts or await self._deadline.retrying(lambda: self._storage.withheld_by(pair))
        if not known:
            raise verbs.not_withheld()

        def resolve(found: ClusterHistory) -> ResolvedVerb:
            kept = found.state.withheld.get(pair)
            if kept is None or (kept.banned and isinstance(verb, verbs.RejectWithheld)):
                raise verbs.not_withheld()
            one, other = known[0], known[-1]
            two = len(contacts) == 2 and bool(bans.between(found.state, (one, other)))
            return ResolvedVerb(verb, one, other if two else None, tuple(known))

        return await self._do(known, command, resolve, by_value=True)

    async def delete_contact(self, contact_id: int, command: Command) -> VerbResult:
        """Delete a contact, and the evidence that it brought. Its cluster falls apart if it must."""
        resolved = ResolvedVerb(verbs.DeleteContact(contact_id), subject=contact_id)
        return await self._do([contact_id], command, lambda known: resolved, by_value=True)

    async def restore_contact(self, contact_id: int, command: Command) -> VerbResult:
        """Bring a deleted contact back, and its evidence as far as no ban forbids."""
        resolved = ResolvedVerb(verbs.RestoreContact(contact_id), subject=contact_id)
        return await self._do([contact_id], command, lambda known: resolved, by_value=True)

    async def erase_cluster(self, contact_id: int, command: Command) -> VerbResult:
        """Erase all that is known of a customer, what was deleted of it and the log included. It cannot be undone."""

        def wanted(known: ClusterHistory) -> _Wanted:
            state = known.state
            expected_versions(state, command, contact_id)
            primary_id = verbs.live(state, contact_id)
            members = state.members[primary_id] | history.departed(known.events, state.members[primary_id])
            claimed = {identifier for identifier, claimant in state.claims.items() if claimant in members}
            carried = {i for member in members for i in state.contacts[member].carried}
            claimed |= {i for i in carried if i not in state.claims}
            # What is said of them alone, though nobody claims it: it waits for a ban to be lifted.
            waiting = {end for pair in state.withheld for end in pair if not claimed.isdisjoint(pair)}
            claimed |= {identifier for identifier in waiting if identifier not in state.claims}
            return _Wanted(contact_id, frozenset(claimed), tuple(sorted(members)))

        return await self._erase([contact_id], wanted, command)

    async def erase_identifier(self, identifier: Identifier, command: Command) -> VerbResult:
        """Erase one email or phone number wherever it stands, the log included. It cannot be undone."""
        contacts = await self._deadline.retrying(lambda: self._storage.claimants([identifier]))
        if not contacts:
            contacts = await self._deadline.retrying(lambda: self._storage.named_by([identifier]))
        if not contacts:
            raise NotFound("Nobody has this identifier, and nobody ever had.")

        def wanted(known: ClusterHistory) -> _Wanted:
            return _Wanted(known.state.claims.get(identifier, contacts[0]), frozenset({identifier}))

        return await self._erase(contacts, wanted, command)

    async def block_identifier(self, identifier: Identifier, command: Command, *, retract: bool = False) -> VerbResult:
        """From now on an identifier counts as not given. See `verbs.BlockIdentifier`."""
        return await self._about(verbs.BlockIdentifier(identifier, retract), command)

    async def unblock_identifier(self, identifier: Identifier, command: Command) -> VerbResult:
        """From now on an identifier that was blocked counts again."""
        return await self._about(verbs.UnblockIdentifier(identifier), command)

    # -- how

    async def _about(self, verb: verbs.BlockIdentifier | verbs.UnblockIdentifier, command: Command) -> VerbResult:
        """A verb about an identifier, which may be nobody's: then the event's lineage is one that stands for nobody,
        beside those of all who ever had it."""
        identifier = verb.identifier
        nobody = -1 - secrets.randbelow(LARGEST_ID)
        lineages: set[int] = set()

        async def find() -> Collection[int]:
            nonlocal nobody, lineages
            lineages = await self._lineages(identifier)
            nobody = max((lineage for lineage in lineages if lineage < 0), default=nobody)
            return lineages

        def resolve(known: ClusterHistory) -> ResolvedVerb:
            subject = known.state.claims.get(identifier, nobody)
            return ResolvedVerb(verb, subject=subject, about=tuple(sorted(lineages)))

        return await self._do((), command, resolve, find=find)

    async def _lineages(self, identifier: Identifier) -> set[int]:
        """Contacts of all lineages that an identifier is, or ever was, a matter of."""
        blocked = await self._storage.blocked_by(identifier)
        event = None if blocked is None else await self._storage.event(blocked)
        return {
            *await self._storage.claimants([identifier]),
            *await self._storage.withheld_by([identifier]),
            *(() if event is None else (event.primary_id,)),
        }

    async def _do(
        self,
        contact_ids: Sequence[int],
        command: Command,
        resolve: Resolve,
        *,
        by_value: bool = False,
        find: Find | None = None,
    ) -> VerbResult:
        """Find, decide, apply; again if somebody else was faster.

        ``find``: what else it is about, looked up anew each time; numbers below 0 stand for nobody.
        """
        _check(command)
        _refuse_impossible(contact_ids)
        place = None if command.dry_run else Place()

        async def attempt() -> VerbResult:
            await self._read_rule_sets()
            wanted = [*contact_ids, *(() if find is None else await find())]
            async with self._storage.log_session(wanted, by_value=by_value, place=place) as session:
                known = _known(session.events, contact_ids)
                self._check_rule_sets(known)
                result = decide(
                    resolve(known),
                    command,
                    known,
                    session.now,
                    norm=self._normalisation.version,
                    request_id=request_id.get(),
                    rules=self._rule_sets,
                )
                return result if command.dry_run else await session.write(result)

        return await self._retrying(attempt)

    async def _read_rule_sets(self) -> None:
        """Read the kinds under which events were decided: only where there are events of which they are not known."""
        if self._rule_sets_are_stale:
            documents = await self._storage.rule_sets()
            self._rule_sets = {norm: Kinds.parse(document) for norm, document in documents.items()}
            self._rule_sets_are_stale = False

    def _check_rule_sets(self, known: ClusterHistory) -> None:
        """Raises Conflict, and the next attempt reads them, where events were decided under kinds not known yet."""
        if any("." in event.norm and event.norm not in self._rule_sets for event in known.events):
            self._rule_sets_are_stale = True
            raise Conflict("events that were decided under rules not read yet")

    async def _erase(
        self, contact_ids: Sequence[int], wanted: Callable[[ClusterHistory], _Wanted], command: Command
    ) -> VerbResult:
        _check(command)
        _refuse_impossible([contact_id for contact_id in contact_ids if contact_id >= 0])
        place: Place | None = None
        search = LogSearch()

        async def attempt() -> VerbResult:
            nonlocal place
            if place is None and not command.dry_run:
                # The whole log is searched before the locks, and behind them only what came since.
                async with self._storage.log_session(contact_ids, by_value=True) as session:
                    await self._named(session, contact_ids, wanted, search)
                    place = session.place
            everybody = {*contact_ids, *search.clusters}
            async with self._storage.log_session(everybody, by_value=True, place=place) as session:
                known, erased = await self._named(session, contact_ids, wanted, search)
                tokens = {identifier: ERASED + secrets.token_hex(8) for identifier in erased.identifiers}
                verb = verbs.Erase(
                    tuple(sorted(Identifier(i.kind, token) for i, token in tokens.items())), erased.contact_ids
                )
                result = decide_erasure(
                    ResolvedVerb(verb, subject=erased.subject, about=(erased.subject, *erased.contact_ids)),
                    command,
                    known,
                    session.now,
                    tokens=tokens,
                    norm=self._normalisation.version,
                    request_id=request_id.get(),
                )
                return result if command.dry_run else await session.write(result)

        result = await self._retrying(attempt)
        if not result.dry_run:
            await self._truncate_wal(result)
        return result

    async def _named(
        self,
        session: LogSession,
        contact_ids: Sequence[int],
        wanted: Callable[[ClusterHistory], _Wanted],
        search: LogSearch,
    ) -> tuple[ClusterHistory, _Wanted]:
        """Include in the session whoever the log names together with what is to be erased. Returns the history, and
        what is to be erased."""
        while True:
            known = _known(session.events, contact_ids)
            erased = wanted(known)
            await session.search(erased.identifiers, search)
            if session.includes(search.clusters):
                return known, erased
            await session.include(search.clusters)

    async def _truncate_wal(self, result: VerbResult) -> None:
        try:
            done = await self._deadline.retrying(self._storage.truncate_wal)
        except (IdentityError, Conflict):
            done = False  # what was erased is erased all the same
        if not done:
            log.warning(
                "erasure.left_behind",
                seq=result.event.seq,
                why="somebody was reading the database, so its write-ahead log still has what was erased",
                mend="end long readers and backups, then run PRAGMA wal_checkpoint(TRUNCATE), or restart",
            )

    async def _contact(self, subject: Node, field: str) -> int:
        """The contact that is meant."""
        if isinstance(subject, int):
            return subject
        found = await self._claimant(subject)
        if found is None:
            raise InvalidInput(Problem(field, f"Nobody has the {subject.kind.replace('_', ' ')} given as {field}."))
        return found

    async def _claimant(self, subject: Node) -> int | None:
        if isinstance(subject, int):
            return subject
        found = await self._deadline.retrying(lambda: self._storage.find([subject]))
        for cluster in found.clusters:
            for contact in cluster.contacts:
                if subject in contact.claims:
                    return contact.id
        return None

    async def _retrying(self, attempt: Callable[[], Awaitable[VerbResult]]) -> VerbResult:
        result = await self._deadline.retrying(attempt)
        if not result.dry_run:
            log.info("steward", verb=result.event.kind.value, seq=result.event.seq, cluster=result.event.primary_id)
        return result


def _refuse_impossible(numbers: Collection[int], what: str = "contact") -> None:
    """Raises NotFound for what no database can have given out, nor be asked for."""
    for number in numbers:
        if not 0 < number <= LARGEST_ID:
            raise NotFound(f"There is no {what} {number}.")


def _known(events: Sequence[Event], contact_ids: Collection[int]) -> ClusterHistory:
    known = ClusterHistory.of(events)
    for contact_id in contact_ids:
        if contact_id >= 0 and contact_id not in known.state.contacts:
            raise no_contact(contact_id)
    return known


def _check(command: Command) -> None:
    problems = []
    for name, text, longest in (("actor", command.actor, LONGEST_ACTOR), ("reason", command.reason, LONGEST_REASON)):
        if not is_readable(text):
            problems.append(Problem(name, f"{name} must be readable text: the log keeps who did it, and why."))
        elif len(text) > longest:
            problems.append(Problem(name, f"{name} must have at most {longest} characters."))
    if problems:
        raise InvalidInput(*problems)


def _pair(a: Node, b: Node) -> Pair | None:
    """Two identifiers, whichever way round; None if it is something else."""
    if not (isinstance(a, Identifier) and isinstance(b, Identifier)) or a == b:
        return None
    (pair,) = pairs_of((a, b))
    return pair


def _bannable(event: Event) -> tuple[tuple[Pair, ...], Bond | None]:
    """What can be banned after an event was undone: its pairs, or the two contacts that a steward linked."""
    if isinstance(event, IdentifyEvent) and len(event.identifiers) > 1:
        pairs = pairs_of([identifier for identifier in event.identifiers if not is_token(identifier.value)])
        if not pairs:
            raise InvalidInput(Problem("then_ban", f"What event {event.seq} linked was erased: nothing can be banned."))
        return pairs, None
    if isinstance(event, VerbEvent) and isinstance(event.verb, verbs.AcceptWithheld):
        return (event.verb.pair,), None
    if isinstance(event, VerbEvent) and isinstance(event.verb, verbs.MergeClusters):
        return (), bond(event.verb.one, event.verb.other)
    raise InvalidInput(Problem("then_ban", f"Event {event.seq} linked nothing that could be banned."))
