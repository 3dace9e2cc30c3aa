"""What a data steward can do. Each verb changes a state in place, or refuses and changes nothing.

They are written into the log as they were asked, so that a later undo can judge them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain import bans
from identity_graphql.domain.changes import THIS_EVENT
from identity_graphql.domain.contacts import PROVISIONAL, Contact, called, no_contact
from identity_graphql.domain.identifiers import Identifier, columns_of, pairs_of
from identity_graphql.domain.state import Bond, Pair, State, Withheld, bond
from identity_graphql.errors import InvalidInput, Problem, Refused


class _Verb(Struct, frozen=True, tag_field="verb"):
    @property
    def name(self) -> str:
        """Returns the verb's name, as it stands in the log."""
        return str(self.__struct_config__.tag)

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        """Change the state, as the event of this number. Raises Refused, NotFound or InvalidInput before it does."""
        raise NotImplementedError

    def settled(self, state: State) -> Self:
        """Returns the verb as it stands in the log, after it led to this state."""
        return self

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """Returns the same verb after the database gave out the real ids."""
        return self


class MergeClusters(_Verb, frozen=True, tag="merge_clusters"):
    """Two contacts are one customer, whatever the evidence says."""

    one: int
    other: int

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        here, there = live(state, self.one), live(state, self.other)
        if here == there:
            raise InvalidInput(Problem("root", f"Contacts {self.one} and {self.other} are one cluster already."))
        refuse_if_banned(state, here, there)
        state.links[bond(self.one, self.other)] = seq
        state.join(here, there, at)


class SplitCluster(_Verb, frozen=True, tag="split_cluster"):
    """These contacts are another customer than the rest of their cluster.

    ``identifiers`` are to stand on the other side than they do. What the two sides have in common is no evidence
    any more, and (unless ``ban`` is false) the oldest contacts of both are banned from each other. A side that is
    not connected by evidence of its own is held together by this decision.
    """

    contact_ids: tuple[int, ...]
    identifiers: tuple[Identifier, ...] = ()
    ban: bool = True

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        out = set(self.contact_ids)
        homes = {live(state, contact_id) for contact_id in out}
        if len(homes) != 1:
            raise _split(f"contact_ids must name contacts of one cluster; these are of {len(homes)}.")
        (home,) = homes
        rest = state.members[home] - out
        if not rest:
            raise _split("contact_ids names the whole cluster; leave at least one contact where it is.")
        moves = {identifier: _heir(state, identifier, out, rest) for identifier in self.identifiers}
        claims = {**state.claims, **moves}
        for contact_id in out | rest:
            self._refuse_without_identifier(state, state.contacts[contact_id], claims, out, rest)

        state.claims = claims
        for pair in [pair for pair in state.pairs if _crosses(out, rest, *(claims[end] for end in pair))]:
            del state.pairs[pair]
        for link in [link for link in state.links if _crosses(out, rest, *link)]:
            del state.links[link]
        sides = []
        for side in (rest, out):
            first, *others = (state.oldest(part) for part in state.parts(side))
            state.links.update({bond(first, contact_id): seq for contact_id in others})
            sides.append(state.gather(side, at))
        if self.ban:
            state.bans[bond(*sides)] = seq

    def _refuse_without_identifier(
        self, state: State, contact: Contact, claims: dict[Identifier, int], out: set[int], rest: set[int]
    ) -> None:
        """A contact that claims nothing goes with those who claim what it carries."""
        side, other = (out, rest) if contact.id in out else (rest, out)
        claimants = [claims.get(identifier) for identifier in contact.carried]
        if any(claimant in side for claimant in claimants):
            return
        there = next((claimant for claimant in claimants if claimant in other), None)
        if there is None:
            return  # nobody here has what it carries (`BlockIdentifier`): it goes where it is taken
        raise _split(f"Contact {contact.id} would be left without an identifier: it goes with contact {there}.")


class BanLink(_Verb, frozen=True, tag="ban_link"):
    """The customers of two contacts are never to be one (`bans`)."""

    one: int
    other: int

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        if live(state, self.one) == live(state, self.other):
            raise Refused(f"Contacts {self.one} and {self.other} are one cluster: split it first.")
        if (ban := bond(self.one, self.other)) in state.bans:
            raise InvalidInput(Problem("root", f"Contacts {self.one} and {self.other} are banned from each other."))
        state.bans[ban] = seq


