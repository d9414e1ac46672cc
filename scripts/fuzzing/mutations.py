"""Ways to damage a file: blindly, byte by byte, and knowingly, with all checksums made right."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from fuzzing import zips
from populations import journal, tensor_file

Mutation = Callable[[random.Random, bytes], bytes]

CANARY = "canary"
"""A file in the working directory that code in a file would make if it ran."""
COMMAND = f"touch {CANARY}"
NUMBERS = (-1, 0, 1, 127, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
GARBAGE = (
    *(b"\x00", b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf"),
    *(b"\x1b[31m", b"\r", b"\n\n", b"\x85", b'"', b"'", b"\\", b"\\ud800", b",", b":", b"{", b"["),
    *(
        b"-",
        b"#",
        b"&a",
        b"*a",
        b"!!python/object/apply:os.system [touch canary]",
        b"<<: *a",
        b"? ",
    ),
    *(
        b"NaN",
        b"1e999",
        b"-Infinity",
        b"=1+1",
        b"../../etc/passwd",
        b"%s%n",
        b"\t",
        b"| ",
        b"%YAML",
    ),
)
ODD = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        2**31,
        2**63,
        -(2**63),
        10**30,
        1e308,
        "",
        "x",
        "\x00",
        "\x1b[",
    ),
    *("../../../etc/passwd", "/etc/passwd", "\ud800", "é" * 300, [], {}, [[]], [None], {"": {}}),
    *("nan", "inf", "1e999", float("nan"), float("inf"), [1] * 2000, "a\nb", "=1", ["x"] * 70),
)
NESTED, DIGITS = "@nested@", "@digits@"
OPCODES = (
    *(b"2", b"0", b"1", b"(", b"t", b"l", b"d", b"}", b"]", b")", b"N", b"a", b"s", b"u", b"e"),
    *(b"R", b"b", b"Q", b"o", b".", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"\x85", b"\x86"),
    *(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f"),
    *(b"X\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"h\x00", b"h\x05", b"q\x00"),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nbytearray\n", b"ctorch\nFloatStorage\n"),
    b"cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR",
)
ATTACK = b"\x80\x02cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR."


# --- bytes ---


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """Turn one to eight bits over."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes) -> bytes:
    """Lose the end."""
    return data[: rng.randint(0, len(data))]


def cut(rng: random.Random, data: bytes) -> bytes:
    """Lose a piece."""
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def repeat(rng: random.Random, data: bytes) -> bytes:
    """Hold a piece several times."""
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.randint(1, 200)]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start:]


