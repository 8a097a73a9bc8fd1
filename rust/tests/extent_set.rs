// SPDX-License-Identifier: GPL-2.0
//! Sets of extents against a model with one flag per unit.

use kernel::error::code::*;
use kernel::fault;
use proptest::prelude::*;
use rbtrfs_engine::space::extent_set::{Extent, ExtentSet};

const UNITS: u64 = 2048;
const UNIT: u64 = 4096;

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(start * UNIT, len * UNIT).unwrap()
}

struct Model(Vec<bool>);

impl Model {
    fn runs(&self) -> Vec<Extent> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.0.len() {
            if self.0[at] {
                let len = self.0[at..].iter().take_while(|free| **free).count();
                runs.push(extent(at as u64, len as u64));
                at += len;
            } else {
                at += 1;
            }
        }
        runs
    }

    fn range(&mut self, start: u64, len: u64) -> &mut [bool] {
        &mut self.0[start as usize..(start + len) as usize]
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Remove(u64, u64),
    Subtract(u64, u64),
    PopFirst,
}

fn apply(set: &mut ExtentSet, model: &mut Model, op: &Op) {
    match *op {
        Op::Insert(start, len) => {
            let taken = model.range(start, len).iter().any(|free| *free);
            let expected = if taken { Err(EEXIST) } else { Ok(()) };
            assert_eq!(set.insert(extent(start, len)), expected);
            if !taken {
                model.range(start, len).fill(true);
            }
        }
        Op::Remove(start, len) => {
            let all = model.range(start, len).iter().all(|free| *free);
            let expected = if all { Ok(()) } else { Err(ENOENT) };
            assert_eq!(set.covers(&extent(start, len)), all);
            assert_eq!(set.remove(extent(start, len)), expected);
            if all {
                model.range(start, len).fill(false);
            }
        }
        Op::Subtract(start, len) => {
            let count = model.range(start, len).iter().filter(|free| **free).count();
            let taken = set.subtract(extent(start, len)).unwrap();
            assert_eq!(taken, count as u64 * UNIT);
            model.range(start, len).fill(false);
        }
        Op::PopFirst => {
            let first = model.runs().first().copied();
            assert_eq!(set.pop_first(), first);
            if let Some(first) = first {
                model
                    .range(first.start / UNIT, first.len / UNIT)
                    .fill(false);
            }
        }
    }
}

fn compare(set: &ExtentSet, model: &Model) {
    let runs = model.runs();
    assert_eq!(set.iter().collect::<Vec<_>>(), runs);
    assert_eq!(set.len(), runs.len());
    assert_eq!(set.is_empty(), runs.is_empty());
    assert_eq!(set.bytes(), runs.iter().map(|e| e.len).sum::<u64>());
    let longest = runs.iter().map(|e| e.len).max();
    assert_eq!(set.longest().map(|e| e.len), longest);
}

