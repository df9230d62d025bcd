"""What a block's bytes become before they go to an engine that is far away, and back.

| coding | applies to | what is stored |
|---|---|---|
| raw | everything | the bytes |
| zstd | what it makes at least SAVING_MIN smaller | zstd frames of byte planes |
| fp16, int8 | blocks of a model's layout, kept raw | what `tensors/codecs.py` makes of them, with its errors |

What a coding does not apply to is stored raw. A payload says itself how it is read, so that a node which knows nothing
of the model, or declares it otherwise today, reads what another has written.

*zstd.* Neighbouring bytes of a tensor have nothing in common; bytes of the same significance have: exponents repeat
themselves, mantissas are noise. So pieces of PIECE bytes are split into planes, byte 0 of all elements, byte 1 …, each
a frame of its own with its own Huffman table (Blosc's shuffle; for weights ZipNN, arXiv:2411.05239). Samples choose the
width of an element, 1, 2 or 4, with no need of a layout: LMCache's opaque blocks gain as much. Noise stays as it is and
costs next to nothing. Measured on the KV-cache of bench/llama.py, one thread: bf16 saves 34% at 0.7 GB/s (without
planes 24%), f32 17% at 0.9 GB/s (10%); levels 2 to 9 save no more on planes, as the matches they look for are none, and
are 1.3 to 6 times slower. Hence level 1, and for planes a hash table of 1,024 entries, a tenth faster than its own and
no worse (`python -m bench.objects`). A payload is a skippable frame (RFC 8878, 3.1.2) with the width, then frames like
any others: `zstd -d` reads it.

*Headers may come from anybody* who can write to the engine. Nothing is allocated by a number out of a payload before it
was held against the size that the caller made room for.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError, Unavailable
from zeekdb.hot.checksum import checksum as block_checksum
from zeekdb.tiers.envelope import CODINGS, Sealed
from zeekdb.tiers.tier import Checksum, Meta

if TYPE_CHECKING:
    import numpy as np

    from zeekdb.tensors.codecs import Codec
    from zeekdb.tensors.layout import Layout

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

LayoutOf = Callable[[bytes], "Layout | None"]
Payload = bytes | bytearray | memoryview

LOSSY: Final = ("fp16", "int8")
SAVING_MIN: Final = 0.05  # of a block; less is not worth the time to decode it
PIECE: Final = 1 << 18  # bytes whose planes are made at a time: they stay in the second cache
STRIDES: Final = (1, 2, 4)  # bytes of an element
RECENT_MAX: Final = 4096
SAMPLES: Final = 8
SAMPLE_BYTES: Final = 4096
LEVEL: Final = 1
HASH_LOG: Final = 10  # of planes
MATCH_MIN: Final = 7
WINDOW_MAX: Final = PIECE  # what a frame may ask a reader to remember
ZSTD_HEAD: Final = struct.Struct("<IIBB2x")  # magic of a skippable frame, bytes that follow, version, stride
SKIPPABLE: Final = 0x184D2A5A
LOSSY_HEAD: Final = struct.Struct("<4sBB2xIIIII4x")  # magic, version, dtype, parts, layers, block, heads, dim
LOSSY_MAGIC: Final = b"ZKLY"
VERSION: Final = 1
DTYPES: Final = ("f32", "f16", "bf16", "f8e4m3")  # their numbers in a head


def is_asked(sealed: Sealed, meta: Meta) -> bool:
    """Whether what lies there is the block that `meta` describes, as it was put or as a lossy coding gives it back."""
    found = sealed.meta
    return found[:4] == meta[:4] and meta.checksum in (found.checksum, sealed.plain_checksum)


class Packer:
    """One tier's coding. Any number of threads may use it at once: all that calls share is `stored`, what came of the
    last RECENT_MAX blocks.

    `layout_of` tells the layout of a model whose blocks are kept as they come, None of all others; it is called from
    threads too. Unavailable: zstandard is not installed.
    """

    def __init__(
        self, coding: str = "raw", layout_of: LayoutOf = lambda _: None, checksum: Checksum = block_checksum
    ) -> None:  # fmt: skip
        if coding not in CODINGS:
            raise ValueError(f"no such coding: {coding}")
        self.coding = coding
        self.is_lossy = coding in LOSSY
        self.layout_of = layout_of
        self.checksum = checksum
        self._recent: dict[int, tuple[int, str]] = {}
        if coding == "zstd":
            _Zstd.import_()

    # ---- there ------------------------------------------------------------------------------------------------------

    def stored(self, meta: Meta) -> tuple[int, str]:
        """(bytes, coding) of a block that was packed a moment ago; its own size and raw where that is not known."""
        return self._recent.get(meta.checksum, (meta.size, "raw"))

    def _note(self, sealed: Sealed) -> None:
        if self.coding != "raw":
            while len(self._recent) >= RECENT_MAX:
                self._recent.pop(next(iter(self._recent), 0), None)
            self._recent[sealed.meta.checksum] = (sealed.stored_size, sealed.coding)

    def pack(self, meta: Meta, data: Payload) -> tuple[Sealed, Payload]:
        """See `_pack`."""
        packed = self._pack(meta, data)
        self._note(packed[0])
        return packed

    def _pack(self, meta: Meta, data: Payload) -> tuple[Sealed, Payload]:
        """(header, what is to be stored) of a block of meta.size bytes; raw gives back `data` itself.

        Takes at most twice the block's size beside it. ValueError: the data is not contiguous, or of another size.
        """
        view = _bytes_of(data)
        if view.nbytes != meta.size:
            raise ValueError(f"the block has {view.nbytes} bytes, not {meta.size}")
        packed = None
        if self.coding == "zstd":
            packed = _compressed(view)
        elif self.is_lossy and meta.codec == "raw":
            codec = self._codec(meta)
            if codec is not None:
                return self._encoded(meta, codec, view)
        if packed is None:
            return Sealed(meta, "raw", meta.size, meta.checksum, meta.checksum), view
        return Sealed(meta, "zstd", len(packed), self.checksum(memoryview(packed)), meta.checksum), packed

    def _codec(self, meta: Meta) -> Codec | None:
        """What encodes this block; None: nothing does, or it would gain nothing."""
        from zeekdb.tensors.codecs import for_model
        from zeekdb.tensors.layout import CODECS

        layout = self.layout_of(meta.model)
        if layout is None or layout.block_bytes != meta.size or layout.dtype not in CODECS[self.coding]:
            return None
        codec = for_model(self.coding, layout)
        return codec if codec.encoded_size + LOSSY_HEAD.size <= meta.size * (1 - SAVING_MIN) else None

    def _encoded(self, meta: Meta, codec: Codec, view: memoryview) -> tuple[Sealed, Payload]:
        out = bytearray(LOSSY_HEAD.size + codec.encoded_size)
        layout = codec.layout
        LOSSY_HEAD.pack_into(out, 0, LOSSY_MAGIC, VERSION, DTYPES.index(layout.dtype), *_sizes(layout))
        body = memoryview(out)[LOSSY_HEAD.size :]
        codec.encode(view, body)
        plain = bytearray(meta.size)
        codec.decode(body, plain)
        sums = self.checksum(memoryview(out)), self.checksum(memoryview(plain))
        return Sealed(meta, self.coding, len(out), *sums), out

    # ---- and back ---------------------------------------------------------------------------------------------------

    def unpack(self, sealed: Sealed, payload: Payload, into: memoryview) -> bool:
        """Whether the payload is whole and has become the block, in `into` (sealed.meta.size bytes, undefined if not).

        Reads what any coding has made, whichever this one is.
        """
        source, room = _bytes_of(payload), _bytes_of(into)
        if source.nbytes != sealed.stored_size or room.nbytes != sealed.meta.size:
            return False
        if sealed.coding == "raw":
            if source.nbytes != room.nbytes:
                return False
            copy(source, room)
            return self.is_whole(sealed, room)
        if self.checksum(source) != sealed.stored_checksum:
            return False
        if sealed.coding == "zstd":
            is_read = sealed.plain_checksum == sealed.meta.checksum and _decompress(source, room)
        else:
            is_read = sealed.coding in LOSSY and _decode(sealed.coding, source, room)
        return is_read and self.checksum(room) == sealed.plain_checksum

    def is_whole(self, sealed: Sealed, block: memoryview) -> bool:
        """The same of a raw payload that was read to its place already."""
        sizes = {sealed.stored_size, sealed.meta.size, block.nbytes}
        sums = {sealed.stored_checksum, sealed.plain_checksum, sealed.meta.checksum}
        return sealed.coding == "raw" and len(sizes) == len(sums) == 1 and self.checksum(block) in sums


def _bytes_of(data: Payload) -> memoryview:
    """ValueError: it does not lie in one piece."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("the bytes do not lie in one piece")
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


