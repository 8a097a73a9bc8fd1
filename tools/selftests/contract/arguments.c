// SPDX-License-Identifier: GPL-2.0
/*
 * arguments SUBVOLUME WRITABLE: what the ioctls answer to bad sizes, flags, pointers and files, and
 * to those without privilege. SUBVOLUME is read-only, WRITABLE is not. No file and no setting of
 * the volume is changed.
 */
#include <grp.h>
#include <linux/btrfs_tree.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "btrfs.h"
#include "ktap.h"

static int subvol, writable;

/* An address that is not mapped, and the end of a page behind which nothing is. */
static char *nowhere, *page_end;

static void expect(const char *name, int expected, int found)
{
	if (expected != found)
		ktap_note("%s: expected %d (%s), found %d (%s)", name, expected, strerror(abs(expected)), found,
			  strerror(abs(found)));
	ktap_result(expected == found, name);
}

static int call(int fd, unsigned long cmd, void *arg)
{
	return outcome(ioctl(fd, cmd, arg));
}

static void numbers(void)
{
	/* The right number with another size or direction is another command. */
	static const unsigned long unknown[] = {
		_IO(BTRFS_IOCTL_MAGIC, 250),
		_IOW(BTRFS_IOCTL_MAGIC, 38, char[71]),
		_IOR(BTRFS_IOCTL_MAGIC, 38, struct btrfs_ioctl_send_args),
		_IOWR(BTRFS_IOCTL_MAGIC, 32, char[1023]),
		_IOW(BTRFS_IOCTL_MAGIC, 12, struct btrfs_ioctl_vol_args),
		_IOWR('x', 32, struct btrfs_ioctl_balance_args),
	};
	char name[64];
	size_t i;

	for (i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		snprintf(name, sizeof(name), "command 0x%lx is unknown", unknown[i]);
		expect(name, ENOTTY, call(subvol, unknown[i], nowhere));
	}
}

static void pointers(void)
{
	static const struct {
		const char *name;
		unsigned long cmd;
	} commands[] = {
#define COMMAND(c) { #c, BTRFS_IOC_##c }
		COMMAND(SEND), COMMAND(BALANCE_V2), COMMAND(TREE_SEARCH), COMMAND(TREE_SEARCH_V2),
		COMMAND(INO_LOOKUP), COMMAND(INO_LOOKUP_USER), COMMAND(INO_PATHS), COMMAND(LOGICAL_INO),
		COMMAND(LOGICAL_INO_V2), COMMAND(SUBVOL_GETFLAGS), COMMAND(GET_SUBVOL_INFO),
		COMMAND(GET_SUBVOL_ROOTREF), COMMAND(FS_INFO), COMMAND(DEV_INFO), COMMAND(SPACE_INFO),
		COMMAND(GET_DEV_STATS), COMMAND(GET_FEATURES), COMMAND(GET_SUPPORTED_FEATURES),
		COMMAND(SET_FSLABEL), COMMAND(START_SYNC), COMMAND(WAIT_SYNC),
#undef COMMAND
	};
	char name[64];
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		snprintf(name, sizeof(name), "%s with a bad pointer", commands[i].name);
		expect(name, EFAULT, call(subvol, commands[i].cmd, nowhere));
		snprintf(name, sizeof(name), "%s with an argument cut off", commands[i].name);
		expect(name, EFAULT, call(subvol, commands[i].cmd, page_end - 4));
	}
}

static int send_with(struct btrfs_ioctl_send_args args)
{
	return call(subvol, BTRFS_IOC_SEND, &args);
}

