"""Places on the earth as numbers, and the search for those near to one of them.

A place is a cell: longitude and latitude are each cut in half 26 times, which tells 26 bits of either, and the bits
are interleaved, latitude lowest, to one number of 52 bits that a double holds exactly. Places that are close share
leading bits, so a cell of any size is one range of scores in a sorted set. A search takes the cell size at which a
cell and its eight neighbours cover the shape, reads those nine ranges, and measures every place in them. The order of
the nine is the order of an unsorted answer, so it is Redis's.

Sources: G. M. Morton, "A computer oriented geodetic data base" (1966); the haversine formula; for the latitude's limits
(those of the web's Mercator maps), the radius of the earth and the order of cells, Redis's replies.
"""

from libc.math cimport M_PI, asin, cos, fabs, sin, sqrt
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    STEPS_MAX = 26  # halvings of either coordinate
    SCORE_BITS = 52
    TEXT_LENGTH = 11
    NEIGHBOURS = 9
    CHUNK = 1024  # places read at a time

cdef double LONGITUDE_MAX = 180.0
cdef double LATITUDE_MAX = 85.05112878
cdef double EARTH_RADIUS_M = 6372797.560856
cdef double MERCATOR_MAX_M = 20037726.37
cdef const char* ALPHABET = b"0123456789bcdefghjkmnpqrstuvwxyz"

ctypedef struct Cell:
    uint32_t x  # which of 2 ** steps slices of longitude
    uint32_t y  # and of latitude
    int steps

ctypedef struct Bounds:
    double west
    double south
    double east
    double north


# --- cells --------------------------------------------------------------------------------------------------------


cdef uint64_t spread(uint32_t value) noexcept nogil:
    """The bits of a number with a zero above each."""
    cdef uint64_t bits = value
    bits = (bits | bits << 16) & 0x0000FFFF0000FFFFULL
    bits = (bits | bits << 8) & 0x00FF00FF00FF00FFULL
    bits = (bits | bits << 4) & 0x0F0F0F0F0F0F0F0FULL
    bits = (bits | bits << 2) & 0x3333333333333333ULL
    return (bits | bits << 1) & 0x5555555555555555ULL


cdef uint32_t gather(uint64_t bits) noexcept nogil:
    """Every second bit, from the lowest on."""
    bits &= 0x5555555555555555ULL
    bits = (bits | bits >> 1) & 0x3333333333333333ULL
    bits = (bits | bits >> 2) & 0x0F0F0F0F0F0F0F0FULL
    bits = (bits | bits >> 4) & 0x00FF00FF00FF00FFULL
    bits = (bits | bits >> 8) & 0x0000FFFF0000FFFFULL
    return <uint32_t>(bits | bits >> 16)


cdef uint64_t cell_bits(const Cell* cell) noexcept nogil:
    return spread(cell.y) | spread(cell.x) << 1


cdef Cell cell_of(double longitude, double latitude, double latitude_max, int steps) noexcept nogil:
    """The cell of a place that lies within the limits. The eastern and northern edges make cells of their own."""
    cdef Cell cell
    cdef double slices = <double>(1ULL << steps)
    cell.x = <uint32_t>((longitude + LONGITUDE_MAX) / (2 * LONGITUDE_MAX) * slices)
    cell.y = <uint32_t>((latitude + latitude_max) / (2 * latitude_max) * slices)
    cell.steps = steps
    return cell


cdef Bounds bounds_of(const Cell* cell) noexcept nogil:
    cdef Bounds bounds
    cdef double slices = <double>(1ULL << cell.steps)
    bounds.west = -LONGITUDE_MAX + (cell.x / slices) * (2 * LONGITUDE_MAX)
    bounds.east = -LONGITUDE_MAX + ((cell.x + 1.0) / slices) * (2 * LONGITUDE_MAX)
    bounds.south = -LATITUDE_MAX + (cell.y / slices) * (2 * LATITUDE_MAX)
    bounds.north = -LATITUDE_MAX + ((cell.y + 1.0) / slices) * (2 * LATITUDE_MAX)
    return bounds


cdef Cell moved(Cell cell, int dx, int dy) noexcept nogil:
    """The neighbour; around the earth in both directions, as the numbers go."""
    cdef uint32_t mask = <uint32_t>((1ULL << cell.steps) - 1)
    if dx:
        cell.x = (cell.x + <uint32_t>dx) & mask
    if dy:
        cell.y = (cell.y + <uint32_t>dy) & mask
    return cell


cdef uint64_t bits_of_score(double score) noexcept nogil:
    """A score's bits; anything may stand in a sorted set, and what is no 64-bit number becomes one here."""
    if score != score or score >= 18446744073709551616.0:
        return 0
    if score >= 9223372036854775808.0:
        return <uint64_t>(score - 9223372036854775808.0) | (1ULL << 63)
    if score < -9223372036854775808.0:
        return 1ULL << 63
    return <uint64_t><int64_t>score


