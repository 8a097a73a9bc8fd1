// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust cannot call by itself: inline functions and macros of the kernel's headers, fields that
 * must only be touched through accessors, and the module parameter that is a string. Logic belongs
 * into Rust; what is more than one call here is so because it needs a macro or an inline function
 * in the middle.
 */
#include <crypto/blake2b.h>
#include <linux/module.h>
#include <linux/backing-dev.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/crc32.h>
#include <linux/fsnotify.h>
#include <linux/highmem.h>
#include <linux/iversion.h>
#include <linux/kernfs.h>
#include <linux/lockdep.h>
#include <linux/kthread.h>

#include "bindings_helper.h"

static char *fstype = "btrfs";
module_param(fstype, charp, 0444);
MODULE_PARM_DESC(fstype, "name to register the filesystem under (default btrfs)");
MODULE_ALIAS_FS("btrfs");

void rbtrfs_layouts(size_t *sizes)
{
	const size_t found[] = {
		sizeof(struct inode),
		offsetof(struct inode, i_op),
		offsetof(struct inode, i_mapping),
		offsetof(struct inode, i_generation),
		sizeof(struct super_block),
		offsetof(struct super_block, s_fs_info),
		offsetof(struct super_block, s_id),
		sizeof(struct file),
		sizeof(struct inode_operations),
		sizeof(struct file_operations),
		sizeof(struct super_operations),
		sizeof(struct address_space_operations),
		sizeof(struct export_operations),
		sizeof(struct fs_context),
		offsetof(struct fs_context, sb_flags),
		sizeof(struct kstat),
		sizeof(struct kstatfs),
		sizeof(struct bio),
		sizeof(struct iomap_ops),
		sizeof(struct iomap_iter),
		sizeof(struct iomap_write_ops),
		sizeof(struct iomap_writeback_ops),
		sizeof(struct iomap_writepage_ctx),
		sizeof(struct iomap_read_folio_ctx),
		sizeof(struct iattr),
	};

	static_assert(ARRAY_SIZE(found) == RBTRFS_LAYOUTS);
	memcpy(sizes, found, sizeof(found));
}

const char *rbtrfs_fstype(void)
{
	return fstype;
}

unsigned int rbtrfs_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void rbtrfs_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

bool rbtrfs_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void rbtrfs_cond_resched(void)
{
	cond_resched();
}

struct workqueue_struct *rbtrfs_workqueue_create(const char *name, unsigned int active)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, active, name);
}

bool rbtrfs_may_log(void)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL, 100);

	return __ratelimit(&state);
}

/* The machine's memory, in bytes. */
u64 rbtrfs_memory_size(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}

u32 rbtrfs_crc32c(u32 seed, const void *data, size_t len)
{
	return crc32c(seed, data, len);
}

void rbtrfs_blake2b(const u8 *data, size_t len, u8 *out, size_t out_len)
{
	blake2b(NULL, 0, data, len, out, out_len);
}

u64 rbtrfs_bdev_size(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

bool rbtrfs_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

/* Pages that another opener left dirty reach the disk, and no stale page shadows what we read. */
void rbtrfs_bdev_sync(struct block_device *bdev)
{
	sync_blockdev(bdev);
	invalidate_bdev(bdev);
}

/* Drops the device's own cached pages of a range that was written behind them. */
void rbtrfs_bdev_invalidate(struct block_device *bdev, u64 offset, u64 len)
{
	if (len)
		invalidate_inode_pages2_range(bdev->bd_mapping, offset >> PAGE_SHIFT,
					      (offset + len - 1) >> PAGE_SHIFT);
}

/* 0 if the device cannot discard. */
u32 rbtrfs_bdev_discard_granularity(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev) ? bdev_discard_granularity(bdev) : 0;
}

struct bio *rbtrfs_bio_alloc(struct block_device *bdev, unsigned int vecs, u32 opf, u64 sector)
{
	struct bio *bio = bio_alloc(bdev, bio_max_segs(vecs), (__force blk_opf_t)opf, GFP_NOIO);

	bio->bi_iter.bi_sector = sector;
	return bio;
}

