//! A list that grows, is torn, fills a disk, and is read by two processes.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};

use super::{Digest, Published};
use crate::limits;

/// A document in form.
fn document(revision: u64) -> String {
    format!("hs-descriptor 3\nrevision-counter {revision}\nsignature AAAA\n")
}

/// The digest of that document.
fn digest(revision: u64) -> Digest {
    Digest::of(&document(revision))
}

/// A directory and the list's path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("published-main.json");
    (directory, path)
}

/// The file's length.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").len()
}

#[test]
fn what_a_relay_adds_around_a_descriptor_makes_it_no_other() {
    let ours = digest(7);
    assert_eq!(Digest::of(&format!("\n{}\n\n", document(7))), ours);
    assert_ne!(digest(8), ours);
    // Nothing of these is a descriptor; none may panic.
    for text in ["", "\nsignature ", "\nsignature x hs-descriptor 3", "hs-descriptor "] {
        Digest::of(text);
    }
    for wrong in ["", "00", "zz", &"+1".repeat(16), &"é".repeat(16), &"0".repeat(33)] {
        assert!(Digest::try_from((*wrong).to_owned()).is_err(), "{wrong}");
    }
}

#[test]
fn a_restart_knows_what_was_published_and_so_does_a_process_that_goes_on() {
    let (_directory, path) = place();
    let mut before = Published::load(&path);
    let mut old = Published::load(&path);
    let (first, second, third) = (digest(1), digest(2), digest(3));
    before.record([first].into_iter(), 100);
    let mut after = Published::load(&path);
    assert!(after.contains(&first) && !after.contains(&second));
    after.record([second].into_iter(), 101);
    assert!(!old.contains(&second));
    old.reload();
    assert!(old.contains(&first) && old.contains(&second));
    // It publishes again, after the other has: each appends to what is there.
    old.record([third].into_iter(), 102);
    let last = Published::load(&path);
    assert!([first, second, third].iter().all(|one| last.contains(one)));
}

#[test]
fn a_file_of_an_earlier_version_is_read_and_goes_on() {
    let (_directory, path) = place();
    let old = String::from(digest(1));
    std::fs::write(&path, format!("{{\"{old}\":100}}")).expect("the directory is writable");
    let mut published = Published::load(&path);
    assert!(published.contains(&digest(1)));
    published.record([digest(2)].into_iter(), 101);
    let after = Published::load(&path);
    assert!(after.contains(&digest(1)) && after.contains(&digest(2)));
}

#[test]
fn a_descriptor_is_forgotten_once_its_certificates_are_over() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    published.record([digest(1)].into_iter(), 100);
    let later = 101 + limits::DESCRIPTOR_CERT_LIFETIME_SECONDS;
    published.record([digest(2)].into_iter(), later);
    assert!(!published.contains(&digest(1)) && published.contains(&digest(2)));
}

/// As points that change all the time make it: a round each minute, with twelve documents, for as
/// long as certificates hold. None of them may look like a stranger's.
#[test]
fn rounds_at_the_highest_rate_are_all_known_for_as_long_as_they_may_be_shown() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    let minutes = limits::DESCRIPTOR_CERT_LIFETIME_SECONDS / 60;
    let of_round = |minute: u64| (0..12).map(move |one| digest(minute * 12 + one));
    // The file is written as a process leaves it that has gone on for as long; what fsync(2) costs
    // 3,240 times is not the question here.
    let mut file = std::fs::File::create(&path).expect("the directory is writable");
    for minute in 0..minutes {
        let line: super::Known = of_round(minute).map(|one| (one, minute * 60)).collect();
        serde_json::to_writer(&mut file, &line).expect("there is room");
        file.write_all(b"\n").expect("there is room");
    }
    drop(file);
    let cpu = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it");
    let begun = cpu();
    published.reload();
    let took = std::time::Duration::from(cpu()) - std::time::Duration::from(begun);
    assert_eq!(published.known.len() as u64, minutes * 12);
    // A hundredth of it in an optimized build.
    assert!(took < std::time::Duration::from_secs(5), "{took:?} of this thread's time");
    let bytes = published.known.len() * std::mem::size_of::<(Digest, u64)>();
    assert!(bytes <= 1 << 20, "{bytes} bytes without the tree around them");
    // And one more minute, which only appends.
    let before = length(&path);
    published.record(of_round(minutes), minutes * 60);
    let after = Published::load(&path);
    assert!((0..=minutes).all(|minute| of_round(minute).all(|one| after.contains(&one))));
    assert!(length(&path) - before < 1000, "it was appended");
}