static void send_arguments(void)
{
	/* Not /dev/null: it is one of the few files that the kernel itself does not write to. */
	int stream = memfd_create("stream", 0), readable = open("/dev/null", O_RDONLY);
	struct btrfs_ioctl_send_args args = { .send_fd = stream };
	__u64 source = 1ULL << 40;

	expect("send of a subvolume that can be written to", EPERM, call(writable, BTRFS_IOC_SEND, &args));
	expect("send to no file", EBADF, send_with((struct btrfs_ioctl_send_args){ .send_fd = -1 }));
	expect("send to a number beyond all files", EBADF,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = 1LL << 40 }));
	expect("send to a file that is open for reading", EBADF,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = readable }));
	expect("send with an unknown flag", EOPNOTSUPP,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream, .flags = 1ULL << 40 }));
	expect("send of a version to come", EPROTO,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream,
							 .flags = BTRFS_SEND_FLAG_VERSION,
							 .version = 99 }));
	expect("compressed data in version 1", EINVAL,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream, .flags = BTRFS_SEND_FLAG_COMPRESSED }));
	expect("too many clone sources", EINVAL,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream, .clone_sources_count = UINT64_MAX }));
	expect("clone sources at a bad pointer", EFAULT,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream,
							 .clone_sources_count = 1,
							 .clone_sources = (__u64 *)nowhere }));
	expect("a clone source that is not there", ENOENT,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream,
							 .clone_sources_count = 1,
							 .clone_sources = &source }));
	expect("a parent that is not there", ENOENT,
	       send_with((struct btrfs_ioctl_send_args){ .send_fd = stream, .parent_root = 1ULL << 40 }));
	expect("a send with nothing wrong", 0, send_with(args));
	close(stream);
	close(readable);
}

static int convert(__u64 target, __u64 flags)
{
	struct btrfs_ioctl_balance_args args = { .flags = BTRFS_BALANCE_DATA | flags };

	args.data.flags = BTRFS_BALANCE_ARGS_CONVERT;
	args.data.target = target;
	return call(writable, BTRFS_IOC_BALANCE_V2, &args);
}

static void balance_arguments(void)
{
	struct btrfs_ioctl_balance_args args = { .flags = BTRFS_BALANCE_METADATA };

	expect("balance with an unknown flag", EINVAL, do_balance(writable, 1ULL << 40, NULL));
	expect("resume of nothing", ENOTCONN, do_balance(writable, BTRFS_BALANCE_RESUME, NULL));
	expect("pause of nothing", ENOTCONN, do_balance_ctl(writable, BTRFS_BALANCE_CTL_PAUSE));
	expect("cancel of nothing", ENOTCONN, do_balance_ctl(writable, BTRFS_BALANCE_CTL_CANCEL));
	expect("an unknown control", EINVAL, do_balance_ctl(writable, 3));
	expect("no control", EINVAL, do_balance_ctl(writable, 0));
	expect("progress of nothing", -1, balance_state(writable));
	expect("progress to a bad pointer, of nothing", ENOTCONN,
	       call(writable, BTRFS_IOC_BALANCE_PROGRESS, nowhere));
	expect("convert to no profile", EINVAL, convert(0, 0));
	expect("convert to RAID1", EINVAL, convert(1 << 4, 0));
	expect("convert to two profiles", EINVAL, convert(1 << 5 | 1ULL << 48, 0));
	expect("convert to an unknown profile, forced", EINVAL, convert(1ULL << 60, BTRFS_BALANCE_FORCE));
	args.meta.flags = BTRFS_BALANCE_ARGS_CONVERT;
	args.meta.target = 1ULL << 48;
	expect("less redundancy of metadata without force", EINVAL,
	       call(writable, BTRFS_IOC_BALANCE_V2, &args));
	expect("a balance of no type", 0, do_balance(writable, 0, NULL));
	expect("no balance is left", -1, balance_state(writable));
}

