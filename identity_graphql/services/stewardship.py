"""What a data steward can do: see what a verb would change, do it, and take it back."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain import erasure, history, undo, verbs
from identity_graphql.domain.changes import Changes, touched
from identity_graphql.domain.contacts import PROVISIONAL, Cluster
from identity_graphql.domain.erasure import ERASED, Tokens, is_token
from identity_graphql.domain.events import Event, EventKind, Outcome
from identity_graphql.domain.identifiers import Identifier, IdentifierKind, Normalisation, is_readable
from identity_graphql.domain.reconcile import TICK, Swap
from identity_graphql.domain.replay import replay
from identity_graphql.domain.state import Bond, Pair, State, bond, ends
from identity_graphql.errors import Conflict, IdentityError, InvalidInput, NotFound, Problem, Refused
from identity_graphql.observability import log, request_id
from identity_graphql.services.retry import Deadline
from identity_graphql.storage import Storage
from identity_graphql.storage.log_session import LogSession
from identity_graphql.storage.verb_writes import Record

T = TypeVar("T")

LARGEST_ID = 2**63 - 1
LONGEST_ACTOR = 254
LONGEST_REASON = 2_000

Subject = int | Identifier
"""A contact, or an identifier: then the contact that claims it is meant."""


class Command(Struct, frozen=True):
    """Who asks for something, why, and what he has seen.

    ``expected_version``: of the cluster that the verb names first (of a deleted contact, of its own row);
    ``expected_other_version``: of the one that it names second. With ``dry_run`` nothing is written.
    """

    actor: str
    reason: str
    expected_version: int | None = None
    expected_other_version: int | None = None
    dry_run: bool = False


class VerbResult(Struct, frozen=True):
    """What a verb changed, or would change."""

    event: Event
    before: State
    after: State
    changes: Changes
    expected_version: int
    """what the command had to expect: of the cluster that the verb names first"""
    expected_other_version: int | None
    clusters: tuple[Cluster, ...]
    """those that changed, as they are afterwards"""
    waiting: tuple[Pair, ...] = ()
    """pairs that the ban which was lifted had kept back"""
    dry_run: bool = False
    events: Sequence[Event] = ()
    """the log that it was decided from"""


class ResolvedVerb(Struct, frozen=True):
    """A verb as it was worked out for the log at hand."""

    verb: verbs.Verb
    subject: int
    other: int | None = None
    about: tuple[int, ...] = ()


class StewardService:
    """A steward's verbs. Each is one transaction, and an event of the log with its actor and reason.

    They raise InvalidInput, NotFound, Refused (another version than expected, a ban in the way) and Busy, and then
    nothing has changed.
    """

    def __init__(self, storage: Storage, normalisation: Normalisation, *, timeout: float = 10.0) -> None:
        self._storage = storage
        self._normalisation = normalisation
        self._deadline = Deadline(timeout, storage.outage)

    async def close(self) -> None:
        """Finish what is in flight. The storage may be closed afterwards."""
        await self._deadline.close()

    async def merge_clusters(self, one: int, other: int, command: Command) -> VerbResult:
        """Make one cluster of two contacts' clusters, whatever the evidence says."""
        case = ResolvedVerb(verbs.MergeClusters(one, other), subject=one, other=other)
        return await self._do([one, other], command, lambda state, events: case)

    async def split_cluster(
        self, contact_ids: Sequence[int], command: Command, *, identifiers: Sequence[Identifier] = (), ban: bool = True
    ) -> VerbResult:
        """Take contacts out of their cluster: they become one of their own. See `verbs.SplitCluster`."""
        if not contact_ids:
            raise InvalidInput(Problem("contactIds", "contactIds must name at least one contact."))
        ids = tuple(sorted(set(contact_ids)))
        verb = verbs.SplitCluster(ids, tuple(sorted(set(identifiers))), ban)
        return await self._do(ids, command, lambda state, events: ResolvedVerb(verb, subject=ids[0], about=ids))

    async def undo(self, seq: int, command: Command, *, then_ban: bool = False) -> VerbResult:
        """Take one event back: the state as if it had never come, later requests kept and judged again."""
        _refuse_impossible([seq], "event")
        event = await self._deadline.retrying(lambda: self._storage.event(seq))
        if event is None:
            raise NotFound(f"There is no event {seq}.")
        if event.kind is EventKind.ERASE:
            raise InvalidInput(Problem("event", "An erasure cannot be undone: what it erased is nowhere any more."))

        def case(state: State, events: Sequence[Event]) -> ResolvedVerb:
            _expected(state, command, event.primary_id)
            if seq in undo.undone(events):
                raise InvalidInput(Problem("event", f"Event {seq} is undone already; undo that undo to bring it back."))
            known = next(known for known in events if known.seq == seq)
            pair, contacts = _bannable(known) if then_ban else (None, None)
            return ResolvedVerb(verbs.Undo(seq, pair, contacts), subject=known.primary_id)

        return await self._do([event.primary_id], command, case, by_value=True)

    async def ban_link(self, a: Subject, b: Subject, command: Command) -> VerbResult:
        """Never link these two again. What bridges them later is withheld, and its sender is warned."""
        one, other = await self._contact(a, "a"), await self._contact(b, "b")
        if one == other:
            raise InvalidInput(Problem("b", f"a and b are one contact, {one}: a ban needs two."))
        verb = verbs.BanLink(*bond(one, other))
        return await self._do([one, other], command, lambda state, events: ResolvedVerb(verb, one, other, (one, other)))

    async def unban_link(self, a: Subject, b: Subject, command: Command, *, rejudge: bool = False) -> VerbResult:
        """Lift a ban. With ``rejudge``, the pairs that it kept back are evidence from now on."""
        pair = _pair(a, b)
        if pair is None:
            contacts = [await self._contact(a, "a"), await self._contact(b, "b")]
        else:  # of a banned pair, one may be nobody's
            contacts = [found for end in (a, b) if (found := await self._claimant(end)) is not None]
        known = contacts or await self._deadline.retrying(lambda: self._storage.withheld_by(ends(pair) if pair else ()))
        if not known:
            raise InvalidInput(Problem("root", "There is no ban between these two."))
        one, other = known[0], known[-1]

        def case(state: State, events: Sequence[Event]) -> ResolvedVerb:
            if pair is not None and ((pair in state.withheld and state.withheld[pair].banned) or one == other):
                return ResolvedVerb(verbs.UnbanLink(pair=pair), subject=one, about=tuple(known))
            return ResolvedVerb(verbs.UnbanLink(contacts=bond(one, other), rejudge=rejudge), one, other, (one, other))

        return await self._do(known, command, case, by_value=pair is not None)

    async def delete_contact(self, contact_id: int, command: Command) -> VerbResult:
        """Delete a contact, and the evidence that it brought. Its cluster falls apart if it must."""
        case = ResolvedVerb(verbs.DeleteContact(contact_id), subject=contact_id)
        return await self._do([contact_id], command, lambda state, events: case, by_value=True)

    async def restore_contact(self, contact_id: int, command: Command) -> VerbResult:
        """Bring a deleted contact back, and its evidence as far as no ban forbids."""
        case = ResolvedVerb(verbs.RestoreContact(contact_id), subject=contact_id)
        return await self._do([contact_id], command, lambda state, events: case, by_value=True)

    async def erase_cluster(self, contact_id: int, command: Command) -> VerbResult:
        """Erase all that is known of a customer, what was deleted of it and the log included. It cannot be undone."""

        def wanted(state: State, events: Sequence[Event]) -> tuple[int, set[Identifier], tuple[int, ...]]:
            _expected(state, command, contact_id)
            primary_id = verbs.live(state, contact_id)
            members = state.members[primary_id] | history.departed(events, state.members[primary_id])
            claimed = {identifier for identifier, claimant in state.claims.items() if claimant in members}
            carried = {i for member in members for i in state.carried(state.contacts[member])}
            claimed |= {i for i in carried if i not in state.claims}
            # What is said of them alone, though nobody claims it: it waits for a ban to be lifted.
            waiting = {end for pair in state.withheld for end in ends(pair) if not claimed.isdisjoint(ends(pair))}
            return contact_id, claimed | {i for i in waiting if i not in state.claims}, tuple(sorted(members))

        return await self._erase([contact_id], wanted, command)

    async def erase_identifier(self, identifier: Identifier, command: Command) -> VerbResult:
        """Erase one email or phone number wherever it stands, the log included. It cannot be undone."""
        contacts = await self._deadline.retrying(lambda: self._storage.claimants([identifier]))
        if not contacts:
            contacts = await self._deadline.retrying(lambda: self._storage.named_by([identifier]))
        if not contacts:
            raise NotFound("Nobody has this identifier, and nobody ever had.")

        def wanted(state: State, events: Sequence[Event]) -> tuple[int, set[Identifier], tuple[int, ...]]:
            return state.claims.get(identifier, contacts[0]), {identifier}, ()

        return await self._erase(contacts, wanted, command)

    # -- how

    async def _do(
        self,
        contact_ids: Sequence[int],
        command: Command,
        case: Callable[[State, Sequence[Event]], ResolvedVerb],
        *,
        by_value: bool = False,
    ) -> VerbResult:
        """Read the log, work the verb out, write it; again if somebody else was faster."""
        _check(command)
        _refuse_impossible(contact_ids)

        async def attempt() -> VerbResult:
            async with self._storage.log_session(contact_ids, by_value=by_value, write=not command.dry_run) as session:
                before = replay(session.events)
                for contact_id in contact_ids:
                    if contact_id not in before.contacts:
                        raise NotFound(f"There is no contact {contact_id}.")
                decided = self._decided(case(before, session.events), command, before, session)
                return decided if command.dry_run else await _written(session, decided)

        return await self._retrying(attempt)

    async def _erase(
        self,
        contact_ids: Sequence[int],
        wanted: Callable[[State, Sequence[Event]], tuple[int, set[Identifier], tuple[int, ...]]],
        command: Command,
    ) -> VerbResult:
        _check(command)
        _refuse_impossible(contact_ids)

        async def attempt() -> VerbResult:
            # Who names the values is looked for before the locks, and again behind them among what came since.
            async with self._storage.log_session(contact_ids, by_value=True) as session:
                _, values, _ = wanted(_known(session, contact_ids), session.events)
                seqs, newest = await session.naming(values, after=0)
                naming = await session.events_of(seqs)
            everybody = {*contact_ids, *(event.primary_id for event in naming)}
            async with self._storage.log_session(everybody, by_value=True, write=not command.dry_run) as session:
                plain = _known(session, contact_ids)
                subject, again, whole = wanted(plain, session.events)
                if again != values:
                    raise Conflict("the cluster has other identifiers by now")
                since, _ = await session.naming(values, after=newest)
                # Also those of their own that were not committed yet when a newer one was.
                named = {event.seq: event for event in (*naming, *await session.events_of(since), *session.events)}
                tokens = {identifier: ERASED + secrets.token_hex(8) for identifier in values}
                verb = verbs.Erase(tuple(sorted(Identifier(i.kind, token) for i, token in tokens.items())), whole)
                case = ResolvedVerb(verb, subject=subject, about=(subject, *whole))
                tokenised = [erasure.rewritten(event, tokens) for event in session.events]
                decided = self._decided(case, command, replay(tokenised), session)
                if command.dry_run:
                    return replace(decided, before=plain)
                rewritten = tuple(
                    erasure.rewritten(event, tokens) for event in named.values() if erasure.names(event, values)
                )
                # Its reason may name one, too.
                decided = replace(decided, event=erasure.rewritten(decided.event, tokens), events=tokenised)
                return await _written(session, decided, plain=plain, tokens=tokens, rewritten=rewritten)

        result = await self._retrying(attempt)
        if not result.dry_run:
            await self._truncate_wal(result)
        return result

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

    def _decided(self, case: ResolvedVerb, command: Command, before: State, session: LogSession) -> VerbResult:
        """What the verb changes. Raises what the verb raises, and Refused for another version than expected."""
        expected, expected_other = _expected(before, command, case.subject, case.other)
        at = max([session.now, *(c.changed_at + TICK for c in before.contacts.values() if c.changed_at)])
        after, born = _carried_out(case.verb, before, session.events, at)
        waiting: list[Pair] = []
        if isinstance(case.verb, verbs.UnbanLink) and case.verb.contacts is not None:
            waiting = verbs.waiting_for(before, case.verb.contacts)
        home = after.primary_of(case.subject) if after.is_live(case.subject) else case.subject
        primaries = _count(before, after, at, also=home)
        changes = Changes.between(before, after)
        event = Event(
            at=at,
            kind=case.verb.kind,
            outcome=Outcome.DONE,
            email=None,
            phone_number=None,
            raw={},
            norm=self._normalisation.version,
            contact_id=None,
            primary_id=home,
            demoted=(),
            version_before=before.contacts[home].version if home in before.contacts else 0,
            version_after=after.contacts[home].version,
            request_id=request_id.get(),
            actor=command.actor.strip(),
            reason=command.reason.strip(),
            detail={
                "asked": verbs.document(case.verb),
                "changes": changes.document(),
                "about": sorted({*case.about, case.subject, *([] if case.other is None else [case.other])}),
                **({"born": sorted(map(list, born.items()))} if born else {}),
            },
        )
        return VerbResult(
            event=event,
            before=before,
            after=after,
            changes=changes,
            expected_version=expected,
            expected_other_version=expected_other,
            clusters=tuple(after.cluster(primary_id) for primary_id in sorted(primaries & after.members.keys())),
            waiting=tuple(waiting),
            dry_run=command.dry_run,
            events=session.events,
        )

    async def _contact(self, subject: Subject, field: str) -> int:
        """The contact that is meant."""
        if isinstance(subject, int):
            return subject
        found = await self._claimant(subject)
        if found is None:
            raise InvalidInput(
                Problem(field, f"Nobody has the {subject.kind.value.replace('_', ' ')} given as {field}.")
            )
        return found

    async def _claimant(self, subject: Subject) -> int | None:
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


