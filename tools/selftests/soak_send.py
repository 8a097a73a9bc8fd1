#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compares incremental streams of `rbtrfs send` with those of the C driver, volume after random volume.

usage: soak_send.py RBTRFS FOLDER FIRST LAST [BATCHES [CHANGES]]      (as root, where the C driver is loaded)

RBTRFS is the command. Each seed makes a volume; where a stream differs, FOLDER/SEED keeps the volume and both streams,
and what differs is printed. The seed decides on the kind of changes and the format of the volume, too. Set SEND_RECORD
where the C driver is older than that of Linux 7.3, as guest/send_changes.py explains.
"""

import itertools
import os
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent / "guest"
KINDS = ["mixed", "dirs", "names", "data"]


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def make(image, mount, seed, batches, changes):
    """Fills a new volume; answers the ids of its snapshots."""
    rng = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    features = rng.choice(["no-holes", "^no-holes"])
    options = rng.choice(["", ",compress=zstd", ",compress-force=lzo", ",compress=zlib,max_inline=2048"])
    run("truncate", "-s", "300M", image)
    run("mkfs.btrfs", "-q", "-n", rng.choice(["4096", "4096", "16384"]), "-m", "single", "-O", features, image)
    run("mount", "-o", f"loop,nodiscard{options}", image, mount)
    try:
        env = dict(os.environ, SEND_CHANGES=kind)
        run(HERE / "send_changes.py", mount, str(seed), str(batches), str(changes), env=env)
    finally:
        run("umount", mount)
    run("mount", "-o", "loop,ro", image, mount)
    return kind


def variants(seed, batches):
    """What is sent: parent, subvolume, name, arguments for rbtrfs, flags, version, other clone sources."""
    rng = random.Random(seed)
    pairs = list(itertools.permutations(range(batches), 2))
    pairs.sort(key=lambda pair: (pair[1] - pair[0] != 1, rng.random()))
    for parent, sent in pairs[: batches + 4]:
        kind = rng.choice(["v1", "v1", "v1", "v2", "compressed", "no-data", "no-data-v2"])
        args = {
            "v1": ([], 0, 1), "v2": (["--proto", "2"], 8, 2), "compressed": (["--proto", "2", "--compressed-data"], 24, 2),
            "no-data": (["--no-data"], 1, 1), "no-data-v2": (["--no-data", "--proto", "2"], 9, 2),
        }[kind]
        others = [n for n in range(batches) if n not in (parent, sent) and rng.random() < 0.2]
        yield parent, sent, kind, args, others


def check(rbtrfs, folder, seed, batches, changes):
    scratch = folder / str(seed)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    image, mount = scratch / "image", scratch / "mount"
    mount.mkdir()
    kind = make(image, mount, seed, batches, changes)
    bad = count = 0
    wanted = list(variants(seed, batches))
    ids = [run("btrfs", "inspect-internal", "rootid", f"{mount}/snap-{n}").strip() for n in range(batches)]
    for parent, sent, name, (_, flags, version), others in wanted:
        sources = [f"clone={ids[n]}" for n in [parent, *others]]
        theirs = scratch / f"c-{parent}-{sent}"
        result = subprocess.run([HERE / "send_ioctl.py", f"{mount}/snap-{sent}", theirs, f"flags={flags}",
                                 f"version={version}", f"parent={ids[parent]}", *sources])
        if result.returncode:
            print(f"seed {seed} ({kind}): {parent} to {sent}: the C driver fails with {result.returncode}", flush=True)
            theirs.unlink()
    run("umount", mount)
    for parent, sent, name, (args, _, _), others in wanted:
        ours, theirs = scratch / f"r-{parent}-{sent}", scratch / f"c-{parent}-{sent}"
        if not theirs.exists():
            continue
        count += 1
        sources = [word for n in others for word in ("-c", f"snap-{n}")]
        result = subprocess.run(
            [rbtrfs, "send", *args, "-p", f"snap-{parent}", *sources, "-f", ours, image, f"snap-{sent}"],
            stderr=subprocess.PIPE, text=True,
        )
        if result.returncode == 0 and ours.read_bytes() == theirs.read_bytes():
            continue
        bad += 1
        print(f"seed {seed} ({kind}): {parent} to {sent}, {name}, clones {others}: {result.stderr}", flush=True)
        diff = subprocess.run(
            ["bash", "-c", 'diff <(btrfs receive --dump -f "$1" 2>&1) <(btrfs receive --dump -f "$2" 2>&1) | head -n 12',
             "diff", theirs, ours], stdout=subprocess.PIPE, text=True)
        print(diff.stdout, flush=True)
    if not bad:
        shutil.rmtree(scratch)
    return count, bad


def main():
    rbtrfs, folder, first, last = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    batches = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    changes = int(sys.argv[6]) if len(sys.argv) > 6 else 60
    streams = bad = 0
    for seed in range(first, last + 1):
        count, differ = check(rbtrfs, folder, seed, batches, changes)
        streams += count
        bad += differ
    print(f"seeds {first} to {last}: {streams} streams, {bad} differ")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