cdef inline double within(double value, double limit) noexcept nogil:
    return limit if value > limit else -limit if value < -limit else value


cdef void place_of(double score, double* longitude, double* latitude) noexcept nogil:
    """The middle of a score's cell."""
    cdef Cell cell
    cdef uint64_t bits = bits_of_score(score)
    cdef Bounds bounds
    cell.x = gather(bits >> 1)
    cell.y = gather(bits)
    cell.steps = STEPS_MAX
    bounds = bounds_of(&cell)
    longitude[0] = within((bounds.west + bounds.east) / 2, LONGITUDE_MAX)
    latitude[0] = within((bounds.south + bounds.north) / 2, LATITUDE_MAX)


# --- distances ----------------------------------------------------------------------------------------------------


cdef inline double radians(double degrees) noexcept nogil:
    return degrees * (M_PI / 180.0)


cdef inline double degrees(double radians) noexcept nogil:
    return radians / (M_PI / 180.0)


cdef double north_south(double latitude, double other) noexcept nogil:
    return EARTH_RADIUS_M * fabs(radians(other) - radians(latitude))


cdef double measure(double longitude, double latitude, double other_longitude, double other_latitude) noexcept nogil:
    """Metres along a great circle."""
    cdef double u, v, a
    cdef double from_latitude, to_latitude
    v = sin((radians(other_longitude) - radians(longitude)) / 2)
    if v == 0:
        return north_south(latitude, other_latitude)
    from_latitude = radians(latitude)
    to_latitude = radians(other_latitude)
    u = sin((to_latitude - from_latitude) / 2)
    a = u * u + cos(from_latitude) * cos(to_latitude) * v * v
    return 2.0 * EARTH_RADIUS_M * asin(sqrt(a))


# --- searching ----------------------------------------------------------------------------------------------------


cdef class Shape:
    """A circle or a box around a place; sizes in a unit of `unit_m` metres."""

    cdef readonly double longitude, latitude, unit_m
    cdef bint is_box
    cdef double width, height  # of a circle: the radius, twice

    @staticmethod
    def circle(double longitude, double latitude, double radius, double unit_m):
        cdef Shape shape = Shape.__new__(Shape)
        shape.longitude, shape.latitude, shape.unit_m = longitude, latitude, unit_m
        shape.width = shape.height = radius
        return shape

    @staticmethod
    def box(double longitude, double latitude, double width, double height, double unit_m):
        cdef Shape shape = Shape.__new__(Shape)
        shape.longitude, shape.latitude, shape.unit_m = longitude, latitude, unit_m
        shape.is_box = True
        shape.width, shape.height = width, height
        return shape

    cdef Bounds bounds(self) noexcept:
        """What encloses the shape; degrees of longitude as at its edge nearer to a pole, where they are shortest."""
        cdef Bounds found
        cdef double height = self.unit_m * (self.height / 2 if self.is_box else self.height)
        cdef double width = self.unit_m * (self.width / 2 if self.is_box else self.width)
        cdef double dy = degrees(height / EARTH_RADIUS_M)
        cdef double edge = self.latitude - dy if self.latitude < 0 else self.latitude + dy
        cdef double dx = degrees(width / EARTH_RADIUS_M / cos(radians(edge)))
        found.west = self.longitude - dx
        found.east = self.longitude + dx
        found.south = self.latitude - dy
        found.north = self.latitude + dy
        return found

    cdef double reach_m(self) noexcept:
        """From the middle to what is farthest."""
        if not self.is_box:
            return self.width * self.unit_m
        return sqrt((self.width / 2) * (self.width / 2) + (self.height / 2) * (self.height / 2)) * self.unit_m

    cdef double distance_within(self, double longitude, double latitude) noexcept:
        """Metres to a place, -1 when it lies outside."""
        cdef double distance
        if self.is_box:
            if north_south(latitude, self.latitude) > self.height * self.unit_m / 2:
                return -1
            if measure(longitude, latitude, self.longitude, latitude) > self.width * self.unit_m / 2:
                return -1
            return measure(self.longitude, self.latitude, longitude, latitude)
        distance = measure(self.longitude, self.latitude, longitude, latitude)
        return -1 if distance > self.width * self.unit_m else distance


cdef int steps_for(double reach_m, double latitude) noexcept nogil:
    """How small cells may be so that nine of them cover the reach; towards the poles they are narrower."""
    cdef int steps = 1
    if reach_m == 0:
        return STEPS_MAX
    while reach_m < MERCATOR_MAX_M:
        reach_m *= 2
        steps += 1
    steps -= 2
    if latitude > 66 or latitude < -66:
        steps -= 2 if latitude > 80 or latitude < -80 else 1
    return min(max(steps, 1), STEPS_MAX)