def _known(session: LogSession, contact_ids: Collection[int]) -> State:
    state = replay(session.events)
    for contact_id in contact_ids:
        if contact_id not in state.contacts:
            raise NotFound(f"There is no contact {contact_id}.")
    return state


def _carried_out(
    verb: verbs.Verb, before: State, events: Sequence[Event], at: datetime
) -> tuple[State, dict[int, int]]:
    """The state after a verb, and the contacts that an undo made: the event that needs one -> the contact."""
    if isinstance(verb, verbs.Undo):
        target, born = undo.counterfactual(events, undo.undone(events, verb.event), undo.born(events))
        after = undo.adopt(before, target, at)
    else:
        after, born = before.copy(), {}
    verb.carry_out(after, at)
    return after, born


def _count(before: State, after: State, at: datetime, *, also: int) -> set[int]:
    """Count the event in the versions of every cluster that changed, in ``after``; the primaries, old and new."""
    primaries = touched(before, after, Changes.between(before, after)) | {also}
    for primary_id in primaries:
        contact, old = after.contacts[primary_id], before.contacts.get(primary_id)
        is_primary = contact.deleted_at is None and contact.linked_id is None
        if old is None:
            version = 1 if is_primary else 0
        else:
            # Never back: who becomes a primary (again) goes on from its former cluster's version.
            home = before.primary_of(primary_id) if old.deleted_at is None else primary_id
            version = max(old.version, before.contacts[home].version if is_primary else 0) + 1
        if version:
            after.put(replace(contact, version=version, changed_at=at))
    return primaries


