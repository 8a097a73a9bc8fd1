// SPDX-License-Identifier: GPL-2.0
//! storm MOUNT SYSFS SECONDS SUBVOLUME...: threads that send, balance, pause, resume, cancel and
//! ask, all at once.
//!
//! Whatever the order, each call ends in one of the ways that the contract knows, no query waits
//! for anybody, and in the end nothing is left: no send, no exclusive operation, and a volume that
//! still balances. Results are KTAP.

mod ioctl;

use ioctl::End;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How often each call ended in each way.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Tally {
    fn count(&self, call: &'static str, end: End) {
        let end = match end {
            End::Done => "0".to_owned(),
            End::Returned(value) => format!("+{value}"),
            End::Errno(errno) => name(errno),
        };
        *self.0.lock().unwrap().entry((call, end)).or_default() += 1;
    }

    /// What happened and is not among `allowed` ends of `call`.
    fn others(&self, call: &str, allowed: &[&str]) -> Vec<String> {
        let tally = self.0.lock().unwrap();
        tally
            .keys()
            .filter(|(of, end)| *of == call && !allowed.contains(&end.as_str()))
            .map(|(of, end)| format!("{of}: {end}"))
            .collect()
    }

    fn times(&self, call: &'static str, end: &str) -> u64 {
        let tally = self.0.lock().unwrap();
        tally.get(&(call, end.to_owned())).copied().unwrap_or(0)
    }
}

fn name(errno: i32) -> String {
    match errno {
        libc::EAGAIN => "EAGAIN",
        libc::EINPROGRESS => "EINPROGRESS",
        libc::ENOTCONN => "ENOTCONN",
        libc::ECANCELED => "ECANCELED",
        libc::EPIPE => "EPIPE",
        other => return other.to_string(),
    }
    .to_owned()
}

/// Numbers that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Waits many times as long as has passed since `start`: space for balances, however slow the
/// machine is.
fn leave_room(start: Instant, random: &mut Random) {
    thread::sleep(start.elapsed() * random.below(16) as u32);
}

struct Storm {
    mount: File,
    subvolumes: Vec<File>,
    sysfs: PathBuf,
    end: Instant,
    tally: Tally,
    /// Times at which a send that certainly ran met a balance that ran.
    both: Mutex<u64>,
    /// The longest that a query took.
    slowest: Mutex<Duration>,
}

impl Storm {
    fn going_on(&self) -> bool {
        Instant::now() < self.end
    }

    fn sysfs(&self, file: &str) -> String {
        let text = fs::read_to_string(self.sysfs.join(file)).unwrap_or_default();
        text.trim_end().to_owned()
    }

    /// Sends to memory, one after the other.
    fn sender(&self, seed: u64) {
        let mut random = Random(seed);
        let memory = ioctl::memory();
        while self.going_on() {
            let which = random.below(self.subvolumes.len() as u64) as usize;
            let start = Instant::now();
            let end = ioctl::send(&self.subvolumes[which], memory.as_raw_fd());
            self.tally.count("send", end);
            leave_room(start, &mut random);
        }
    }

    /// Holds sends by pipes that are not read, asks what balance does meanwhile, and lets go.
    fn holder(&self, seed: u64) {
        let mut random = Random(seed);
        while self.going_on() {
            let start = Instant::now();
            let (mut out, into) = ioctl::pipe();
            thread::scope(|scope| {
                let sender = scope.spawn(move || {
                    let end = ioctl::send(&self.subvolumes[0], into.as_raw_fd());
                    drop(into);
                    end
                });
                if out.read(&mut [0]).unwrap() == 1 {
                    for _ in 0..random.below(5) {
                        // It stands in the pipe: no balance can run.
                        if ioctl::progress(&self.mount) == Ok(true) {
                            *self.both.lock().unwrap() += 1;
                        }
                        thread::sleep(Duration::from_millis(random.below(20)));
                    }
                }
                drop(out);
                self.tally.count("held send", sender.join().unwrap());
            });
            leave_room(start, &mut random);
        }
    }

    fn balancer(&self, seed: u64) {
        let mut random = Random(seed);
        while self.going_on() {
            let end = match random.below(3) {
                0 => ioctl::balance(&self.mount, ioctl::RESUME),
                _ => ioctl::balance(&self.mount, ioctl::METADATA),
            };
            self.tally.count("balance", end);
            thread::sleep(Duration::from_millis(random.below(20)));
        }
    }

