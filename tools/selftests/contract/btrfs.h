/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The volume under test and its ioctls, each answering 0 or the errno; balance may answer 8,
 * negated.
 */
#ifndef CONTRACT_BTRFS_H
#define CONTRACT_BTRFS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* How a return value of an ioctl is told from an errno. */
static inline int outcome(int ret)
{
	return ret < 0 ? errno : -ret;
}

static inline int do_send(int subvol, int out)
{
	struct btrfs_ioctl_send_args args = { .send_fd = out };

	return outcome(ioctl(subvol, BTRFS_IOC_SEND, &args));
}

static inline int do_balance(int fd, __u64 flags, struct btrfs_ioctl_balance_args *args)
{
	struct btrfs_ioctl_balance_args local;

	if (!args)
		args = &local;
	memset(args, 0, sizeof(*args));
	args->flags = flags;
	return outcome(ioctl(fd, BTRFS_IOC_BALANCE_V2, args));
}

static inline int do_balance_ctl(int fd, int cmd)
{
	return outcome(ioctl(fd, BTRFS_IOC_BALANCE_CTL, cmd));
}

/* Whether a balance runs, as its progress tells; -1 when there is none. */
static inline int balance_state(int fd)
{
	struct btrfs_ioctl_balance_args args = { 0 };

	if (ioctl(fd, BTRFS_IOC_BALANCE_PROGRESS, &args) < 0)
		return errno == ENOTCONN ? -1 : -errno - 1;
	return args.state;
}

#endif
