//! Which core runs what, and how a thread is pinned to it.
//!
//! Respects the CPUs that this process may use (`sched_getaffinity(2)`, so cpusets and `taskset`).
//! From four CPUs up the control core has one of its own; below that it shares the first data
//! core's.

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
#[error("cannot pin this thread to CPU {cpu}: the system refuses (cpuset, container?)")]
pub struct PinError {
    /// The CPU.
    pub cpu: usize,
}

/// The CPUs that this process may use, in order.
pub fn available_cores() -> Vec<usize> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    cores.sort_unstable();
    cores
}

/// Decide which CPU runs what. `instances` of `None` means one for each data core; `explicit`
/// names the data cores' CPUs.
pub fn plan(instances: Option<usize>, explicit: Option<&[usize]>) -> Plan {
    plan_for(&available_cores(), instances, explicit)
}

/// See [`plan`]; for a machine with these CPUs.
fn plan_for(available: &[usize], instances: Option<usize>, explicit: Option<&[usize]>) -> Plan {
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
    let wanted = instances.unwrap_or(data.len()).clamp(1, usize::from(limits::INSTANCES_MAX));
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

/// Pin the calling thread.
///
/// # Errors
/// [`PinError`]; the thread runs on, unpinned.
pub fn pin_current_thread(cpu: usize) -> Result<(), PinError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(PinError { cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::{available_cores, pin_current_thread, plan_for};

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
    }
}