def swap(rng: random.Random, data: bytes) -> bytes:
    """Let two neighboring fields, lines or pieces change places."""
    parts = re.split(rng.choice((rb"(,)", rb"(\n)", rb"(:)", rb"(\x00)")), data)
    if len(parts) < 3:
        return data[len(data) // 2 :] + data[: len(data) // 2]
    one, other = (2 * rng.randrange((len(parts) + 1) // 2) for _ in range(2))
    parts[one], parts[other] = parts[other], parts[one]
    return b"".join(parts)


def overwrite_number(rng: random.Random, data: bytes) -> bytes:
    """Put a number where one may lie, binary or as text."""
    number = rng.choice(NUMBERS)
    found = list(re.finditer(rb"\d+", data))
    if found and rng.random() < 0.5:
        place = rng.choice(found)
        text = b"9" * rng.choice((5, 20, 400, 5000)) if rng.random() < 0.3 else b"%d" % number
        return data[: place.start()] + text + data[place.end() :]
    width = rng.choice((2, 4, 8))
    raw = (number % 2 ** (8 * width)).to_bytes(width, "little")
    near_start = rng.random() < 0.3
    start = rng.randint(0, min(len(data), 16) if near_start else len(data))
    return data[:start] + raw + data[start + width :]


def insert_garbage(rng: random.Random, data: bytes) -> bytes:
    """Put in what is no text, or what means something to some parser."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(0, len(data))
        data = data[:start] + rng.choice(GARBAGE) * rng.choice((1, 1, 1, 3, 300)) + data[start:]
    return data


def nest(rng: random.Random, data: bytes) -> bytes:
    """Put in brackets, many levels deep."""
    depth = rng.choice((60, 200, 1000, 30_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b"- ", b"")))
    start = rng.randint(0, len(data))
    inside = opening * depth + b"1" + closing * rng.choice((0, depth))
    return data[:start] + inside + data[start:]


BLIND: tuple[Mutation, ...] = (
    *(flip_bits, truncate, cut, repeat, swap, overwrite_number, insert_garbage, nest),
)


# --- JSON ---


def odd_json(rng: random.Random, value: Any) -> str:
    """Return JSON text of a value in which one to three places hold something else."""
    changed = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        found = list(places(changed))
        if not found:
            break
        container, key = rng.choice(found)
        action = rng.random()
        if action < 0.7:
            container[key] = copy.deepcopy(rng.choice((*ODD, *NUMBERS, NESTED, DIGITS)))
        elif action < 0.8:
            del container[key]
        elif action < 0.9:
            other, other_key = rng.choice(found)
            with contextlib.suppress(KeyError, IndexError):
                container[key], other[other_key] = other[other_key], container[key]
        elif isinstance(container, dict):
            container[str(rng.choice(ODD))] = container.pop(key)
        else:
            container *= 2
    with contextlib.suppress(ValueError):  # a swap may have made a circle
        depth = rng.choice((60, 200, 990, 30_000))
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
        return (
            json.dumps(changed, sort_keys=True, separators=(",", ":"))
            .replace(f'"{NESTED}"', opening * depth + "1" + closing * depth)
            .replace(f'"{DIGITS}"', "9" * rng.choice((20, 400, 4300, 5000)))
        )
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def places(value: Any) -> Any:
    """Yield every container of a value with each of its keys."""
    waiting = [value]
    seen: set[int] = set()  # two that change places may end up in one another
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict | list) and id(container) not in seen:
            seen.add(id(container))
            keys = list(container) if isinstance(container, dict) else range(len(container))
            for key in keys:
                yield container, key
                waiting.append(container[key])


def alter_json(rng: random.Random, data: bytes) -> bytes:
    """Change values of a JSON file."""
    return odd_json(rng, json.loads(data)).encode()


# --- tensors ---


def odd_arrays(rng: random.Random, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return arrays in which one or two have another name, shape, dtype or content."""
    changed = dict(arrays)
    for _ in range(rng.randint(1, 2)):
        if not changed:
            break
        name = rng.choice(sorted(changed))
        array = changed[name]
        action = rng.randrange(8)
        if action == 0:
            del changed[name]
        elif action == 1:
            changed[rng.choice(("", "x", "network.9999.weight", f"{name}.scale", "7/x"))] = array
        elif action == 2:
            shape = rng.choice(((-1,), (1, -1), (-1, 1), (1, 1, -1), (*[1] * 63, -1)))
            changed[name] = array.reshape(shape)
        elif action == 3:
            changed[name] = array[:0]
        elif action == 4:
            dtype = rng.choice(("i1", "u1", "i8", "?", "f2", "f8"))
            with np.errstate(all="ignore"):
                changed[name] = array.astype(dtype)
        elif action == 5 and array.dtype.kind == "f" and array.size:
            changed[name] = array.copy()
            changed[name].flat[0] = rng.choice((np.nan, np.inf, -1.0, 0.0))
        elif action == 6:
            changed[name] = np.concatenate([array, array])
        else:
            other = rng.choice(sorted(changed))
            changed[name], changed[other] = changed[other], changed[name]
    return changed


def reseal(rng: random.Random, data: bytes) -> bytes:
    """Change fields or tensors of one of our files and make its checksum right again."""
    length = int.from_bytes(data[:8], "little")
    fields = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["cultivar"])
    fields.pop("sha256")
    arrays = safetensors.numpy.load(data)
    if rng.random() < 0.4:
        arrays = odd_arrays(rng, arrays)
    text = odd_json(rng, fields) if rng.random() < 0.8 else json.dumps(fields)
    digest = "0" * 64
    with contextlib.suppress(ValueError, RecursionError):
        digest = tensor_file._digest(json.loads(text), arrays)
    if text.endswith("}") and len(text) > 2:
        text = f'{text[:-1]},"sha256":"{digest}"}}'
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(ordered, {"cultivar": text})


def alter_header(rng: random.Random, data: bytes) -> bytes:
    """Change values in the header of a safetensors file, and give its length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.3:  # an empty tensor may claim any shape
        shape = rng.choice(([0, 2**62], [0, 2**40, 2**40], [1] * 70 + [0], [2**63, 0], [0] * 200))
        header["x.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        text = json.dumps(header)
    else:
        text = odd_json(rng, header)
    return len(text).to_bytes(8, "little") + text.encode() + data[8 + length :]


def rewrite_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Change tensors of a safetensors file of any origin."""
    arrays = odd_arrays(rng, safetensors.numpy.load(data))
    return safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()})


