//! Headers that are changed at random: whatever comes, reading it ends, takes nothing that is
//! behind it, and says the same however the bytes are cut.
//!
//! By mutation of a corpus (`tests/fuzz/proxy`) and of headers that we write, on the stable
//! toolchain.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::read::{Extent, extent, parse};
use crate::base::stream::CircuitId;
use crate::limits;
use crate::plane::config::ProxyProtocol;
use crate::plane::proxy_protocol::header;

/// The files of the corpus.
fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/proxy");
    let files = std::fs::read_dir(directory).expect("the corpus is there");
    let paths = files.map(|file| file.expect("it can be listed").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_none()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it can be read")).collect()
}

/// Change some bytes, or more than that.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut SmallRng) {
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let in_it = at.min(bytes.len().saturating_sub(1));
        match random.random_range(0..8) {
            0 if !bytes.is_empty() => bytes[in_it] = random.random(),
            1 if !bytes.is_empty() => bytes[in_it] ^= 1 << random.random_range(0..8),
            2 if !bytes.is_empty() => drop(bytes.remove(in_it)),
            3 => bytes.insert(at, random.random()),
            4 => bytes.truncate(at),
            5 => {
                // The end of another one.
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            6 => {
                let words: [&[u8]; 8] =
                    [b" ", b"\r\n", b"\0", b"65536", b"::", b"TCP6", b"UNKNOWN", b"\x05\0\x01"];
                let word = words[random.random_range(0..words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let mut noise = vec![0; random.random_range(0..5000)];
                random.fill_bytes(&mut noise);
                bytes.extend(noise);
            }
        }
    }
}

/// What has to be true of every beginning of a connection; whether it was a header.
fn check(bytes: &[u8]) -> bool {
    let found = extent(bytes);
    match found {
        Ok(Extent::Whole(end)) => {
            assert!(end <= bytes.len() && end <= limits::PROXY_HEADER_BYTES_MAX);
            // What is behind it makes no difference, and one byte less is not yet enough.
            assert_eq!(extent(&bytes[..end]), Ok(Extent::Whole(end)));
            assert_eq!(extent(&bytes[..end - 1]), Ok(Extent::Partial));
            let said = parse(&bytes[..end]);
            if let Ok(said) = &said
                && let (Some(circuit), Some(port)) = (said.circuit, said.port)
            {
                // Told on, it says the same.
                let again = parse(&header(ProxyProtocol::V2, circuit, port));
                assert_eq!(again.as_ref(), Ok(said));
            }
            said.is_ok()
        }
        Ok(Extent::Partial) => {
            assert!(bytes.len() < limits::PROXY_HEADER_BYTES_MAX);
            false
        }
        // What is wrong already does not become right.
        Err(_) => {
            assert_eq!(extent(&[bytes, b" 1 2\r\n"].concat()), found);
            false
        }
    }
}

#[test]
fn headers_that_are_changed_at_random_do_no_harm() {
    let seconds = std::env::var("RUSTBALANCE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let span = Duration::from_secs_f64(seconds.unwrap_or(0.3));
    let mut seeds = corpus();
    assert!(seeds.len() >= 20);
    // As long as may be, and longer by one: much behind the addresses, as clouds send it.
    for more in [0, 1] {
        let padding = limits::PROXY_HEADER_BYTES_MAX + more - 16 - 12 - 3;
        let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        long.extend(((12 + 3 + padding) as u16).to_be_bytes());
        long.extend([192, 0, 2, 1, 192, 0, 2, 9, 3, 232, 0, 80, 0xea]);
        long.extend((padding as u16).to_be_bytes());
        long.resize(long.len() + padding, 1);
        assert_eq!(check(&long), more == 0);
        seeds.push(long);
    }
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        seeds.push(header(version, CircuitId { instance: 1, serial: 666 }, 80));
    }
    let headers = seeds.iter().filter(|seed| check(seed)).count();
    assert!(headers >= 10, "{headers} headers in the corpus");
    let (begun, mut tried, mut good) = (Instant::now(), 0_u64, 0_u64);
    // With another seed each time it is asked for more than a moment.
    let seed = if seconds.is_some() { rand::rng().random() } else { 1 };
    let mut random = SmallRng::seed_from_u64(seed);
    while begun.elapsed() < span {
        for _ in 0..1000 {
            let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
            mutate(&mut bytes, &seeds, &mut random);
            let before = bytes.clone();
            let checked = std::panic::catch_unwind(|| check(&bytes));
            let was_good = checked.unwrap_or_else(|_| panic!("seed {seed}: {before:02x?}"));
            (tried, good) = (tried + 1, good + u64::from(was_good));
        }
    }
    assert!(good > tried / 100, "{good} of {tried} were headers");
}
