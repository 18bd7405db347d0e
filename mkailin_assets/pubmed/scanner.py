"""One pass over the bytes of PubMed records, as machine code: which elements stand where.

Reads the part of XML that NLM writes. A record with anything else (a comment, CDATA, a character reference, a
prefix, an odd space in a tag) or with a fault (an end tag that does not fit) is refused, and a conforming
parser says which it is. Imports numba: import this module where it is used.
"""
# ruff: noqa: PLR0911, PLR0912, PLR0915, PLR0917, SIM110 - loops over bytes, as numba compiles them well

from typing import Any

import numba
import numpy as np

# Columns of the table of elements.
OPENED, BEGIN, END, FIELD, HOLDER, RECORD, MARKED = range(7)
COLUMNS = 7
# What must follow the records, so that no look ahead leaves the text.
SENTINEL = b"<" * 8

_DEPTH = 200
_ATTRIBUTES = 12
_NAME, _LENGTH, _STATE, _OWN, _NEAREST = range(5)  # of an open tag
_PLAIN, _LESS, _AMPERSAND, _GREATER, _BREAK, _FORBIDDEN = range(6)  # kinds of bytes
_LT, _GT, _AMP, _SLASH, _EQUALS, _QUOTE, _BLANK, _BRACKET, _HASH, _DASH, _DOT, _ZERO, _NINE = b'<>&/=" ]#-.09'


def _kinds() -> np.ndarray:
    kinds = np.full(256, _PLAIN, dtype=np.uint8)
    kinds[:_BLANK] = _FORBIDDEN
    kinds[list(b"\t\n")] = _BREAK
    kinds[list(b"<>&")] = _LESS, _GREATER, _AMPERSAND
    return kinds


def _name_bytes() -> np.ndarray:
    """Bytes that names are made of: row 0 as NLM writes them, row 1 in records known to be well-formed."""
    ours = np.array([bytes([byte]).isalnum() or byte in b"_.-" for byte in range(256)])
    return np.array([ours, ours | (np.arange(256) > 127) | (np.arange(256) == ord(":"))])


_KIND = _kinds()
_IN_NAME = _name_bytes()
_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def _entity_length(text: Any, i: int, known_good: int) -> int:
    """Bytes of the predefined entity at `i`; 0 if it is another or none."""
    a, b, c = text[i + 1], text[i + 2], text[i + 3]
    if b == 116 and c == 59 and a in (103, 108):  # gt; lt;
        return 4
    d = text[i + 4]
    if a == 97 and b == 109 and c == 112 and d == 59:  # amp;
        return 5
    if a == 113 and b == 117 and c == 111 and d == 116 and text[i + 5] == 59:  # quot;
        return 6
    if a == 97 and b == 112 and c == 111 and d == 115 and text[i + 5] == 59:  # apos;
        return 6
    # A parser that wrote the record left few character references: line breaks.
    return 1 if known_good and a == _HASH else 0


@_compiled
def _begins_no_name(byte: int) -> bool:
    return byte in (_DASH, _DOT) or _ZERO <= byte <= _NINE


@_compiled
def _same(text: Any, a: int, b: int, length: int) -> bool:
    for k in range(length):
        if text[a + k] != text[b + k]:
            return False
    return True


@_compiled
def _equal(text: Any, at: int, value: Any) -> bool:
    for k in range(len(value)):
        if text[at + k] != value[k]:
            return False
    return True


@_compiled
def name_hash(text: Any, at: int, length: int) -> int:
    """Hash of a name's bytes, for its place in `slots`."""
    value = 0
    for k in range(length):
        value = (value * 31 + text[at + k]) & 0xFFFFFF
    return value


@_compiled
def _code(text: Any, at: int, length: int, slots: Any, names: Any, bounds: Any) -> int:
    """Number of a tag by its name, 0 if it is not known."""
    slot = name_hash(text, at, length) & (len(slots) - 1)
    while slots[slot]:
        code = slots[slot]
        if bounds[code + 1] - bounds[code] == length and _equal(
            text, at, names[bounds[code] : bounds[code + 1]]
        ):
            return code
        slot = (slot + 1) & (len(slots) - 1)
    return 0


