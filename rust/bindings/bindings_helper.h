/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers that rbtrfs needs beyond those which the kernel crate binds, and the prototypes of
 * helpers.c, which wraps what bindgen cannot see: inline functions, macros, and fields that have
 * accessors.
 */
#ifndef RBTRFS_BINDINGS_HELPER_H
#define RBTRFS_BINDINGS_HELPER_H

#include <crypto/sha2.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dcache.h>
#include <linux/exportfs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fileattr.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/iomap.h>
#include <linux/kobject.h>
#include <linux/lzo.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>
#include <linux/writeback.h>
#include <linux/xattr.h>
#include <linux/xxhash.h>
#include <linux/zlib.h>
#include <linux/zstd.h>

#ifdef __BINDGEN__
/* Constants that are casts, which bindgen does not evaluate. */
static const int rbtrfs_IOCB_NOWAIT = (__force int)IOCB_NOWAIT;
static const fmode_t rbtrfs_FMODE_NOWAIT = (__force fmode_t)FMODE_NOWAIT;
static const fmode_t rbtrfs_FMODE_CAN_ODIRECT = (__force fmode_t)FMODE_CAN_ODIRECT;
#endif

/*
 * Sizes of structures as the C compiler has them, RBTRFS_LAYOUTS of them; bindings/layout.rs has
 * the same list.
 */
#define RBTRFS_LAYOUTS 25
void rbtrfs_layouts(size_t *sizes);

/* Module parameters and tasks. */
const char *rbtrfs_fstype(void);
unsigned int rbtrfs_memalloc_nofs_save(void);
void rbtrfs_memalloc_nofs_restore(unsigned int flags);
bool rbtrfs_fatal_signal_pending(void);
void rbtrfs_cond_resched(void);
struct workqueue_struct *rbtrfs_workqueue_create(const char *name, unsigned int active);
bool rbtrfs_may_log(void);
u64 rbtrfs_memory_size(void);
u32 rbtrfs_crc32c(u32 seed, const void *data, size_t len);
void rbtrfs_blake2b(const u8 *data, size_t len, u8 *out, size_t out_len);

/* Block devices. */
u64 rbtrfs_bdev_size(struct block_device *bdev);
bool rbtrfs_bdev_read_only(struct block_device *bdev);
void rbtrfs_bdev_sync(struct block_device *bdev);
void rbtrfs_bdev_invalidate(struct block_device *bdev, u64 offset, u64 len);
u32 rbtrfs_bdev_discard_granularity(struct block_device *bdev);
struct bio *rbtrfs_bio_alloc(struct block_device *bdev, unsigned int vecs, u32 opf, u64 sector);
size_t rbtrfs_bio_add(struct bio *bio, void *data, size_t len);
int rbtrfs_bio_errno(struct bio *bio);
u32 rbtrfs_bio_data_size(const struct bio *bio);
void rbtrfs_kmem_after_read(void *data, size_t len);

/* Superblocks and filesystem contexts. */
void rbtrfs_fs_type_register_keys(struct file_system_type *type);
void rbtrfs_fs_type_unregister_keys(struct file_system_type *type);
bool rbtrfs_sb_rdonly(const struct super_block *sb);
dev_t rbtrfs_new_anon_dev(int *err);
void rbtrfs_seq_puts(struct seq_file *seq, const char *text);
void rbtrfs_seq_escape(struct seq_file *seq, const char *text);
void rbtrfs_seq_dentry(struct seq_file *seq, struct dentry *dentry);
void rbtrfs_sb_set_uuid(struct super_block *sb, const u8 *uuid);
int rbtrfs_sb_set_readahead(struct super_block *sb, size_t bytes);
void rbtrfs_fc_log(struct fs_context *fc, char level, const char *message);
int rbtrfs_param_text(const struct fs_parameter *param, const char **text);
struct kmem_cache *rbtrfs_inode_cache_create(size_t size, size_t align, void (*ctor)(void *));
void *rbtrfs_inode_cache_alloc(struct super_block *sb, struct kmem_cache *cache);
void rbtrfs_inode_cache_destroy(struct kmem_cache *cache);
struct dentry *rbtrfs_lookup(struct dentry *base, const char *name, u32 len);

/* Inodes. */
bool rbtrfs_inode_is_new(struct inode *inode);
struct inode *rbtrfs_next_inode(struct super_block *sb, struct inode *prev);
struct inode *rbtrfs_find_inode(struct super_block *sb, u64 hash,
				int (*test)(struct inode *inode, void *data), void *data);
int rbtrfs_init_security(struct inode *inode, struct inode *dir, const u8 *name, u32 len,
			 initxattrs collect, void *data);
void rbtrfs_inode_set_fop(struct inode *inode, const struct file_operations *fop);
void rbtrfs_inode_set_size(struct inode *inode, loff_t size);
loff_t rbtrfs_inode_size(const struct inode *inode);
void rbtrfs_inode_set_owner(struct inode *inode, uid_t uid, gid_t gid);
void rbtrfs_inode_inherit_owner(struct inode *inode, const struct inode *from);
void rbtrfs_inode_set_times(struct inode *inode, s64 asec, u32 ansec, s64 msec, u32 mnsec,
			    s64 csec, u32 cnsec);