class UnbanLink(_Verb, frozen=True, tag="unban_link"):
    """Lift all bans between the customers of two contacts, or the one on a pair.

    With ``rejudge``, what they withheld counts as evidence now.
    """

    contacts: tuple[int, int] | None = None
    pair: Pair | None = None
    rejudge: bool = False

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        if self.pair is not None:
            if not state.withheld.get(self.pair, Withheld(0)).banned:
                raise InvalidInput(Problem("root", "There is no ban between these identifiers."))
            del state.withheld[self.pair]
            return
        assert self.contacts is not None
        if not self.lift(state, bans.between(state, self.contacts), at):
            a, b = bond(*self.contacts)
            raise InvalidInput(Problem("root", f"There is no ban between the customers of contacts {a} and {b}."))

    def lift(self, state: State, twos: Collection[Bond], at: datetime) -> bool:
        """Lift all bans between any two of these customers; whether there was one."""
        waiting = [pair for pair in bans.waiting(state, twos) if self.rejudge and _by_ban(state, pair)]
        lifted = bans.lift(state, twos)
        for pair in waiting if lifted else ():
            _believe(state, pair, state.withheld[pair].seq, at)
        return lifted


class DeleteContact(_Verb, frozen=True, tag="delete_contact"):
    """A contact is wrong, and so is the evidence that it brought. Its cluster falls apart if it must.

    What it claims goes to the oldest other live contact that carries it, of its cluster if there is one; what nobody
    else carries is nobody's any more, and no evidence.
    """

    contact_id: int

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        contact_id = self.contact_id
        rest = state.members[live(state, contact_id)] - {contact_id}
        contact = state.contacts[contact_id]
        claimed = state.claimed(contact)
        state.put(replace(contact, deleted_at=at, updated_at=at))
        gone = list(pairs_of(contact.carried))
        elsewhere = set()
        for identifier in claimed:
            heir = _pass_on(state, identifier, rest)
            if heir not in rest:
                gone += [pair for pair in state.pairs if identifier in pair]
            if heir is not None and heir not in rest:
                elsewhere.add(state.primary_of(heir))
        for pair in gone:
            if pair in state.pairs:
                state.parked[contact_id, pair] = state.pairs.pop(pair)
        _fall_apart(state, [rest, *(state.members[home] for home in elsewhere)], at)


class RestoreContact(_Verb, frozen=True, tag="restore_contact"):
    """A deleted contact was right after all: its evidence counts again, as far as no ban forbids.

    What it claimed it claims again, unless somebody else does by now: then the two are one cluster.
    """

    contact_id: int

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        contact_id = self.contact_id
        contact = state.contacts.get(contact_id)
        if contact is None:
            raise no_contact(contact_id)
        if contact.deleted_at is None or contact.erased_at or contact.undone_at:
            why = "was erased" if contact.erased_at else "was undone" if contact.undone_at else "is not deleted"
            raise InvalidInput(Problem("id", f"Contact {contact_id} {why}: only a deleted contact can be restored."))
        free = [one for one in contact.carried if one not in state.claims and one not in state.blocked]
        home = None if free else self._home(state, contact)

        state.put(replace(contact, deleted_at=None, linked_id=home, updated_at=at))
        state.claims.update(dict.fromkeys(free, contact_id))
        if home is not None:
            state.gather(state.members[home], at)
        # A steward's decisions come first, then the evidence in its order.
        for link in [link for link in state.links if contact_id in link and all(map(state.is_live, link))]:
            here, there = map(state.primary_of, link)
            if here != there and state.banned(here, there):
                del state.links[link]
            elif here != there:
                state.join(here, there, at)
        parked = [(seq, key) for key, seq in state.parked.items() if key[0] == contact_id]
        for number, key in sorted(parked):
            del state.parked[key]
            pair = key[1]
            missing = next((end for end in pair if end not in state.claims), None)
            if missing is None:
                if pair not in state.pairs:
                    _believe(state, pair, number, at)
            elif waits_with := [c.id for c in state.contacts.values() if missing in c.carried and c.may_return]:
                state.parked[state.oldest(waits_with), pair] = number

    def _home(self, state: State, contact: Contact) -> int | None:
        """Of the clusters that claim what it carries, the first that it is not banned from.

        None where there is none, and something of it is blocked: it is a customer by itself.
        """
        barred: dict[int, Bond] = {}
        for ban in state.bans:
            if contact.id in ban:
                other = ban[1] if contact.id == ban[0] else ban[0]
                if state.is_live(other):
                    barred[state.primary_of(other)] = ban
        claimants = (state.claims.get(identifier) for identifier in contact.carried)
        homes = [state.primary_of(claimant) for claimant in claimants if claimant is not None]
        for home in homes:
            if home not in barred:
                return home
        if len(homes) < len(contact.carried):
            return None
        raise banned(barred[homes[0]])