@_compiled
def _attributes_end(text: Any, j: int, known_good: int, spans: Any) -> int:
    """Where the attributes that begin at `j` end, at `>` or `/`; -1 to refuse them."""
    count = 0
    while text[j] == _BLANK:
        while text[j] == _BLANK:
            j += 1
        begin = j
        while _IN_NAME[known_good, text[j]]:
            j += 1
        length = j - begin
        if length == 0:
            break
        if text[j] != _EQUALS or text[j + 1] != _QUOTE or count == len(spans) or _begins_no_name(text[begin]):
            return -1
        for k in range(count):
            if spans[k, 1] == length and _same(text, spans[k, 0], begin, length):
                return -1
        spans[count, 0], spans[count, 1] = begin, length
        count += 1
        j += 2
        while text[j] != _QUOTE:
            kind = _KIND[text[j]]
            step = 1
            if kind == _AMPERSAND:
                step = _entity_length(text, j, known_good)
            if step == 0 or kind in (_LESS, _BREAK, _FORBIDDEN):
                return -1
            j += step
        j += 1
    return j


@_compiled
def _text_end(text: Any, i: int, known_good: int) -> tuple[int, bool]:
    """Where the text that begins at `i` ends, and whether it is more than plain; -1 to refuse it."""
    marked = False
    while True:
        kind = _KIND[text[i]]
        if kind == _PLAIN:
            i += 1
        elif kind == _LESS:
            return i, marked
        elif kind == _BREAK:
            marked = True
            i += 1
        elif kind == _AMPERSAND:
            step = _entity_length(text, i, known_good)
            if step == 0:
                return -1, marked
            marked = True
            i += step
        elif kind == _GREATER and not (text[i - 1] == _BRACKET and text[i - 2] == _BRACKET):
            i += 1
        else:
            return -1, marked


@_compiled
def _scan_record(
    text: Any,
    i: int,
    stop: int,
    number: int,
    tags: Any,
    known_good: int,
    stack: Any,
    spans: Any,
    elements: Any,
    count: int,
) -> int:
    """Append the elements of one record; their number then, -1 if it is refused."""
    slots, names, bounds, below, fields = tags
    depth, closed = 0, False
    while i < stop:
        if text[i] != _LT:
            if depth == 0:
                return -1
            i, marked = _text_end(text, i, known_good)
            if i < 0:
                return -1
            nearest = stack[depth - 1, _NEAREST]
            if marked and nearest >= 0:
                elements[nearest, MARKED] = 1
        elif text[i + 1] == _SLASH:
            if depth == 0:
                return -1
            at, length = i + 2, stack[depth - 1, _LENGTH]
            if at + length >= stop or text[at + length] != _GT:
                return -1
            if not _same(text, stack[depth - 1, _NAME], at, length):
                return -1
            if stack[depth - 1, _OWN] >= 0:
                elements[stack[depth - 1, _OWN], END] = i
            depth -= 1
            closed = depth == 0
            i = at + length + 1
        else:
            at = i + 1
            if closed or depth == len(stack) or _begins_no_name(text[at]):
                return -1
            j = at
            while _IN_NAME[known_good, text[j]]:
                j += 1
            length = j - at
            if length == 0:
                return -1
            j = _attributes_end(text, j, known_good, spans)
            if j < 0:
                return -1
            is_empty = text[j] == _SLASH
            j += is_empty
            if text[j] != _GT:
                return -1
            j += 1
            above, nearest = (stack[depth - 1, _STATE], stack[depth - 1, _NEAREST]) if depth else (fields, -1)
            state, own = -1, -1
            if above >= 0:
                state = below[above, _code(text, at, length, slots, names, bounds)]
            if nearest >= 0:
                elements[nearest, MARKED] = 1
            if 0 <= state < fields:
                own = count
                elements[own, OPENED], elements[own, BEGIN], elements[own, END] = i, j, j
                elements[own, FIELD], elements[own, HOLDER] = state, nearest
                elements[own, RECORD], elements[own, MARKED] = number, 0
                nearest = own
                count += 1
            if is_empty:
                closed = depth == 0
            else:
                stack[depth, _NAME], stack[depth, _LENGTH], stack[depth, _STATE] = at, length, state
                stack[depth, _OWN], stack[depth, _NEAREST] = own, nearest
                depth += 1
            i = j
    return count if closed and i == stop else -1


