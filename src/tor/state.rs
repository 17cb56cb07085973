//! Where guards and vanguards are kept, also while another process still holds their files, and for
//! a stack that has the guards of another one.
//!
//! arti's managers end their tasks at the first write that is refused, and with them the rotation
//! of vanguards. For the length of a hand-over the old process holds the lock: the new one reads
//! the same guards and vanguards, keeps changes in memory, and writes from the moment when arti's
//! own task has got the lock.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tor_persist::{Error, FsStateMgr, LockStatus, StateMgr};

/// The key of what a stack keeps for itself when it follows another: arti reads vanguards once, at
/// the start, so that two sets that began as one would drift apart unseen.
const VANGUARDS: &str = "vanguards";

/// arti's state files. A write without the lock is skipped.
#[derive(Clone, Debug)]
pub(super) struct StateFiles {
    /// The files of this stack.
    own: FsStateMgr,
    /// The files of the stack whose guards it has.
    leader: Option<FsStateMgr>,
}

impl StateFiles {
    /// A stack with guards of its own, or of the stack that keeps its files in `leader`. Such a
    /// stack never gets the lock, as arti sees it, and so reads again every minute what its leader
    /// has written.
    pub(super) fn new(own: FsStateMgr, leader: Option<FsStateMgr>) -> StateFiles {
        StateFiles { own, leader }
    }

    /// Whether this stack's own files are locked by us; `try_lock` tries.
    pub(super) fn has_own(&self) -> bool {
        self.own.can_store()
    }
}

impl StateMgr for StateFiles {
    fn load<D: DeserializeOwned>(&self, key: &str) -> Result<Option<D>, Error> {
        match &self.leader {
            Some(leader) if key != VANGUARDS => leader.load(key),
            _ => self.own.load(key),
        }
    }

    fn store<S: Serialize>(&self, key: &str, value: &S) -> Result<(), Error> {
        let is_own = self.leader.is_none() || key == VANGUARDS;
        match is_own && self.own.can_store() {
            true => self.own.store(key, value),
            false => Ok(()),
        }
    }

    fn can_store(&self) -> bool {
        self.leader.is_none() && self.own.can_store()
    }

    fn try_lock(&self) -> Result<LockStatus, Error> {
        let own = self.own.try_lock()?;
        match self.leader {
            None => Ok(own),
            Some(_) => Ok(LockStatus::NoLock),
        }
    }

    fn unlock(&self) -> Result<(), Error> {
        self.own.unlock()
    }
}

#[cfg(test)]
mod tests {
    use tor_persist::{FsStateMgr, StateMgr as _};

    use super::StateFiles;

    /// Files below a directory.
    fn files(dir: &std::path::Path) -> FsStateMgr {
        let trusting = fs_mistrust::Mistrust::new_dangerously_trust_everyone();
        FsStateMgr::from_path_and_mistrust(dir, &trusting).expect("the directory can be used")
    }

    fn read(files: &StateFiles, key: &str) -> Option<String> {
        files.load(key).expect("it can be read")
    }

    #[test]
    fn what_another_process_holds_is_read_and_not_written() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let old = StateFiles::new(files(dir.path()), None);
        let new = StateFiles::new(files(dir.path()), None);
        assert!(old.try_lock().expect("it can be tried").held() && old.has_own());
        assert!(!new.try_lock().expect("it can be tried").held() && !new.has_own());
        old.store("guards", &"the old one's").expect("it is locked");
        new.store("guards", &"the new one's").expect("it is skipped");
        assert_eq!(read(&new, "guards").as_deref(), Some("the old one's"));
        old.unlock().expect("it is locked");
        assert!(new.try_lock().expect("it can be tried").held());
        new.store("guards", &"the new one's").expect("it is ours");
        assert_eq!(read(&new, "guards").as_deref(), Some("the new one's"));
    }

    #[test]
    fn who_follows_reads_the_leaders_guards_and_keeps_vanguards() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (first, second) = (dir.path().join("state"), dir.path().join("state-1"));
        let leader = StateFiles::new(files(&first), None);
        let follower = StateFiles::new(files(&second), Some(files(&first)));
        assert!(leader.try_lock().expect("it can be tried").held());
        assert!(!follower.try_lock().expect("it can be tried").held() && !follower.can_store());
        assert!(follower.has_own(), "its own files are free");
        for (stack, who) in [(&leader, "leader"), (&follower, "follower")] {
            stack.store("guards", &who).expect("it is stored or skipped");
            stack.store("vanguards", &who).expect("it is stored");
        }
        assert_eq!(read(&follower, "guards").as_deref(), Some("leader"));
        assert_eq!(read(&follower, "vanguards").as_deref(), Some("follower"));
        assert_eq!(read(&leader, "vanguards").as_deref(), Some("leader"));
    }
}
