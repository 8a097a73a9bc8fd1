#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""How much of the kernel's stack a module takes: its largest frames, and the chain of calls that adds up to the most.

usage: deepest.py [--frame BYTES] [--chain BYTES] [--most N] MODULE.ko

A stack in the kernel has 16 KiB, and what the module calls (block layer, memory reclaim) wants its part. Read off the
machine code (x86-64): what each function pushes and reserves, and whom it calls. Calls by pointer are not followed, but
for those that the module makes of its own functions whose addresses it takes in the same function. Ends with 1 if a
frame or the chain is larger than allowed, or if functions call each other in a circle, whose depth nobody knows.
"""

import argparse
import re
import subprocess
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
RESERVE = re.compile(r"\bsub\s+\$0x([0-9a-f]+),%rsp")
RELOCATION = re.compile(r"R_X86_64_(?:PLT32|PC32|32S|64)\s+(\S+?)(?:[-+]0x[0-9a-f]+)?$")
LOCAL = re.compile(r"\b(?:call|jmp)\s+[0-9a-f]+ <([^>+]+)>")


class Function:
    """One function: bytes of stack, and the names of those that it may call."""

    def __init__(self):
        self.frame = 8  # The return address.
        self.calls = set()


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
            current.frame += int(found[1], 16)
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
    parser.add_argument("module")
    opts = parser.parse_args()
    functions = read(opts.module)
    best, circles = deepest(functions)

    print("largest frames, in bytes:")
    order = sorted(functions, key=lambda n: -functions[n].frame)
    for name in order[:opts.most]:
        print(f"{functions[name].frame:7} {readable(name)}")
    top = max(best, key=lambda n: best[n][0])
    print(f"deepest chain: {best[top][0]} bytes")
    name = top
    while name:
        print(f"{functions[name].frame:7} {readable(name)}")
        name = best[name][1]
    for circle in circles[:5]:
        print("circle: " + " > ".join(readable(n) for n in circle))
    large = [n for n in functions if functions[n].frame > opts.frame]
    sys.exit(1 if large or best[top][0] > opts.chain else 0)


if __name__ == "__main__":
    main()