class Erase(_Verb, frozen=True, tag="erase"):
    """Take identifiers, and whole contacts, out for good. In the log, tokens stand in the place of the values.

    Who loses all that it carries is deleted, and so is who is left with what another cluster has; clusters fall apart
    if they must. Never refused.
    """

    identifiers: tuple[Identifier, ...]
    contact_ids: tuple[int, ...] = ()

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        erased, whole = set(self.identifiers), set(self.contact_ids)
        hit = [c for c in state.contacts.values() if c.id in whole or not erased.isdisjoint(c.carried)]
        homes = {state.primary_of(contact.id) for contact in hit if contact.deleted_at is None}
        homes |= {home for identifier in erased if (home := state.home(identifier)) is not None}
        members = set().union(*(state.members[home] for home in homes))
        for rows in (state.pairs, state.withheld):
            for pair in [pair for pair in rows if not erased.isdisjoint(pair)]:
                del rows[pair]
        for key in [key for key in state.parked if not erased.isdisjoint(key[1])]:
            del state.parked[key]
        for identifier in erased:
            state.claims.pop(identifier, None)
            state.blocked.pop(identifier, None)
        for contact in hit:
            kept = () if contact.id in whole else tuple(i for i in contact.carried if i not in erased)
            email, phone_number, others = columns_of(kept)
            after = replace(
                contact,
                email=email,
                phone_number=phone_number,
                others=others,
                erased_at=contact.erased_at if kept else at,
            )
            if not kept and contact.deleted_at is None:
                after = replace(after, deleted_at=at, updated_at=at)
            state.put(after)
        left = {contact_id for contact_id in members if state.is_live(contact_id)}
        elsewhere = set()
        # Where it is judged again without what came before, the contacts may claim what was another cluster's then.
        for identifier, claimant in list(state.claims.items()):
            if claimant in members and claimant not in left:
                heir = _pass_on(state, identifier, left)
                if heir not in left:
                    for pair in [pair for pair in state.pairs if identifier in pair]:
                        del state.pairs[pair]
                if heir is not None and heir not in left:
                    elsewhere.add(state.primary_of(heir))
        for contact_id in sorted(left):
            contact = state.contacts[contact_id]
            claimants = [state.claims.get(identifier) for identifier in contact.carried]
            # What is blocked may be nobody's: who has nothing else stays.
            if None not in claimants and left.isdisjoint(claimants):
                state.put(replace(contact, deleted_at=at, updated_at=at))
                left.discard(contact_id)
        _fall_apart(state, [left, *(state.members[home] for home in elsewhere)], at)


class AcceptWithheld(_Verb, frozen=True, tag="accept_withheld"):
    """A pair that is kept back is evidence, whatever limit or ban forbids it: its two customers are one.

    Whatever separated the two is lifted. Where one of its identifiers is nobody's, the other's customer gets it by a
    new contact: ``contact_id``, of a verb that was carried out.
    """

    pair: Pair
    contact_id: int | None = None

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        if self.pair not in state.withheld:
            raise not_withheld()
        if not state.blocked.keys().isdisjoint(self.pair):
            raise InvalidInput(Problem("identifiers", "One of these identifiers is blocked: unblock it first."))
        claimants = [state.claims.get(end) for end in self.pair]
        known = [contact_id for contact_id in claimants if contact_id is not None]
        if not known:
            raise InvalidInput(Problem("identifiers", "Nobody has either of these identifiers any more."))
        if len(known) == 2:
            bans.lift(state, bans.between(state, (known[0], known[1])))
        else:
            email, phone_number, others = columns_of(self.pair)
            made = Contact(
                id=self.contact_id or PROVISIONAL + 1,
                email=email,
                phone_number=phone_number,
                linked_id=state.primary_of(known[0]),
                created_at=at,
                updated_at=at,
                others=others,
            )
            state.put(made)
            state.claims.update((end, made.id) for end in self.pair if end not in state.claims)
        state.withheld.pop(self.pair, None)
        _believe(state, self.pair, seq, at)

    def settled(self, state: State) -> Self:
        """With the contact that it made."""
        return replace(self, contact_id=PROVISIONAL + 1) if PROVISIONAL + 1 in state.contacts else self

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """With the real id of the contact that it made."""
        return self if self.contact_id is None else replace(self, contact_id=ids.get(self.contact_id, self.contact_id))


