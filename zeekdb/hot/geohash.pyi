from zeekdb.hot.zsets import ZSet

Place = tuple[float, bytes, float]
"""Distance in metres, member, score."""

class Shape:
    """A circle or a box around a place; sizes in a unit of `unit_m` metres."""

    longitude: float
    latitude: float
    unit_m: float
    @staticmethod
    def circle(longitude: float, latitude: float, radius: float, unit_m: float) -> Shape: ...
    @staticmethod
    def box(longitude: float, latitude: float, width: float, height: float, unit_m: float) -> Shape: ...

def search(source: ZSet, shape: Shape, limit: int) -> list[Place]:
    """The places inside a shape, in the order of the cells; at most `limit`, 0 for all."""

def encode(longitude: float, latitude: float) -> int:
    """The score, 52 bits (more on the very edge), of a place within the limits."""

def decode(score: float) -> tuple[float, float]:
    """Longitude and latitude of the middle of a score's cell."""

def distance(longitude: float, latitude: float, other_longitude: float, other_latitude: float) -> float:
    """Metres between two places."""

def text(score: float) -> bytes:
    """The eleven letters of GEOHASH."""

def is_valid(longitude: float, latitude: float) -> bool:
    """Whether Redis takes the place: 180 degrees east and west, 85.05112878 north and south."""