/* Adds as much of a kernel buffer as fits and returns that many bytes; 0 if the bio is full. */
size_t rbtrfs_bio_add(struct bio *bio, void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		unsigned int chunk;

		if (is_vmalloc_addr(data + done)) {
			chunk = bio_add_vmalloc_chunk(bio, data + done, min_t(size_t, len - done, SZ_1G));
		} else {
			chunk = min_t(size_t, len - done, PAGE_SIZE - offset_in_page(data + done));
			if (bio_add_page(bio, virt_to_page(data + done), chunk,
					 offset_in_page(data + done)) < chunk)
				chunk = 0;
		}
		if (!chunk)
			break;
		done += chunk;
	}
	return done;
}

int rbtrfs_bio_errno(struct bio *bio)
{
	return blk_status_to_errno(bio->bi_status);
}

u32 rbtrfs_bio_data_size(const struct bio *bio)
{
	return bio->bi_iter.bi_size;
}

/* Makes what a device put behind a vmalloc mapping visible through it; nothing to do on x86. */
void rbtrfs_kmem_after_read(void *data, size_t len)
{
	if (is_vmalloc_addr(data))
		invalidate_kernel_vmap_range(data, len);
}

/*
 * The lock classes that the VFS keeps in a filesystem type. Lockdep knows those of a static by
 * itself, those of one in allocated memory only if told. Without lockdep nothing is done.
 */
static void for_each_key(struct file_system_type *type, void (*each)(struct lock_class_key *key))
{
	int i;

	each(&type->s_lock_key);
	each(&type->s_umount_key);
	each(&type->s_vfs_rename_key);
	for (i = 0; i < SB_FREEZE_LEVELS; i++)
		each(&type->s_writers_key[i]);
	each(&type->i_lock_key);
	each(&type->i_mutex_key);
	each(&type->invalidate_lock_key);
	each(&type->i_mutex_dir_key);
}

void rbtrfs_fs_type_register_keys(struct file_system_type *type)
{
	for_each_key(type, lockdep_register_key);
}

void rbtrfs_fs_type_unregister_keys(struct file_system_type *type)
{
	for_each_key(type, lockdep_unregister_key);
}

bool rbtrfs_sb_rdonly(const struct super_block *sb)
{
	return sb_rdonly(sb);
}

dev_t rbtrfs_new_anon_dev(int *err)
{
	dev_t dev = 0;

	*err = get_anon_bdev(&dev);
	return dev;
}

void rbtrfs_seq_puts(struct seq_file *seq, const char *text)
{
	seq_puts(seq, text);
}

void rbtrfs_seq_escape(struct seq_file *seq, const char *text)
{
	seq_escape(seq, text, " \t\n\\");
}

void rbtrfs_seq_dentry(struct seq_file *seq, struct dentry *dentry)
{
	seq_dentry(seq, dentry, " \t\n\\,");
}

void rbtrfs_sb_set_uuid(struct super_block *sb, const u8 *uuid)
{
	super_set_uuid(sb, uuid, UUID_SIZE);
}

/*
 * Gives a superblock a bdi of its own in place of its device's, whose settings are not for a
 * filesystem to change, and has the page cache read as far ahead as that or the device says,
 * whichever is more.
 */
int rbtrfs_sb_set_readahead(struct super_block *sb, size_t bytes)
{
	unsigned long pages = max(sb->s_bdi->ra_pages, bytes >> PAGE_SHIFT);
	int err;

	bdi_put(sb->s_bdi);
	sb->s_bdi = &noop_backing_dev_info;
	err = super_setup_bdi(sb);
	if (err)
		return err;
	sb->s_bdi->ra_pages = pages;
	return 0;
}

/*
 * Adds a message to the context's own log, if user space has one open: fsmount and fsconfig, but
 * not mount(2).
 */
void rbtrfs_fc_log(struct fs_context *fc, char level, const char *message)
{
	if (fc->log.log)
		logfc(fc->log.log, fc->log.prefix, level, "%s", message);
}

/*
 * The kind of value that a mount option has: 0 for none, 1 for text, which is handed out, 2 for
 * another.
 */
int rbtrfs_param_text(const struct fs_parameter *param, const char **text)
{
	switch (param->type) {
	case fs_value_is_flag:
		return 0;
	case fs_value_is_string:
		*text = param->string;
		return 1;
	default:
		return 2;
	}
}

