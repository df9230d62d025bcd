"""Places: sorted sets whose scores are cells of the earth (`hot/geohash.pyx` says how), and searches around a place."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_float, parse_int
from zeekdb.commands.context import Context
from zeekdb.commands.reply import NULL_ARRAY, NullArray, SpelledDouble
from zeekdb.commands.sorted_sets import NX, XX, add_members, store
from zeekdb.commands.spec import DENYOOM, MOVABLEKEYS, READONLY, WRITE, KeySpec, command, one_key
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot import geohash
from zeekdb.hot.geohash import Shape
from zeekdb.types import ZSet

if TYPE_CHECKING:
    from zeekdb.hot.geohash import Place

READ: Final = one_key("RO", "access")
UNITS_M: Final = {b"M": 1.0, b"KM": 1000.0, b"FT": 0.3048, b"MI": 1609.34}
CH: Final = 32  # as add_members takes it
SEARCH_COST: Final = (
    "O(N+log(M)) where N is the number of elements inside the bounding box of the circular area delimited by center "
    "and radius and M is the number of items inside the index."
)
GRID_COST: Final = (
    "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area around the shape provided as "
    "the filter and M is the number of items inside the shape"
)


# --- arguments and replies ----------------------------------------------------------------------------------------


def parse_place(longitude: bytes, latitude: bytes) -> tuple[float, float]:
    """A place within the limits."""
    place = parse_float(longitude), parse_float(latitude)
    if not geohash.is_valid(*place):
        raise CommandError(f"ERR invalid longitude,latitude pair {place[0]:f},{place[1]:f}")
    return place


def parse_unit(word: bytes) -> float:
    """Metres of a unit."""
    unit = UNITS_M.get(word.upper())
    if unit is None:
        raise CommandError("ERR unsupported unit provided. please use M, KM, FT, MI")
    return unit


def parse_radius(radius: bytes, unit: bytes) -> tuple[float, float]:
    """(radius, metres of its unit)."""
    length = parse_float(radius, "ERR need numeric radius")
    if length < 0:
        raise CommandError("ERR radius cannot be negative")
    return length, parse_unit(unit)


def parse_box(width: bytes, height: bytes, unit: bytes) -> tuple[float, float, float]:
    """(width, height, metres of their unit)."""
    size = parse_float(width, "ERR need numeric width"), parse_float(height, "ERR need numeric height")
    if min(size) < 0:
        raise CommandError("ERR height or width cannot be negative")
    return *size, parse_unit(unit)


def place_of(source: ZSet, member: bytes) -> tuple[float, float]:
    """Where a member lies, for searches around it."""
    score = source.score(member)
    if score is None:
        raise CommandError("ERR could not decode requested zset member")
    return geohash.decode(score)


def format_distance(distance: float) -> bytes:
    """Four digits behind the point, rounded as 7.2 does: after a multiplication, to the even one."""
    scaled = distance * 10000.0
    if not abs(scaled) < 2.0**63:
        return b"%.4f" % distance
    ticks = round(scaled)
    return b"%s%d.%04d" % (b"-" if ticks < 0 else b"", *divmod(abs(ticks), 10000))


def coordinate(degrees: float) -> SpelledDouble:
    """Seventeen digits behind the point, without the zeros at the end."""
    text = (b"%.17f" % degrees).rstrip(b"0").rstrip(b".")
    return SpelledDouble(b"0" if text == b"-0" else text)


def as_int64(score: float) -> int:
    """A score as an integer; whatever none can hold becomes the smallest, as the processor has it."""
    return int(score) if -(2.0**63) <= score < 2.0**63 else -(1 << 63)


# --- places -------------------------------------------------------------------------------------------------------


@command(
    "GEOADD", arity=-5, flags=WRITE | DENYOOM, keys=one_key("RW", "update"), group="geo", since="3.2.0",
    complexity="O(log(N)) for each item added, where N is the number of elements in the sorted set.",
    history=(("6.2.0", "Added the `CH`, `NX` and `XX` options."),),
)  # fmt: skip
def geoadd(ctx: Context, key: bytes, *args: bytes) -> int:
    """Adds members with their places to a sorted set, or moves them, creating the key when it does not exist."""
    options = {b"NX": NX, b"XX": XX, b"CH": CH}
    flags, first = 0, 0
    while first < len(args) and (option := options.get(args[first].upper())):
        flags |= option
        first += 1
    rest = args[first:]
    if not rest or len(rest) % 3 or (flags & NX and flags & XX):
        raise SyntaxError_
    places = [parse_place(*rest[at : at + 2]) for at in range(0, len(rest), 3)]
    scores = [float(geohash.encode(*place)) for place in places]
    added = add_members(ctx, key, scores, rest[2::3], flags)
    assert isinstance(added, int)
    return added


@command(
    "GEODIST", arity=-4, flags=READONLY, keys=READ, group="geo", since="3.2.0", complexity="O(1)",
)  # fmt: skip
def geodist(ctx: Context, key: bytes, one: bytes, other: bytes, *unit: bytes) -> bytes | None:
    """Returns the distance between two members."""
    if len(unit) > 1:
        raise SyntaxError_
    unit_m = parse_unit(unit[0]) if unit else 1.0
    source = ctx.read(key, ZSet)
    scores = [None, None] if source is None else [source.score(one), source.score(other)]
    if scores[0] is None or scores[1] is None:
        return None
    return format_distance(geohash.distance(*geohash.decode(scores[0]), *geohash.decode(scores[1])) / unit_m)


@command(
    "GEOHASH", arity=-2, flags=READONLY, keys=READ, group="geo", since="3.2.0",
    complexity="O(1) for each member requested.",
)  # fmt: skip
def geohash_(ctx: Context, key: bytes, *members: bytes) -> list[bytes | None]:
    """Returns the places of members as geohash strings."""
    source = ctx.read(key, ZSet)
    scores = [None if source is None else source.score(member) for member in members]
    return [None if score is None else geohash.text(score) for score in scores]


@command(
    "GEOPOS", arity=-2, flags=READONLY, keys=READ, group="geo", since="3.2.0",
    complexity="O(1) for each member requested.",
)  # fmt: skip
def geopos(ctx: Context, key: bytes, *members: bytes) -> list[list[SpelledDouble] | NullArray]:
    """Returns the longitude and latitude of members."""
    source = ctx.read(key, ZSet)
    scores = [None if source is None else source.score(member) for member in members]
    return [NULL_ARRAY if score is None else [*map(coordinate, geohash.decode(score))] for score in scores]


# --- searches -----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """What to look for, and what to say about what is found."""

    around: tuple[float, float] | None = None  # longitude, latitude
    from_member: bool = False  # a place was named, by member or by coordinates
    from_place: bool = False
    radius: tuple[float, float] | None = None  # (radius, metres of the unit)
    box: tuple[float, float, float] | None = None  # (width, height, metres of the unit)
    with_distance: bool = False
    with_hash: bool = False
    with_place: bool = False
    count: int = 0  # 0: all
    any: bool = False
    order: bytes = b""  # ASC, DESC; neither: as the cells come
    target: bytes | None = None  # where to store instead of replying
    store_distance: bool = False

    @property
    def unit_m(self) -> float:
        """Metres of the unit that distances are told in."""
        return self.radius[1] if self.radius else self.box[2] if self.box else 1.0

    def shape(self) -> Shape:
        """The place and size together; both are there."""
        assert self.around is not None
        if self.radius:
            return Shape.circle(*self.around, *self.radius)
        assert self.box is not None
        return Shape.box(*self.around, *self.box)

    def take(self, words: tuple[bytes, ...], at: int) -> int:
        """The options that all searches share: how many words the one at `at` is; 0 when it is none of them."""
        word, left = words[at].upper(), len(words) - at
        if word == b"WITHDIST":
            self.with_distance = True
        elif word == b"WITHHASH":
            self.with_hash = True
        elif word == b"WITHCOORD":
            self.with_place = True
        elif word == b"ANY":
            self.any = True
        elif word in (b"ASC", b"DESC"):
            self.order = word
        elif word == b"COUNT" and left > 1:
            self.count = parse_int(words[at + 1])
            if self.count <= 0:
                raise CommandError("ERR COUNT must be > 0")
            return 2
        else:
            return 0
        return 1

    def take_target(self, words: tuple[bytes, ...], at: int) -> int:
        """GEORADIUS's STORE and STOREDIST."""
        word, left = words[at].upper(), len(words) - at
        if word not in (b"STORE", b"STOREDIST") or left < 2:
            return 0
        self.target, self.store_distance = words[at + 1], word == b"STOREDIST"
        return 2

    def take_shape(self, words: tuple[bytes, ...], at: int, source: ZSet | None) -> int:
        """GEOSEARCH's options that say where to look."""
        word, left = words[at].upper(), len(words) - at
        if word == b"FROMMEMBER" and left > 1 and not self.from_place:
            if source is not None:
                self.around = place_of(source, words[at + 1])
            self.from_member = True
            return 2
        if word == b"FROMLONLAT" and left > 2 and not self.from_member:
            self.around = parse_place(words[at + 1], words[at + 2])
            self.from_place = True
            return 3
        if word == b"BYRADIUS" and left > 2 and not self.box:
            self.radius = parse_radius(words[at + 1], words[at + 2])
            return 3
        if word == b"BYBOX" and left > 3 and not self.radius:
            self.box = parse_box(words[at + 1], words[at + 2], words[at + 3])
            return 4
        return 0

    def check(self, storing: str) -> None:
        """Options that exclude or need each other."""
        if self.target is not None and (self.with_distance or self.with_hash or self.with_place):
            raise CommandError(f"ERR {storing} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")

    def check_count(self) -> None:
        """ANY without COUNT."""
        if self.any and not self.count:
            raise CommandError("ERR the ANY argument requires COUNT argument")