def copy(source: memoryview, into: memoryview) -> None:
    """Without the GIL, which an assignment to a slice keeps."""
    import numpy as np

    if source.nbytes:
        np.copyto(np.frombuffer(into, np.uint8), np.frombuffer(source, np.uint8))


# ---- zstd ----------------------------------------------------------------------------------------------------------


class _Zstd(threading.local):
    """Compressors and the decompressor of a thread: their contexts take a megabyte and bear no sharing."""

    def __init__(self) -> None:
        zstd = self.import_()
        plain = zstd.ZstdCompressionParameters.from_level(LEVEL, source_size=PIECE)
        planes = zstd.ZstdCompressionParameters.from_level(
            LEVEL, source_size=PIECE, hash_log=HASH_LOG, min_match=MATCH_MIN
        )  # fmt: skip
        self.plain = zstd.ZstdCompressor(compression_params=plain)
        self.planes = zstd.ZstdCompressor(compression_params=planes)
        self.decompressor = zstd.ZstdDecompressor(max_window_size=WINDOW_MAX)
        self.error: type[Exception] = zstd.ZstdError

    @staticmethod
    def import_() -> Any:
        """The package. Unavailable."""
        try:
            import zstandard
        except ImportError:
            raise Unavailable("zstd needs a package that is not installed: pip install 'zeekdb[tiers]'") from None
        return zstandard

    def frames(self, data: Bytes, stride: int) -> Iterator[bytes]:
        """A piece's planes, each as a frame; bytes behind the last whole element follow the last plane as they are."""
        if stride == 1:
            yield self.plain.compress(data)
            return
        for plane in _planes(data, stride):
            yield self.planes.compress(plane)
        if len(rest := data[len(data) // stride * stride :]):
            yield self.planes.compress(rest)


_local: list[_Zstd] = []  # made with the first use, as the package is imported then
_making = threading.Lock()


def _zstd() -> _Zstd:
    if not _local:
        with _making:
            if not _local:
                _local.append(_Zstd())
    return _local[0]


def _planes(data: Bytes, stride: int) -> Bytes:
    """[stride, elements]."""
    import numpy as np

    whole = data[: len(data) // stride * stride]
    return np.ascontiguousarray(whole.reshape(-1, stride).T)


def _compressed(view: memoryview) -> bytes | None:
    """The payload; None: it would save too little."""
    import numpy as np

    if not view.nbytes:
        return None
    data, zstd = np.frombuffer(view, np.uint8), _zstd()
    stride = _stride(data, zstd)
    if not stride:
        return None
    most = int(len(data) * (1 - SAVING_MIN))
    frames = [ZSTD_HEAD.pack(SKIPPABLE, ZSTD_HEAD.size - 8, VERSION, stride)]
    size = len(frames[0])
    for at in range(0, len(data), PIECE):
        some = list(zstd.frames(data[at : at + PIECE], stride))
        size += sum(map(len, some))
        if size > most:
            return None
        frames += some
    return b"".join(frames)


def _stride(data: Bytes, zstd: _Zstd) -> int:
    """The width of an element that makes samples of the block smallest; 0: none saves enough."""
    import numpy as np

    step = len(data) // SAMPLES // 8 * 8  # on a grid that any width fits
    if step > SAMPLE_BYTES:
        data = np.concatenate([data[at * step : at * step + SAMPLE_BYTES] for at in range(SAMPLES)])
    sizes = {stride: sum(map(len, zstd.frames(data, stride))) for stride in STRIDES}
    best = min(STRIDES, key=lambda stride: sizes[stride])
    return best if sizes[best] <= len(data) * (1 - SAVING_MIN) else 0


def _decompress(source: memoryview, into: memoryview) -> bool:
    """Whether it became exactly as many bytes as there is room for."""
    import numpy as np

    if len(source) < ZSTD_HEAD.size:
        return False
    magic, size, version, stride = ZSTD_HEAD.unpack_from(source)
    if (magic, size, version) != (SKIPPABLE, ZSTD_HEAD.size - 8, VERSION) or stride not in STRIDES:
        return False
    out = np.frombuffer(into, np.uint8)
    room = np.empty(min(PIECE, len(out)), np.uint8)
    try:
        zstd = _zstd()
    except Unavailable:
        return False
    try:
        reader = zstd.decompressor.stream_reader(source[ZSTD_HEAD.size :], read_across_frames=True)
        for at in range(0, len(out), PIECE):
            some = out[at : at + PIECE]
            piece = some if stride == 1 else room[: len(some)]
            if not _fill(reader, piece.data):
                return False
            if stride != 1:
                _join(piece, some, stride)
        return not reader.read(1)
    except zstd.error:
        return False


def _fill(reader: Any, into: memoryview) -> bool:
    at = 0
    while at < len(into):
        count = reader.readinto(into[at:])
        if not count:
            return False
        at += count
    return True


def _join(piece: Bytes, out: Bytes, stride: int) -> None:
    """From planes to elements."""
    import numpy as np

    whole = len(piece) // stride * stride
    planes, room = piece[:whole].reshape(stride, -1), out[:whole].view(f"<u{stride}")
    words = planes[-1].astype(room.dtype)  # passes over wide words are some times as fast as over every n-th byte
    for at in range(stride - 2, -1, -1):
        np.left_shift(words, 8, out=words)
        np.bitwise_or(words, planes[at], out=words if at else room)
    out[whole:] = piece[whole:]


# ---- lossy ---------------------------------------------------------------------------------------------------------


def _sizes(layout: Layout) -> tuple[int, int, int, int, int]:
    return layout.parts, layout.layers, layout.block, layout.heads, layout.dim


def _decode(coding: str, source: memoryview, into: memoryview) -> bool:
    """Whether the payload says of itself what fits its own size and the room."""
    import numpy as np

    from zeekdb.tensors.codecs import for_model
    from zeekdb.tensors.layout import CODECS, Layout

    if len(source) < LOSSY_HEAD.size:
        return False
    magic, version, dtype, parts, layers, block, heads, dim = LOSSY_HEAD.unpack_from(source)
    if magic != LOSSY_MAGIC or version != VERSION or dtype >= len(DTYPES):
        return False
    try:
        layout = Layout(layers, heads, dim, DTYPES[dtype], block, parts)
    except CommandError:
        return False
    if layout.dtype not in CODECS[coding] or layout.block_bytes != into.nbytes:
        return False
    codec = for_model(coding, layout)
    if codec.encoded_size != source.nbytes - LOSSY_HEAD.size:
        return False
    with np.errstate(all="ignore"):  # scales that nobody has computed
        codec.decode(source[LOSSY_HEAD.size :], into)
    return True
