//! What was seen before is refused: INTRODUCE2 for each introduction point, rendezvous cookies for
//! the whole service.
//!
//! * [`SeenMessages`] belongs to one introduction point and lives as long as its keys: a message
//!   replayed to other keys does not decrypt, so nothing has to survive the point.
//! * [`SeenCookies`] is shared by all cores: C tor sends a cookie again through another point when
//!   the first stays silent, and two circuits to one rendezvous point with one cookie are of no
//!   use to anybody.
//!
//! Both hash with a random key (std's), so nobody can aim at a bucket.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;

/// Length of the MAC that ends an INTRODUCE2 (rend-spec-v3, section 3.2.1).
const MAC_BYTES: usize = 32;

/// The MACs of the INTRODUCE2 that one introduction point has accepted.
///
/// The MAC covers the whole message under a key that only the client and we know: two messages
/// that decrypt have the same MAC only when they are the same message.
#[derive(Debug, Default)]
pub(super) struct SeenMessages {
    /// First halves of the MACs, at most [`limits::INTRODUCTIONS_SEEN_MAX`].
    macs: Mutex<HashSet<[u8; MAC_BYTES / 2]>>,
}

impl SeenMessages {
    /// The part of an encrypted body that names it. `None` for a body without a whole MAC.
    fn name(encrypted_body: &[u8]) -> Option<[u8; MAC_BYTES / 2]> {
        let start = encrypted_body.len().checked_sub(MAC_BYTES)?;
        encrypted_body.get(start..start + MAC_BYTES / 2)?.try_into().ok()
    }

    /// Whether this message was accepted before. Asked before the costly decryption.
    pub(super) fn contains(&self, encrypted_body: &[u8]) -> bool {
        let macs = self.macs.lock().unwrap_or_else(PoisonError::into_inner);
        Self::name(encrypted_body).is_some_and(|name| macs.contains(&name))
    }

    /// Remember a message that decrypted. `false` when it was there already or cannot be kept.
    pub(super) fn insert(&self, encrypted_body: &[u8]) -> bool {
        let mut macs = self.macs.lock().unwrap_or_else(PoisonError::into_inner);
        macs.len() < limits::INTRODUCTIONS_SEEN_MAX
            && Self::name(encrypted_body).is_some_and(|name| macs.insert(name))
    }
}

impl SeenMessages {
    /// Whether no further message can be told from a replay: the point is of no use any more.
    pub(super) fn is_full(&self) -> bool {
        let macs = self.macs.lock().unwrap_or_else(PoisonError::into_inner);
        macs.len() >= limits::INTRODUCTIONS_SEEN_MAX
    }
}

/// A rendezvous cookie (20 bytes).
pub(super) type Cookie = [u8; 20];

/// The rendezvous cookies of the last five minutes and more, for all cores of a service.
#[derive(Debug)]
pub(super) struct SeenCookies {
    /// Two generations: the young one becomes the old one every
    /// [`limits::COOKIE_MEMORY_SECONDS`], so a cookie is known for one to two of these.
    generations: Mutex<Generations>,
}

/// See [`SeenCookies`].
#[derive(Debug)]
struct Generations {
    /// Cookies since `turned`.
    young: HashSet<Cookie>,
    /// Cookies of the time before.
    old: HashSet<Cookie>,
    /// When `young` was last begun.
    turned: Instant,
}

impl SeenCookies {
    /// An empty memory.
    pub(super) fn new(now: Instant) -> SeenCookies {
        let (young, old) = (HashSet::new(), HashSet::new());
        SeenCookies { generations: Mutex::new(Generations { young, old, turned: now }) }
    }

    /// Remember a cookie. `false` when it is known, which means that its rendezvous was begun.
    ///
    /// Under a flood a full generation turns early: memory stays bounded, and what an attacker
    /// wins is that a cookie of their own may be used twice.
    pub(super) fn insert(&self, cookie: Cookie, now: Instant) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(generations.turned);
        let memory = Duration::from_secs(limits::COOKIE_MEMORY_SECONDS);
        if age >= memory * 2 {
            generations.old.clear();
            generations.young.clear();
            generations.turned = now;
        } else if age >= memory || generations.young.len() >= limits::COOKIES_PER_GENERATION_MAX {
            generations.old = std::mem::take(&mut generations.young);
            generations.turned = now;
        }
        !generations.old.contains(&cookie) && generations.young.insert(cookie)
    }

    /// Forget a cookie whose rendezvous came to nothing: the client tries again with the same one
    /// through another point.
    pub(super) fn forget(&self, cookie: &Cookie) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.remove(cookie);
        generations.old.remove(cookie);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Cookie, SeenCookies, SeenMessages};
    use crate::limits;

    #[test]
    fn a_message_is_accepted_once() {
        let seen = SeenMessages::default();
        let first = [7_u8; 100];
        let mut second = first;
        second[70] ^= 1;
        assert!(!seen.contains(&first));
        assert!(seen.insert(&first));
        assert!(seen.contains(&first));
        assert!(!seen.insert(&first));
        assert!(seen.insert(&second), "another MAC is another message");
    }

    #[test]
    fn a_body_without_a_mac_is_not_kept() {
        let seen = SeenMessages::default();
        assert!(!seen.insert(&[1; 31]));
        assert!(!seen.contains(&[1; 31]));
    }

    #[test]
    fn a_cookie_is_refused_for_five_minutes_and_forgotten_later() {
        let start = Instant::now();
        let seen = SeenCookies::new(start);
        let cookie: Cookie = [1; 20];
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(seen.insert(cookie, start));
        assert!(!seen.insert(cookie, after(1)));
        assert!(!seen.insert(cookie, after(limits::COOKIE_MEMORY_SECONDS)));
        assert!(seen.insert(cookie, after(3 * limits::COOKIE_MEMORY_SECONDS)));
    }

    #[test]
    fn a_cookie_whose_rendezvous_failed_is_accepted_again() {
        let start = Instant::now();
        let seen = SeenCookies::new(start);
        assert!(seen.insert([1; 20], start));
        seen.forget(&[1; 20]);
        assert!(seen.insert([1; 20], start));
        let later = start + Duration::from_secs(limits::COOKIE_MEMORY_SECONDS);
        assert!(seen.insert([2; 20], later), "the generation turns");
        seen.forget(&[1; 20]);
        assert!(seen.insert([1; 20], later));
    }

    #[test]
    fn a_point_takes_so_many_messages_and_no_more() {
        let seen = SeenMessages::default();
        for number in 0..limits::INTRODUCTIONS_SEEN_MAX as u64 {
            let mut body = [0; 40];
            body[8..16].copy_from_slice(&number.to_le_bytes());
            assert!(!seen.is_full());
            assert!(seen.insert(&body));
        }
        assert!(seen.is_full());
        assert!(!seen.insert(&[9; 40]));
    }

    #[test]
    fn a_flood_of_cookies_stays_bounded() {
        let start = Instant::now();
        let seen = SeenCookies::new(start);
        for number in 0..3 * limits::COOKIES_PER_GENERATION_MAX as u64 {
            let mut cookie = [0; 20];
            cookie[..8].copy_from_slice(&number.to_le_bytes());
            assert!(seen.insert(cookie, start));
        }
        let generations = seen.generations.lock().expect("no test panics with the lock");
        let kept = generations.young.len() + generations.old.len();
        assert!(kept <= 2 * limits::COOKIES_PER_GENERATION_MAX, "{kept}");
    }
}
