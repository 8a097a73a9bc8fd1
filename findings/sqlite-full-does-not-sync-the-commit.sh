#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SQLite commits with a rollback journal by unlinking the journal. With synchronous=FULL, the
# default, it does not ask for the directory to be synced after that; only synchronous=EXTRA does.
#
# Expected: once COMMIT has returned under FULL, a power cut does not undo it.
# Seen: the unlink is left to the filesystem. One that brings to disk just what fsync was called for
# has the journal again after a power cut, and SQLite then takes back a transaction that it had
# acknowledged. A test that cuts the power of a filesystem under SQLite loses its last row now and
# then, without a fault of the filesystem, unless it sets synchronous=EXTRA.
#
# The calls are watched through a VFS of apsw, which passes on SQLite's own arguments: xDelete has
# the name, and whether the directory is to be synced.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.46.1.0

"$work/venv/bin/python" - "$work" <<'P'
import os
import sys
import apsw

folder = sys.argv[1]


class Watched(apsw.VFS):
    """SQLite's own VFS, which notes what is deleted and whether the directory is synced then."""

    deleted = []

    def __init__(self):
        super().__init__("watched", "")

    def xDelete(self, name, sync_directory):
        self.deleted.append((os.path.basename(name), bool(sync_directory)))
        super().xDelete(name, sync_directory)


watched = Watched()
print("SQLite", apsw.sqlitelibversion())
plain = apsw.Connection(os.path.join(folder, "default.db"))
default = (plain.pragma("journal_mode"), plain.pragma("synchronous"))
print("by default: journal_mode, synchronous =", default)

seen = {}
for mode in ("FULL", "EXTRA"):
    database = apsw.Connection(os.path.join(folder, mode + ".db"), vfs="watched")
    database.execute("pragma synchronous=" + mode)
    database.execute("create table numbers (number)")
    Watched.deleted.clear()
    database.execute("insert into numbers values (1)")
    seen[mode] = list(Watched.deleted)
    print(f"synchronous={mode}: a commit deletes", seen[mode])

if default != ("delete", 2) or seen != {"FULL": [("FULL.db-journal", False)], "EXTRA": [("EXTRA.db-journal", True)]}:
    sys.exit("SQLite behaves in another way now")
print("as found: only EXTRA has the directory synced after the unlink that commits")
P
