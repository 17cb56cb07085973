//! Which core runs what, and how a thread is pinned to it.
//!
//! Respects the CPUs that this process may use (`sched_getaffinity(2)`, so cpusets and `taskset`)
//! and the CPU time that its cgroup grants (`cpu.max`). From four CPUs up the control core has one
//! of its own; below that it shares the first data core's.

use std::path::Path;
use std::sync::OnceLock;

use super::cgroup;
use crate::limits;

/// Which CPU each thread is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The control core's CPU; `None` leaves it to the scheduler.
    pub control: Option<usize>,
    /// One CPU for each data core.
    pub data: Vec<usize>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A thread could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot pin to CPU {cpu}: the system refuses (cpuset, container?)")]
pub struct PinError {
    /// The CPU.
    pub cpu: usize,
}

/// The CPUs that this process may use, in order.
pub fn available_cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// How many CPUs' worth of time the cgroup of this process, or one above it, grants; `None` where
/// none is set (`cpu.max` of cgroup v2, `cpu.cfs_quota_us` of v1).
pub fn quota_cpus() -> Option<f64> {
    quota_below(Path::new(cgroup::MOUNT), &cgroup::own())
}

/// Decide which CPU runs what. `instances` of `None` means one for each data core, and no more than
/// the cgroup's CPU time keeps busy; `explicit` names the data cores' CPUs.
pub fn plan(instances: Option<usize>, explicit: Option<&[usize]>) -> Plan {
    let available = available_cores();
    // Before any thread is pinned, so that one can be unpinned.
    PROCESS_CORES.get_or_init(|| available.clone());
    plan_for(&available, quota_cpus(), instances, explicit)
}

/// See [`plan`]; for a machine with these CPUs and this quota.
fn plan_for(
    available: &[usize],
    quota: Option<f64>,
    instances: Option<usize>,
    explicit: Option<&[usize]>,
) -> Plan {
    let mut warnings = Vec::new();
    let mut cores = available.to_vec();
    if cores.is_empty() {
        warnings.push("cannot tell which CPUs may be used; threads are not pinned well".to_owned());
        cores.push(0);
    }
    let (control, data) = match explicit {
        Some(explicit) if !explicit.is_empty() => {
            for cpu in explicit.iter().filter(|cpu| !cores.contains(cpu)) {
                warnings.push(format!("turbo.cores: CPU {cpu} may not be used by this process"));
            }
            let free = cores.iter().copied().find(|cpu| !explicit.contains(cpu));
            (free.unwrap_or(explicit[0]), explicit.to_vec())
        }
        _ if cores.len() >= 4 => (cores[0], cores[1..].to_vec()),
        _ => (cores[0], cores.clone()),
    };
    // A part of a CPU keeps an instance busy, too.
    let granted = quota.map_or(usize::MAX, |cpus| cpus.ceil().max(1.0) as usize);
    let wanted = instances.unwrap_or(data.len().min(granted));
    let wanted = wanted.clamp(1, usize::from(limits::INSTANCES_MAX));
    if let Some(cpus) = quota.filter(|_| granted < data.len().max(wanted)) {
        warnings.push(format!(
            "the cgroup grants {cpus:.1} CPUs of time, for {wanted} instances on a machine with \
             {}: when it is used up, every circuit waits; raise CPUQuota (systemd) or --cpus",
            cores.len()
        ));
    }
    if wanted > data.len() {
        warnings.push(format!(
            "{wanted} instances on {} data cores: some share a core, which brings nothing but \
             more introduction points",
            data.len()
        ));
    }
    let data = (0..wanted).map(|turn| data[turn % data.len()]).collect();
    Plan { control: Some(control), data, warnings }
}

/// The CPUs that the process might use when it made its plan.
static PROCESS_CORES: OnceLock<Vec<usize>> = OnceLock::new();

/// Let the calling thread, which may have inherited a pinned thread's CPU, run where the process
/// may.
pub(super) fn unpin_current_thread() {
    let Some(cores) = PROCESS_CORES.get() else { return };
    let mut set = nix::sched::CpuSet::new();
    for core in cores {
        // Only CPUs of this kernel are in there.
        let _ = set.set(*core);
    }
    if let Err(error) = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set) {
        tracing::debug!("a thread stays pinned: {error}");
    }
}

/// Pin the calling thread.
///
/// # Errors
/// [`PinError`]; the thread runs on, unpinned.
pub fn pin_current_thread(cpu: usize) -> Result<(), PinError> {
    // A larger number does not fit into the kernel's set, and `core_affinity` would panic.
    let nameable = cpu <= usize::from(limits::CPU_NUMBER_MAX);
    if nameable && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(PinError { cpu })
    }
}

/// Pin another process of ours, which has one thread so far.
///
/// # Errors
/// [`PinError`]; it runs on as it was.
pub fn pin_process(pid: u32, cpu: usize) -> Result<(), PinError> {
    let mut set = nix::sched::CpuSet::new();
    let refused = |_| PinError { cpu };
    set.set(cpu).map_err(refused)?;
    let pid = i32::try_from(pid).map_err(|_| PinError { cpu })?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(pid), &set).map_err(refused)
}

