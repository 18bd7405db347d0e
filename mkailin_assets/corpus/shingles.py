"""Sets of five characters in a row, and the search for those that are alike, as machine code.

No set is held: of each there is the size, a sketch of 256 bits and the keys that it is looked up by; what
these leave is compared whole, from the text. Imports numba: import this module where it is used.
"""
# ruff: noqa: PLR0917 - loops over arrays, which numba takes one by one

import numba
import numpy as np

SHINGLE_CHARACTERS = 5
SKETCH_WORDS = 4

_compiled = numba.njit(cache=True, nogil=True)
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # of FNV-1a
_MIX = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # of MurmurHash3, 64 bits
_ROUNDING = 1e-9


@_compiled
def describe(
    text: np.ndarray, starts: np.ndarray, sizes: np.ndarray, sketches: np.ndarray, members: np.ndarray
) -> int:
    """Fill the size (n) and sketch (n, 4) of each set, which come as zeros, and the hashes of its members.

    `text` is UTF-8, in which `starts` (n + 1) bound the texts. A sketch tells of each of 256 values whether
    an odd number of members hash to it. `members` takes the hashes of one set after another, and has room for
    as many as `text` has bytes; returned is how many there are.
    """
    longest = np.max(starts[1:] - starts[:-1])
    hashes = np.empty(longest, np.uint64)
    table = np.empty(_table_size(longest), np.uint64)
    owners = np.full(table.size, -1, np.int64)
    written = 0
    for index in range(sizes.size):
        found = _hashes(text, starts[index], starts[index + 1], hashes)
        slots = _table_size(found)
        for value in hashes[:found]:
            slot = _slot(table, owners, index, slots, value)
            if owners[slot] == index:
                continue
            owners[slot], table[slot] = index, value
            sizes[index] += 1
            bit = np.uint64(1) << ((value >> np.uint64(56)) & np.uint64(63))
            sketches[index, np.int64(value >> np.uint64(62))] ^= bit
            members[written] = value
            written += 1
    return written


@_compiled
def band_keys(digests: np.ndarray, keys: np.ndarray) -> None:
    """Fill the keys (n, bands) of MinHash digests (n, bands * rows): a hash of each band's values."""
    rows = digests.shape[1] // keys.shape[1]
    for index in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            key = np.uint64(0)
            for value in digests[index, band * rows : (band + 1) * rows]:
                key = _mixed(key ^ np.uint64(value))
            keys[index, band] = np.uint32(key)


@_compiled
def set_up_shelves(ordered: np.ndarray, base: int, places: np.ndarray) -> int:
    """Give each key that several texts have a shelf, and these texts its place; how much room they take.

    `ordered` has every text's key in the upper 32 bits and its index in the lower, sorted. Shelves begin at
    `base`: a count, then room for the texts. A text that shares its key with none gets -1.
    """
    room, start = 0, 0
    for end in range(1, ordered.size + 1):
        if end < ordered.size and ordered[end] >> np.uint64(32) == ordered[start] >> np.uint64(32):
            continue
        for entry in ordered[start:end]:
            places[np.int64(entry & np.uint64(0xFFFFFFFF))] = base + room if end - start > 1 else -1
        if end - start > 1:
            room += 1 + end - start
        start = end
    return room