    fn controller(&self, seed: u64) {
        let mut random = Random(seed);
        while self.going_on() {
            if random.below(2) == 0 {
                self.tally.count("pause", ioctl::pause(&self.mount));
            } else {
                self.tally.count("cancel", ioctl::cancel(&self.mount));
            }
            thread::sleep(Duration::from_millis(random.below(100)));
        }
    }

    fn asker(&self) {
        while self.going_on() {
            let start = Instant::now();
            let end = match ioctl::progress(&self.mount) {
                Ok(_) => End::Done,
                Err(end) => end,
            };
            self.sysfs("exclusive_operation");
            self.sysfs("send_in_progress");
            let took = start.elapsed();
            self.tally.count("progress", end);
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = took.max(*slowest);
            drop(slowest);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn run(&self) {
        thread::scope(|scope| {
            for seed in [11, 12] {
                scope.spawn(move || self.sender(seed));
                scope.spawn(move || self.holder(seed));
                scope.spawn(move || self.balancer(seed));
            }
            scope.spawn(|| self.controller(13));
            scope.spawn(|| self.asker());
        });
    }
}

#[derive(Default)]
struct Results {
    count: u32,
    failed: bool,
}

impl Results {
    /// For what only chance brings about: where it did not come, nothing was tested.
    fn meet(&mut self, name: &str, happened: bool, found: &str) {
        if happened {
            self.check(name, true, found);
        } else {
            self.count += 1;
            println!("ok {} {name} # SKIP {found}", self.count);
        }
    }

    fn check(&mut self, name: &str, holds: bool, found: &str) {
        self.count += 1;
        if !holds {
            self.failed = true;
            println!("# {name}: {found}");
        }
        println!(
            "{} {} {name}",
            if holds { "ok" } else { "not ok" },
            self.count
        );
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mount, sysfs, seconds, subvolumes @ ..] = args.as_slice() else {
        eprintln!("usage: storm MOUNT SYSFS SECONDS SUBVOLUME...");
        return ExitCode::from(2);
    };
    let open = |path: &String| File::open(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let storm = Storm {
        mount: open(mount),
        subvolumes: subvolumes.iter().map(open).collect(),
        sysfs: Path::new(sysfs).to_owned(),
        end: Instant::now() + Duration::from_secs(seconds.parse().expect("seconds")),
        tally: Tally::default(),
        both: Mutex::new(0),
        slowest: Mutex::new(Duration::ZERO),
    };
    storm.run();

    let mut results = Results::default();
    for ((call, end), times) in storm.tally.0.lock().unwrap().iter() {
        println!("# {call}: {end}: {times}");
    }
    let allowed: [(&str, &[&str]); 6] = [
        ("send", &["0", "EAGAIN"]),
        ("held send", &["0", "EPIPE", "EAGAIN"]),
        (
            "balance",
            &["0", "EAGAIN", "EINPROGRESS", "ENOTCONN", "ECANCELED"],
        ),
        ("pause", &["0", "ENOTCONN"]),
        ("cancel", &["0", "ENOTCONN"]),
        ("progress", &["0", "ENOTCONN"]),
    ];
    for (call, ends) in allowed {
        let others = storm.tally.others(call, ends);
        let name = format!("{call} ends only as it may");
        results.check(&name, others.is_empty(), &others.join(", "));
    }
    let happened = |call, ends: &[&str]| ends.iter().all(|end| storm.tally.times(call, end) > 0);
    results.meet(
        "sends were done and refused",
        happened("send", &["0", "EAGAIN"]),
        "only one of these",
    );
    results.meet(
        "balances were refused",
        happened("balance", &["EAGAIN"]),
        "never",
    );
    let both = *storm.both.lock().unwrap();
    results.check(
        "no send ran beside a balance",
        both == 0,
        &format!("{both} times"),
    );
    let slowest = *storm.slowest.lock().unwrap();
    println!("# the slowest query took {slowest:?}");
    results.check(
        "no query waited",
        slowest < Duration::from_secs(10),
        &format!("{slowest:?}"),
    );
    let sends = storm.sysfs("send_in_progress");
    results.check("no send is left", sends == "0", &sends);
    // A balance that was paused last is there still, as it should be.
    ioctl::cancel(&storm.mount);
    let left = storm.sysfs("exclusive_operation");
    results.check("no exclusive operation is left", left == "none", &left);
    let end = ioctl::balance(&storm.mount, ioctl::METADATA);
    results.check(
        "a balance runs after all",
        end == End::Done,
        &format!("{end:?}"),
    );
    println!("1..{}", results.count);
    ExitCode::from(u8::from(results.failed))
}
