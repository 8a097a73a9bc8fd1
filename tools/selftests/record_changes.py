#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Records volumes and the C driver's incremental streams of them, for rust/tests/send/changes.rs.

usage: record_changes.py OUTPUT      (as root, where the C driver is loaded)

OUTPUT gets a volume NAME.zst, as of record_send.py, and a list NAME.txt for `cases`, the pairs of snapshots of
guest/send_cases.py, and for each kind of change of guest/send_changes.py. A line of a list says of one stream: the case
or the seed, parent, tree, flags, version, size, 64-bit FNV-1a hash, clone sources.
"""

import itertools
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from record_send import HERE, SIZE, blocks, fnv, pack, run

# How many seeds a volume has, and changes between two snapshots.
KINDS = {"dirs": (16, 45), "names": (8, 35), "mixed": (12, 45), "data": (10, 30)}
BATCHES = 4

# Flags and version.
VARIANTS = [(0, 0), (8, 1), (8, 2), (24, 2), (1, 0), (9, 2), (14, 0)]


class Volume:
    """A volume in a file, mounted."""

    def __init__(self, scratch, name, features):
        self.image, self.mount = f"{scratch}/{name}", f"{scratch}/mount"
        os.makedirs(self.mount, exist_ok=True)
        with open(self.image, "wb") as f:
            f.truncate(SIZE)
        run("mkfs.btrfs", "-q", "-n", "4096", "-m", "single", "-O", features, self.image)
        run("mount", "-o", "loop,nodiscard", self.image, self.mount)

    def remount(self):
        run("umount", self.mount)
        run("mount", "-o", "loop,ro", self.image, self.mount)

    def id(self, snapshot):
        return run("btrfs", "inspect-internal", "rootid", f"{self.mount}/{snapshot}").strip()

    def stream(self, name, parent, sent, variant, sources):
        """A line for one stream."""
        flags, version = variant
        path = f"{self.image}.stream"
        ids = [self.id(source) for source in sources]
        run(HERE / "send_ioctl.py", f"{self.mount}/{sent}", path, f"flags={flags}", f"version={version}",
            f"parent={self.id(parent)}", *[f"clone={i}" for i in ids])
        data = pathlib.Path(path).read_bytes()
        fields = [name, self.id(parent), self.id(sent), flags, version, len(data), f"{fnv(data):016x}", *ids]
        return " ".join(str(field) for field in fields) + "\n"


def cases(volume):
    names = run(HERE / "send_cases.py", volume.mount).split()
    volume.remount()
    for name in names:
        parent, sent = f"{name}-parent", f"{name}-sent"
        for variant, sources in (((0, 0), [parent]), ((24, 2), [parent]), ((1, 0), []), ((8, 1), [])):
            yield volume.stream(name, parent, sent, variant, sources)
            yield volume.stream(name, sent, parent, variant, [sent] if sources else [])


def seeds(volume, kind):
    count, changes = KINDS[kind]
    for seed in range(count):
        top = f"{volume.mount}/{seed}"
        os.mkdir(top)
        env = dict(os.environ, SEND_CHANGES=kind, SEND_RECORD="1")
        subprocess.run([HERE / "send_changes.py", top, str(seed), str(BATCHES), str(changes)], check=True, env=env)
    volume.remount()
    for seed in range(count):
        rng = random.Random(seed)
        pairs = list(itertools.permutations(range(BATCHES), 2))
        pairs.sort(key=lambda pair: (pair[1] - pair[0] != 1, rng.random()))
        for parent, sent in pairs[:8]:
            sources = [f"{seed}/snap-{n}" for n in range(BATCHES) if n == parent or rng.random() < 0.2]
            if rng.random() < 0.2:
                sources = []
            names = (f"{seed}/snap-{parent}", f"{seed}/snap-{sent}")
            yield volume.stream(seed, *names, rng.choice(VARIANTS), sources)


def main():
    output = pathlib.Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ["cases", *KINDS]:
            volume = Volume(scratch, name, "^no-holes" if name == "data" else "no-holes")
            lines = list(cases(volume) if name == "cases" else seeds(volume, name))
            run("umount", volume.mount)
            pack(output / f"{name}.zst", blocks(volume.image))
            (output / f"{name}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
