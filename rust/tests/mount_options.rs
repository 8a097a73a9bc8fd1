// SPDX-License-Identifier: GPL-2.0
//! Mount options: what the C driver answers, and what this one does.

use rbtrfs_engine::mount::{
    Facts, Level, MountOptions, Parsed, Settings, Subvol, Value, PARAMETERS,
};
use std::fmt::Write;

/// Takes options as `mount -o` would, and returns the messages.
fn parse(options: &mut MountOptions, text: &str) -> Result<Vec<String>, Vec<String>> {
    let mut messages = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Value::Text(value.as_bytes())),
            None => (option, Value::Flag),
        };
        let mut log = |level, text: std::fmt::Arguments<'_>| {
            let level = if level == Level::Error {
                "error"
            } else {
                "warning"
            };
            messages.push(format!("{level}: {text}"));
        };
        match options.parse(key.as_bytes(), value, &mut log) {
            Ok(Parsed::Taken) => {}
            Ok(Parsed::Unknown) => {
                messages.push(format!("error: Unknown parameter '{key}'"));
                return Err(messages);
            }
            Err(_) => return Err(messages),
        }
    }
    Ok(messages)
}

/// Mounts, as far as options are concerned, and shows what is in force then.
fn mount(text: &str, read_only: bool, facts: Facts) -> Result<String, String> {
    let mut options = MountOptions::default();
    let mut messages = parse(&mut options, text).map_err(|messages| messages.join("; "))?;
    let mut log = |level, text: std::fmt::Arguments<'_>| {
        let level = if level == Level::Error {
            "error"
        } else {
            "warning"
        };
        messages.push(format!("{level}: {text}"));
    };
    let checked = options
        .settings
        .check_read_only(read_only, &mut log)
        .and_then(|()| options.settings.check_volume(facts, &mut log));
    if checked.is_err() {
        return Err(messages.join("; "));
    }
    options.settings.clear_once();
    let mut shown = options.settings.show(facts.free_space_tree).to_string();
    for message in messages {
        write!(shown, "; {message}").unwrap();
    }
    Ok(shown)
}

const WITH_TREE: Facts = Facts {
    free_space_tree: true,
    block_group_tree: false,
};
const WITHOUT: Facts = Facts {
    free_space_tree: false,
    block_group_tree: false,
};
const WITH_BOTH: Facts = Facts {
    free_space_tree: true,
    block_group_tree: true,
};

/// What is refused, with the message: both drivers do it in these words, but where the third column
/// has another answer of the C driver.
#[test]
fn what_is_refused() {
    for (options, message, c_driver) in [
        ("foo", "Unknown parameter 'foo'", ""),
        ("foo=1", "Unknown parameter 'foo'", ""),
        ("nodegraded", "Unknown parameter 'nodegraded'", ""),
        ("recovery", "Unknown parameter 'recovery'", ""),
        ("nologreplay", "Unknown parameter 'nologreplay'", ""),
        ("usebackuproot", "Unknown parameter 'usebackuproot'", ""),
        ("inode_cache", "Unknown parameter 'inode_cache'", ""),
        ("acl=1", "Unexpected value for 'acl'", ""),
        ("degraded=", "Unexpected value for 'degraded'", ""),
        ("noacl=1", "Unknown parameter 'noacl'", ""),
        ("subvol", "Bad value for 'subvol'", ""),
        ("subvol=", "Bad value for 'subvol'", ""),
        ("nosubvol", "Unknown parameter 'nosubvol'", ""),
        ("subvolid", "Bad value for 'subvolid'", ""),
        ("subvolid=x", "Bad value for 'subvolid'", ""),
        ("subvolid=-1", "Bad value for 'subvolid'", ""),
        ("commit", "Bad value for 'commit'", ""),
        ("commit=5s", "Bad value for 'commit'", ""),
        ("commit=4294967296", "Bad value for 'commit'", ""),
        (
            "compress=foo",
            "failed to parse compression option 'foo'",
            "",
        ),
        ("compress=", "Bad value for 'compress'", ""),
        (
            "compress=zstd:x",
            "failed to parse compression option 'zstd:x'",
            "",
        ),
        (
            "compress=zlib:",
            "failed to parse compression option 'zlib:'",
            "",
        ),
        (
            "compress=none:1",
            "failed to parse compression option 'none:1'",
            "",
        ),
        (
            "compress-force=lzo2",
            "failed to parse compression option 'lzo2'",
            "",
        ),
        ("discard=often", "Bad value for 'discard'", ""),
        ("fatal_errors", "Bad value for 'fatal_errors'", ""),
        ("fatal_errors=ignore", "Bad value for 'fatal_errors'", ""),
        ("space_cache=v3", "Bad value for 'space_cache'", ""),
        ("thread_pool=0", "invalid value 0 for thread_pool", ""),
        ("thread_pool=-1", "Bad value for 'thread_pool'", ""),
        ("metadata_ratio=x", "Bad value for 'metadata_ratio'", ""),
        ("rescue", "Bad value for 'rescue'", ""),
        ("rescue=most", "Bad value for 'rescue'", ""),
        (
            "rescue=usebackuproot:nologreplay",
            "Bad value for 'rescue'",
            "",
        ),
        ("device=", "Bad value for 'device'", ""),
        // This driver's own option.
        (
            "send_balance=never",
            "Bad value for 'send_balance'",
            "Unknown parameter",
        ),
        // Where the C driver takes what is no number for 0.
        ("max_inline=x", "Bad value for 'max_inline'", "taken as 0"),
    ] {
        let refused = mount(options, false, WITHOUT);
        assert_eq!(
            refused,
            Err(format!("error: {message}")),
            "{options}, C: {c_driver}"
        );
    }
}