cdef bint covers(Cell middle, const Bounds* wanted) noexcept nogil:
    """Whether a cell and its neighbours reach as far as the bounds."""
    cdef Cell north = moved(middle, 0, 1), south = moved(middle, 0, -1)
    cdef Cell east = moved(middle, 1, 0), west = moved(middle, -1, 0)
    return not (  # a bound may be no number, and then it is no reason
        bounds_of(&north).north < wanted.north
        or bounds_of(&south).south > wanted.south
        or bounds_of(&east).east < wanted.east
        or bounds_of(&west).west > wanted.west
    )


cdef int cells_around(Shape shape, Cell* cells) noexcept:
    """The cells that hold all of the shape, in the order of an unsorted answer; how many."""
    cdef int* moves = [0, 0, 0, 1, 0, -1, 1, 0, -1, 0, 1, 1, -1, 1, 1, -1, -1, -1]
    cdef Bounds wanted = shape.bounds()
    cdef Bounds own
    cdef int steps = steps_for(shape.reach_m(), shape.latitude)
    cdef Cell middle = cell_of(shape.longitude, shape.latitude, LATITUDE_MAX, steps)
    cdef Cell cell
    cdef int i, dx, dy, count = 0
    if steps > 1 and not covers(middle, &wanted):
        steps -= 1
        middle = cell_of(shape.longitude, shape.latitude, LATITUDE_MAX, steps)
    own = bounds_of(&middle)
    for i in range(NEIGHBOURS):
        dx, dy = moves[2 * i], moves[2 * i + 1]
        if steps >= 2 and (
            (dy < 0 and own.south < wanted.south)
            or (dy > 0 and own.north > wanted.north)
            or (dx < 0 and own.west < wanted.west)
            or (dx > 0 and own.east > wanted.east)
        ):
            continue  # the middle cell reaches far enough on this side
        cell = moved(middle, dx, dy)
        # Two slices have one neighbour for both directions: it is read once where it comes twice in a row.
        if count and cell_bits(&cell) == cell_bits(&cells[count - 1]):
            continue
        cells[count] = cell
        count += 1
    return count


def search(source, Shape shape not None, Py_ssize_t limit):
    """Places of a sorted set inside a shape: (distance in metres, member, score).

    With a limit, what was found when it was reached. Unsorted.
    """
    cdef Cell[9] cells
    cdef int i, count = cells_around(shape, cells)
    cdef int shift
    cdef uint64_t bits
    cdef Py_ssize_t first, end, at
    cdef Py_ssize_t chunk = 4 * limit if 0 < limit < CHUNK // 4 else CHUNK  # of few wanted perhaps all are the first
    cdef double score, longitude, latitude, distance
    cdef list found = []
    for i in range(count):
        bits = cell_bits(&cells[i])
        shift = SCORE_BITS - 2 * cells[i].steps
        first = source.count_below_score(<double>(bits << shift), False)
        end = source.count_below_score(<double>((bits + 1) << shift), False)
        for at in range(first, end, chunk):
            for member, score in source.pairs(at, min(at + chunk, end) - 1):
                place_of(score, &longitude, &latitude)
                distance = shape.distance_within(longitude, latitude)
                if distance < 0:
                    continue
                found.append((distance, member, score))
                if limit and len(found) >= limit:
                    return found
    return found


# --- doors --------------------------------------------------------------------------------------------------------


def encode(double longitude, double latitude):
    """The score of a place within the limits."""
    cdef Cell cell = cell_of(longitude, latitude, LATITUDE_MAX, STEPS_MAX)
    return cell_bits(&cell)


def decode(double score):
    """(longitude, latitude): the middle of the score's cell."""
    cdef double longitude, latitude
    place_of(score, &longitude, &latitude)
    return longitude, latitude


def distance(double longitude, double latitude, double other_longitude, double other_latitude):
    """Metres between two places."""
    return measure(longitude, latitude, other_longitude, other_latitude)


def text(double score):
    """The geohash in letters, as geohash.org writes it: over all latitudes, 52 bits in 11 letters, so the last is 0."""
    cdef char[11] letters
    cdef double longitude, latitude
    cdef Cell cell
    cdef uint64_t bits
    cdef int i
    place_of(score, &longitude, &latitude)
    cell = cell_of(longitude, latitude, 90.0, STEPS_MAX)
    bits = cell_bits(&cell)
    for i in range(TEXT_LENGTH - 1):
        letters[i] = ALPHABET[(bits >> (SCORE_BITS - 5 * (i + 1))) & 31]
    letters[TEXT_LENGTH - 1] = ALPHABET[0]
    return letters[:TEXT_LENGTH]


def is_valid(double longitude, double latitude):
    """Whether a place lies within the limits."""
    return fabs(longitude) <= LONGITUDE_MAX and fabs(latitude) <= LATITUDE_MAX