@_compiled
def scan(text: Any, starts: Any, tags: Any, known_good: int, elements: Any, refused: Any) -> int:
    """Fill `elements` (int32, one row each, `COLUMNS`) and `refused` (bool by record); number of elements.

    `text`: uint8, the records one after the other, each from one of `starts` to the next (the last entry
    is the end), then `SENTINEL`. `tags`: see `elements.Paths`. `known_good`: 1 for records that a parser
    wrote, in which names may be anything.
    """
    stack = np.empty((_DEPTH, 5), dtype=np.int64)
    spans = np.empty((_ATTRIBUTES, 2), dtype=np.int64)
    count = 0
    for number in range(len(starts) - 1):
        found = _scan_record(
            text, starts[number], starts[number + 1], number, tags, known_good, stack, spans, elements, count
        )
        refused[number] |= found < 0
        if found >= 0:
            count = found
    return count


@_compiled
def _narrowed(text: Any, begin: int, end: int) -> tuple[int, int]:
    while 0 <= begin < end and text[begin] <= _BLANK:
        begin += 1
    while end > begin and text[end - 1] <= _BLANK:
        end -= 1
    return (begin, end) if 0 <= begin < end else (-1, -1)


@_compiled
def gather(text: Any, begins: Any, ends: Any) -> tuple[Any, Any]:
    """The bytes of these spans in a row, and where each begins there (int64, one more than spans).

    Spans are narrowed, in place, to what stands between their blanks, to -1 where that is nothing; one that
    begins below 0 is nothing, too.
    """
    offsets = np.zeros(len(begins) + 1, dtype=np.int64)
    for k in range(len(begins)):
        begins[k], ends[k] = _narrowed(text, begins[k], ends[k])
        offsets[k + 1] = offsets[k] + ends[k] - begins[k]
    gathered = np.empty(offsets[-1], dtype=np.uint8)
    for k in range(len(begins)):
        length = offsets[k + 1] - offsets[k]
        gathered[offsets[k] : offsets[k + 1]] = text[begins[k] : begins[k] + length]
    return gathered, offsets


@_compiled
def attribute_spans(text: Any, opened: Any, name: Any) -> tuple[Any, Any, Any]:
    """Where the values of attribute `name` begin and end in the start tags at `opened`, and which hold `&`.

    A start tag below 0 has no attributes; a value that is not there begins at -1.
    """
    begins = np.full(len(opened), -1, dtype=np.int64)
    ends = begins.copy()
    marked = np.zeros(len(opened), dtype=np.bool_)
    for k in range(len(opened)):
        j = opened[k]
        while j >= 0 and text[j] != _GT and text[j] != _BLANK:
            j += 1
        while j >= 0 and text[j] == _BLANK:
            while text[j] == _BLANK:
                j += 1
            begin = j
            while text[j] != _EQUALS and text[j] != _GT and text[j] != _SLASH:
                j += 1
            if text[j] != _EQUALS:
                break
            is_it = j - begin == len(name) and _equal(text, begin, name)
            j += 2
            begin = j
            has_entity = False
            while text[j] != _QUOTE:
                has_entity |= text[j] == _AMP
                j += 1
            if is_it:
                begins[k], ends[k], marked[k] = begin, j, has_entity
            j += 1
    return begins, ends, marked


@_compiled
def equals(text: Any, begins: Any, ends: Any, value: Any) -> Any:
    """Which of these spans hold `value`, blanks around it aside (bool)."""
    same = np.zeros(len(begins), dtype=np.bool_)
    for k in range(len(begins)):
        begin, end = _narrowed(text, begins[k], ends[k])
        same[k] = begin >= 0 and end - begin == len(value) and _equal(text, begin, value)
    return same
