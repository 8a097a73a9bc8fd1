// SPDX-License-Identifier: GPL-2.0
/*
 * exclusion MOUNT SUBVOLUME SYSFS: send and balance exclude each other, and nothing else waits for
 * either.
 *
 * SUBVOLUME is read-only and its stream is larger than a pipe; SYSFS is the volume's folder there.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include "btrfs.h"
#include "ktap.h"

static int mount_fd, subvol;
static const char *sysfs;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void expect(const char *name, int expected, int found)
{
	if (expected != found)
		ktap_note("%s: expected %d (%s), found %d (%s)", name, expected, strerror(abs(expected)), found,
			  strerror(abs(found)));
	ktap_result(expected == found, name);
}

static void read_sysfs(const char *file, char *text, size_t size)
{
	char path[512];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", sysfs, file);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, text, size - 1);
		close(fd);
	}
	text[n < 0 ? 0 : n] = 0;
	text[strcspn(text, "\n")] = 0;
}

static void expect_sysfs(const char *name, const char *file, const char *expected)
{
	char text[64];

	read_sysfs(file, text, sizeof(text));
	if (strcmp(text, expected))
		ktap_note("%s: %s is '%s', expected '%s'", name, file, text, expected);
	ktap_result(!strcmp(text, expected), name);
}

static int sends(void)
{
	char text[64];

	read_sysfs("send_in_progress", text, sizeof(text));
	return atoi(text);
}

/* Waits until `count` sends run, some seconds at most. */
static int wait_for_sends(int count)
{
	double end = now() + 60;

	while (sends() != count && now() < end)
		usleep(1000);
	return sends();
}

/* A send in a process of its own, whose pipe nobody reads. */
struct held_send {
	pid_t pid;
	int pipe;
};

static struct held_send hold_send(void)
{
	struct pollfd ready = { .events = POLLIN };
	struct held_send held;
	int ends[2];

	if (pipe(ends))
		ktap_bail("no pipe");
	held.pid = fork();
	if (held.pid == 0) {
		close(ends[0]);
		_exit(do_send(subvol, ends[1]));
	}
	close(ends[1]);
	held.pipe = ends[0];
	ready.fd = held.pipe;
	/* Once a byte is there the send has begun, and it cannot end before the pipe is read. */
	if (poll(&ready, 1, 60000) != 1 || !(ready.revents & POLLIN))
		ktap_bail("a send does not begin");
	return held;
}

/* How the process of a held send ended: its errno, or the signal and 1000. */
static int wait_for(struct held_send *held)
{
	int status;

	waitpid(held->pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* While a send is held: balance is refused at once, and what asks waits for nothing. */
static void while_a_send_is_held(void)
{
	struct held_send held = hold_send(), second;
	int stream = memfd_create("stream", 0), round;
	struct statfs st;
	__u64 flags;
	double start;

	expect_sysfs("a held send is counted", "send_in_progress", "1");
	start = now();
	expect("balance while a send is held", EAGAIN, do_balance(mount_fd, BTRFS_BALANCE_METADATA, NULL));
	expect("once more", EAGAIN, do_balance(mount_fd, BTRFS_BALANCE_TYPE_MASK, NULL));
	expect("there is no balance then", -1, balance_state(mount_fd));
	expect("nothing to pause", ENOTCONN, do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_PAUSE));
	expect("nothing to cancel", ENOTCONN, do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_CANCEL));
	expect("nothing to resume", ENOTCONN, do_balance(mount_fd, BTRFS_BALANCE_RESUME, NULL));
	expect_sysfs("no exclusive operation", "exclusive_operation", "none");
	expect("statfs", 0, outcome(fstatfs(mount_fd, &st)));
	expect("the subvolume's flags", 0, outcome(ioctl(subvol, BTRFS_IOC_SUBVOL_GETFLAGS, &flags)));
	expect("sync", 0, outcome(ioctl(mount_fd, BTRFS_IOC_SYNC)));
	ktap_result(now() - start < 20, "none of them waited for the send");
	flags = 0;
	expect("the subvolume cannot be made writable", EPERM,
	       outcome(ioctl(subvol, BTRFS_IOC_SUBVOL_SETFLAGS, &flags)));
	expect("another send runs beside it", 0, do_send(subvol, stream));
	second = hold_send();
	expect_sysfs("two held sends are counted", "send_in_progress", "2");
	kill(second.pid, SIGKILL);
	expect("a killed send ends", 1000 + SIGKILL, wait_for(&second));
	close(second.pipe);
	expect("and is counted no more", 1, wait_for_sends(1));
	close(held.pipe);
	expect("a send ends when its pipe is closed", EPIPE, wait_for(&held));
	expect("no send is left", 0, wait_for_sends(0));
	expect("balance after the sends", 0, do_balance(mount_fd, BTRFS_BALANCE_METADATA, NULL));

	for (round = 0; round < 20; round++) {
		held = hold_send();
		kill(held.pid, SIGKILL);
		close(held.pipe);
		wait_for(&held);
	}
	expect("no send is left of many that were killed", 0, wait_for_sends(0));
	close(stream);
}