_distance = itemgetter(0)


def find(ctx: Context, source: ZSet | None, search: Search, event: str) -> Any:
    """Search, and reply or store what was found."""
    if source is None:
        if search.target is None:
            return []
        ctx.remove(search.target)
        return 0
    order = search.order or (b"ASC" if search.count and not search.any else b"")  # the nearest, where few are wanted
    places = geohash.search(source, search.shape(), search.count if search.any else 0)
    if order and 0 < search.count < len(places) // 4:  # the same as sorting, in less time
        pick = heapq.nlargest if order == b"DESC" else heapq.nsmallest
        places = pick(search.count, places, key=_distance)
    elif order:
        places.sort(key=_distance, reverse=order == b"DESC")
    if search.count:
        del places[search.count :]
    if search.target is None:
        return [describe(place, search) for place in places]
    unit_m = search.unit_m
    pairs = [(place[1], place[0] / unit_m if search.store_distance else place[2]) for place in places]
    return store(ctx, search.target, pairs, event)


def describe(place: Place, search: Search) -> bytes | list[Any]:
    """A member, and beside it what was asked for."""
    distance, member, score = place
    if not (search.with_distance or search.with_hash or search.with_place):
        return member
    described: list[Any] = [member]
    if search.with_distance:
        described.append(format_distance(distance / search.unit_m))
    if search.with_hash:
        described.append(as_int64(score))
    if search.with_place:
        described.append([*map(coordinate, geohash.decode(score))])
    return described


