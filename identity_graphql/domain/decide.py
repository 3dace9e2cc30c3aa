"""What a steward's verb changes: the one decision behind all of them, as `reconcile` is behind requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain import erasure, undo, verbs
from identity_graphql.domain.changes import Changes, touched
from identity_graphql.domain.contacts import PROVISIONAL, Cluster, no_contact
from identity_graphql.domain.counts import counts_in
from identity_graphql.domain.erasure import Tokens, is_token
from identity_graphql.domain.events import Event, VerbEvent
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.reconcile import TICK, CountRow, Swap, differing_counts
from identity_graphql.domain.state import Pair, State
from identity_graphql.domain.undo import NO_RULES, RuleSets
from identity_graphql.errors import InvalidInput, Outdated, Problem


class Command(Struct, frozen=True):
    """Who asks for a verb, why, and what was seen.

    ``expected_version``: of the cluster that the verb names first (of a deleted contact, of its own row);
    ``expected_other_version``: of the one that it names second. With ``dry_run`` nothing is written.
    """

    actor: str
    reason: str
    expected_version: int | None = None
    expected_other_version: int | None = None
    dry_run: bool = False


class ResolvedVerb(Struct, frozen=True):
    """A verb as it was worked out for the log at hand.

    ``subject`` is the contact that it names first, ``other`` the one it names second, ``about`` all that it names.
    """

    verb: verbs.Verb
    subject: int
    other: int | None = None
    about: tuple[int, ...] = ()


class VerbResult(Struct, frozen=True):
    """What a verb changed, or would change: one record for the tables, the log and the answer."""

    event: VerbEvent
    """``event.changes`` is the difference between ``before`` and ``after``, as it stands in the log"""
    history: ClusterHistory
    """the log that it was decided from"""
    after: State
    expected_version: int
    """what the command had to expect: of the cluster that the verb names first"""
    expected_other_version: int | None
    clusters: tuple[Cluster, ...]
    """those that changed, as they are afterwards"""
    waiting: tuple[Pair, ...] = ()
    """pairs that the ban which was lifted had kept back"""
    dry_run: bool = False
    tokens: Tokens = {}
    """of an erasure: what stands in the log in the place of each value from now on"""
    rewritten: tuple[Event, ...] = ()
    """of an erasure: the events that named a value, with its token instead"""

    @property
    def before(self) -> State:
        return self.history.state

    @property
    def changes(self) -> Changes:
        """Every row that changed, as it stands in the log."""
        return self.event.changes

    @property
    def shown_changes(self) -> Changes:
        """Every row that changed, as it may be shown: what was erased by tokens, what would be erased by its value."""
        return self.table_changes if self.dry_run else self.changes

    @property
    def afterwards(self) -> ClusterHistory:
        """The history as it is with this verb."""
        return ClusterHistory([*self.history.events, self.event], self.after)

    @property
    def table_changes(self) -> Changes:
        """The same difference in terms of the tables, which still have the values that the log has tokens for."""
        if not self.tokens:
            return self.changes
        values = {Identifier(identifier.kind, token): identifier.value for identifier, token in self.tokens.items()}
        return erasure.replaced(self.changes, values)

    @property
    def swaps(self) -> tuple[Swap, ...]:
        """Every cluster that was looked at, in id order: it must still be as it was; and its version afterwards."""
        return tuple(
            Swap(contact.id, contact.version, after.version, after.changed_at or contact.created_at)
            for contact in sorted(self.before.contacts.values(), key=lambda contact: contact.id)
            for after in (self.after.contacts[contact.id],)
            if after.version != contact.version or contact.id in self.before.members
        )

    @property
    def counts(self) -> tuple[CountRow, ...]:
        """The counts of the clusters that are large, or no longer are, as far as they changed."""
        before, after = self.before, self.after
        rows: list[CountRow] = []
        for primary_id in sorted(before.members.keys() | after.members.keys()):
            old, new = (counts_in(s, primary_id) if primary_id in s.members else None for s in (before, after))
            rows += differing_counts(primary_id, old, new)
        return tuple(rows)

    @property
    def former_claims(self) -> list[tuple[str, str, int]]:
        """Claims that are no longer: kind, value, contact. Of what is erased, nothing is kept."""
        changed = [identifier for identifier, _ in self.changes.claims]
        return [
            (identifier.kind, identifier.value, self.before.claims[identifier])
            for identifier in changed
            if identifier in self.before.claims and not is_token(identifier.value)
        ]

    def numbered(self, ids: Mapping[int, int], seq: int) -> VerbResult:
        """Returns the result after the database gave out the ids of its new contacts, and the event's number."""
        event = self.event.renumbered(ids, seq)
        if not ids:
            return replace(self, event=event)
        after = self.before.copy()
        event.changes.apply(after, seq)
        primaries = {cluster.primary.id for cluster in self.clusters if cluster.primary.id < PROVISIONAL}
        primaries |= {contact.linked_id or contact.id for contact in event.changes.created}
        clusters = tuple(after.cluster(primary_id) for primary_id in sorted(primaries & after.members.keys()))
        return replace(self, event=event, after=after, clusters=clusters)


