#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Records a small volume and the C driver's send streams of it, for rust/tests/send.rs.

usage: record_send.py OUTPUT [SEED [CHANGES]]      (as root, where the C driver is loaded)

OUTPUT gets volume.zst, which holds the blocks of 4096 bytes that are not zero, each behind its number (8 bytes, little
endian), and streams.txt with a line for each stream: tree, flags, version, size, 64-bit FNV-1a hash, clone sources.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent / "guest"
BLOCK = 4096
SIZE = 112 << 20


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def pack(path, data):
    # Behind the size before compression.
    packed = subprocess.run(["zstd", "-q", "-19", "-c"], input=data, check=True, stdout=subprocess.PIPE).stdout
    path.write_bytes(len(data).to_bytes(8, "little") + packed)


def blocks(image):
    out = bytearray()
    with open(image, "rb") as f:
        for number in range(SIZE // BLOCK):
            block = f.read(BLOCK)
            if any(block):
                out += number.to_bytes(8, "little") + block
    return bytes(out)


def main():
    output = pathlib.Path(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    changes = sys.argv[3] if len(sys.argv) > 3 else "100"
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        image, mount = f"{scratch}/image", f"{scratch}/mount"
        os.mkdir(mount)
        with open(image, "wb") as f:
            f.truncate(SIZE)
        run("mkfs.btrfs", "-q", "-n", "4096", "-m", "single", image)
        run("mount", "-o", "loop,compress=zstd,nodiscard", image, mount)
        env = dict(os.environ, SEND_RANDOM_TEXT="1")
        subprocess.run([HERE / "send_random.py", mount, seed, "3", changes], check=True, env=env)
        run("umount", mount)
        run("mount", "-o", "loop,ro", image, mount)
        ids = [run("btrfs", "inspect-internal", "rootid", f"{mount}/snap-{n}").strip() for n in range(3)]
        wanted = [(n, flags, 2, []) for n in range(3) for flags in (0, 1, 6, 8, 24)]
        wanted += [
            (2, 0, 0, ids[:2]),
            (1, 24, 2, ids[2:]),
            (0, 0, 0, ids[1:]),
        ]
        lines = []
        for n, flags, version, sources in wanted:
            stream = f"{scratch}/stream"
            run(HERE / "send_ioctl.py", f"{mount}/snap-{n}", stream, f"flags={flags}", f"version={version}",
                *[f"clone={source}" for source in sources])
            data = pathlib.Path(stream).read_bytes()
            fields = [ids[n], flags, version, len(data), f"{fnv(data):016x}", *sources]
            lines.append(" ".join(str(field) for field in fields) + "\n")
        run("umount", mount)
        pack(output / "volume.zst", blocks(image))
        (output / "streams.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