async def _written(
    session: LogSession,
    result: VerbResult,
    *,
    plain: State | None = None,
    tokens: Tokens | None = None,
    rewritten: tuple[Event, ...] = (),
) -> VerbResult:
    """Write it. ``plain``: the state before an erasure as the tables have it, with values where the log has tokens."""
    before = plain or result.before
    changes = result.changes if plain is None else Changes.between(plain, result.after)
    swaps = [
        Swap(contact.id, contact.version, after.version, after.changed_at or contact.created_at)
        for contact in before.contacts.values()
        for after in (result.after.contacts[contact.id],)
        if after.version != contact.version or contact.id in before.members
    ]
    claims = [
        (kind, value, before.claims.get(Identifier(IdentifierKind(kind), value))) for kind, value, _ in changes.claims
    ]
    erased = [(identifier.kind.value, identifier.value) for identifier in tokens or ()]
    record = await session.write(
        Record(
            event=result.event,
            swaps=tuple(swaps),
            changes=changes,
            contacts={change.id: result.after.contacts[change.id] for change in changes.contacts},
            former=tuple((k, v, c) for k, v, c in claims if c is not None and (k, v) not in erased),
            rewritten=rewritten,
            erased=tuple(erased),
        )
    )
    if not result.changes.created:
        return replace(result, event=record.event)
    after = result.before.copy()
    Changes.read((record.event.detail or {})["changes"]).apply(after, record.event.seq)
    primaries = {cluster.primary.id for cluster in result.clusters if cluster.primary.id < PROVISIONAL}
    primaries |= {contact.linked_id or contact.id for contact in record.changes.created}
    clusters = tuple(after.cluster(primary_id) for primary_id in sorted(primaries & after.members.keys()))
    return replace(result, event=record.event, changes=record.changes, after=after, clusters=clusters)