struct kmem_cache *rbtrfs_inode_cache_create(size_t size, size_t align, void (*ctor)(void *))
{
	return kmem_cache_create("rbtrfs_inode", size, align,
				 SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void *rbtrfs_inode_cache_alloc(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

/* Inodes are freed after a grace period: all of them are back before the cache goes. */
void rbtrfs_inode_cache_destroy(struct kmem_cache *cache)
{
	rcu_barrier();
	kmem_cache_destroy(cache);
}

struct dentry *rbtrfs_lookup(struct dentry *base, const char *name, u32 len)
{
	return lookup_noperm_unlocked(&QSTR_LEN(name, len), base);
}

bool rbtrfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

/*
 * The next complete inode in the cache after prev, or the first one, with a reference. The caller
 * has a reference to prev.
 */
struct inode *rbtrfs_next_inode(struct super_block *sb, struct inode *prev)
{
	struct inode *inode, *found = NULL;

	spin_lock(&sb->s_inode_list_lock);
	inode = list_prepare_entry(prev, &sb->s_inodes, i_sb_list);
	list_for_each_entry_continue(inode, &sb->s_inodes, i_sb_list) {
		spin_lock(&inode->i_lock);
		if (!inode_unhashed(inode) &&
		    !(inode_state_read(inode) & (I_NEW | I_FREEING | I_WILL_FREE))) {
			__iget(inode);
			found = inode;
		}
		spin_unlock(&inode->i_lock);
		if (found)
			break;
	}
	spin_unlock(&sb->s_inode_list_lock);
	return found;
}

struct rbtrfs_find {
	int (*test)(struct inode *inode, void *data);
	void *data;
};

static int rbtrfs_get_complete(struct inode *inode, u64 hash, void *data)
{
	const struct rbtrfs_find *find = data;
	int found = -1;

	if (!find->test(inode, find->data))
		return 0;
	spin_lock(&inode->i_lock);
	if (!(inode_state_read(inode) & (I_NEW | I_FREEING | I_WILL_FREE))) {
		__iget(inode);
		found = 1;
	}
	spin_unlock(&inode->i_lock);
	return found;
}

/*
 * The inode that test accepts, with a reference, if it is complete and in use; waits for nothing.
 */
struct inode *rbtrfs_find_inode(struct super_block *sb, u64 hash,
				int (*test)(struct inode *inode, void *data), void *data)
{
	struct rbtrfs_find find = { .test = test, .data = data };

	return find_inode_nowait(sb, hash, rbtrfs_get_complete, &find);
}

int rbtrfs_init_security(struct inode *inode, struct inode *dir, const u8 *name, u32 len,
			 initxattrs collect, void *data)
{
	const struct qstr qstr = QSTR_LEN(name, len);

	return security_inode_init_security(inode, dir, name ? &qstr : NULL, collect, data);
}

void rbtrfs_inode_no_xattrs(struct inode *inode)
{
	inode->i_opflags &= ~IOP_XATTR;
}

void rbtrfs_inode_set_fop(struct inode *inode, const struct file_operations *fop)
{
	inode->i_fop = fop;
}

void rbtrfs_inode_set_size(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

loff_t rbtrfs_inode_size(const struct inode *inode)
{
	return i_size_read(inode);
}

void rbtrfs_inode_set_owner(struct inode *inode, uid_t uid, gid_t gid)
{
	i_uid_write(inode, uid);
	i_gid_write(inode, gid);
}

void rbtrfs_inode_inherit_owner(struct inode *inode, const struct inode *from)
{
	inode->i_uid = from->i_uid;
	inode->i_gid = from->i_gid;
}

void rbtrfs_inode_set_times(struct inode *inode, s64 asec, u32 ansec, s64 msec, u32 mnsec,
			    s64 csec, u32 cnsec)
{
	inode_set_atime(inode, asec, ansec);
	inode_set_mtime(inode, msec, mnsec);
	inode_set_ctime(inode, csec, cnsec);
}

/*
 * The time for a change of an inode, later than any that somebody has seen of it. The inode, which
 * is locked, is left as it is, as the change may fail; inode_set_ctime_current() keeps the clock
 * that all inodes share.
 */
void rbtrfs_current_time(struct inode *inode, s64 *sec, u32 *nsec)
{
	time64_t old_sec = inode->i_ctime_sec;
	u32 old_nsec = inode->i_ctime_nsec;
	struct timespec64 now = inode_set_ctime_current(inode);

	inode->i_ctime_sec = old_sec;
	inode->i_ctime_nsec = old_nsec;
	*sec = now.tv_sec;
	*nsec = now.tv_nsec;
}

void rbtrfs_inode_set_version(struct inode *inode, u64 version)
{
	inode_set_iversion_queried(inode, version);
}

void rbtrfs_inode_enable_large_folios(struct inode *inode)
{
	mapping_set_large_folios(inode->i_mapping);
}

/*
 * Where the folio ends that caches pos; 0 if none does. The caller keeps the file from being
 * truncated.
 */
loff_t rbtrfs_cached_end(struct inode *inode, loff_t pos)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, pos >> PAGE_SHIFT);
	loff_t end;

	if (IS_ERR(folio))
		return 0;
	end = folio_next_pos(folio);
	folio_put(folio);
	return end;
}

void rbtrfs_inode_no_highmem(struct inode *inode)
{
	inode_nohighmem(inode);
}

/* Spares the permission checks of an inode without ACLs every later lookup. */
void rbtrfs_inode_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

struct dentry *rbtrfs_dget(struct dentry *dentry)
{
	return dget(dentry);
}

struct inode *rbtrfs_d_inode(const struct dentry *dentry)
{
	return d_inode(dentry);
}

const unsigned char *rbtrfs_d_name(const struct dentry *dentry, u32 *len)
{
	*len = dentry->d_name.len;
	return dentry->d_name.name;
}

struct inode *rbtrfs_file_inode(const struct file *file)
{
	return file_inode(file);
}

struct dentry *rbtrfs_file_dentry(const struct file *file)
{
	return file_dentry(file);
}

bool rbtrfs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool rbtrfs_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

void rbtrfs_set_kfree_link(struct delayed_call *call, void *link)
{
	set_delayed_call(call, kfree_link, link);
}

bool rbtrfs_inode_owner_or_capable(const struct file *file)
{
	return inode_owner_or_capable(file_mnt_idmap(file), file_inode(file));
}

/* The task is referenced, so that it can be waited for after its end, too. */
struct task_struct *rbtrfs_thread_run(int (*run)(void *data), void *data, const char *name)
{
	struct task_struct *task = kthread_create(run, data, "%s", name);

	if (!IS_ERR(task)) {
		get_task_struct(task);
		wake_up_process(task);
	}
	return task;
}

void rbtrfs_thread_join(struct task_struct *task)
{
	kthread_stop_put(task);
}

/* Sleeps until woken or the time is over, and answers whether the thread shall go on. */
bool rbtrfs_thread_sleep(unsigned int ms)
{
	set_current_state(TASK_INTERRUPTIBLE);
	if (!kthread_should_stop())
		schedule_timeout(msecs_to_jiffies(ms));
	__set_current_state(TASK_RUNNING);
	return !kthread_should_stop();
}

void rbtrfs_thread_wake(struct task_struct *task)
{
	wake_up_process(task);
}

void rbtrfs_inode_attributes(struct inode *inode, struct rbtrfs_attributes *found)
{
	found->version = inode_peek_iversion(inode);
	found->atime = inode_get_atime_sec(inode);
	found->mtime = inode_get_mtime_sec(inode);
	found->ctime = inode_get_ctime_sec(inode);
	found->atime_nsec = inode_get_atime_nsec(inode);
	found->mtime_nsec = inode_get_mtime_nsec(inode);
	found->ctime_nsec = inode_get_ctime_nsec(inode);
	found->mode = inode->i_mode;
	found->uid = i_uid_read(inode);
	found->gid = i_gid_read(inode);
}

/*
 * Sets the time of the last change and, if the contents were modified, that of the last
 * modification. A time of change that is there already stays, with the note that somebody has seen
 * it.
 */
void rbtrfs_inode_set_cmtime(struct inode *inode, s64 sec, u32 nsec, bool modified)
{
	if (modified)
		inode_set_mtime(inode, sec, nsec);
	if (inode_get_ctime_sec(inode) != sec || inode_get_ctime_nsec(inode) != nsec)
		inode_set_ctime(inode, sec, nsec);
	inode_inc_iversion(inode);
}

/* The owner of what the calling task makes, as it is kept on disk. */
u32 rbtrfs_fsuid(struct mnt_idmap *idmap, struct super_block *sb)
{
	return from_kuid(sb->s_user_ns, mapped_fsuid(idmap, sb->s_user_ns));
}

u32 rbtrfs_fsgid(struct mnt_idmap *idmap, struct super_block *sb)
{
	return from_kgid(sb->s_user_ns, mapped_fsgid(idmap, sb->s_user_ns));
}

u32 rbtrfs_inode_gid(const struct inode *inode)
{
	return i_gid_read(inode);
}

unsigned long rbtrfs_file_private(const struct file *file)
{
	return (unsigned long)file->private_data;
}

void rbtrfs_file_set_private(struct file *file, unsigned long value)
{
	file->private_data = (void *)value;
}

u32 rbtrfs_inode_nlink(const struct inode *inode)
{
	return inode->i_nlink;
}

void rbtrfs_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

void rbtrfs_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

void rbtrfs_invalidate_lock(struct inode *inode)
{
	filemap_invalidate_lock(inode->i_mapping);
}

void rbtrfs_invalidate_unlock(struct inode *inode)
{
	filemap_invalidate_unlock(inode->i_mapping);
}

void rbtrfs_invalidate_lock_shared(struct inode *inode)
{
	filemap_invalidate_lock_shared(inode->i_mapping);
}

void rbtrfs_invalidate_unlock_shared(struct inode *inode)
{
	filemap_invalidate_unlock_shared(inode->i_mapping);
}

void rbtrfs_file_accessed(struct file *file)
{
	file_accessed(file);
}

/* What is written back does not change under its checksum. */
void rbtrfs_inode_stable_writes(struct inode *inode)
{
	mapping_set_stable_writes(inode->i_mapping);
}

void rbtrfs_mapping_set_error(struct inode *inode, int error)
{
	mapping_set_error(inode->i_mapping, error);
}

ssize_t rbtrfs_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

bool rbtrfs_file_is_sync(const struct file *file)
{
	return (file->f_flags & (__O_SYNC | O_DSYNC)) || IS_SYNC(file_inode(file));
}

struct file *rbtrfs_vmf_file(const struct vm_fault *vmf)
{
	return vmf->vma->vm_file;
}

void rbtrfs_start_pagefault(struct super_block *sb)
{
	sb_start_pagefault(sb);
}

void rbtrfs_end_pagefault(struct super_block *sb)
{
	sb_end_pagefault(sb);
}

bool rbtrfs_try_start_internal(struct super_block *sb)
{
	return sb_start_intwrite_trylock(sb);
}

void rbtrfs_start_internal(struct super_block *sb)
{
	sb_start_intwrite(sb);
}

void rbtrfs_end_internal(struct super_block *sb)
{
	sb_end_intwrite(sb);
}

u32 rbtrfs_kattr_flags(const struct file_kattr *attr)
{
	return attr->flags;
}

bool rbtrfs_kattr_has_fsx(const struct file_kattr *attr)
{
	return fileattr_has_fsx(attr);
}

int rbtrfs_finish_tmpfile(struct file *file, int error)
{
	return finish_open_simple(file, error);
}

void rbtrfs_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}

void rbtrfs_sb_lock_shared(struct super_block *sb)
{
	down_read(&sb->s_umount);
}

bool rbtrfs_sb_try_lock_shared(struct super_block *sb)
{
	return down_read_trylock(&sb->s_umount);
}

void rbtrfs_sb_unlock_shared(struct super_block *sb)
{
	up_read(&sb->s_umount);
}

void rbtrfs_sb_unlock(struct super_block *sb)
{
	up_write(&sb->s_umount);
}

bool rbtrfs_inode_generic_drop(struct inode *inode)
{
	return inode_generic_drop(inode);
}

struct dentry *rbtrfs_start_creating(struct mnt_idmap *idmap, struct dentry *parent, const char *name,
				     u32 len)
{
	return start_creating_killable(idmap, parent, &QSTR_LEN(name, len));
}

struct dentry *rbtrfs_start_removing(struct mnt_idmap *idmap, struct dentry *parent, const char *name,
				     u32 len)
{
	return start_removing_killable(idmap, parent, &QSTR_LEN(name, len));
}

/* A counted reference to an open file of a superblock. */
struct file *rbtrfs_fget_of(unsigned int fd, struct super_block *sb)
{
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EINVAL);
	if (file_inode(file)->i_sb != sb) {
		fput(file);
		return ERR_PTR(-EXDEV);
	}
	return file;
}