fn compare_searches(set: &ExtentSet, model: &Model, from: u64, len: u64, align: u64) {
    let runs = model.runs();
    let at = from * UNIT + 5;
    let after = runs.iter().find(|e| e.end() > at).copied();
    assert_eq!(set.first_after(at), after);
    let long = runs.iter().find(|e| e.end() > at && e.len >= len * UNIT);
    assert_eq!(set.first_long(at, len * UNIT), long.copied());
    let fits = (from..UNITS.saturating_sub(len - 1))
        .filter(|start| start % align == 0)
        .find(|start| {
            let range = *start as usize..(*start + len) as usize;
            model.0[range].iter().all(|free| *free)
        });
    let found = set.find(from * UNIT, len * UNIT, align * UNIT);
    assert_eq!(found, fits.map(|start| start * UNIT));
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = (0..UNITS, 1..12u64).prop_map(|(start, len)| (start, len.min(UNITS - start)));
    let op = (0..10u8, range).prop_map(|(kind, (start, len))| match kind {
        0..=4 => Op::Insert(start, len),
        5..=7 => Op::Remove(start, len.min(3)),
        8 => Op::Subtract(start, len),
        _ => Op::PopFirst,
    });
    prop::collection::vec(op, 1..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_as_the_model(
        ops in ops(),
        searches in prop::collection::vec((0..UNITS, 1..10u64, 1..8u64), 20),
        free in any::<bool>(),
    ) {
        let mut set = ExtentSet::new();
        let mut model = Model(vec![free; UNITS as usize]);
        if free {
            set.insert(extent(0, UNITS)).unwrap();
        }
        for op in &ops {
            apply(&mut set, &mut model, op);
        }
        compare(&set, &model);
        for (from, len, align) in searches {
            compare_searches(&set, &model, from, len, align);
        }
    }
}

/// Many extents, so that leaves split and merge: every second unit, then all of them, then none.
#[test]
fn splits_and_merges_leaves() {
    let mut set = ExtentSet::new();
    let mut model = Model(vec![false; UNITS as usize]);
    let step = |i: u64| (i * 7919) % (UNITS / 2) * 2;
    for i in 0..UNITS / 2 {
        apply(&mut set, &mut model, &Op::Insert(step(i), 1));
    }
    compare(&set, &model);
    assert_eq!(set.len() as u64, UNITS / 2);
    for i in 0..UNITS / 2 {
        apply(&mut set, &mut model, &Op::Insert(step(i) + 1, 1));
        if i % 100 == 0 {
            compare(&set, &model);
        }
    }
    assert_eq!(set.len(), 1);
    for i in 0..UNITS / 2 {
        apply(&mut set, &mut model, &Op::Remove(step(i), 1));
    }
    compare(&set, &model);
    for i in 0..UNITS / 2 {
        apply(&mut set, &mut model, &Op::Remove(step(i) + 1, 1));
        if i % 100 == 0 {
            compare(&set, &model);
        }
    }
    assert!(set.is_empty());
}

/// A change that runs out of memory leaves the set as it was, and works when it is tried again.
#[test]
fn survives_failing_allocations() {
    let mut failed = 0;
    for wanted in 0..3 {
        let mut set = ExtentSet::new();
        let mut model = Model(vec![false; UNITS as usize]);
        for i in 0..UNITS / 2 {
            let op = if i % 3 == 2 {
                // In the middle of an extent that is there by now.
                Op::Remove((i - 1) * 2 % UNITS, 1)
            } else {
                Op::Insert((i * 733 % (UNITS / 4)) * 4 % UNITS, 3)
            };
            let before: Vec<Extent> = set.iter().collect();
            fault::fail_alloc_after(wanted);
            let result = match op {
                Op::Insert(start, len) => set.insert(extent(start, len)),
                Op::Remove(start, len) => set.remove(extent(start, len)),
                _ => Ok(()),
            };
            fault::clear();
            if result == Err(ENOMEM) {
                failed += 1;
                assert_eq!(set.iter().collect::<Vec<_>>(), before);
            } else if result.is_ok() {
                match op {
                    Op::Insert(start, len) => model.range(start, len).fill(true),
                    Op::Remove(start, len) => model.range(start, len).fill(false),
                    _ => {}
                }
                continue;
            }
            apply(&mut set, &mut model, &op);
        }
        compare(&set, &model);
    }
    assert!(failed > 10);
}

/// What place was made for goes in without memory.
#[test]
fn inserting_at_a_place_that_was_made_cannot_fail() {
    let mut failed = 0;
    for every in [3, 5] {
        let mut set = ExtentSet::new();
        let mut model = Model(vec![false; UNITS as usize]);
        for i in 0..UNITS / 2 {
            let start = (i * 733 % (UNITS / 2)) * 2;
            let extent = extent(start, 1);
            fault::fail_alloc_after(u64::from(i % every != 0));
            if set.reserve(extent) == Err(ENOMEM) {
                failed += 1;
                fault::clear();
                compare(&set, &model);
                set.reserve(extent).unwrap();
            }
            fault::fail_alloc_after(0);
            set.insert(extent).unwrap();
            fault::clear();
            model.range(start, 1).fill(true);
            if i % 50 == 0 {
                compare(&set, &model);
            }
        }
        compare(&set, &model);
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn refuses_extents_that_are_none() {
    assert_eq!(Extent::new(0, 0).unwrap_err(), EINVAL);
    assert_eq!(Extent::new(u64::MAX, 1).unwrap_err(), EINVAL);
    assert_eq!(Extent::new(u64::MAX - 1, 1).unwrap().end(), u64::MAX);
    let mut set = ExtentSet::new();
    set.insert(Extent::new(u64::MAX - 10, 10).unwrap()).unwrap();
    assert_eq!(set.find(u64::MAX - 3, 8, 16), None);
    assert_eq!(set.find(0, 4, 0), None);
}