void rbtrfs_current_time(struct inode *inode, s64 *sec, u32 *nsec);
void rbtrfs_inode_set_version(struct inode *inode, u64 version);
void rbtrfs_inode_enable_large_folios(struct inode *inode);
loff_t rbtrfs_cached_end(struct inode *inode, loff_t pos);
void rbtrfs_inode_no_highmem(struct inode *inode);
void rbtrfs_inode_no_xattrs(struct inode *inode);
void rbtrfs_inode_cache_no_acl(struct inode *inode);
struct dentry *rbtrfs_dget(struct dentry *dentry);
struct inode *rbtrfs_d_inode(const struct dentry *dentry);
const unsigned char *rbtrfs_d_name(const struct dentry *dentry, u32 *len);
struct inode *rbtrfs_file_inode(const struct file *file);
struct dentry *rbtrfs_file_dentry(const struct file *file);
bool rbtrfs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type);
bool rbtrfs_dir_emit_dots(struct file *file, struct dir_context *ctx);
void rbtrfs_set_kfree_link(struct delayed_call *call, void *link);

bool rbtrfs_inode_owner_or_capable(const struct file *file);
int rbtrfs_may_search(const struct file *file, struct inode *dir);
struct task_struct *rbtrfs_thread_run(int (*run)(void *data), void *data, const char *name);
bool rbtrfs_thread_sleep(unsigned int ms);
void rbtrfs_thread_wake(struct task_struct *task);
void rbtrfs_thread_join(struct task_struct *task);

/* Changing files. */
struct rbtrfs_attributes {
	u64 version;
	s64 atime, mtime, ctime;
	u32 atime_nsec, mtime_nsec, ctime_nsec;
	u32 mode, uid, gid;
};
void rbtrfs_inode_attributes(struct inode *inode, struct rbtrfs_attributes *found);
void rbtrfs_file_accessed(struct file *file);
void rbtrfs_inode_set_cmtime(struct inode *inode, s64 sec, u32 nsec, bool modified);
u32 rbtrfs_fsuid(struct mnt_idmap *idmap, struct super_block *sb);
u32 rbtrfs_fsgid(struct mnt_idmap *idmap, struct super_block *sb);
u32 rbtrfs_inode_gid(const struct inode *inode);
unsigned long rbtrfs_file_private(const struct file *file);
void rbtrfs_file_set_private(struct file *file, unsigned long value);
u32 rbtrfs_inode_nlink(const struct inode *inode);
void rbtrfs_inode_lock(struct inode *inode);
void rbtrfs_inode_unlock(struct inode *inode);
void rbtrfs_invalidate_lock(struct inode *inode);
void rbtrfs_invalidate_unlock(struct inode *inode);
void rbtrfs_invalidate_lock_shared(struct inode *inode);
void rbtrfs_invalidate_unlock_shared(struct inode *inode);
void rbtrfs_inode_stable_writes(struct inode *inode);
void rbtrfs_mapping_set_error(struct inode *inode, int error);
ssize_t rbtrfs_write_sync(struct kiocb *iocb, ssize_t count);
bool rbtrfs_file_is_sync(const struct file *file);
struct file *rbtrfs_vmf_file(const struct vm_fault *vmf);
void rbtrfs_start_pagefault(struct super_block *sb);
void rbtrfs_end_pagefault(struct super_block *sb);
bool rbtrfs_try_start_internal(struct super_block *sb);
void rbtrfs_start_internal(struct super_block *sb);
void rbtrfs_end_internal(struct super_block *sb);
u32 rbtrfs_kattr_flags(const struct file_kattr *attr);
bool rbtrfs_kattr_has_fsx(const struct file_kattr *attr);
int rbtrfs_finish_tmpfile(struct file *file, int error);
void rbtrfs_acl_release(struct posix_acl *acl);
void rbtrfs_sb_lock_shared(struct super_block *sb);
bool rbtrfs_sb_try_lock_shared(struct super_block *sb);
void rbtrfs_sb_unlock_shared(struct super_block *sb);
void rbtrfs_sb_unlock(struct super_block *sb);
bool rbtrfs_inode_generic_drop(struct inode *inode);
struct dentry *rbtrfs_start_creating(struct mnt_idmap *idmap, struct dentry *parent, const char *name,
				     u32 len);
struct dentry *rbtrfs_start_removing(struct mnt_idmap *idmap, struct dentry *parent, const char *name,
				     u32 len);
struct file *rbtrfs_fget_of(unsigned int fd, struct super_block *sb);
u32 rbtrfs_umask(void);
void rbtrfs_notify_mkdir(struct inode *dir, struct dentry *dentry);
void rbtrfs_delete_notify(struct inode *dir, struct dentry *dentry);
void rbtrfs_inode_set_dead(struct inode *inode);
bool rbtrfs_file_is_idmapped(const struct file *file);
struct mnt_idmap *rbtrfs_file_idmap(const struct file *file);

/* Folios and readahead. */
void *rbtrfs_folio_address(struct folio *folio);
loff_t rbtrfs_folio_pos(const struct folio *folio);
size_t rbtrfs_folio_size(const struct folio *folio);
struct inode *rbtrfs_folio_inode(const struct folio *folio);
loff_t rbtrfs_readahead_pos(const struct readahead_control *rac);
size_t rbtrfs_readahead_length(const struct readahead_control *rac);
struct inode *rbtrfs_readahead_inode(const struct readahead_control *rac);
struct folio *rbtrfs_readahead_folio(struct readahead_control *rac);
void rbtrfs_folio_flush_dcache(struct folio *folio);

/* ioctl and sysfs. */
bool rbtrfs_capable(int cap);
int rbtrfs_current_name(char *name);
struct file *rbtrfs_fget_write(unsigned int fd);
struct kobject *rbtrfs_fs_kobj(void);
bool rbtrfs_sysfs_taken(struct kobject *parent, const char *name);
int rbtrfs_sysfs_link_device(struct kobject *dir, struct super_block *sb);
int rbtrfs_sysfs_link_bdi(struct kobject *dir, struct super_block *sb);

#endif