def _around(ctx: Context, source: ZSet | None, search: Search, words: tuple[bytes, ...], may_store: bool) -> Any:
    """GEORADIUS and its kin, once it is clear around what."""
    at = 0
    while at < len(words):
        taken = search.take(words, at) or (may_store and search.take_target(words, at))
        if not taken:
            raise SyntaxError_
        at += taken
    search.check("STORE option in GEORADIUS")
    search.check_count()
    return find(ctx, source, search, "georadiusstore")


def _radius(ctx: Context, key: bytes, args: tuple[bytes, ...], may_store: bool) -> Any:
    source = ctx.read(key, ZSet)
    search = Search(around=parse_place(args[0], args[1]), radius=parse_radius(args[2], args[3]))
    return _around(ctx, source, search, args[4:], may_store)


def _radius_by_member(ctx: Context, key: bytes, args: tuple[bytes, ...], may_store: bool) -> Any:
    source = ctx.read(key, ZSet)
    search = Search()
    if source is not None:  # without, the rest is read all the same: STORE decides what the reply is
        search = Search(around=place_of(source, args[0]), radius=parse_radius(args[1], args[2]))
    return _around(ctx, source, search, args[3:], may_store)


def _stores(start: int) -> tuple[KeySpec, ...]:
    """GEORADIUS's keys: the source, and what STORE or STOREDIST names."""
    return (
        *READ,
        KeySpec(("OW", "update"), keyword="STORE", start_from=start),
        KeySpec(("OW", "update"), keyword="STOREDIST", start_from=start),
    )


