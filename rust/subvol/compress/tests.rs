// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::subvol::decompress::decompress;
use kernel::fault;
use std::vec;
use std::vec::Vec;
use CompressionMethod::{Lzo, Zlib, Zstd};

const PIECE: usize = MAX_COMPRESSED as usize;

fn sector() -> BlockSize {
    BlockSize::new(4096).unwrap()
}

fn random(len: usize, mut x: u64) -> Vec<u8> {
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| next()).collect()
}

fn text(len: usize) -> Vec<u8> {
    let words = ["extent ", "tree ", "leaf\n", "transaction ", "snapshot "];
    let mut picked = random(len, 5).into_iter();
    let mut made = vec![];
    while made.len() < len {
        let word = words[usize::from(picked.next().unwrap()) % words.len()];
        made.extend_from_slice(word.as_bytes());
    }
    made.truncate(len);
    made
}

fn by(method: CompressionMethod, is_forced: bool) -> Chosen {
    Chosen {
        method,
        level: method.level(0),
        is_forced,
        gives_up: true,
    }
}

/// Compresses data in parts of `part` bytes, and reads it back.
fn there_and_back(method: CompressionMethod, data: &[u8], part: usize) -> usize {
    let mut compressor = Compressor::new(by(method, true), sector()).unwrap();
    let parts: Vec<&[u8]> = data.chunks(part).collect();
    let Compressed::Smaller(made) = compressor.compress(&parts).unwrap() else {
        panic!("{method:?}, {} bytes", data.len());
    };
    assert_eq!(made.len() % 4096, 0);
    assert!(made.len() + 4096 <= data.len());
    let mut back = vec![0xee; data.len()];
    decompress(method.number(), &made, &mut back, sector()).unwrap();
    assert!(back == data, "{method:?}");
    made.len()
}

#[test]
fn what_is_compressed_comes_back() {
    for method in [Zlib, Lzo, Zstd] {
        for len in [8192, 12288, 65536, PIECE] {
            for part in [4096, 16384, PIECE] {
                there_and_back(method, &text(len), part);
                there_and_back(method, &vec![0; len], part);
            }
        }
    }
}

/// Segments of LZO whose lengths come to lie in every place before the end of a sector.
#[test]
fn lzo_lengths_stay_within_sectors() {
    for n in 0..64 {
        let mut data = text(PIECE);
        for (at, sector) in data.chunks_mut(4096).enumerate() {
            let noise = random(1200 + 61 * ((n + at) % 29) + n, n as u64 + 1);
            sector[..noise.len()].copy_from_slice(&noise);
        }
        there_and_back(Lzo, &data, PIECE);
    }
}

#[test]
fn what_saves_no_sector_is_left_as_it_is() {
    for method in [Zlib, Lzo, Zstd] {
        let mut forced = Compressor::new(by(method, true), sector()).unwrap();
        let mut asked = Compressor::new(by(method, false), sector()).unwrap();
        let noise = random(PIECE, 3);
        assert_eq!(forced.compress(&[&noise]), Ok(Compressed::Incompressible));
        assert_eq!(asked.compress(&[&noise]), Ok(Compressed::NotTried));
        // A sector can become no less than one.
        assert_eq!(forced.compress(&[&[0; 4096]]), Ok(Compressed::NotTried));
        // Two can, but not if only a few bytes are saved.
        let mut most = random(8192, 4);
        most[8000..].fill(0);
        assert_eq!(forced.compress(&[&most]), Ok(Compressed::Incompressible));
        // A piece is no longer than an extent.
        let long = vec![0; PIECE];
        assert_eq!(forced.compress(&[&long, &[0; 4096]]), Err(EINVAL));
    }
}

#[test]
fn small_files_are_smaller_than_they_were() {
    for method in [Zlib, Lzo, Zstd] {
        let mut compressor = Compressor::new(by(method, true), sector()).unwrap();
        for size in [200, 2048, 3000, 4096] {
            let mut block = text(size);
            block.resize(4096, 0);
            let made = compressor.compress_inline(&block, size as u64, 2048);
            let made = made.unwrap().unwrap().to_vec();
            assert!(made.len() < size && made.len() <= 2048);
            let mut back = vec![0xee; size];
            decompress(method.number(), &made, &mut back, sector()).unwrap();
            assert!(back == block[..size], "{method:?} {size}");
        }
        let noise = random(4096, 9);
        assert_eq!(compressor.compress_inline(&noise, 4096, 2048), Ok(None));
        let mut one = [0; 4096];
        one[0] = b'x';
        assert_eq!(compressor.compress_inline(&one, 1, 2048), Ok(None));
    }
}

/// What the C driver's heuristic says of the same data, as computed by hand from its rules.
#[test]
fn samples_tell_what_is_worth_it() {
    let mut heuristic = Heuristic::new().unwrap();
    let mut says = |data: &[u8]| heuristic.is_compressible(data);
    assert!(says(&text(PIECE)));
    assert!(says(&vec![0; PIECE]));
    assert!(!says(&random(PIECE, 1)));
    // The same noise twice repeats itself.
    assert!(says(&random(PIECE / 2, 2).repeat(2)));
    // 63 values are few, whatever their order; 100 that are equally frequent have an entropy of
    // more than 80 per cent, and 70 of less.
    let of = |values: u8| -> Vec<u8> { random(PIECE, 7).iter().map(|b| b % values).collect() };
    assert!(says(&of(63)));
    assert!(says(&of(64)));
    assert!(!says(&of(130)));
    assert!(!says(&of(250)));
    assert!(says(&[]));
}

#[test]
fn want_of_memory_is_told() {
    let data = text(PIECE);
    let parts: Vec<&[u8]> = data.chunks(4096).collect();
    for method in [Zlib, Lzo, Zstd] {
        for n in 0.. {
            fault::fail_alloc_after(n);
            let made = Compressor::new(by(method, false), sector())
                .and_then(|mut compressor| compressor.compress(&parts));
            let reached = fault::count() > n;
            fault::clear();
            match made {
                Ok(Compressed::Smaller(_)) if !reached => break,
                made => assert_eq!(made, Err(ENOMEM)),
            }
            assert!(n < 100);
        }
    }
}
