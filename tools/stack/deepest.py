#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""How much of the kernel's stack a module takes: its largest frames, and the chain of calls that adds up to the most.

usage: deepest.py [--frame BYTES] [--chain BYTES] [--most N] [--from NAME] MODULE.ko

A stack in the kernel has 16 KiB, and what the module calls (block layer, memory reclaim) wants its part. Read off the
machine code (x86-64): what each function pushes and reserves, and whom it calls. A function whose address is taken
counts as called there, which covers closures and trait objects that are made where they are passed on. Not followed are
calls through tables: those of `dyn` traits (the block device, the sink of a send), which lead out of the module soon,
and those that the kernel makes on its own account, which begin chains of their own. Ends with 1 if a frame or the chain
is larger than allowed.
"""

import argparse
import re
import subprocess
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
RESERVE = re.compile(r"\b(sub|add|and)\s+\$0x([0-9a-f]+),%rsp")
RELOCATION = re.compile(r"R_X86_64_(?:PLT32|PC32|32S|64)\s+(\S+?)(?:[-+]0x[0-9a-f]+)?$")
LOCAL = re.compile(r"\b(?:call|jmp)\s+[0-9a-f]+ <([^>+]+)>")


class Function:
    """One function: bytes of stack, and the names of those that it may call."""

    def __init__(self):
        self.frame = 8  # The return address.
        self.calls = set()


def reserved(operation, operand):
    """What an operation on the stack pointer takes, at most."""
    negative = (1 << 64) - operand if operand >> 63 else 0
    if operation == "sub":
        return 0 if negative else operand
    # To add -128 is shorter than to subtract 128. A frame that is aligned loses up to the
    # alignment.
    return max(negative - 8, 0) if operation == "and" else negative


def read(path):
    """All functions of a module, by their symbols."""
    text = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", path], check=True, capture_output=True, text=True).stdout
    functions, current = {}, None
    for line in text.splitlines():
        if start := FUNCTION.match(line):
            current = functions.setdefault(start[1], Function())
        elif current is None:
            continue
        elif found := RELOCATION.search(line):
            current.calls.add(found[1])
        elif found := RESERVE.search(line):
            current.frame += reserved(found[1], int(found[2], 16))
        elif re.search(r"\bpush\s", line):
            current.frame += 8
        elif found := LOCAL.search(line):
            current.calls.add(found[1])
    for name, function in functions.items():
        # A jump back within a function looks like a call of itself.
        function.calls = {c for c in function.calls if c in functions and c != name}
    return functions


def deepest(functions):
    """The most that each function takes with all that it calls, and by which call. Circles are told apart."""
    best, circles = {}, []
    for root in functions:
        stack = [(root, iter(sorted(functions[root].calls)))]
        open_now = {root}
        if root in best:
            continue
        while stack:
            name, calls = stack[-1]
            for callee in calls:
                if callee in open_now:
                    path = [n for n, _ in stack]
                    circles.append(path[path.index(callee):])
                elif callee not in best:
                    stack.append((callee, iter(sorted(functions[callee].calls))))
                    open_now.add(callee)
                    break
            else:
                stack.pop()
                open_now.discard(name)
                below = [(best[c][0], c) for c in functions[name].calls if c in best]
                size, callee = max(below, default=(0, None))
                best[name] = (functions[name].frame + size, callee)
    return best, circles


def readable(symbol):
    """The path in a symbol of Rust's, near enough."""
    parts, at = [], 0
    while match := re.compile(r"(\d+)_?").search(symbol, at):
        length = int(match[1])
        word = symbol[match.end():match.end() + length]
        if 0 < length < 64 and re.fullmatch(r"[A-Za-z_]\w*", word) and len(word) == length:
            parts.append(word)
            at = match.end() + length
        else:
            at = match.end()
    path = [p for p in parts if p not in ("rbtrfs_main", "core", "kernel")]
    return "::".join(path) if symbol.startswith("_R") and path else symbol


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", type=int, default=1 << 30, help="the most that one function may take")
    parser.add_argument("--chain", type=int, default=1 << 30, help="the most that a chain of calls may take")
    parser.add_argument("--most", type=int, default=10, help="how many frames to show")
    parser.add_argument("--from", dest="start", help="the chain that begins at the function whose path ends so")
    parser.add_argument("module")
    opts = parser.parse_args()
    functions = read(opts.module)
    best, circles = deepest(functions)

    print("largest frames, in bytes:")
    order = sorted(functions, key=lambda n: -functions[n].frame)
    for name in order[:opts.most]:
        print(f"{functions[name].frame:7} {readable(name)}")
    starts = [n for n in best if not opts.start or readable(n).endswith(opts.start)]
    if not starts:
        parser.error(f"no function {opts.start}")
    top = max(starts, key=lambda n: best[n][0])
    print(f"deepest chain: {best[top][0]} bytes")
    name = top
    while name:
        print(f"{functions[name].frame:7} {readable(name)}")
        name = best[name][1]
    for circle in circles[:5]:
        print("circle: " + " > ".join(readable(n) for n in circle))
    large = [n for n in functions if functions[n].frame > opts.frame]
    for name in sorted(large, key=lambda n: -functions[n].frame):
        print(f"frame over {opts.frame} bytes: {functions[name].frame} {readable(name)}")
    if best[top][0] > opts.chain:
        print(f"chain over {opts.chain} bytes: {best[top][0]}")
    sys.exit(1 if large or best[top][0] > opts.chain else 0)


if __name__ == "__main__":
    main()
