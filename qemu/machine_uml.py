# SPDX-License-Identifier: GPL-2.0
"""User Mode Linux: the kernel as a program, and each of the guest's processes as one of the host that it traces."""

import os

from machine import Machine, size_of

DISKS = "abcdefghijklmnop"


class Uml(Machine):
    """One such kernel, as the only program in a namespace of processes: when that ends, so do all of the guest's."""

    share = "hostfs"
    boot_seconds, boot_attempts = float("inf"), 1

    def disk(self, letter, path, flags="", serial=""):
        # d: what is in the file is the disk, even if it looks like a copy-on-write file of another disk.
        return f"ubd{letter}d{flags}={path},,{serial}"

    def arguments(self):
        opts = self.opts
        args = [opts.kernel, f"mem={opts.memory}", f"initrd={self.initrd()}", "rdinit=/init", f"uml_dir={self.scratch.name}",
                "noreboot", "oops=panic", "loglevel=5", "audit=0"]
        args += ["con=null", f"con0=null,fd:{self.channel('console')}"]
        for number, name in enumerate(("control", "out", "err"), 1):
            fd = self.channel(name)
            args.append(f"con{number}=fd:{fd}")
        for letter, disk in zip(DISKS, opts.disk):
            args.append(self.disk(letter, disk if disk.startswith("/") else self.empty_disk(size_of(disk), "/run")))
        # What the guest writes to its root goes to a file of its own, beside the image that all share.
        written = os.path.join(self.scratch.name, "root")
        args.append(f"ubd{DISKS[-1]}={written},{opts.root},rbtrfs-root")
        args.append(self.disk(DISKS[-2], opts.modules, "r", "rbtrfs-modules"))
        args += " ".join(opts.append).split()
        # The namespace's first process must not be the kernel itself, as signals do not end that one.
        return ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh"] + args

    def environment(self):
        # The guest's memory is a file there.
        return {"TMPDIR": self.scratch.name}

    def stop(self):
        # Nothing in there is worth a farewell: the guest has written out what it was told to.
        if self.processes and self.process.poll() is None:
            self.process.kill()
        super().stop()
