#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Rules of the source tree that no compiler checks: floors, unsafe, width of comments, SPDX lines.

usage: check.py [--root FOLDER]

Prints one line for each breach and exits with 1 if there is any. An exception that is not needed any more is
a breach, too.
"""
import argparse
import os
import re
import subprocess
import sys

WIDTH = 100

# From the bottom to the top. A folder of rust/ imports from itself and from those before it.
FLOORS = ["format", "device", "tree", "state", "mount", "space", "extent", "trans", "volume",
          "backref", "subvol", "log", "send", "balance", "resize", "scrub", "trim",
          "os", "ioctl", "vfs"]

# (importing folder, imported folder): why it is so.
EXCEPTIONS = {
    ("space", "extent"): "an ordered extent becomes a new extent of the running transaction",
    ("space", "trans"): "reservations and read-only block groups begin or commit transactions",
    ("space", "volume"): "Fs is one struct with the state of all floors",
    ("extent", "trans"): "the extent tree and reference counts are methods of Transaction",
    ("extent", "volume"): "messages name the volume by Fs",
    ("trans", "volume"): "Fs is one struct with the state of all floors",
    ("ioctl", "vfs"): "vfs/ still holds what os/ is to offer",
}

# Folders of rust/ whose code may be unsafe.
UNSAFE = ["bindings", "vfs"]

# What carries no SPDX line: no comments in the format, or not ours.
NO_SPDX = re.compile(
    r"(^|/)(COPYING|Cargo\.lock|\.gitignore|MAINTAINERS|kernel-version|packages|\.shellcheckrc)$"
    r"|\.(md|json|txt|zst|xz|svg|config)$|^(\.cargo/config|rustfmt)\.toml$")


def strip(text):
    """Rust without comments, strings and characters."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|[bc]?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\\n])\'',
        re.S)
    return token.sub(lambda m: "\n" * m.group(0).count("\n"), text)


def floors(path, code, used):
    parts = path.split("/")
    if len(parts) < 3 or parts[1] not in FLOORS:
        return
    here = parts[1]
    found = {}
    for match in re.finditer(r"\bcrate::(\w+)", code):
        found.setdefault(match.group(1), code.count("\n", 0, match.start()) + 1)
    # Names in braces: `use crate::{a, b::c}`.
    for match in re.finditer(r"\bcrate::\{([^;]*)\}", code):
        for name in re.findall(r"(?:^|,)\s*(\w+)", match.group(1)):
            found.setdefault(name, code.count("\n", 0, match.start()) + 1)
    for name, line in found.items():
        if name in FLOORS and FLOORS.index(name) > FLOORS.index(here):
            if (here, name) in EXCEPTIONS:
                used.add((here, name))
            else:
                yield f"{path}:{line}: {here}/ imports from {name}/, which is above it"


def unsafe(path, code):
    parts = path.split("/")
    if parts[0] != "rust" or parts[1] in UNSAFE:
        return
    for number, line in enumerate(code.split("\n"), 1):
        if re.search(r"\bunsafe\b", line):
            yield f"{path}:{number}: unsafe outside of {', '.join('rust/' + one for one in UNSAFE)}"


def width(path, text):
    rust = path.endswith((".rs", ".c", ".h"))
    comment = re.compile(r"^\s*(//|/\*|\*( |$))" if rust else r"^\s*#( |$)")
    for number, line in enumerate(text.split("\n"), 1):
        if comment.match(line) and len(line.expandtabs(8)) > WIDTH:
            yield f"{path}:{number}: a comment of {len(line.expandtabs(8))} columns"


def spdx(path, text):
    if not NO_SPDX.search(path) and text.strip() and "SPDX-License-Identifier:" not in text[:300]:
        yield f"{path}:1: no SPDX-License-Identifier"


def sources():
    """The files of the tree that are kept, sorted."""
    try:
        listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], check=True,
                                capture_output=True, text=True).stdout
        return sorted(filter(None, listed.split("\0")))
    except (FileNotFoundError, subprocess.CalledProcessError):
        pass
    found = []
    for top, folders, names in os.walk("."):
        folders[:] = [one for one in folders if one not in (".git", "build", "target", "__pycache__")]
        found += [os.path.relpath(os.path.join(top, name)) for name in names]
    return sorted(one for one in found if not one.endswith((".ko", "rust-project.json")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), "../.."))
    os.chdir(parser.parse_args().root)
    breaches, used = [], set()
    for path in sources():
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        breaches += spdx(path, text)
        # Scripts in qemu/ are keys of what is cached, so that they are changed only for a reason.
        if path.endswith((".rs", ".c", ".h", ".sh", ".py", "Makefile", "Kbuild")):
            breaches += width(path, text) if not path.startswith("qemu/") else []
        if path.endswith(".rs") and path.startswith("rust/"):
            code = strip(text)
            breaches += unsafe(path, code)
            if not path.startswith("rust/tests/"):
                breaches += floors(path, code, used)
    for here, name in sorted(set(EXCEPTIONS) - used):
        breaches.append(f"{os.path.basename(__file__)}: {here}/ does not import from {name}/ any "
                        "more: remove the exception")
    print("\n".join(breaches), end="\n" if breaches else "")
    return bool(breaches)


sys.exit(main())