/// Options that forbid writing.
#[test]
fn what_must_be_used_with_ro() {
    for (option, name) in [
        ("norecovery", "nologreplay"),
        ("rescue=nologreplay", "nologreplay"),
        ("rescue=usebackuproot", "usebackuproot"),
        ("rescue=ibadroots", "ignorebadroots"),
        ("rescue=ignorebadroots", "ignorebadroots"),
        ("rescue=idatacsums", "ignoredatacsums"),
        ("rescue=ignoredatacsums", "ignoredatacsums"),
        ("rescue=imetacsums", "ignoremetacsums"),
        ("rescue=ignoremetacsums", "ignoremetacsums"),
        ("rescue=isuperflags", "ignoresuperflags"),
        ("rescue=ignoresuperflags", "ignoresuperflags"),
    ] {
        assert_eq!(
            mount(option, false, WITH_TREE),
            Err(format!("error: {name} must be used with ro mount option"))
        );
        assert_eq!(
            mount(option, true, WITH_TREE),
            Ok(format!(",rescue={name},space_cache=v2"))
        );
    }
    assert_eq!(
        mount("rescue=all", true, WITHOUT).unwrap(),
        ",rescue=nologreplay:usebackuproot:ignorebadroots:ignoredatacsums:ignoremetacsums:ignoresuperflags,nospace_cache"
    );
}

/// What is taken, and what `/proc/mounts` shows of it.
#[test]
fn what_is_taken() {
    const V1: &str = "; warning: v1 space cache is deprecated, falling back to no space cache";
    for (options, shown) in [
        ("", ""),
        ("acl,barrier", ""),
        ("noacl,nobarrier", ",nobarrier,noacl"),
        ("noacl,acl", ""),
        ("commit=0", ""),
        ("commit=30", ""),
        ("commit=010", ",commit=8"),
        ("commit=0x10", ",commit=16"),
        (
            "user_subvol_rm_allowed,skip_balance",
            ",user_subvol_rm_allowed,skip_balance",
        ),
        ("rescan_uuid_tree", ",rescan_uuid_tree"),
        // Once is enough.
        ("clear_cache", ""),
        ("nospace_cache", ""),
        ("space_cache", V1),
        ("space_cache=v1", V1),
        // Not shown before there is a tree.
        ("space_cache=v2", ""),
        (
            "commit=301",
            ",commit=301; warning: excessive commit interval 301, use with care",
        ),
        ("compress", ",compress=zlib:3"),
        ("compress-force", ",compress-force=zlib:3"),
        ("compress-force,compress=zlib", ",compress=zlib:3"),
        ("compress=zlib:0", ",compress=zlib:3"),
        ("compress=zlib:12", ",compress=zlib:9"),
        ("compress=zstd", ",compress=zstd:3"),
        ("compress=zstd:99", ",compress=zstd:15"),
        ("compress-force=zstd:-15", ",compress-force=zstd:-15"),
        ("compress=lzo", ",compress=lzo"),
        (
            "compress-force=lzo:3",
            ",compress-force=lzo; warning: Compression level ignored for LZO",
        ),
        ("compress=zstd,compress=no", ""),
        ("compress=zstd,nodatacow", ""),
        ("nodatacow,compress=zstd", ",compress=zstd:3"),
        ("compress=zstd,compress-force=none", ""),
        // Hints, and what is of the VFS's.
        (
            "degraded,ssd,nossd,ssd_spread,nossd_spread,enospc_debug",
            "",
        ),
        (
            "datacow,nodatacow,datasum,nodatasum,autodefrag,noautodefrag,noflushoncommit",
            "",
        ),
        ("flushoncommit", ",flushoncommit"),
        ("flushoncommit,noflushoncommit", ""),
        ("notreelog", ",notreelog"),
        ("notreelog,treelog", ""),
        ("discard,nodiscard,discard=sync,discard=async", ""),
        ("fatal_errors=panic,fatal_errors=bug", ""),
        (
            "max_inline=0,max_inline=4k,metadata_ratio=3,thread_pool=4",
            "",
        ),
        ("subvolid=0,subvol=/a", ""),
        ("device=/dev/sda", ""),
        ("send_balance=exclusive", ""),
        ("send_balance=concurrent", ",send_balance=concurrent"),
        ("send_balance=concurrent,send_balance=exclusive", ""),
    ] {
        let (in_force, messages) = shown.split_at(shown.find(';').unwrap_or(shown.len()));
        let (before, after) = match in_force {
            ",nobarrier,noacl" | ",flushoncommit" | ",notreelog" => (in_force, ""),
            _ if in_force.starts_with(",compress") => (in_force, ""),
            _ => ("", in_force),
        };
        let shown = format!("{before},nospace_cache{after}{messages}");
        assert_eq!(mount(options, false, WITHOUT), Ok(shown), "{options}");
    }
}

