# SPDX-License-Identifier: GPL-2.0
"""What the machines that guests run in have in common: channels, the job, and how a process is started and ended.

A guest and the host share four channels, socket pairs that the machine's process inherits, so that guests side by side
need no names or ports: the console, the command's two outputs, and a control channel that carries its exit status.
"""

import ctypes
import os
import secrets
import shlex
import signal
import socket
import subprocess
import tempfile


def cpio(files):
    """An initramfs (newc) with these files, a dictionary of names and bytes, under /job."""
    out = bytearray()

    def entry(name, mode, data):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.extend(b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    entry("job", 0o040755, b"")
    for name, data in files.items():
        entry("job/" + name, 0o100644, data)
    entry("TRAILER!!!", 0, b"")
    return bytes(out)


def size_of(word):
    """Bytes, of a size like 512M."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    return int(word[:-1]) * units[word[-1].upper()] if word[-1].upper() in units else int(word)


def die_with_parent():
    """In a child before it executes its program: when the process that started it is gone, it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """One guest's process with its channels. Subclasses say which program it is, and with which arguments."""

    # What the guest calls the filesystem by which it sees the checkout.
    share = None

    def __init__(self, opts):
        self.opts = opts
        self.mark = secrets.token_hex(16).encode()
        self.scratch = tempfile.TemporaryDirectory(prefix="rbtrfs-guest-", dir="/run")
        self.processes = []
        self.channels = {}
        self.inherited = []
        # Files that qemu/run opened for its disks: a guest that is started anew needs them again.
        self.opened = [int(d.rsplit("/", 1)[1]) for d in opts.disk if d.startswith("/proc/self/fd/")]

    def channel(self, name):
        """A new channel: the descriptor of the guest's end."""
        ours, theirs = socket.socketpair()
        self.channels[name] = ours
        return self.inherit(theirs.detach())

    def inherit(self, fd):
        """The machine's process gets this descriptor; ours is closed once it has started."""
        self.inherited.append(fd)
        return fd

    def empty_disk(self, size, folder):
        """A new file without a name, of so many bytes, all of them holes: its path."""
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.ftruncate(fd, size)
        return f"/proc/self/fd/{self.inherit(fd)}"

    def initrd(self):
        """The guest's initramfs with its job: a path."""
        with open(self.opts.initrd, "rb") as f:
            initrd = f.read()
        fd = os.memfd_create("rbtrfs")
        with os.fdopen(os.dup(fd), "wb") as f:
            f.write(initrd + b"\0" * (-len(initrd) % 4) + self.job())
        return f"/proc/self/fd/{self.inherit(fd)}"

    def job(self):
        """What the guest's own scripts are told."""
        opts = self.opts
        settings = {"CHECKOUT": opts.checkout, "CWD": opts.folder, "KERNEL": opts.kernel_name, "MODULE": opts.module,
                    "SHARE": self.share, "SHARED": opts.shared, "MARK": self.mark.decode()}
        exports = {"HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb"),
                   "RBTRFS_KERNEL": opts.kernel_name, "RBTRFS_GUEST": "1"}
        exports.update((k, v) for k, v in os.environ.items() if k.startswith("RBTRFS_"))
        assign = "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items())
        # The script itself comes as descriptor 4, which the command is not to have.
        command = "exec 4<&-\n" + "".join(f"export {k}={shlex.quote(v)}\n" for k, v in exports.items())
        command += "exec " + shlex.join(opts.command) + "\n"
        return cpio({"settings": assign.encode(), "command": command.encode()})

    def arguments(self):
        """The command line of the machine's process."""
        raise NotImplementedError

    def environment(self):
        """Variables that the machine's process is to see besides ours."""
        return {}

    def start(self):
        args = self.arguments()
        self.complaints = tempfile.TemporaryFile(dir="/run")
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.complaints, stderr=self.complaints,
                                        env=dict(os.environ, **self.environment()),
                                        pass_fds=self.inherited + self.opened, preexec_fn=die_with_parent)
        self.processes.append(self.process)
        for fd in self.inherited:
            os.close(fd)

    def processor_time(self):
        """Seconds, of all of the machine's threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Ends what was started, the machine itself first."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
        self.scratch.cleanup()