def _version(state: State, contact_id: int) -> int:
    """The version that a command must expect: of the contact's cluster; of its own row if it is deleted."""
    if contact_id not in state.contacts:
        raise NotFound(f"There is no contact {contact_id}.")
    row = state.primary_of(contact_id) if state.is_live(contact_id) else contact_id
    return state.contacts[row].version


def _expected(state: State, command: Command, subject: int, other_subject: int | None = None) -> tuple[int, int | None]:
    """The versions that the command must expect. Raises Refused where it expects others."""
    expected = _version(state, subject)
    expected_other = None if other_subject is None else _version(state, other_subject)
    given = (
        (command.expected_version, expected, "expectedVersion"),
        (command.expected_other_version, expected_other, "expectedOtherVersion"),
    )
    for seen, now, name in given:
        if now is None:
            continue
        if seen is None and not command.dry_run:
            raise InvalidInput(
                Problem(name, f"{name} is needed: the version of the cluster as you saw it. A dry run tells it.")
            )
        if seen is not None and seen != now:
            raise Refused(f"The cluster has changed: {name} is {seen}, its version is {now}. Look again.")
    return expected, expected_other


def _check(command: Command) -> None:
    problems = []
    for name, text, longest in (("actor", command.actor, LONGEST_ACTOR), ("reason", command.reason, LONGEST_REASON)):
        if not is_readable(text):
            problems.append(Problem(name, f"{name} must be readable text: the log keeps who did it, and why."))
        elif len(text) > longest:
            problems.append(Problem(name, f"{name} must have at most {longest} characters."))
    if problems:
        raise InvalidInput(*problems)


def _pair(a: Subject, b: Subject) -> Pair | None:
    """An email and a phone number, whichever way round; None if it is something else."""
    ends = {end.kind.value: end.value for end in (a, b) if isinstance(end, Identifier)}
    return (ends["email"], ends["phone_number"]) if len(ends) == 2 else None


def _bannable(event: Event) -> tuple[Pair | None, Bond | None]:
    """What can be banned after an event was undone: its pair, or the two contacts that a steward linked."""
    if event.pair is not None:
        if any(map(is_token, event.pair)):
            raise InvalidInput(Problem("thenBan", f"What event {event.seq} linked was erased: nothing can be banned."))
        return event.pair, None
    if event.kind is EventKind.MERGE_CLUSTERS and event.detail is not None:
        asked = event.detail["asked"]
        return None, bond(asked["one"], asked["other"])
    raise InvalidInput(Problem("thenBan", f"Event {event.seq} linked nothing that could be banned."))