/// The smallest quota on the way to the root, see [`cgroup::smallest`].
fn quota_below(root: &Path, own: &str) -> Option<f64> {
    cgroup::smallest(root, own, "cpu", quota_of)
}

/// The quota of one cgroup, in CPUs.
fn quota_of(group: &Path) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
        }
        None => {
            let quota = read("cpu.cfs_quota_us")?.trim().parse::<f64>().ok()?;
            (quota, read("cpu.cfs_period_us")?.trim().parse::<f64>().ok()?)
        }
    };
    // Version 1 writes -1 for no quota.
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::{Plan, available_cores, pin_current_thread, quota_below};

    /// Without a quota.
    fn plan_for(cpus: &[usize], instances: Option<usize>, explicit: Option<&[usize]>) -> Plan {
        super::plan_for(cpus, None, instances, explicit)
    }

    #[test]
    fn a_quota_bounds_the_instances_unless_their_number_is_given() {
        let eight: Vec<usize> = (0..8).collect();
        let plan = super::plan_for(&eight, Some(1.5), None, None);
        assert_eq!((plan.control, plan.data), (Some(0), vec![1, 2]));
        assert!(plan.warnings[0].contains("1.5 CPUs"), "{:?}", plan.warnings);
        let plan = super::plan_for(&eight, Some(0.2), None, None);
        assert_eq!(plan.data, vec![1]);
        let plan = super::plan_for(&eight, Some(1.5), Some(3), None);
        assert_eq!((plan.data, plan.warnings.len()), (vec![1, 2, 3], 1));
        let plan = super::plan_for(&eight, Some(8.0), None, None);
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }

    #[test]
    fn the_smallest_quota_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |group: &str, name: &str, text: &str| {
            let group = root.path().join(group);
            std::fs::create_dir_all(&group).expect("a new directory");
            std::fs::write(group.join(name), text).expect("a new file");
        };
        write("system.slice/rb.service", "cpu.max", "max 100000\n");
        assert_eq!(quota_below(root.path(), "0::/system.slice/rb.service\n"), None);
        write("system.slice", "cpu.max", "150000 100000\n");
        assert_eq!(quota_below(root.path(), "0::/system.slice/rb.service\n"), Some(1.5));
        assert_eq!(quota_below(root.path(), "0::/user.slice\n"), None);
        // A container: what it is called outside is not mounted in it.
        write("", "cpu.max", "50000 100000\n");
        assert_eq!(quota_below(root.path(), "0::/docker/1234\n"), Some(0.5));
        // Version 1, beside other controllers.
        let own = "3:cpuset:/\n2:cpu,cpuacct:/job\n";
        assert_eq!(quota_below(root.path(), own), None);
        write("cpu,cpuacct/job", "cpu.cfs_quota_us", "-1\n");
        write("cpu,cpuacct/job", "cpu.cfs_period_us", "100000\n");
        assert_eq!(quota_below(root.path(), own), None);
        write("cpu,cpuacct/job", "cpu.cfs_quota_us", "300000\n");
        assert_eq!(quota_below(root.path(), own), Some(3.0));
        assert_eq!(quota_below(root.path(), "nonsense\n\n"), None);
    }

    #[test]
    fn small_machines_share_and_large_ones_set_the_control_core_apart() {
        let two = plan_for(&[0, 1], None, None);
        assert_eq!((two.control, two.data), (Some(0), vec![0, 1]));
        let four = plan_for(&[0, 1, 2, 3], None, None);
        assert_eq!((four.control, four.data), (Some(0), vec![1, 2, 3]));
    }

    #[test]
    fn only_the_cpus_that_may_be_used_are_used() {
        let plan = plan_for(&[4, 6], Some(2), None);
        assert_eq!((plan.control, plan.data), (Some(4), vec![4, 6]));
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn more_instances_than_cores_are_allowed_with_a_warning() {
        let plan = plan_for(&[0, 1], Some(5), None);
        assert_eq!(plan.data, vec![0, 1, 0, 1, 0]);
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn named_cores_are_taken_as_they_are() {
        let plan = plan_for(&[0, 1, 2, 3], None, Some(&[2, 3]));
        assert_eq!((plan.control, plan.data), (Some(0), vec![2, 3]));
        let plan = plan_for(&[0, 1], None, Some(&[9]));
        assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    }

    #[test]
    fn a_thread_can_be_pinned_where_it_may_run_and_nowhere_else() {
        let pinned = std::thread::spawn(|| {
            let first = available_cores()[0];
            pin_current_thread(first).expect("this CPU may be used");
            available_cores()
        });
        assert_eq!(pinned.join().expect("no panic").len(), 1);
        assert!(pin_current_thread(1023).is_err());
        assert!(pin_current_thread(usize::MAX).is_err(), "no panic");
    }
}
