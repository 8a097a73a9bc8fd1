/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers that rbtrfs needs beyond those which the kernel crate binds, and the prototypes of helpers.c,
 * which wraps what bindgen cannot see: inline functions, macros, and fields that have accessors.
 */
#ifndef RBTRFS_BINDINGS_HELPER_H
#define RBTRFS_BINDINGS_HELPER_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/dcache.h>
#include <linux/exportfs.h>
#include <linux/fiemap.h>
#include <linux/fileattr.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/kobject.h>
#include <linux/lzo.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/sysfs.h>
#include <linux/xattr.h>
#include <linux/zlib.h>
#include <linux/zstd.h>

#ifdef __BINDGEN__
/* Constants that are casts, which bindgen does not evaluate. */
static const fmode_t rbtrfs_FMODE_CAN_ODIRECT = (__force fmode_t)FMODE_CAN_ODIRECT;
#endif

/* Sizes of structures as the C compiler has them, RBTRFS_LAYOUTS of them; bindings/layout.rs has the same list. */
#define RBTRFS_LAYOUTS 18
void rbtrfs_layouts(size_t *sizes);

/* Module parameters and tasks. */
const char *rbtrfs_fstype(void);
unsigned int rbtrfs_memalloc_nofs_save(void);
void rbtrfs_memalloc_nofs_restore(unsigned int flags);
bool rbtrfs_fatal_signal_pending(void);
void rbtrfs_cond_resched(void);
u32 rbtrfs_crc32c(u32 seed, const void *data, size_t len);

/* Block devices. */
u64 rbtrfs_bdev_size(struct block_device *bdev);
void rbtrfs_bdev_sync(struct block_device *bdev);
void rbtrfs_bdev_invalidate(struct block_device *bdev, u64 offset, u64 len);
bool rbtrfs_bdev_can_discard(struct block_device *bdev);
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
void rbtrfs_seq_dentry(struct seq_file *seq, struct dentry *dentry);
void rbtrfs_sb_set_uuid(struct super_block *sb, const u8 *uuid);
int rbtrfs_param_text(const struct fs_parameter *param, const char **text);
struct kmem_cache *rbtrfs_inode_cache_create(size_t size, size_t align, void (*ctor)(void *));
void *rbtrfs_inode_cache_alloc(struct super_block *sb, struct kmem_cache *cache);
void rbtrfs_inode_cache_destroy(struct kmem_cache *cache);
struct dentry *rbtrfs_lookup(struct dentry *base, const char *name, u32 len);

/* Inodes. */
bool rbtrfs_inode_is_new(struct inode *inode);
void rbtrfs_inode_set_fop(struct inode *inode, const struct file_operations *fop);
void rbtrfs_inode_set_size(struct inode *inode, loff_t size);
loff_t rbtrfs_inode_size(const struct inode *inode);
void rbtrfs_inode_set_owner(struct inode *inode, uid_t uid, gid_t gid);
void rbtrfs_inode_inherit_owner(struct inode *inode, const struct inode *from);
void rbtrfs_inode_set_times(struct inode *inode, s64 asec, u32 ansec, s64 msec, u32 mnsec,
			    s64 csec, u32 cnsec);
void rbtrfs_inode_set_version(struct inode *inode, u64 version);
void rbtrfs_inode_enable_large_folios(struct inode *inode);
void rbtrfs_inode_no_highmem(struct inode *inode);
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
struct task_struct *rbtrfs_thread_run(int (*run)(void *data), void *data);
void rbtrfs_thread_join(struct task_struct *task);

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
