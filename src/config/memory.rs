//! `memory_max`: how much memory the process may hold.

use std::fmt;

use crate::limits::{MEMORY_BYTES_MIN, MEMORY_PERCENT_DEFAULT};

/// How much memory the process may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMax {
    /// So many bytes.
    Bytes(u64),
    /// This part of what the machine or the cgroup has, 1 to 100.
    Percent(u8),
}

impl Default for MemoryMax {
    fn default() -> MemoryMax {
        MemoryMax::Percent(MEMORY_PERCENT_DEFAULT)
    }
}

impl MemoryMax {
    /// In bytes, where `available` bytes are there; `None` where that is not known and matters.
    pub fn bytes(self, available: Option<u64>) -> Option<u64> {
        match self {
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Percent(percent) => {
                let part = available? / 100 * u64::from(percent);
                Some(part.max(MEMORY_BYTES_MIN))
            }
        }
    }

    /// Read what was written: `"75 %"`, `"2 GiB"`, `"500 MB"`.
    pub(super) fn parse(text: &str) -> Option<MemoryMax> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim().parse().ok()?;
            return (1..=100).contains(&percent).then_some(MemoryMax::Percent(percent));
        }
        let bytes = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
        (bytes >= MEMORY_BYTES_MIN).then_some(MemoryMax::Bytes(bytes))
    }
}

impl fmt::Display for MemoryMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryMax::Bytes(bytes) => write!(f, "{bytes} B"),
            MemoryMax::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryMax;

    #[test]
    fn parts_and_amounts_are_read_and_nonsense_is_not() {
        let read = MemoryMax::parse;
        assert_eq!(read("75%"), Some(MemoryMax::Percent(75)));
        assert_eq!(read("100 %"), Some(MemoryMax::Percent(100)));
        assert_eq!(read("2 GiB"), Some(MemoryMax::Bytes(2 << 30)));
        assert_eq!(read("500MB"), Some(MemoryMax::Bytes(500_000_000)));
        for nonsense in ["0 %", "101 %", "-1 %", "1 kB", "much", "", "%"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for memory in [MemoryMax::Percent(7), MemoryMax::Bytes(123_456_789)] {
            assert_eq!(MemoryMax::parse(&memory.to_string()), Some(memory));
        }
    }

    #[test]
    fn a_part_needs_a_whole() {
        assert_eq!(MemoryMax::Percent(75).bytes(Some(4_000_000_000)), Some(3_000_000_000));
        assert_eq!(MemoryMax::Percent(75).bytes(None), None);
        assert_eq!(MemoryMax::Bytes(1 << 30).bytes(None), Some(1 << 30));
    }
}
