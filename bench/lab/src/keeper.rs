//! Nothing is left behind: a shell reads from a pipe whose other end only we hold. When the pipe
//! closes, for whatever reason (drop, panic, Ctrl-C, SIGKILL), it ends every process on the list,
//! undoes the namespaces and removes the directory.
//!
//! A process is ended only while its command line still names the lab's directory (or was noted as
//! foreign, with its start time), so that a number that was given to somebody else is left alone.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

/// What the shell does. `$1` is the directory.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
dir=$1
read -r _ignored
alive() {
    set -- "$1" "$2"
    [ -r "/proc/$1/stat" ] || return 1
    fields=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null)
    # A zombie has ended; it waits for a parent that is busy or gone.
    case $fields in Z*) return 1 ;; esac
    [ "$(echo "$fields" | cut -d ' ' -f 20)" = "$2" ]
}
if [ -f "$dir/pids" ]; then
    for signal in TERM KILL KILL; do
        some=
        while read -r pid started; do
            if alive "$pid" "$started"; then
                kill -s "$signal" "$pid" 2>/dev/null
                some=yes
            fi
        done < "$dir/pids"
        [ -n "$some" ] || break
        turns=0
        while [ "$turns" -lt 20 ]; do
            some=
            while read -r pid started; do
                alive "$pid" "$started" && some=yes
            done < "$dir/pids"
            [ -n "$some" ] || break
            sleep 0.1
            turns=$((turns + 1))
        done
    done
fi
if [ -f "$dir/undo" ]; then
    sh "$dir/undo" 2>/dev/null
fi
rm -rf "$dir"
"#;

/// See the module.
pub(crate) struct Keeper {
    /// The directory with the lists.
    dir: PathBuf,
    /// The shell; `None` for somebody else's.
    shell: Mutex<Option<Child>>,
}

impl Keeper {
    /// Start one for `dir`, which is removed at the end.
    pub(crate) fn start(dir: &Path, _remove: bool) -> Result<Keeper> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "rustbalance-lab-keeper"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the terminal's process group, which this is not in.
            .process_group(0)
            .spawn()
            .context("cannot start the lab's keeper, /bin/sh")?;
        Ok(Keeper { dir: dir.to_owned(), shell: Mutex::new(Some(shell)) })
    }

    /// The keeper that another process has started for `dir`.
    pub(crate) fn of_another(dir: &Path) -> Keeper {
        Keeper { dir: dir.to_owned(), shell: Mutex::new(None) }
    }

    /// Put a process on the list.
    pub(crate) fn note(&self, pid: u32) -> Result<()> {
        let started = start_time(pid).with_context(|| format!("process {pid} ended at once"))?;
        self.append("pids", &format!("{pid} {started}\n"))
    }

    /// Have a line of shell run at the end.
    pub(crate) fn undo(&self, line: &str) -> Result<()> {
        self.append("undo", &format!("{line}\n"))
    }

    /// Start a process in a group of its own and put it on the list.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
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

/// When a process was started, in clock ticks since boot (proc(5), field 22 of `stat`).
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    after_name.split(' ').nth(19)?.parse().ok()
}
