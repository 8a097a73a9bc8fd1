#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Records volumes and the C driver's send streams of them, for the host tests of send.

usage: record_streams.py OUTPUT [NAME...]      (as root, where the C driver is loaded)

Each of VOLUMES, or of those that are named, becomes two files. OUTPUT/NAME.zst is the volume: behind the size that they
unpack to (8 bytes, little endian) the blocks of 4096 bytes that are not zero, each behind its number (the same). What is
not in use is trimmed before. A line of OUTPUT/NAME.txt says of one stream: the case or the seed, parent or 0, tree,
flags, version, size, 64-bit FNV-1a hash, clone sources.
"""

import itertools
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent / "guest"
BLOCK = 4096
SIZE = 1 << 30
BATCHES = 4

# Kind of changes, first seed and the one behind the last, changes between two snapshots, features,
# mount options. Without a kind, the cases of guest/send_cases.py.
VOLUMES = {
    "cases": (None, 0, 0, 0, "no-holes", ""),
    "full": ("mixed", 1000, 1001, 100, "no-holes", "compress=zstd"),
    "dirs": ("dirs", 0, 90, 45, "no-holes", ""),
    "names": ("names", 0, 72, 35, "no-holes", ""),
    "mixed": ("mixed", 0, 60, 45, "no-holes", ""),
    "compressed": ("mixed", 2000, 2036, 45, "^no-holes", "compress=zstd"),
    "data": ("data", 0, 60, 30, "^no-holes", ""),
    "compressed-data": ("data", 2000, 2036, 30, "no-holes", "compress-force=lzo"),
}

# Flags and version.
VARIANTS = [(0, 0), (8, 1), (8, 2), (24, 2), (1, 0), (9, 2), (14, 0)]


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


class Volume:
    """A volume in a file, mounted."""

    def __init__(self, scratch, features, options):
        self.image, self.stream, self.mount = f"{scratch}/image", f"{scratch}/stream", f"{scratch}/mount"
        os.makedirs(self.mount, exist_ok=True)
        pathlib.Path(self.image).unlink(missing_ok=True)
        run("truncate", "-s", str(SIZE), self.image)
        run("mkfs.btrfs", "-q", "-n", "4096", "-m", "single", "-O", features, self.image)
        run("mount", "-o", ",".join(filter(None, ["loop,nodiscard", options])), self.image, self.mount)

    def freeze(self):
        """Drops what is not in use, and lets nothing change from here on."""
        self.umount()
        run("mount", "-o", "loop,nodiscard", self.image, self.mount)
        run("fstrim", self.mount)
        self.umount()
        run("mount", "-o", "loop,ro", self.image, self.mount)

    def umount(self):
        run("umount", self.mount)

    def id(self, snapshot):
        return run("btrfs", "inspect-internal", "rootid", f"{self.mount}/{snapshot}").strip()

    def record(self, name, parent, sent, variant, sources):
        """A line for one stream."""
        flags, version = variant
        parent = 0 if parent is None else self.id(parent)
        ids = [self.id(source) for source in sources]
        run(HERE / "send_ioctl.py", f"{self.mount}/{sent}", self.stream, f"flags={flags}", f"version={version}",
            f"parent={parent}", *[f"clone={i}" for i in ids])
        data = pathlib.Path(self.stream).read_bytes()
        fields = [name, parent, self.id(sent), flags, version, len(data), f"{fnv(data):016x}", *ids]
        return " ".join(str(field) for field in fields) + "\n"

    def packed(self):
        blocks = bytearray()
        with open(self.image, "rb") as f:
            for number in range(SIZE // BLOCK):
                block = f.read(BLOCK)
                if any(block):
                    blocks += number.to_bytes(8, "little") + block
        command = ["zstd", "-q", "-c", "--ultra", "-22", "--long=27"]
        frame = subprocess.run(command, input=blocks, check=True, stdout=subprocess.PIPE).stdout
        return len(blocks).to_bytes(8, "little") + frame


def cases(volume):
    names = run(HERE / "send_cases.py", volume.mount).split()
    volume.freeze()
    for name in names:
        parent, sent = f"{name}-parent", f"{name}-sent"
        for variant, sources in (((0, 0), [parent]), ((24, 2), [parent]), ((1, 0), []), ((8, 1), [])):
            yield volume.record(name, parent, sent, variant, sources)
            yield volume.record(name, sent, parent, variant, [sent] if sources else [])


def full(volume, seed):
    snapshots = [f"{seed}/snap-{n}" for n in range(BATCHES)]
    for sent in snapshots:
        for flags in (0, 1, 6, 8, 24):
            yield volume.record(seed, None, sent, (flags, 2), [])
    yield volume.record(seed, None, snapshots[2], (0, 0), snapshots[:2])
    yield volume.record(seed, None, snapshots[1], (24, 2), snapshots[2:])
    yield volume.record(seed, None, snapshots[0], (0, 0), snapshots[1:])


def incremental(volume, seed):
    rng = random.Random(seed)
    pairs = list(itertools.permutations(range(BATCHES), 2))
    pairs.sort(key=lambda pair: (pair[1] - pair[0] != 1, rng.random()))
    for parent, sent in pairs[:8]:
        sources = [f"{seed}/snap-{n}" for n in range(BATCHES) if n == parent or rng.random() < 0.2]
        if rng.random() < 0.2:
            sources = []
        names = (f"{seed}/snap-{parent}", f"{seed}/snap-{sent}")
        yield volume.record(seed, *names, rng.choice(VARIANTS), sources)


def seeds(volume, name):
    kind, first, end, changes, *_ = VOLUMES[name]
    env = dict(os.environ, SEND_CHANGES=kind, SEND_RECORD="1")
    for seed in range(first, end):
        top = f"{volume.mount}/{seed}"
        os.mkdir(top)
        run(HERE / "send_changes.py", top, str(seed), str(BATCHES), str(changes), env=env)
    volume.freeze()
    for seed in range(first, end):
        yield from full(volume, seed) if name == "full" else incremental(volume, seed)


def main():
    output = pathlib.Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or VOLUMES:
        with tempfile.TemporaryDirectory() as scratch:
            volume = Volume(scratch, *VOLUMES[name][4:])
            try:
                lines = list(cases(volume) if name == "cases" else seeds(volume, name))
            finally:
                volume.umount()
            (output / f"{name}.zst").write_bytes(volume.packed())
            (output / f"{name}.txt").write_text("".join(lines))
            print(f"{name}: {len(lines)} streams", flush=True)


if __name__ == "__main__":
    main()