@_compiled
def search(
    text: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    sketches: np.ndarray,
    places: np.ndarray,
    shelves: np.ndarray,
    similarity: float,
    every: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Texts and the earlier ones that they are like: every pair, or of each text the first that stays.

    Texts come in order; each is compared with what is on its shelves, then put there. Not `every`: it is put
    there only if it is like none of them.
    """
    longest = np.max(starts[1:] - starts[:-1])
    hashes = np.empty(longest, np.uint64)
    table = np.empty(_table_size(longest), np.uint64)
    owners = np.full(table.size, -1, np.int64)
    counted = np.full(table.size, -1, np.int64)
    met = np.full(sizes.size, -1, np.int32)
    chosen = np.empty(sizes.size, np.int32)
    stay, staying = np.empty(sizes.size, np.int32), 0
    later, earlier = [0 for _ in range(0)], [0 for _ in range(0)]  # of a type that numba knows
    compared = 0
    # Of all members of two sets, the largest share that is in one of them alone.
    apart = (1 - similarity) / (1 + similarity)
    for index in range(sizes.size):
        count = _gather(places[index], shelves, index, met, chosen, staying)
        candidates = chosen[:count] if count >= 0 else stay[:staying]
        slots, first = 0, sizes.size
        for other in candidates:
            most = apart * (sizes[index] + sizes[other]) + _ROUNDING
            if other >= first or abs(sizes[index] - sizes[other]) > most:
                continue
            if _differing_bits(sketches[index], sketches[other]) > most:
                continue
            if slots == 0:
                found = _hashes(text, starts[index], starts[index + 1], hashes)
                slots = _table_size(found)
                for value in hashes[:found]:
                    slot = _slot(table, owners, index, slots, value)
                    owners[slot], table[slot] = index, value
            found = _hashes(text, starts[other], starts[other + 1], hashes)
            shared = _shared(hashes[:found], table, owners, index, slots, counted, compared)
            compared += 1
            if shared < similarity * (sizes[index] + sizes[other] - shared) - _ROUNDING:
                continue
            if every:
                later.append(index)
                earlier.append(int(other))
            else:
                first = int(other)
        if first < sizes.size:
            later.append(index)
            earlier.append(first)
            continue
        stay[staying] = index
        staying += 1
        for shelf in places[index]:
            if shelf >= 0:
                shelves[shelf] += 1
                shelves[shelf + shelves[shelf]] = index
    return np.array(later), np.array(earlier)


@_compiled
def _gather(
    places: np.ndarray, shelves: np.ndarray, index: int, met: np.ndarray, chosen: np.ndarray, staying: int
) -> int:
    """Fill `chosen` with the texts on these shelves, each once; how many.

    -1 where the shelves hold more than there are texts: to go through those, in their order, is quicker.
    """
    offered = 0
    for shelf in places:
        if shelf >= 0:
            offered += shelves[shelf]
    if offered > staying:
        return -1
    count = 0
    for shelf in places:
        if shelf >= 0:
            for other in shelves[shelf + 1 : shelf + 1 + shelves[shelf]]:
                if met[other] != index:
                    met[other] = index
                    chosen[count] = other
                    count += 1
    return count


@_compiled
def _shared(
    hashes: np.ndarray,
    table: np.ndarray,
    owners: np.ndarray,
    owner: int,
    slots: int,
    counted: np.ndarray,
    comparison: int,
) -> int:
    """How many of the owner's members in the table are among the hashes, each counted once."""
    shared = 0
    for value in hashes:
        slot = _slot(table, owners, owner, slots, value)
        if owners[slot] == owner and counted[slot] != comparison:
            counted[slot] = comparison
            shared += 1
    return shared


@_compiled
def _differing_bits(one: np.ndarray, other: np.ndarray) -> int:
    """In how many bits two sketches differ: at most as many members are in one of the two sets alone."""
    differing = np.uint64(0)
    for place in range(SKETCH_WORDS):
        # Counted in pairs, fours and bytes; compilers know this as one instruction.
        bits = one[place] ^ other[place]
        bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
        bits = (bits & np.uint64(0x3333333333333333)) + (
            (bits >> np.uint64(2)) & np.uint64(0x3333333333333333)
        )
        bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        differing += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return int(differing)


@_compiled
def _hashes(text: np.ndarray, start: int, end: int, hashes: np.ndarray) -> int:
    """Hash every run of five characters of text[start:end], or all of it if it is shorter; how many.

    A run that comes twice is hashed twice.
    """
    found = 0
    for begin in range(start, end):
        if text[begin] & 0xC0 == 0x80:  # inside a character
            continue
        value, characters, at = _BASIS, 0, begin
        while at < end:
            if text[at] & 0xC0 != 0x80:
                if characters == SHINGLE_CHARACTERS:
                    break
                characters += 1
            value = (value ^ np.uint64(text[at])) * _PRIME
            at += 1
        if characters < SHINGLE_CHARACTERS and found > 0:
            break
        hashes[found] = _mixed(value)
        found += 1
    return found


@_compiled
def _mixed(value: np.uint64) -> np.uint64:
    """A bijection of 64 bits after which each depends on all (fmix64 of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= _MIX[0]
    value ^= value >> np.uint64(33)
    value *= _MIX[1]
    return value ^ (value >> np.uint64(33))


@_compiled
def _table_size(members: int) -> int:
    """Slots of a hash table that stays half empty, a power of two."""
    size = 16
    while size < 2 * members:
        size *= 2
    return size


@_compiled
def _slot(table: np.ndarray, owners: np.ndarray, owner: int, slots: int, value: np.uint64) -> int:
    """Where the owner's value stands in the first `slots` of a table, or else the free slot for it."""
    slot = np.int64(value & np.uint64(slots - 1))
    while owners[slot] == owner and table[slot] != value:
        slot = (slot + 1) & (slots - 1)
    return int(slot)
