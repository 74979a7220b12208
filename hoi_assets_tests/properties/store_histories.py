"""A store's history, step by step against a model of it."""

import shutil
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hoi_assets.errors import HoiError
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Store
from hoi_assets_tests.damage import damage

PLACES = (("verifier", None), ("detailed_prompts", "hook"), ("detailed_prompts", "worn"))
Place = tuple[str, str | None]
Version = tuple[Place, int]  # a version is known by what it holds

places = st.sampled_from(PLACES)
numbers = st.integers(0, 3)


def name_of(place: Place) -> str:
    return place[0] if place[1] is None else f"{place[0]}/{place[1]}"


class StoreHistories(RuleBasedStateMachine):
    """Publish, prune, damage, read and verify in any order, by one process after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="hoi-history-"))
        self.store = Store(self.home)
        self.history: dict[Place, list[int]] = {place: [] for place in PLACES}
        self.parents: dict[Version, set[Version]] = {}
        self.names: dict[Version, str] = {}
        self.damaged: set[Version] = set()
        self.pruned: set[Version] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def current(self, place: Place) -> Version | None:
        return (place, self.history[place][-1]) if self.history[place] else None

    @rule(place=places, number=numbers, of=st.none() | places)
    def publish(self, place: Place, number: int, of: Place | None) -> None:
        parent = None if of is None or of == place else self.current(of)
        named = {} if parent is None else {name_of(parent[0]): self.names[parent]}
        with self.store.stage(*place) as staging:
            staging.write_table("rows", pl.DataFrame({"number": [number] * 50}))
            published = self.store.publish(staging, named, "run")
        one = (place, number)
        assert self.names.setdefault(one, published.version) == published.version
        self.history[place].append(number)
        self.parents.setdefault(one, set()).update([] if parent is None else [parent])
        self.damaged.discard(one)
        self.pruned.discard(one)

    @rule(place=places, content=st.binary(max_size=20))
    def stage_and_leave(self, place: Place, content: bytes) -> None:
        with self.store.stage(*place) as staging:
            staging.write_bytes("half", content)

    @rule(place=places, number=numbers)
    def quarantine(self, place: Place, number: int) -> None:
        with self.store.stage(*place) as staging:
            staging.write_table("rows", pl.DataFrame({"number": [number]}))
            self.store.quarantine(staging, {"expectation": "none"})

    @precondition(lambda self: any(self.history.values()))
    @rule(data=st.data())
    def damage_one(self, data: st.DataObject) -> None:
        there = sorted(self.parents.keys() - self.pruned - self.damaged, key=str)
        if there:
            one = data.draw(st.sampled_from(there))
            damage(self.store.version(*one[0], self.names[one]).path / "rows.parquet")
            self.damaged.add(one)

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        kept: set[Version] = set()
        pending = [
            (place, number)
            for place, past in self.history.items()
            for number in list(dict.fromkeys(past[::-1]))[:keep]
        ]
        while pending:
            one = pending.pop()
            if one not in kept:
                kept.add(one)
                # A reference is a version's name, and protects all that bear it.
                named = {self.names[parent] for parent in self.parents[one]}
                pending += [other for other, name in self.names.items() if name in named]
        before = set(prune(self.store, keep, dry_run=True))
        gone = set(prune(self.store, keep))
        assert before == gone
        # Of what was pruned before, only the latest of a place may be counted as kept.
        origins = {parent for one in kept - self.pruned for parent in self.parents[one]}
        lost = origins & self.pruned
        assert not lost, f"{lost} were removed though something kept was made from them"
        wanted = self.parents.keys() - kept - self.pruned
        assert {path.name for path in gone} == {self.names[one] for one in wanted}
        assert len(gone) == len(wanted)
        self.pruned |= wanted
        self.damaged -= self.pruned

    @rule()
    def another_process(self) -> None:
        self.store = Store(self.home)

    @rule(place=places)
    def read(self, place: Place) -> None:
        found, expected = self.store.current(*place), self.current(place)
        assert (found is None) == (expected is None)
        if found is None or expected is None:
            return
        assert found.version == self.names[expected]
        try:
            numbers = set(found.table("rows")["number"])
        except HoiError:
            assert expected in self.damaged
            return
        assert expected not in self.damaged, "damaged content was read"
        assert numbers == {expected[1]}

    @rule()
    def verify(self) -> None:
        for one in self.parents.keys() - self.pruned:
            found = self.store.version(*one[0], self.names[one])
            try:
                found.verify()
            except HoiError:
                assert one in self.damaged
            else:
                assert one not in self.damaged, "damage was not noticed"

    @invariant()
    def history_is_whole(self) -> None:
        for place, past in self.history.items():
            found = [one.version for one in self.store.history(*place)]
            assert found == [self.names[place, number] for number in past]

    @invariant()
    def pruned_versions_say_so(self) -> None:
        for one in self.pruned:
            try:
                self.store.version(*one[0], self.names[one])
            except HoiError as error:
                assert "pruned" in error.what
            else:
                raise AssertionError(f"{one} was pruned and is there")

    @invariant()
    def nothing_is_left_in_staging(self) -> None:
        assert not list(self.store.staging.iterdir())