/* A balance in a thread of its own. */
struct balance {
	pthread_t thread;
	__u64 flags;
	struct btrfs_ioctl_balance_args args;
	int result;
};

static void *balance_thread(void *data)
{
	struct balance *balance = data;

	balance->result = do_balance(mount_fd, balance->flags, &balance->args);
	return NULL;
}

static void start_balance(struct balance *balance, __u64 flags)
{
	memset(balance, 0, sizeof(*balance));
	balance->flags = flags;
	balance->result = -1;
	if (pthread_create(&balance->thread, NULL, balance_thread, balance))
		ktap_bail("no thread");
}

static int end_of(struct balance *balance)
{
	pthread_join(balance->thread, NULL);
	return balance->result;
}

/*
 * Starts a balance of everything and waits until it runs; false if it was over before that was
 * seen.
 */
static int balance_that_runs(struct balance *balance, __u64 flags)
{
	double end = now() + 60;
	int state;

	start_balance(balance, flags);
	while (now() < end) {
		state = balance_state(mount_fd);
		if (state > 0 && state & BTRFS_BALANCE_STATE_RUNNING)
			return 1;
		if (__atomic_load_n(&balance->result, __ATOMIC_RELAXED) != -1)
			break;
	}
	end_of(balance);
	return 0;
}

#define ALL (BTRFS_BALANCE_TYPE_MASK | BTRFS_BALANCE_FORCE)

/* While a balance runs sends are refused before one byte, and a second balance is in progress. */
static void while_a_balance_runs(void)
{
	int again = 0, bytes = 0, progress = 0, shown = 0, tries;
	struct balance balance;
	char text[64];
	int ends[2];

	if (pipe2(ends, O_NONBLOCK))
		ktap_bail("no pipe");
	for (tries = 0; tries < 20 && !(again && progress && shown); tries++) {
		if (!balance_that_runs(&balance, ALL))
			continue;
		read_sysfs("exclusive_operation", text, sizeof(text));
		shown |= !strcmp(text, "balance");
		if (do_send(subvol, ends[1]) == EAGAIN && read(ends[0], text, 1) < 0)
			again = 1;
		else
			while (read(ends[0], text, sizeof(text)) > 0)
				bytes = 1;
		progress |= do_balance(mount_fd, ALL, NULL) == EINPROGRESS;
		end_of(&balance);
	}
	ktap_note("%d balances, %s", tries, bytes ? "some over when the send came" : "each met by the send");
	ktap_result(again, "a send is refused while a balance runs, without a byte");
	ktap_result(progress, "a second balance is in progress");
	ktap_result(shown, "the exclusive operation is balance");
	expect_sysfs("and none afterwards", "exclusive_operation", "none");
	close(ends[0]);
	close(ends[1]);
}

/*
 * A paused balance lets sends run, stays when they keep it from being resumed, and can be resumed
 * and cancelled.
 */
static void pausing(void)
{
	struct held_send held;
	struct balance balance;
	int paused = 0, cancelled = 0, tries;

	for (tries = 0; tries < 20 && !paused; tries++) {
		if (!balance_that_runs(&balance, ALL))
			continue;
		paused = do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_PAUSE) == 0;
		if (end_of(&balance) != ECANCELED)
			paused = 0;
	}
	ktap_result(paused, "a balance can be paused");
	if (!paused)
		return;
	ktap_result(balance.args.stat.expected > 0, "its caller is told how much there is");
	expect("its progress can be asked for", 0, balance_state(mount_fd));
	expect_sysfs("it is paused", "exclusive_operation", "balance paused");
	expect("there can be no other", EINPROGRESS, do_balance(mount_fd, BTRFS_BALANCE_DATA, NULL));
	expect("and it cannot be paused twice", ENOTCONN, do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_PAUSE));
	held = hold_send();
	expect("it is not resumed while a send runs", EAGAIN, do_balance(mount_fd, BTRFS_BALANCE_RESUME, NULL));
	expect("and is still there", 0, balance_state(mount_fd));
	expect_sysfs("paused", "exclusive_operation", "balance paused");
	close(held.pipe);
	wait_for(&held);
	expect("it is resumed after that", 0, do_balance(mount_fd, BTRFS_BALANCE_RESUME, NULL));
	expect("and over", -1, balance_state(mount_fd));

	for (tries = 0; tries < 20 && !cancelled; tries++) {
		double start;

		if (!balance_that_runs(&balance, ALL))
			continue;
		start = now();
		if (do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_CANCEL) == 0 && end_of(&balance) == ECANCELED) {
			cancelled = 1;
			ktap_note("a cancel took %.3f s", now() - start);
		}
	}
	ktap_result(cancelled, "a balance can be cancelled");
	expect("nothing is left of it", -1, balance_state(mount_fd));

	paused = 0;
	for (tries = 0; tries < 20 && !paused; tries++) {
		if (!balance_that_runs(&balance, ALL))
			continue;
		do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_PAUSE);
		paused = end_of(&balance) == ECANCELED;
	}
	expect("a paused balance can be cancelled", 0, do_balance_ctl(mount_fd, BTRFS_BALANCE_CTL_CANCEL));
	expect("nothing is left of that either", -1, balance_state(mount_fd));
	expect_sysfs("no exclusive operation is left", "exclusive_operation", "none");
}