#[test]
fn a_free_space_tree_stays() {
    for options in [
        "nospace_cache",
        "space_cache",
        "space_cache=v1",
        "clear_cache,nospace_cache",
    ] {
        let refused = mount(options, true, WITH_TREE).unwrap_err();
        assert!(
            refused.ends_with("error: cannot disable free-space-tree"),
            "{refused}"
        );
        let refused = mount(options, true, WITH_BOTH).unwrap_err();
        assert!(
            refused
                .ends_with("error: cannot disable free-space-tree with block-group-tree feature"),
            "{refused}"
        );
    }
    for options in [
        "",
        "space_cache=v2",
        "clear_cache",
        "clear_cache,space_cache=v2",
        "nospace_cache,space_cache=v2",
    ] {
        assert_eq!(mount(options, false, WITH_BOTH).unwrap(), ",space_cache=v2");
    }
}

#[test]
fn which_subvolume() {
    let of = |text| {
        let mut options = MountOptions::default();
        parse(&mut options, text).unwrap();
        options.subvol
    };
    let path = |text: &str| {
        let mut path = kernel::alloc::KVec::new();
        path.extend_from_slice(text.as_bytes(), kernel::alloc::flags::GFP_KERNEL)
            .unwrap();
        path
    };
    assert_eq!(of(""), Subvol::Default);
    assert_eq!(of("subvolid=256"), Subvol::Id(256));
    assert_eq!(of("subvolid=0"), Subvol::Id(5));
    assert_eq!(of("subvolid=0x100,subvolid=257"), Subvol::Id(257));
    assert_eq!(of("subvol=a,subvol=./b"), Subvol::Path(path("./b")));
    assert_eq!(
        of("subvol=a,subvolid=256"),
        Subvol::PathAndId(path("a"), 256)
    );
    assert_eq!(
        of("subvolid=256,subvol=a"),
        Subvol::PathAndId(path("a"), 256)
    );
}

/// A remount starts from what is in force, and changes what it names.
#[test]
fn a_remount_changes_what_it_names() {
    let mut options = MountOptions::default();
    parse(&mut options, "noacl,commit=7,user_subvol_rm_allowed").unwrap();
    let mut options = MountOptions::for_remount(options.settings);
    parse(&mut options, "commit=2,nobarrier").unwrap();
    assert_eq!(
        options.settings,
        Settings {
            acl: false,
            barrier: false,
            commit_interval: 2,
            user_subvol_rm_allowed: true,
            ..Settings::default()
        }
    );
}

/// No option is in the table twice with the same kind of value.
#[test]
fn the_table_is_unambiguous() {
    for (n, row) in PARAMETERS.iter().enumerate() {
        for other in &PARAMETERS[n + 1..] {
            assert!(
                row.name != other.name || row.takes.is_flag() != other.takes.is_flag(),
                "{}",
                String::from_utf8_lossy(row.name)
            );
        }
    }
}