#[test]
fn the_list_is_bounded_and_the_oldest_go_first() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    published.record([digest(0)].into_iter(), 1);
    published.record((1..=limits::PUBLISHED_KEPT_MAX as u64).map(digest), 2);
    assert_eq!(published.known.len(), limits::PUBLISHED_KEPT_MAX);
    assert!(!published.contains(&digest(0)));
}

#[test]
fn the_file_is_written_anew_once_it_has_twice_what_is_kept() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    let each = limits::PUBLISHED_REWRITTEN_MIN as u64 / 4;
    let lifetime = limits::DESCRIPTOR_CERT_LIFETIME_SECONDS;
    let mut longest = 0;
    for round in 0..12 {
        // What the round before has published is over.
        let new = (round * each..(round + 1) * each).map(digest);
        published.record(new, (round + 1) * (lifetime + 1));
        longest = longest.max(length(&path));
    }
    // 46 bytes each, and what stands around them.
    let most = (limits::PUBLISHED_REWRITTEN_MIN * limits::PUBLISHED_FILE_GROWTH) as u64 * 48;
    assert!(longest <= most && length(&path) < longest, "{longest} of {most}");
    let after = Published::load(&path);
    assert!((11 * each..12 * each).all(|one| after.contains(&digest(one))));
}

#[test]
fn a_torn_line_costs_itself_and_no_other() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    published.record([digest(1)].into_iter(), 100);
    let whole = length(&path);
    published.record([digest(2)].into_iter(), 101);
    let all = length(&path);
    for torn in whole..all {
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(torn).expect("it is ours");
        let mut after = Published::load(&path);
        assert!(after.contains(&digest(1)), "{torn}");
        after.record([digest(3)].into_iter(), 102);
        let after = Published::load(&path);
        assert!(after.contains(&digest(1)) && after.contains(&digest(3)), "{torn}");
        // As before.
        std::fs::remove_file(&path).expect("it is there");
        let mut published = Published::load(&path);
        published.record([digest(1)].into_iter(), 100);
        published.record([digest(2)].into_iter(), 101);
        assert_eq!(length(&path), all);
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_next_line_has_what_did_not_fit() {
    let (_directory, path) = place();
    let mut published = Published::load(&path);
    published.record([digest(1)].into_iter(), 1);
    // Every write to /dev/full says that the disk is full.
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).expect("it is there");
    symlink("/dev/full", &path).expect("a new link");
    published.record([digest(2)].into_iter(), 2);
    assert!(published.contains(&digest(2)), "it is known until the process ends");
    std::fs::rename(&aside, &path).expect("it is there");
    published.record([digest(3)].into_iter(), 3);
    let after = Published::load(&path);
    assert!((1..=3).all(|one| after.contains(&digest(one))));
    // The same where the file would be written anew.
    symlink("/dev/full", path.with_extension("new")).expect("a new link");
    published.in_file = limits::PUBLISHED_KEPT_MAX * limits::PUBLISHED_FILE_GROWTH;
    published.record([digest(4)].into_iter(), 4);
    let after = Published::load(&path);
    assert!((1..=3).all(|one| after.contains(&digest(one))) && !after.contains(&digest(4)));
    std::fs::remove_file(path.with_extension("new")).expect("it is there");
    published.record([digest(5)].into_iter(), 5);
    let after = Published::load(&path);
    assert!((1..=5).all(|one| after.contains(&digest(one))));
}
