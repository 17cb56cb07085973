//! Nothing is left behind: a shell waits until nobody holds the lab any more, for whatever reason
//! (drop, panic, Ctrl-C, SIGKILL). Then it ends every process of the lab, undoes the namespaces
//! and removes the directory.
//!
//! ```text
//!   one process holds it        the shell reads from a pipe whose other end only that process has
//!   several share it            the shell waits for a file that each of them has locked (flock)
//! ```
//!
//! What ends are the processes on the list `pids` (with their start times, so that a number that
//! was given to somebody else is left alone) and every process whose environment names the lab in
//! [`OWNER`]: what they started themselves, and what was started an instant before we died.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The environment variable that says to which lab a process belongs.
const OWNER: &str = "RUSTBALANCE_LAB_OWNER";

/// The file that says which process keeps a directory.
const KEEPER: &str = "keeper.json";

/// What the shell does. `$1` is the directory, `$2` how it is marked in the environment, `$3` the
/// file that is locked, or nothing.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
dir=$1
mark=$2
if [ -n "$3" ]; then
    exec 8<"$3"
    flock 8
else
    read -r _ignored
fi
living() {
    if [ -f "$dir/pids" ]; then
        while read -r pid started; do
            [ -r "/proc/$pid/stat" ] || continue
            stat=
            read -r stat 2>/dev/null <"/proc/$pid/stat" || continue
            set -- ${stat##*) }
            # A zombie has ended; it waits for a parent that is busy or gone.
            [ "$1" != Z ] && [ "${20}" = "$started" ] && echo "$pid"
        done <"$dir/pids"
    fi
    for file in $(grep -lsF -- "$mark" /proc/[0-9]*/environ); do
        file=${file#/proc/}
        echo "${file%/environ}"
    done
}
for signal in TERM KILL KILL; do
    some=$(living)
    [ -n "$some" ] || break
    kill -s "$signal" $some 2>/dev/null
    turns=0
    while [ "$turns" -lt 25 ] && [ -n "$(living)" ]; do
        sleep 0.1
        turns=$((turns + 1))
    done
done
if [ -f "$dir/undo" ]; then
    sh "$dir/undo" 2>/dev/null
fi
rm -rf -- "$dir"
"#;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// When it was started, in clock ticks since boot.
    pub(crate) started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Process> {
        let (_, started) = stat(pid)?;
        Some(Process { pid, started })
    }

    /// Does it still run?
    pub(crate) fn runs(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| state != 'Z' && started == self.started)
    }
}

/// See the module.
pub(crate) struct Keeper {
    /// The directory with the lists.
    dir: PathBuf,
    /// The shell that waits for our end; `None` for one that waits for others as well.
    shell: Mutex<Option<Child>>,
}

impl Keeper {
    /// Start one for `dir`, which is removed when this is dropped or this process ends.
    pub(crate) fn start(dir: &Path) -> Result<(Keeper, Process)> {
        let (shell, process) = Keeper::spawn_shell(dir, None)?;
        Ok((Keeper { dir: dir.to_owned(), shell: Mutex::new(Some(shell)) }, process))
    }

    /// Start one for `dir`, which is removed when nobody has `users` locked any more.
    pub(crate) fn start_shared(dir: &Path, users: &Path) -> Result<(Keeper, Process)> {
        let (_shell, process) = Keeper::spawn_shell(dir, Some(users))?;
        Ok((Keeper::of_another(dir), process))
    }

    /// The keeper that another process has started for `dir`.
    pub(crate) fn of_another(dir: &Path) -> Keeper {
        Keeper { dir: dir.to_owned(), shell: Mutex::new(None) }
    }

    /// The process that keeps `dir`, dead or alive.
    pub(crate) fn process_of(dir: &Path) -> Option<Process> {
        serde_json::from_slice(&std::fs::read(dir.join(KEEPER)).ok()?).ok()
    }

    /// Does what it keeps end with this?
    pub(crate) fn is_ours(&self) -> bool {
        self.shell.lock().is_ok_and(|shell| shell.is_some())
    }

    /// Start the shell.
    fn spawn_shell(dir: &Path, users: Option<&Path>) -> Result<(Child, Process)> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "rustbalance-lab-keeper"])
            .arg(dir)
            .arg(format!("{OWNER}={}", mark(dir)))
            .args(users)
            // A lab inside of another one's process: ours is the keeper, not the kept.
            .env_remove(OWNER)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the terminal's process group, which this is not in.
            .process_group(0)
            .spawn()
            .context("cannot start the lab's keeper, /bin/sh")?;
        let process = Process::of(shell.id()).context("the lab's keeper ended at once")?;
        std::fs::write(dir.join(KEEPER), serde_json::to_vec(&process)?)
            .context("cannot write down who the lab's keeper is")?;
        Ok((shell, process))
    }

    /// Mark what this command starts, and all that comes of it, as the lab's.
    pub(crate) fn mark(&self, command: &mut Command) {
        command.env(OWNER, mark(&self.dir));
    }

    /// Put a process on the list.
    pub(crate) fn note(&self, pid: u32) -> Result<()> {
        let Process { started, .. } =
            Process::of(pid).with_context(|| format!("process {pid} ended at once"))?;
        self.append("pids", &format!("{pid} {started}\n"))
    }

    /// Have a line of shell run at the end.
    pub(crate) fn undo(&self, line: &str) -> Result<()> {
        self.append("undo", &format!("{line}\n"))
    }

    /// Start a process in a group of its own and put it on the list.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.mark(command);
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        self.note(child.id())?;
        Ok(child)
    }

    /// Append to one of the lists.
    fn append(&self, list: &str, line: &str) -> Result<()> {
        let path = self.dir.join(list);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        file.write_all(line.as_bytes()).context("cannot write to the keeper's list")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let shell = self.shell.get_mut().map(Option::take).ok().flatten();
        if let Some(mut shell) = shell {
            drop(shell.stdin.take());
            // Comes back when everything has ended.
            let _ = shell.wait();
        }
    }
}

/// How processes of the lab in `dir` are marked. The slash ends the name, so that `lab` does not
/// take `lab2` for its own; what lies below `dir` is its own.
fn mark(dir: &Path) -> String {
    format!("{}/", dir.display())
}

/// State and start time of a process (proc(5), fields 3 and 22 of `stat`).
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ');
    let state = after_name.next()?.chars().next()?;
    Some((state, after_name.nth(18)?.parse().ok()?))
}