u32 rbtrfs_umask(void)
{
	return current_umask();
}

void rbtrfs_notify_mkdir(struct inode *dir, struct dentry *dentry)
{
	fsnotify_mkdir(dir, dentry);
}

void rbtrfs_delete_notify(struct inode *dir, struct dentry *dentry)
{
	d_delete_notify(dir, dentry);
}

/* Nothing can be made in a directory that is gone. */
void rbtrfs_inode_set_dead(struct inode *inode)
{
	inode->i_flags |= S_DEAD;
}

bool rbtrfs_file_is_idmapped(const struct file *file)
{
	return file_mnt_idmap(file) != &nop_mnt_idmap;
}

struct mnt_idmap *rbtrfs_file_idmap(const struct file *file)
{
	return file_mnt_idmap(file);
}

int rbtrfs_may_search(const struct file *file, struct inode *dir)
{
	return inode_permission(file_mnt_idmap(file), dir, MAY_READ | MAY_EXEC);
}

void *rbtrfs_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

loff_t rbtrfs_folio_pos(const struct folio *folio)
{
	return folio_pos(folio);
}

size_t rbtrfs_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

struct inode *rbtrfs_folio_inode(const struct folio *folio)
{
	return folio->mapping->host;
}

loff_t rbtrfs_readahead_pos(const struct readahead_control *rac)
{
	return readahead_pos((struct readahead_control *)rac);
}