class RejectWithheld(_Verb, frozen=True, tag="reject_withheld"):
    """A pair that is kept back is none: it is banned for good, and so are its two customers from each other.

    What else waited between the two is settled with it.
    """

    pair: Pair

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        settled = {self.pair}
        a, b = (state.claims.get(end) for end in self.pair)
        if a is not None and b is not None and state.primary_of(a) == state.primary_of(b):
            raise Refused("By other evidence, these identifiers are one customer's by now: undo that, or split it.")
        if a is not None and b is not None and (two := bans.between(state, (a, b))):
            settled.update(bans.waiting(state, two))
            if not any(state.banned(*one) for one in two):
                state.bans[bond(a, b)] = seq
        for pair in settled:
            limit_kind = state.withheld[pair].limit_kind if pair in state.withheld else None
            state.withheld[pair] = Withheld(seq, banned=True, limit_kind=limit_kind)


def not_withheld() -> InvalidInput:
    """What is told of a pair that is not in the queue."""
    return InvalidInput(Problem("identifiers", "These two identifiers are not withheld from each other."))


class BlockIdentifier(_Verb, frozen=True, tag="block_identifier"):
    """An identifier says nothing about who somebody is: it counts as not given where a request brings it.

    Whoever has it keeps it, as evidence too. With ``retract`` it is nobody's, and no evidence: clusters that it alone
    held together fall apart. Who has nothing else goes with those of the cluster who have what it carries, if there are
    any.
    """

    identifier: Identifier
    retract: bool = False

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        identifier = self.identifier
        if identifier in state.blocked and not (self.retract and identifier in state.claims):
            raise InvalidInput(Problem("identifier", "The identifier is blocked already."))
        state.blocked[identifier] = seq
        if not self.retract:
            return
        for pair in [pair for pair in state.pairs if identifier in pair]:
            del state.pairs[pair]
        for pair in [pair for pair, kept in state.withheld.items() if identifier in pair and not kept.banned]:
            del state.withheld[pair]
        for key in [key for key in state.parked if identifier in key[1]]:
            del state.parked[key]
        claimant = state.claims.pop(identifier, None)
        if claimant is not None:
            _fall_apart(state, [state.members[state.primary_of(claimant)]], at)


class UnblockIdentifier(_Verb, frozen=True, tag="unblock_identifier"):
    """An identifier counts again from now on."""

    identifier: Identifier

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        if self.identifier not in state.blocked:
            raise InvalidInput(Problem("identifier", "The identifier is not blocked."))
        del state.blocked[self.identifier]