def rewrite_torch(rng: random.Random, data: bytes) -> bytes:
    """Change tensors of a state dict, or let one of few numbers claim to have very many."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    if rng.random() < 0.5:
        arrays = odd_arrays(rng, {name: tensor.numpy() for name, tensor in state.items()})
        state = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    elif rng.random() < 0.7:
        name = rng.choice(sorted(state))
        shape = rng.choice(((2**20, 2**20), (2**14, 2**14), (2**30,), (2**62,), (1,) * 70))
        dtype = rng.choice((torch.float32, torch.int8, torch.float64))
        state[name] = torch.zeros(1, dtype=dtype).expand(shape)
    else:
        name = rng.choice(sorted(state))
        strange = (
            *(None, "text", 7, [1], {"a": torch.ones(1)}, torch.ones(2).to_sparse()),
            *(torch.empty(3, device="meta"), torch.tensor(1.0), torch.tensor([1j])),
            *(torch.tensor([True]), torch.nn.Parameter(torch.ones(2))),
        )
        state[name] = rng.choice(strange)
        if rng.random() < 0.3:
            state[rng.choice((0, None, ("a", 1), b"x"))] = torch.ones(1)
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


# --- archives and pickles ---


def rezip(n_bytes: int) -> Mutation:
    """Return what changes members of an archive; bombs become ``n_bytes``."""

    def change(rng: random.Random, data: bytes) -> bytes:
        entries = zips.members(data)
        number = rng.randrange(len(entries))
        entry = entries[number]
        action = rng.randrange(9)
        if action < 3:
            content = rng.choice(BLIND)(rng, entry.payload)
            make = rng.choice((zips.plain, zips.plain, zips.deflated))
            entries[number] = make(entry.name, content)
        elif action == 3:
            entries[number] = zips.bomb(entry.name, n_bytes)
        elif action == 4:
            claim = rng.choice((0, 1, 2**31, 2**32 - 1, entry.size + 1))
            entries[number] = zips.Member(entry.name, entry.payload, claim, entry.crc)
        elif action == 5:
            method, flags = rng.choice(((12, 0), (14, 0), (99, 0), (8, 0), (0, 1), (0, 0x40)))
            entries[number] = zips.Member(
                entry.name, entry.payload, entry.size, entry.crc, method, flags
            )
        elif action == 6:
            names = ("", "../../etc/passwd", "/etc/x", "a" * 1000, "é", "\udcff", "x/data.pkl")
            entries[number] = zips.plain(rng.choice(names), entry.payload)
        elif action == 7:
            entries.append(entry)
        else:
            del entries[number]
        return zips.pack(entries)

    return change


def alter_pickle(rng: random.Random, data: bytes) -> bytes:
    """Put opcodes into the pickle of an archive, or another pickle in its place."""
    entries = zips.members(data)
    number = next(i for i, entry in enumerate(entries) if entry.name.endswith("data.pkl"))
    content = entries[number].payload
    if rng.random() < 0.1:
        content = ATTACK
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(2, len(content))
        skipped = rng.choice((0, 0, 1, 2))
        content = content[:start] + rng.choice(OPCODES) + content[start + skipped :]
    entries[number] = zips.plain(entries[number].name, content)
    return zips.pack(entries)


def alter_npy_header(rng: random.Random, data: bytes) -> bytes:
    """Change what the header of an array claims, and give its length."""
    start = data.index(b"{")
    end = data.index(b"}") + 1
    header = data[start:end].decode("latin1")
    shape = rng.choice(
        (
            *("(9999999999, 4)", "(4294967296, 4294967296)", "(9223372036854775807, 4)", "(-1, 4)"),
            *("(64, 99999999999999999999999)", "()", "(64,)", "(True, 4)", "(64, 4, 1)", "64"),
            *("(0, 9223372036854775807)", "(0, 4)", "((64,), 4)", "(" * 300 + "1" + ")" * 300),
        )
    )
    descr = rng.choice(
        (
            *("'|O'", "'<f2'", "'<f8'", "'<f16'", "'<c8'", "'<M8[s]'", "'|V0'", "'<U1000000'"),
            *("[('a', '<f4')]", "('<f4', (1000, 1000))", "'<f4,<f4'", "'x'", "''", "None", "'|S0'"),
        )
    )
    action = rng.randrange(3)
    if action != 0:
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape}", header)
    if action != 1:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {descr}", header)
    text = header.encode() + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[end:].lstrip(b" \n")


# --- text ---


def rechain(rng: random.Random, data: bytes) -> bytes:
    """Change events of a journal and make all its checksums right again."""
    lines = data.splitlines()
    payloads = [line[journal._EVENT_START : -1] for line in lines[1:]]
    for _ in range(rng.randint(1, 2)):
        number = rng.randrange(len(payloads))
        action = rng.random()
        if action < 0.75:
            with contextlib.suppress(ValueError, RecursionError):
                payloads[number] = odd_json(rng, json.loads(payloads[number])).encode()
        elif action < 0.85:
            payloads[number] = rng.choice(BLIND)(rng, payloads[number]).replace(b"\n", b" ")
        else:
            other = rng.randrange(len(payloads))
            payloads[number], payloads[other] = payloads[other], payloads[number]
    return resealed(payloads)


def resealed(payloads: Sequence[bytes]) -> bytes:
    """Return a journal of events, each with its checksum."""
    crc, lines = journal._AFTER_HEADER.crc, [journal._HEADER]
    for payload in payloads:
        crc = zlib.crc32(payload, crc)
        lines.append(journal._line(payload, crc))
    return b"".join(lines)


def alter_cell(rng: random.Random, data: bytes) -> bytes:
    """Change cells of a CSV file, or the number of them."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        number = rng.randrange(len(row))
        odd = rng.choice(
            (*map(str, ODD), *map(str, NUMBERS), "9" * 5000, "x" * 200_000, '"', "\x00")
        )
        action = rng.random()
        if action < 0.8:
            row[number] = odd.encode("utf-8", "surrogatepass")
        elif action < 0.9:
            del row[number]
            row.append(b"")
        else:
            row += row[: rng.choice((1, len(row)))]
    return b"\n".join(b",".join(row) for row in rows)


def alter_lines(rng: random.Random, data: bytes) -> bytes:
    """Change values of a YAML file line by line."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        number = rng.randrange(len(lines))
        key, colon, _ = lines[number].partition(b":")
        odd = rng.choice(
            (*ODD, *NUMBERS, "9" * 5000, "[" * 500, "&a [*a]", "!!python/name:os.system")
        )
        text = json.dumps(odd) if rng.random() < 0.5 else str(odd)
        lines[number] = key + colon + b" " + text.encode("utf-8", "surrogatepass")
        if rng.random() < 0.2:
            lines.append(rng.choice(lines))
    return b"\n".join(lines)


def digest(data: bytes) -> str:
    """Return a short name for the content of a file."""
    return hashlib.sha256(data).hexdigest()[:12]