/* A signal that ends the process ends its balance. */
static void signals(void)
{
	int ended = 0, tries, state, status;
	double end;
	pid_t pid;

	for (tries = 0; tries < 20 && !ended; tries++) {
		pid = fork();
		if (pid == 0)
			_exit(do_balance(mount_fd, ALL, NULL));
		end = now() + 60;
		do {
			state = balance_state(mount_fd);
		} while (state <= 0 && now() < end && waitpid(pid, &status, WNOHANG) == 0);
		kill(pid, SIGTERM);
		if (waitpid(pid, &status, 0) != pid)
			continue;
		ended = WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
	}
	ktap_result(ended, "a signal to the caller ends a balance");
	expect("nothing is left of a balance that a signal ended", -1, balance_state(mount_fd));
	expect_sysfs("nor of its exclusive operation", "exclusive_operation", "none");
}

/* Sends and balances from many threads. */
static struct {
	double end;
	long sent, send_refused, balanced, balance_refused, in_progress, other, both;
} hammer;

static void count(long *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* A send in a thread of its own: a process would hold the pipes of the others open. */
struct send {
	pthread_t thread;
	int out;
	int result;
};

static void *send_thread(void *data)
{
	struct send *send = data;

	send->result = do_send(subvol, send->out);
	close(send->out);
	return NULL;
}

static void *send_hammer(void *unused)
{
	while (now() < hammer.end) {
		struct pollfd ready = { .events = POLLIN };
		double start = now();
		struct send send;
		int ends[2], state;

		if (pipe(ends))
			break;
		ready.fd = ends[0];
		send.out = ends[1];
		if (pthread_create(&send.thread, NULL, send_thread, &send))
			ktap_bail("no thread");
		poll(&ready, 1, -1);
		if (ready.revents & POLLIN) {
			/*
			 * The pipe is not read: this send certainly runs, so that no balance may.
			 */
			state = balance_state(mount_fd);
			if (state > 0 && state & BTRFS_BALANCE_STATE_RUNNING)
				count(&hammer.both);
		}
		close(ends[0]);
		pthread_join(send.thread, NULL);
		/*
		 * Pauses many times as long as a send leave room for balances, however slow the
		 * machine is.
		 */
		usleep((now() - start) * 1e6 * (rand() % 16));
		switch (send.result) {
		case 0:
		case EPIPE:
			count(&hammer.sent);
			break;
		case EAGAIN:
			count(&hammer.send_refused);
			break;
		default:
			count(&hammer.other);
		}
	}
	return unused;
}

static void *balance_hammer(void *unused)
{
	while (now() < hammer.end) {
		switch (do_balance(mount_fd, BTRFS_BALANCE_METADATA, NULL)) {
		case 0:
			count(&hammer.balanced);
			break;
		case EAGAIN:
			count(&hammer.balance_refused);
			break;
		case EINPROGRESS:
			count(&hammer.in_progress);
			break;
		default:
			count(&hammer.other);
		}
		usleep(rand() % 20000);
	}
	return unused;
}

static void hammering(int seconds)
{
	pthread_t threads[6];
	size_t i;

	hammer.end = now() + seconds;
	for (i = 0; i < 6; i++)
		if (pthread_create(&threads[i], NULL, i < 4 ? send_hammer : balance_hammer, NULL))
			ktap_bail("no thread");
	for (i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	ktap_note("sends: %ld done, %ld refused; balances: %ld done, %ld refused, %ld in progress", hammer.sent,
		  hammer.send_refused, hammer.balanced, hammer.balance_refused, hammer.in_progress);
	expect("no send ever ran beside a balance", 0, hammer.both);
	expect("nothing else ever happened", 0, hammer.other);
	/* Only chance brings these about: where they did not come, nothing was tested. */
	ktap_result(1, hammer.sent > 0 && hammer.send_refused > 0 ? "some sends were done and some refused" :
		       "some sends were done and some refused # SKIP only one of these");
	ktap_result(1, hammer.balance_refused > 0 ? "some balances were refused" :
		       "some balances were refused # SKIP none was");
	expect_sysfs("no send is left of all", "send_in_progress", "0");
	expect_sysfs("no exclusive operation is left of all", "exclusive_operation", "none");
	expect("a balance runs after all", 0, do_balance(mount_fd, BTRFS_BALANCE_METADATA, NULL));
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s MOUNT SUBVOLUME SYSFS\n", argv[0]);
		return 2;
	}
	mount_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
	subvol = open(argv[2], O_RDONLY | O_DIRECTORY);
	sysfs = argv[3];
	/* A closed pipe is an error here, not the end. */
	signal(SIGPIPE, SIG_IGN);
	if (mount_fd < 0 || subvol < 0)
		ktap_bail("cannot begin");

	while_a_send_is_held();
	while_a_balance_runs();
	pausing();
	signals();
	hammering(20);
	return ktap_finish();
}