size_t rbtrfs_readahead_length(const struct readahead_control *rac)
{
	return readahead_length((struct readahead_control *)rac);
}

struct inode *rbtrfs_readahead_inode(const struct readahead_control *rac)
{
	return rac->mapping->host;
}

/* The next locked folio of the request; the page cache keeps the reference that covers it. */
struct folio *rbtrfs_readahead_folio(struct readahead_control *rac)
{
	return readahead_folio(rac);
}

void rbtrfs_folio_flush_dcache(struct folio *folio)
{
	flush_dcache_folio(folio);
}

bool rbtrfs_capable(int cap)
{
	return capable(cap);
}

/* The name of the current task, of TASK_COMM_LEN bytes, and its number. */
int rbtrfs_current_name(char *name)
{
	static_assert(TASK_COMM_LEN == 16);
	strscpy_pad(name, current->comm, TASK_COMM_LEN);
	return task_pid_nr(current);
}

/* A counted reference to an open file that may be written to, or NULL. */
struct file *rbtrfs_fget_write(unsigned int fd)
{
	struct file *file = fget(fd);

	if (file && !(file->f_mode & FMODE_WRITE)) {
		fput(file);
		file = NULL;
	}
	return file;
}

struct kobject *rbtrfs_fs_kobj(void)
{
	return fs_kobj;
}

/*
 * Whether a directory of sysfs has this entry. Adding one twice would be a warning with a stack
 * trace.
 */
bool rbtrfs_sysfs_taken(struct kobject *parent, const char *name)
{
	struct kernfs_node *found = kernfs_find_and_get(parent->sd, name);

	kernfs_put(found);
	return found;
}

/* A link to the volume's device, by the device's name. It goes with the directory. */
int rbtrfs_sysfs_link_device(struct kobject *dir, struct super_block *sb)
{
	struct kobject *device = bdev_kobj(sb->s_bdev);

	return sysfs_create_link(dir, device, device->name);
}

int rbtrfs_sysfs_link_bdi(struct kobject *dir, struct super_block *sb)
{
	struct device *dev = sb->s_bdi->dev;

	return dev ? sysfs_create_link(dir, &dev->kobj, "bdi") : 0;
}
