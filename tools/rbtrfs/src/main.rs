// SPDX-License-Identifier: GPL-2.0
//! `rbtrfs`: the engine of the kernel module over an image or an unmounted device.

mod balance;
mod cat;
mod check;
mod commands;
mod dump;
mod errno;
mod info;
mod ls;
mod open;
mod path;
mod progress;
mod receive;
mod replay_log;
mod send;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Looks into btrfs volumes, sends from them and balances them, without mounting them.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the superblock, the trees and the block groups.
    Info {
        /// The image or device.
        image: PathBuf,
    },
    /// List a directory.
    Ls {
        /// The image or device.
        image: PathBuf,
        /// The directory, from the top-level subvolume; subvolumes are entered.
        #[arg(default_value = "/")]
        path: String,
        /// Also show modes, owners, sizes and times.
        #[arg(short, long)]
        long: bool,
    },
    /// Write a file's contents to standard output.
    Cat {
        /// The image or device.
        image: PathBuf,
        /// The file, from the top-level subvolume; subvolumes are entered.
        path: String,
    },
    /// Write the send stream of a read-only subvolume.
    Send(send::Args),
    Receive(receive::Args),
    /// Relocate block groups.
    Balance(balance::Args),
    /// Read and verify every tree block.
    CheckNodes {
        /// The image or device.
        image: PathBuf,
    },
    /// Replay the log that a power cut left, as a mount does.
    ReplayLog {
        /// The image or device, which nobody may have mounted.
        image: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Info { image } => info::run(&image),
        Command::Ls { image, path, long } => ls::run(&image, &path, long),
        Command::Cat { image, path } => cat::run(&image, &path),
        Command::Send(args) => send::run(&args),
        Command::Receive(args) => receive::run(&args),
        Command::Balance(args) => balance::run(&args),
        Command::CheckNodes { image } => check::run(&image),
        Command::ReplayLog { image } => replay_log::run(&image),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}