class Undo(_Verb, frozen=True, tag="undo"):
    """An event is taken back: what is left is the state as if it had never come (`undo.counterfactual`).

    Then its ``pairs``, or the two ``contacts`` that it linked, are banned from each other, if they are given.
    """

    event: int
    pairs: tuple[Pair, ...] = ()
    contacts: Bond | None = None

    def carry_out(self, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
        """Only the bans: the rest is not a change of the state, but another way to it.

        Of the identifiers of a pair, the contacts that claim them are banned; where one is nobody's now, the pair
        itself is. Raises Refused where all of them are one cluster all the same.
        """
        if self.contacts is not None:
            _ban_customers(state, *self.contacts, seq)
        for pair, claimants in self._apart(state):
            if claimants is None:
                state.withheld[pair] = Withheld(seq, banned=True)
            else:
                _ban_customers(state, *claimants, seq)
        if self.pairs and not self._apart(state):
            one, other = (state.claims[end] for end in self.pairs[0])
            _ban_customers(state, one, other, seq)  # which says why not

    def settled(self, state: State) -> Self:
        """With those of its pairs alone that keep somebody apart."""
        return self if len(self.pairs) < 2 else replace(self, pairs=tuple(pair for pair, _ in self._apart(state)))

    def _apart(self, state: State) -> list[tuple[Pair, tuple[int, int] | None]]:
        """Its pairs of two customers, one for every two, with the contacts that claim them; None: one is nobody's."""
        found: list[tuple[Pair, tuple[int, int] | None]] = []
        known: set[Bond] = set()
        for pair in self.pairs:
            a, b = (state.claims.get(end) for end in pair)
            if a is None or b is None:
                found.append((pair, None))
                continue
            one, other = bans.customer_of(state, a), bans.customer_of(state, b)
            if one is None or other is None or (one != other and bond(one, other) not in known):
                found.append((pair, (a, b)))
            if one is not None and other is not None:
                known.add(bond(one, other))
        return found


def _ban_customers(state: State, a: int, b: int, seq: int) -> None:
    """Ban the customers of two contacts from each other."""
    if None in (bans.customer_of(state, a), bans.customer_of(state, b)):
        raise InvalidInput(Problem("then_ban", "What it linked is gone for good: nothing can be banned."))
    if state.is_live(a) and state.is_live(b) and state.primary_of(a) == state.primary_of(b):
        both = "two new contacts" if called(a) == called(b) else f"{called(a)} and {called(b)}"
        raise Refused(f"By other evidence, {both} would still be one cluster: undo that too, or split it.")
    state.bans.setdefault(bond(a, b), seq)


Verb = (
    MergeClusters
    | SplitCluster
    | BanLink
    | UnbanLink
    | AcceptWithheld
    | RejectWithheld
    | DeleteContact
    | RestoreContact
    | Erase
    | BlockIdentifier
    | UnblockIdentifier
    | Undo
)


def carry_out(verb: Verb, state: State, at: datetime, seq: int = THIS_EVENT) -> None:
    """Carry a verb out, and keep apart whom bans separate, whoever of them it divides or takes away."""
    apart = [] if isinstance(verb, UnbanLink) else bans.separations(state)
    verb.carry_out(state, at, seq)
    bans.carry_over(apart, state)
    believe_what_is_together(state, at)


def believe_what_is_together(state: State, at: datetime) -> None:
    """Count as evidence what was withheld between two customers who are one by now: it waits for nothing."""
    for pair, withheld in list(state.withheld.items()):
        here, there = map(state.home, pair)
        if here is not None and here == there and not withheld.banned:
            _believe(state, pair, withheld.seq, at)


def live(state: State, contact_id: int) -> int:
    """The primary of a contact. Raises NotFound, and InvalidInput for a deleted one."""
    contact = state.contacts.get(contact_id)
    if contact is None:
        raise no_contact(contact_id)
    if contact.deleted_at is not None:
        raise InvalidInput(Problem("id", f"Contact {contact_id} is deleted."))
    return contact.linked_id or contact_id


def banned(ban: Bond) -> Refused:
    """The refusal that names a ban."""
    return Refused(f"Contacts {ban[0]} and {ban[1]} are banned from each other: lift the ban first.")


def refuse_if_banned(state: State, here: int, there: int) -> None:
    """Raises Refused where a ban stands between two clusters, and names it."""
    if (found := state.banned(here, there)) is not None:
        raise banned(found)


def waiting_for(state: State, ban: Bond) -> list[Pair]:
    """The pairs that wait between the customers of these two contacts, in the order in which they came."""
    return bans.waiting(state, bans.between(state, ban))


def _by_ban(state: State, pair: Pair) -> bool:
    """Whether a ban kept a pair back: lifting one says nothing of a limit."""
    return state.withheld[pair].limit_kind is None


def _believe(state: State, pair: Pair, seq: int, at: datetime) -> None:
    """Count a pair as evidence; withhold it where a ban stands in its way."""
    withheld = state.withheld.get(pair)
    if withheld is not None and withheld.banned:
        return
    here, there = (state.primary_of(state.claims[end]) for end in pair)
    if here != there and (state.banned(here, there) or not state.blocked.keys().isdisjoint(pair)):
        state.withheld.setdefault(pair, Withheld(seq))
        return
    if here != there:
        state.join(here, there, at)
    state.pairs[pair] = seq
    state.withheld.pop(pair, None)


def _pass_on(state: State, identifier: Identifier, among: set[int]) -> int | None:
    """Give an identifier to the oldest live contact that carries it, one of these if there is one; it.

    None: nobody carries it, and it is nobody's any more.
    """
    carriers = [c.id for c in state.contacts.values() if c.deleted_at is None and identifier in c.carried]
    if not carriers:
        del state.claims[identifier]
        return None
    heir = state.oldest([carrier for carrier in carriers if carrier in among] or carriers)
    state.claims[identifier] = heir
    return heir


def _fall_apart(state: State, clusters: Iterable[set[int]], at: datetime) -> None:
    """Make clusters of what is still connected."""
    for part in [part for cluster in clusters for part in state.parts(cluster)]:
        state.gather(part, at)


def _split(message: str) -> InvalidInput:
    return InvalidInput(Problem("contact_ids", message))


def _heir(state: State, identifier: Identifier, out: set[int], rest: set[int]) -> int:
    """Who claims an identifier after it was moved to the other side: the oldest there that carries it."""
    claimant = state.claims.get(identifier)
    if claimant is None or claimant not in out | rest:
        raise InvalidInput(Problem("identifiers", "An identifier to move must be one that the cluster has."))
    carriers = [i for i in (rest if claimant in out else out) if identifier in state.contacts[i].carried]
    if not carriers:
        raise InvalidInput(
            Problem("identifiers", f"No contact of the other side than contact {claimant}'s carries the identifier.")
        )
    return state.oldest(carriers)


def _crosses(out: Iterable[int], rest: Iterable[int], a: int, b: int) -> bool:
    return (a in out and b in rest) or (a in rest and b in out)