static void search_arguments(void)
{
	struct btrfs_ioctl_search_args args = { .key = { .tree_id = 1ULL << 40 } };
	struct btrfs_ioctl_search_key whole = {
		.tree_id = 1, .max_objectid = -1ULL, .max_offset = -1ULL, .max_transid = -1ULL,
		.max_type = 255, .nr_items = -1U,
	};
	struct {
		struct btrfs_ioctl_search_args_v2 args;
		char items[64];
	} small = { .args = { .key = whole, .buf_size = 31 } };

	expect("search of a tree that is not there", ENOENT, call(subvol, BTRFS_IOC_TREE_SEARCH, &args));
	expect("search into a buffer without room", EOVERFLOW, call(subvol, BTRFS_IOC_TREE_SEARCH_V2, &small));
	expect("the room that it needs", 32, small.args.buf_size);
	small.args.buf_size = 64;
	expect("search into a buffer with too little room", EOVERFLOW,
	       call(subvol, BTRFS_IOC_TREE_SEARCH_V2, &small));
	ktap_result(small.args.buf_size > 64, "it needs more room than that");
	args.key = whole;
	expect("search of a whole tree", 0, call(subvol, BTRFS_IOC_TREE_SEARCH, &args));
	ktap_result(args.key.nr_items > 1, "that found items");
	/* Between the bounds lie all types, even with a smallest one above the largest. */
	args.key = whole;
	args.key.tree_id = 3;
	args.key.min_objectid = args.key.max_objectid = 256;
	args.key.min_type = args.key.max_type = BTRFS_CHUNK_ITEM_KEY;
	expect("search of the chunks", 0, call(subvol, BTRFS_IOC_TREE_SEARCH, &args));
	ktap_result(args.key.nr_items > 1, "there are some");
	args.key = whole;
	args.key.tree_id = 3;
	args.key.min_objectid = 255;
	args.key.min_type = 255;
	args.key.max_objectid = 257;
	args.key.max_type = 0;
	expect("search between two object ids", 0, call(subvol, BTRFS_IOC_TREE_SEARCH, &args));
	ktap_result(args.key.nr_items > 1, "that has the chunks between them");
	args.key = whole;
	args.key.min_transid = -1ULL;
	expect("search for leaves to come", 0, call(subvol, BTRFS_IOC_TREE_SEARCH, &args));
	expect("there are none", 0, args.key.nr_items);
}

static void other_arguments(void)
{
	struct btrfs_ioctl_dev_info_args device = { .devid = 77 };
	struct btrfs_ioctl_get_dev_stats stats = { .devid = 77 };
	struct btrfs_ioctl_logical_ino_args logical = { .logical = 1, .size = 4096, .inodes = (uintptr_t)nowhere };
	struct btrfs_ioctl_ino_path_args paths = { .inum = 1ULL << 40, .size = 4096, .fspath = (uintptr_t)nowhere };
	struct btrfs_ioctl_ino_lookup_args lookup = { .objectid = 1ULL << 40 };
	char label[BTRFS_LABEL_SIZE];
	__u64 transid = 1ULL << 60;

	expect("a device that is not there", ENODEV, call(subvol, BTRFS_IOC_DEV_INFO, &device));
	expect("statistics of a device that is not there", ENODEV, call(subvol, BTRFS_IOC_GET_DEV_STATS, &stats));
	expect("an address without data", ENOENT, call(subvol, BTRFS_IOC_LOGICAL_INO, &logical));
	logical.flags = 1 << 5;
	expect("an unknown flag of an address", EINVAL, call(subvol, BTRFS_IOC_LOGICAL_INO_V2, &logical));
	expect("paths of an inode that is not there", ENOENT, call(subvol, BTRFS_IOC_INO_PATHS, &paths));
	expect("the path of an inode that is not there", ENOENT, call(subvol, BTRFS_IOC_INO_LOOKUP, &lookup));
	lookup = (struct btrfs_ioctl_ino_lookup_args){ .treeid = 1ULL << 40, .objectid = 257 };
	expect("the path in a tree that is not there", ENOENT, call(subvol, BTRFS_IOC_INO_LOOKUP, &lookup));
	memset(label, 'x', sizeof(label));
	expect("a label without an end", EINVAL, call(writable, BTRFS_IOC_SET_FSLABEL, label));
	expect("waiting for a transaction to come", EINVAL, call(subvol, BTRFS_IOC_WAIT_SYNC, &transid));
}