RADIUS_HISTORY: Final = (
    ("6.2.0", "Added the `ANY` option for `COUNT`."),
    ("7.0.0", "Added support for uppercase unit names."),
)


@command(
    "GEORADIUS", arity=-6, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=_stores(6), group="geo", since="3.2.0",
    complexity=SEARCH_COST, history=RADIUS_HISTORY, doc_flags=("deprecated",), deprecated_since="6.2.0",
    replaced_by="`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument",
)  # fmt: skip
def georadius(ctx: Context, key: bytes, *args: bytes) -> Any:
    """Searches members within a distance of a place, and may store them."""
    return _radius(ctx, key, args, True)


@command(
    "GEORADIUS_RO", arity=-6, flags=READONLY, keys=READ, group="geo", since="3.2.10", complexity=SEARCH_COST,
    history=RADIUS_HISTORY, doc_flags=("deprecated",), deprecated_since="6.2.0",
    replaced_by="`GEOSEARCH` with the `BYRADIUS` argument",
)  # fmt: skip
def georadius_ro(ctx: Context, key: bytes, *args: bytes) -> Any:
    """Searches members within a distance of a place."""
    return _radius(ctx, key, args, False)


@command(
    "GEORADIUSBYMEMBER", arity=-5, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=_stores(5), group="geo", since="3.2.0",
    complexity=SEARCH_COST, history=RADIUS_HISTORY, doc_flags=("deprecated",), deprecated_since="6.2.0",
    replaced_by="`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
)  # fmt: skip
def georadiusbymember(ctx: Context, key: bytes, *args: bytes) -> Any:
    """Searches members within a distance of another member, and may store them."""
    return _radius_by_member(ctx, key, args, True)


@command(
    "GEORADIUSBYMEMBER_RO", arity=-5, flags=READONLY, keys=READ, group="geo", since="3.2.10", complexity=SEARCH_COST,
    history=RADIUS_HISTORY, doc_flags=("deprecated",), deprecated_since="6.2.0",
    replaced_by="`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments",
)  # fmt: skip
def georadiusbymember_ro(ctx: Context, key: bytes, *args: bytes) -> Any:
    """Searches members within a distance of another member."""
    return _radius_by_member(ctx, key, args, False)


def _search(ctx: Context, key: bytes, words: tuple[bytes, ...], target: bytes | None) -> Any:
    source = ctx.read(key, ZSet)
    search = Search(target=target)
    name = "geosearch" if target is None else "geosearchstore"
    at = 0
    while at < len(words):
        taken = search.take(words, at) or search.take_shape(words, at, source)
        if not taken and target is not None and words[at].upper() == b"STOREDIST":
            search.store_distance = True
            taken = 1
        if not taken:
            raise SyntaxError_
        at += taken
    search.check("GEOSEARCHSTORE")
    if not (search.from_member or search.from_place):
        raise CommandError(f"ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}")
    if not (search.radius or search.box):
        raise CommandError(f"ERR exactly one of BYRADIUS and BYBOX can be specified for {name}")
    search.check_count()
    return find(ctx, source, search, "geosearchstore")


@command(
    "GEOSEARCH", arity=-7, flags=READONLY, keys=READ, group="geo", since="6.2.0", complexity=GRID_COST,
    history=(("7.0.0", "Added support for uppercase unit names."),),
)  # fmt: skip
def geosearch(ctx: Context, key: bytes, *words: bytes) -> Any:
    """Searches members inside a circle or a box."""
    return _search(ctx, key, words, None)


@command(
    "GEOSEARCHSTORE", arity=-8, flags=WRITE | DENYOOM,
    keys=(KeySpec(("OW", "update"), index=1), KeySpec(("RO", "access"), index=2)), group="geo", since="6.2.0",
    complexity=GRID_COST, history=(("7.0.0", "Added support for uppercase unit names."),),
)  # fmt: skip
def geosearchstore(ctx: Context, target: bytes, key: bytes, *words: bytes) -> int:
    """Stores the members inside a circle or a box, with their places or distances as scores."""
    stored = _search(ctx, key, words, target)
    assert isinstance(stored, int)
    return stored
