# SPDX-License-Identifier: GPL-2.0
"""QEMU: an emulated machine, or a virtual one where there is KVM."""

import os
import subprocess
import time

from machine import Machine, die_with_parent, size_of


def has_kvm():
    """/dev/kvm may be there and hang every guest; the processor's own word is the one to trust."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        flags = next((line.split() for line in f if line.startswith("flags")), [])
    return ("svm" in flags or "vmx" in flags) and os.access("/dev/kvm", os.R_OK | os.W_OK)


class Qemu(Machine):
    """One QEMU."""

    # An emulated machine with several processors sometimes hangs in its early boot, spinning. Nothing has happened yet
    # then, and it is started anew: after so many seconds of processor time, which a busy host does not make longer.
    boot_seconds, boot_attempts = 240, 3

    def __init__(self, opts):
        super().__init__(opts)
        self.share = opts.share

    def chardev(self, name):
        return ["-chardev", f"socket,id={name},fd={self.channel(name)}"]

    def disk(self, name, path, options, device=""):
        return ["-drive", f"if=none,id={name},file={path},format=raw,{options}",
                "-device", f"virtio-blk-pci,drive={name}{device}"]

    def arguments(self):
        opts = self.opts
        kvm = has_kvm()
        append = ("console=ttyS0 rdinit=/init panic=-1 oops=panic softlockup_panic=1 loglevel=5 mitigations=off nokaslr "
                  "no_timer_check random.trust_cpu=on audit=0 cryptomgr.notests 8250.nr_uarts=1 tsc=reliable " + " ".join(opts.append))
        args = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-M", "q35", "-accel", "kvm" if kvm else "tcg,thread=multi,tb-size=512",
                "-cpu", "host" if kvm else "max,la57=off", "-smp", opts.cpus or "2", "-m", opts.memory,
                "-object", f"memory-backend-memfd,id=mem,size={opts.memory},share=on", "-numa", "node,memdev=mem",
                "-kernel", opts.kernel, "-initrd", self.initrd(), "-append", append]
        args += self.chardev("console") + ["-serial", "chardev:console"]
        args += ["-device", "virtio-serial-pci"]
        for name in ("control", "out", "err"):
            args += self.chardev(name) + ["-device", f"virtserialport,chardev={name},name={name}"]
        for number, disk in enumerate(opts.disk):
            args += self.test_disk(f"disk{number}", disk)
        # Guests of User Mode Linux lock the same image; none of them writes to it.
        args += self.disk("root", opts.root, "file.locking=off,snapshot=on,cache=unsafe", ",serial=rbtrfs-root")
        args += self.disk("modules", opts.modules, "readonly=on", ",serial=rbtrfs-modules")
        return args + self.shared_folder()

    def test_disk(self, name, disk):
        """A size is a new empty disk that nobody needs afterwards; a path is a file or device to keep."""
        if disk.startswith("/"):
            return self.disk(name, disk, "cache=writeback,discard=unmap")
        return self.disk(name, self.empty_disk(size_of(disk), "/tmp"), "cache=unsafe,discard=unmap")

    def shared_folder(self):
        opts = self.opts
        if self.share == "9p":
            return ["-virtfs", f"local,path={opts.shared},mount_tag=checkout,security_model=none,multidevs=remap"]
        path = os.path.join(self.scratch.name, "virtiofs")
        server = subprocess.Popen(
            ["/usr/libexec/virtiofsd", "--socket-path", path, "--shared-dir", opts.shared, "--sandbox", "none",
             "--cache", "auto", "--log-level", "error"], stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        self.processes.append(server)
        while not os.path.exists(path):
            if server.poll() is not None:
                raise RuntimeError("virtiofsd did not start")
            time.sleep(0.005)
        return ["-chardev", f"socket,id=fs,path={path}", "-device", "vhost-user-fs-pci,chardev=fs,tag=checkout"]
