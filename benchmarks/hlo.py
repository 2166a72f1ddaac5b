"""Reading compiled programs: what a device computes, reads, holds and sends. Counted from the program, not timed.

The text of XLA's modules is no interface: what is read here are shapes, names of instructions, and which computation
calls which, and a test compiles a program whose counts are known.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

WIDTHS = {"pred": 1, "s4": 1, "u4": 1, "bf16": 2, "token": 0, "opaque": 0}  # others end in their bits: f32, u8
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$")
SHAPE = re.compile(r"\b([a-z]+\d*[\w]*)\[([\d,]*)\]")
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation|called_computations)"
    r"=\{?((?:%[\w.\-]+(?:, )?)+)"
)


class Instruction(NamedTuple):
    """A line of a compiled program."""

    name: str
    kind: str  # the opcode: "fusion", "convolution", "custom-call"
    bytes: int  # of its result
    shape: str
    depth: int  # in how many loops it is
    rest: str  # operands and attributes
    computation: str


def size_of(shape: str) -> int:
    """Return the bytes of a shape, or of all parts of a tuple: "f32[2,3]{1,0}" -> 24."""
    total = 0
    for kind, sides in SHAPE.findall(shape):
        bits = re.search(r"\d+", kind)
        width = WIDTHS.get(kind, int(bits.group()) // 8 if bits else 0)
        count = 1
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += width * count
    return total


def computations(text: str) -> dict[str, list[str]]:
    """Cut a program into its computations: name -> lines; that where it begins is "ENTRY"."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            lines = found.setdefault("ENTRY" if head.group(1) else head.group(2), [])
        elif line.startswith(" "):
            lines.append(line)
    return found


def instructions(text: str) -> Iterator[Instruction]:
    """Yield what a program does: not what is inside of fusions and reductions."""
    parts = computations(text)
    depths, waiting = {"ENTRY": 0}, ["ENTRY"]
    while waiting:
        name = waiting.pop()
        for line in parts.get(name, ()):
            parsed = INSTRUCTION.match(line)
            if parsed is None or parsed.group(3) not in ("while", "call", "conditional"):
                continue
            depth = depths[name] + (parsed.group(3) == "while")
            for group in CALLED.findall(line):
                for called in group.replace("%", "").split(", "):
                    if depths.get(called, -1) < depth:
                        depths[called] = depth
                        waiting.append(called)
    for name, depth in depths.items():
        for line in parts.get(name, ()):
            parsed = INSTRUCTION.match(line)
            if parsed:
                own, shape, kind, rest = parsed.groups()
                yield Instruction(own, kind, size_of(shape), shape, depth, rest, name)


def sent(text: str, devices: int) -> Counter[tuple[int, str]]:
    """Return the bytes that each device sends: (depth of loops, kind) -> bytes of one iteration.

    By rings, as libraries do it: an all-gather sends (n - 1) / n of its result, an all-reduce twice that of its size.
    """
    total: Counter[tuple[int, str]] = Counter()
    for one in instructions(text):
        kind = one.kind.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        size = one.bytes
        if one.kind == "all-gather-start":  # a pair of what it takes and what it makes, as asynchronous ones have it
            size = size * devices // (devices + 1)
        elif one.kind == "collective-permute-start":
            size //= 2
        if kind == "reduce-scatter":
            size *= devices
        if kind in ("all-gather", "reduce-scatter", "all-to-all", "all-reduce"):
            size = size * (devices - 1) // devices
        total[one.depth, kind] += 2 * size if kind == "all-reduce" else size
    return total


def counted(compiled: Any) -> dict[str, float]:
    """Return FLOPs, bytes read and written, and bytes held of one device; the body of a loop is counted once."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return {
        "flops": float(cost.get("flops", 0)), "bytes": float(cost.get("bytes accessed", 0)),
        "held": float(held - memory.alias_size_in_bytes), "temporary": float(memory.temp_size_in_bytes),
    }  # fmt: skip


FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all")


def kernels(text: str, *, depth: int = 0) -> list[tuple[Instruction, int]]:
    """Return what is started one by one, and the bytes that each reads and writes, the largest first.

    depth: of how many loops it is at least inside. Operands that are read in part, as by a gather, count whole. What
    runs beside the rest, in two instructions, is one kernel: its end, which has the result alone, read and written.
    """
    every = list(instructions(text))
    sizes = {(one.computation, one.name): one.bytes for one in every}
    found = []
    for one in every:
        if one.kind in FREE or one.kind.endswith("-start") or one.depth < depth:
            continue
        operands = re.findall(r"%([\w.\-]+)", one.rest.partition(")")[0])
        read = sum(sizes.get((one.computation, name), 0) for name in operands)
        found.append((one, one.bytes + (one.bytes if one.kind.endswith("-done") else read)))
    return sorted(found, key=lambda pair: -pair[1])


def kind_of(one: Instruction) -> str:
    """Name a kernel as people count them: "fusion", or the library that is called."""
    target = re.search(r'custom_call_target="([^"]+)"', one.rest)
    return f"library call, {target.group(1)}" if target else one.kind