def decide(
    resolved: ResolvedVerb,
    command: Command,
    history: ClusterHistory,
    now: datetime,
    *,
    norm: str,
    request_id: str | None = None,
    rules: RuleSets = NO_RULES,
) -> VerbResult:
    """Returns what a verb changes, given the log of everybody it could concern. Writes nothing.

    ``rules``: see `undo.counterfactual`.

    ``now`` is the database's clock; the event is later than the last one of every cluster of the history. Raises what
    the verb raises, and Outdated where the command expects another version.
    """
    before, verb = history.state, resolved.verb
    expected, expected_other = expected_versions(before, command, resolved.subject, resolved.other)
    at = max([now, *(c.changed_at + TICK for c in before.contacts.values() if c.changed_at)])
    after, created_for = _carried_out(verb, history, at, rules)
    verb = verb.settled(after)
    # One that stands for nobody has no row, and no version.
    home = after.primary_of(resolved.subject) if after.is_live(resolved.subject) else resolved.subject
    changes = Changes.between(before, after)
    primaries = touched(before, after, changes) | ({home} & after.contacts.keys())
    changes = _count(before, after, changes, primaries, at)
    waiting: list[Pair] = []
    if isinstance(verb, verbs.UnbanLink) and verb.contacts is not None:
        waiting = verbs.waiting_for(before, verb.contacts)
    named = {resolved.subject, *resolved.about, *([] if resolved.other is None else [resolved.other])}
    event = VerbEvent(
        at=at,
        verb=verb,
        changes=changes,
        about=tuple(sorted(named)),
        actor=command.actor.strip(),
        reason=command.reason.strip(),
        norm=norm,
        primary_id=home,
        version_before=before.contacts[home].version if home in before.contacts else 0,
        version_after=after.contacts[home].version if home in after.contacts else 0,
        request_id=request_id,
        created_for=created_for,
    )
    return VerbResult(
        event=event,
        history=history,
        after=after,
        expected_version=expected,
        expected_other_version=expected_other,
        clusters=tuple(after.cluster(primary_id) for primary_id in sorted(primaries & after.members.keys())),
        waiting=tuple(waiting),
        dry_run=command.dry_run,
    )


def decide_erasure(
    resolved: ResolvedVerb,
    command: Command,
    history: ClusterHistory,
    now: datetime,
    *,
    tokens: Tokens,
    norm: str,
    request_id: str | None = None,
) -> VerbResult:
    """`decide` for an erasure, whose verb has ``tokens`` in the place of the values.

    The history must have every event that names one of the values. That of a dry run's result still has the values, as
    nothing is erased.
    """
    plain = history
    history = ClusterHistory.of([erasure.rewritten(event, tokens) for event in plain.events])
    result = decide(resolved, command, history, now, norm=norm, request_id=request_id)
    if command.dry_run:
        return replace(result, history=plain, tokens=tokens)
    return replace(
        result,
        # Its reason may name one, too.
        event=erasure.rewritten(result.event, tokens),
        tokens=tokens,
        rewritten=tuple(erasure.rewritten(e, tokens) for e in plain.events if erasure.names(e, tokens.keys())),
    )


def expected_versions(state: State, command: Command, subject: int, other: int | None = None) -> tuple[int, int | None]:
    """Returns the versions that a command must expect of the clusters of these contacts.

    Raises NotFound, InvalidInput where it expects none though it is no dry run, and Outdated where it expects others.
    """
    expected = _version(state, subject)
    expected_other = None if other is None else _version(state, other)
    given = (
        (command.expected_version, expected, "expected_version"),
        (command.expected_other_version, expected_other, "expected_other_version"),
    )
    missing = [name for seen, now, name in given if seen is None and now is not None]
    if missing and not command.dry_run:
        text = "is required unless dry_run is true: the version of the cluster as you saw it, which a dry run tells."
        raise InvalidInput(*(Problem(name, f"{name} {text}") for name in missing))
    for seen, now, name in given:
        if seen is not None and now is not None and seen != now:
            raise Outdated(f"The cluster has changed: {name} is {seen}, its version is {now}. Look again.")
    return expected, expected_other


def _version(state: State, contact_id: int) -> int:
    """The version of a contact's cluster; of its own row if it is deleted; 0 of nobody."""
    if contact_id < 0:
        return 0
    if contact_id not in state.contacts:
        raise no_contact(contact_id)
    row = state.primary_of(contact_id) if state.is_live(contact_id) else contact_id
    return state.contacts[row].version


def _carried_out(
    verb: verbs.Verb, history: ClusterHistory, at: datetime, rules: RuleSets
) -> tuple[State, dict[int, int]]:
    """The state after a verb, and the contacts that an undo made: the event that needs one -> the contact."""
    events, before = history.events, history.state
    if isinstance(verb, verbs.Undo):
        without, made = undo.undone(events, verb.event), undo.created_for(events)
        target, created_for = undo.counterfactual(events, without, made, rules)
        after = undo.adopt(before, target, at)
    else:
        after, created_for = before.copy(), {}
    verbs.carry_out(verb, after, at)
    return after, created_for


def _count(before: State, after: State, changes: Changes, primaries: set[int], at: datetime) -> Changes:
    """Count the event in the versions of these clusters, in ``after``; the difference with that."""
    counted = []
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
            counted.append(replace(contact, version=version, changed_at=at))
            after.put(counted[-1])
    return changes.with_contacts(before, counted)
