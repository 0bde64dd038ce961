"""The executable specification of sketches: what a quantile and a distinct count are, bit for bit, in plain Python.

The quantile sketch is DDSketch (Masson, Rim and Lee, VLDB 2019) with linear interpolation: a bucket is the sign, the
exponent and the first 6 mantissa bits of a float64. The distinct sketch is a set of 64-bit hashes while there are at
most 512, then HyperLogLog with 4096 registers and Ertl's estimator (arXiv:1702.01284, algorithm 6). It imports nothing
of headrace.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable

WORD = 2**64 - 1

# 1. Hashes


def hash_word(value: int) -> int:
    """splitmix64 of an integer's 64 bits."""
    z = (value + 0x9E3779B97F4A7C15) & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def hash_float(value: float) -> int:
    """Of its bits, with one zero and one NaN."""
    if math.isnan(value):
        return hash_word(0x7FF8000000000000)
    return hash_word(bits_of(value + 0.0))


def hash_bytes(data: bytes) -> int:
    """XXH64 with seed 0."""
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & WORD

    def rounded(lane: int, word: int) -> int:
        return rotate(lane + word * p2 & WORD, 31) * p1 & WORD

    result, at = p5, 0
    if len(data) >= 32:
        lanes = [p1 + p2 & WORD, p2, 0, -p1 & WORD]
        while len(data) - at >= 32:
            for lane in range(4):
                lanes[lane] = rounded(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        result = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & WORD
        for lane in lanes:
            result = ((result ^ rounded(0, lane)) * p1 + p4) & WORD
    result = result + len(data) & WORD
    while len(data) - at >= 8:
        result = (rotate(result ^ rounded(0, int.from_bytes(data[at : at + 8], "little")), 27) * p1 + p4) & WORD
        at += 8
    if len(data) - at >= 4:
        word = int.from_bytes(data[at : at + 4], "little")
        result = (rotate(result ^ word * p1 & WORD, 23) * p2 + p3) & WORD
        at += 4
    for byte in data[at:]:
        result = rotate(result ^ byte * p5 & WORD, 11) * p1 & WORD
    result = (result ^ result >> 33) * p2 & WORD
    result = (result ^ result >> 29) * p3 & WORD
    return result ^ result >> 32


def bits_of(value: float) -> int:
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


def float_of(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# 2. Quantiles

BUCKETS_MAX = 4096
SMALLEST_NORMAL = 2.0**-1022


class Quantiles:
    """The sketch of some floats. NaN is left out, subnormal numbers count as zero."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = sorted(value + 0.0 for value in values if not math.isnan(value))
        self.zero = sum(abs(value) < SMALLEST_NORMAL for value in self.values)
        self.negative = self._buckets(-value for value in self.values if value < 0)
        self.positive = self._buckets(value for value in self.values if value > 0)

    @staticmethod
    def _buckets(magnitudes: Iterable[float]) -> list[tuple[int, int]]:
        indexes = [bits_of(value) >> 46 for value in magnitudes if SMALLEST_NORMAL <= value < math.inf]
        floor = max(indexes, default=0) - (BUCKETS_MAX - 1)
        return sorted(Counter(max(index, floor) for index in indexes).items())

    def parts(self) -> list[tuple[float, int]]:
        """Estimates and their counts, ascending: the estimate of a bucket is its middle."""
        found = [(-math.inf, self.values.count(-math.inf))]
        found += [(-float_of(index << 46 | 1 << 45), count) for index, count in reversed(self.negative)]
        found += [(0.0, self.zero)]
        found += [(float_of(index << 46 | 1 << 45), count) for index, count in self.positive]
        found += [(math.inf, self.values.count(math.inf))]
        return [(estimate, count) for estimate, count in found if count]

    def quantile(self, q: float) -> float | None:
        """The estimate of rank `floor(q * (count - 1))`; the smallest and the largest value are exact."""
        if not self.values or not 0 <= q <= 1:
            return None
        last = len(self.values) - 1
        rank = min(math.floor(q * last), last)
        if rank in (0, last):
            return self.values[rank]
        estimates = [estimate for estimate, count in self.parts() for _ in range(count)]
        return min(max(estimates[rank], self.values[0]), self.values[-1])

    def to_bytes(self) -> bytes:
        out = b"\x01" + varint(self.zero)
        out += varint(self.values.count(-math.inf)) + varint(self.values.count(math.inf))
        out += struct.pack("<Bdd", 1, self.values[0], self.values[-1]) if self.values else b"\x00"
        for buckets in (self.negative, self.positive):
            out += varint(len(buckets))
            before = 0
            for index, count in buckets:
                out += varint(index - before) + varint(count)
                before = index
        return out


# 3. Distinct values

PRECISION_BITS = 12
REGISTERS = 2**PRECISION_BITS
RANK_BITS = 64 - PRECISION_BITS
EXACT_HASHES_MAX = 512


class Distinct:
    """The sketch of some hashes."""

    def __init__(self, hashes: Iterable[int]) -> None:
        self.hashes = sorted(set(hashes))

    def registers(self) -> list[int]:
        """For each value of the first 12 bits the largest place of the first 1 in the other 52 (none: 53)."""
        found = [0] * REGISTERS
        for hashed in self.hashes:
            rest = hashed & 2**RANK_BITS - 1
            index = hashed >> RANK_BITS
            found[index] = max(found[index], RANK_BITS - rest.bit_length() + 1)
        return found

    def estimate(self) -> float:
        if len(self.hashes) <= EXACT_HASHES_MAX:
            return float(len(self.hashes))
        ranks = Counter(self.registers())
        z = REGISTERS * tau(1.0 - ranks[RANK_BITS + 1] / REGISTERS)
        for rank in range(RANK_BITS, 0, -1):
            z = 0.5 * (z + ranks[rank])
        z += REGISTERS * sigma(ranks[0] / REGISTERS)
        estimate: float = REGISTERS * REGISTERS / (2.0 * math.log(2.0)) / z
        return estimate

    def to_bytes(self) -> bytes:
        if len(self.hashes) <= EXACT_HASHES_MAX:
            return b"\x01\x00" + varint(len(self.hashes)) + struct.pack(f"<{len(self.hashes)}Q", *self.hashes)
        return b"\x01\x01" + bytes(self.registers())


def sigma(x: float) -> float:
    if x >= 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, y + y
    return z


def tau(x: float) -> float:
    if x <= 0.0 or x >= 1.0:
        return 0.0
    y, z, before = 1.0, 1.0 - x, -1.0
    while z != before:
        x, before, y = math.sqrt(x), z, y * 0.5
        z -= (1.0 - x) * (1.0 - x) * y
    return z / 3.0
