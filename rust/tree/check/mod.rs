// SPDX-License-Identifier: GPL-2.0
//! The rules that the contents of a leaf obey (the C driver's tree checker), and the check of a
//! whole tree.
//!
//! A leaf is held against these rules when it is read, before anything uses it, and when a commit
//! seals it, before it is written. So the code that uses items does not meet what they forbid. A
//! rule looks at one item, at the item before it in the same leaf, and at what the volume is like;
//! nothing else is read for it. `docs/tree-checker.md` lists the rules beside those of the C
//! driver. None of them refuses what the C driver takes and kernels wrote.

mod block_group;
mod chunk;
mod csum;
mod device;
mod dir;
mod extent;
mod extent_ref;
mod fault;
mod feature;
mod file_extent;
mod free_space;
mod inode;
mod item;
mod limits;
mod root;
mod whole_tree;

pub use fault::{Expected, ItemFault};
pub use limits::Limits;
pub use whole_tree::{check_tree, Fault, Problem, Summary};

use super::node::Node;
use crate::format::{item_type, Key};
use fault::Checked;
use item::Item;

/// Holds every item of a leaf against the rules for its type. Returns the first fault. Types
/// without rules, and interior nodes, pass.
pub fn check_items(node: &Node, limits: &Limits) -> core::result::Result<(), ItemFault> {
    let owner = node.owner();
    let mut previous: Option<(Key, &[u8])> = None;
    for slot in 0..node.nritems() as usize {
        let Some((key, bytes)) = node.item(slot) else {
            return Ok(());
        };
        let item = Item {
            limits,
            owner,
            key,
            bytes,
            previous,
        };
        check_item(&item).map_err(|fault| fault.at(slot, key))?;
        previous = Some((key, bytes));
    }
    Ok(())
}

fn check_item(item: &Item<'_>) -> Checked {
    match item.key.typ {
        item_type::INODE_ITEM => inode::check_inode(item),
        item_type::INODE_REF => inode::check_ref(item),
        item_type::INODE_EXTREF => inode::check_extref(item),
        item_type::DIR_ITEM | item_type::DIR_INDEX | item_type::XATTR_ITEM => dir::check(item),
        item_type::EXTENT_DATA => file_extent::check(item),
        item_type::EXTENT_CSUM => csum::check(item),
        item_type::ROOT_ITEM => root::check_root(item),
        item_type::ROOT_REF | item_type::ROOT_BACKREF => root::check_ref(item),
        item_type::EXTENT_ITEM | item_type::METADATA_ITEM => extent::check(item),
        item_type::TREE_BLOCK_REF | item_type::SHARED_BLOCK_REF => extent_ref::check_block(item),
        item_type::SHARED_DATA_REF => extent_ref::check_shared_data(item),
        item_type::EXTENT_DATA_REF => extent_ref::check_data(item),
        item_type::BLOCK_GROUP_ITEM => block_group::check(item),
        item_type::CHUNK_ITEM => chunk::check(item),
        item_type::DEV_ITEM => device::check_device(item),
        item_type::DEV_EXTENT => device::check_extent(item),
        item_type::FREE_SPACE_INFO => free_space::check_info(item),
        item_type::FREE_SPACE_EXTENT => free_space::check_extent(item),
        item_type::FREE_SPACE_BITMAP => free_space::check_bitmap(item),
        item_type::RAID_STRIPE => feature::check_raid_stripe(item),
        item_type::IDENTITY_REMAP | item_type::REMAP | item_type::REMAP_BACKREF => {
            feature::check_remap(item)
        }
        _ => Ok(()),
    }
}
