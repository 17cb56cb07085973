//! Where guards and vanguards are kept, also while another process still holds their files.
//!
//! arti's managers end their tasks at the first write that is refused, and with them the rotation
//! of vanguards. For the length of a hand-over the old process holds the lock: the new one reads
//! the same guards and vanguards, keeps changes in memory, and writes from the moment when arti's
//! own task has got the lock.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tor_persist::{Error, FsStateMgr, LockStatus, StateMgr};

/// arti's state files. A write without the lock is skipped.
#[derive(Clone, Debug)]
pub(super) struct StateFiles(pub(super) FsStateMgr);

impl StateMgr for StateFiles {
    fn load<D: DeserializeOwned>(&self, key: &str) -> Result<Option<D>, Error> {
        self.0.load(key)
    }

    fn store<S: Serialize>(&self, key: &str, value: &S) -> Result<(), Error> {
        match self.0.can_store() {
            true => self.0.store(key, value),
            false => Ok(()),
        }
    }

    fn can_store(&self) -> bool {
        self.0.can_store()
    }

    fn try_lock(&self) -> Result<LockStatus, Error> {
        self.0.try_lock()
    }

    fn unlock(&self) -> Result<(), Error> {
        self.0.unlock()
    }
}

#[cfg(test)]
mod tests {
    use tor_persist::{FsStateMgr, StateMgr as _};

    use super::StateFiles;

    #[test]
    fn what_another_process_holds_is_read_and_not_written() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let trusting = fs_mistrust::Mistrust::new_dangerously_trust_everyone();
        let files =
            || FsStateMgr::from_path_and_mistrust(dir.path(), &trusting).expect("it can be used");
        let (old, new) = (files(), StateFiles(files()));
        assert!(old.try_lock().expect("it can be locked").held());
        old.store("guards", &"the old one's").expect("it is locked");
        assert!(!new.try_lock().expect("it can be asked for").held());
        new.store("guards", &"the new one's").expect("it is skipped");
        let read = || new.load::<String>("guards").expect("it can be read");
        assert_eq!(read().as_deref(), Some("the old one's"));
        drop(old);
        assert!(new.try_lock().expect("it is free").held());
        new.store("guards", &"the new one's").expect("it is ours");
        assert_eq!(read().as_deref(), Some("the new one's"));
    }
}