/* What needs a privilege, asked for without one: in a child, for that cannot be undone. */
static void privileges(void)
{
	static char buffer[4096];
	static const struct {
		const char *name;
		unsigned long cmd;
	} commands[] = {
		{ "send", BTRFS_IOC_SEND },
		{ "balance", BTRFS_IOC_BALANCE_V2 },
		{ "balance progress", BTRFS_IOC_BALANCE_PROGRESS },
		{ "tree search", BTRFS_IOC_TREE_SEARCH },
		{ "tree search v2", BTRFS_IOC_TREE_SEARCH_V2 },
		{ "paths of an inode", BTRFS_IOC_INO_PATHS },
		{ "files at an address", BTRFS_IOC_LOGICAL_INO },
		{ "files at an address v2", BTRFS_IOC_LOGICAL_INO_V2 },
		{ "a path", BTRFS_IOC_INO_LOOKUP },
		{ "a new label", BTRFS_IOC_SET_FSLABEL },
	};
	struct btrfs_ioctl_ino_lookup_args *lookup = (void *)buffer;
	struct btrfs_ioctl_get_dev_stats *stats = (void *)buffer;
	char name[80];
	size_t i;

	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		ktap_bail("cannot give up privileges");
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		memset(buffer, 0, sizeof(buffer));
		lookup->objectid = 257;
		snprintf(name, sizeof(name), "without privilege: %s", commands[i].name);
		expect(name, EPERM, call(writable, commands[i].cmd, buffer));
	}
	expect("without privilege: pausing", EPERM, do_balance_ctl(writable, BTRFS_BALANCE_CTL_PAUSE));
	expect("without privilege: cancelling", EPERM, do_balance_ctl(writable, BTRFS_BALANCE_CTL_CANCEL));
	memset(buffer, 0, sizeof(buffer));
	stats->devid = 1;
	stats->flags = BTRFS_DEV_STATS_RESET;
	expect("without privilege: a reset of statistics", EPERM, call(writable, BTRFS_IOC_GET_DEV_STATS, buffer));
	/* And what anybody may ask. */
	memset(buffer, 0, sizeof(buffer));
	expect("anybody may ask for the volume", 0, call(writable, BTRFS_IOC_FS_INFO, buffer));
	memset(buffer, 0, sizeof(buffer));
	lookup->objectid = BTRFS_FIRST_FREE_OBJECTID;
	expect("anybody may ask for the subvolume's id", 0, call(writable, BTRFS_IOC_INO_LOOKUP, buffer));
	expect("anybody may ask for the subvolume", 0, call(writable, BTRFS_IOC_GET_SUBVOL_INFO, buffer));
}

int main(int argc, char **argv)
{
	int *counts;

	if (argc != 3) {
		fprintf(stderr, "usage: %s SUBVOLUME WRITABLE\n", argv[0]);
		return 2;
	}
	subvol = open(argv[1], O_RDONLY | O_DIRECTORY);
	writable = open(argv[2], O_RDONLY | O_DIRECTORY);
	page_end = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (subvol < 0 || writable < 0 || page_end == MAP_FAILED)
		ktap_bail("cannot begin");
	page_end += 4096;
	nowhere = page_end;
	if (mprotect(page_end, 4096, PROT_NONE))
		ktap_bail("cannot begin");

	numbers();
	pointers();
	send_arguments();
	balance_arguments();
	search_arguments();
	other_arguments();

	/* The child's results are counted on. */
	counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		ktap_bail("no memory");
	counts[0] = ktap_count;
	counts[1] = ktap_failures + 1;
	if (fork() == 0) {
		privileges();
		counts[0] = ktap_count;
		counts[1] = ktap_failures;
		_exit(0);
	}
	wait(NULL);
	ktap_count = counts[0];
	ktap_failures = counts[1];
	return ktap_finish();
}
