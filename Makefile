# SPDX-License-Identifier: GPL-2.0
# Each target stands alone: it prepares what it needs. The work is done by the scripts in qemu/.

# The kernel to build for: empty for Debian's, as qemu/ prepares it, or any kernel tree with
# CONFIG_RUST=y.
KDIR ?=

.PHONY: all test test-host test-guests test-guest test-kernels soak-send demo bench rust-analyzer clean help

all:
	qemu/build-module "$(or $(KDIR),stock)"

test:
	qemu/test

test-host:
	qemu/test host

test-guests:
	qemu/test guests

test-kernels:
	qemu/test kernels

test-guest:
	qemu/test guest $(TESTS)

# Needs root, and the C driver in the kernel that runs on this machine.
soak-send:
	cargo build --release -p rbtrfs
	tools/selftests/soak_send.py target/release/rbtrfs build/soak $(or $(FIRST),0) $(or $(LAST),999)

demo:
	tools/demo/run.sh

bench:
	KERNEL=$(KERNEL) tools/bench/run.sh $(or $(ROUNDS),3) $(CASES)

rust-analyzer:
	qemu/rust-analyzer $(if $(KDIR),"$(KDIR)")

clean:
	rm -rf build target rbtrfs.ko rust-project.json

help:
	@echo 'make                 build rbtrfs.ko for the Debian kernel (or for KDIR=<prepared kernel tree>)'
	@echo 'make demo            mount, send and balance in a VM, step by step'
	@echo 'make test            all tests; test-host, test-guests (what qemu/run promises) and test-guest are its parts'
	@echo 'make test-kernels    the module built for, and tried on, the kernels in qemu/kernels'
	@echo 'make test-guest TESTS="a.sh b.sh"   some of the tests in tools/selftests/guest'
	@echo 'make soak-send FIRST=0 LAST=999   incremental streams of as many volumes, against the C driver of this machine'
	@echo 'make bench           compare with the C driver at native speed; KERNEL=stock ROUNDS=3 CASES="reading writing"'
	@echo 'make rust-analyzer   rust-project.json for editors'
	@echo 'make clean           remove what was built here; the cache ($${RBTRFS_CACHE:-/var/cache/rbtrfs}) stays'
	@echo
	@echo 'qemu/run --help       run a command in a VM with the module loaded'
	@echo 'qemu/prepare-kdir     make a KDIR for the Debian kernel that runs on this machine'
