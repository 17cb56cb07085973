//! One run: subjects take turns, what fails is void, everything is written down as it comes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cost::{Tree, machine_busy};
use crate::sample::{Sample, Values};
use crate::site::Site;
use crate::subject::{Kind, Subject};

/// How thorough a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everything once and small: shows that the suites work, measures nothing.
    Smoke,
    /// A quarter of an hour.
    Quick,
    /// An hour or two.
    Full,
}

impl Level {
    /// The value of this level.
    pub fn pick<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Level::Smoke => smoke,
            Level::Quick => quick,
            Level::Full => full,
        }
    }
}

/// The name of the first C tor.
pub const C_TOR: &str = "C tor";
/// The name of the second, which shows the noise.
pub const C_TOR_AGAIN: &str = "C tor (A/A)";
/// Both.
pub const C_TORS: [&str; 2] = [C_TOR, C_TOR_AGAIN];
/// How often a void round is tried again.
const VOID_ROUNDS_MAX: usize = 2;

/// A run.
pub struct Bench {
    /// What is around the subjects.
    pub site: Site,
    /// How thorough.
    pub level: Level,
    /// All that was measured.
    pub samples: Vec<Sample>,
    /// Where it is written as it comes.
    raw: File,
    /// CPU that the machine takes while nobody asks for anything, in CPU seconds a second.
    pub idle: f64,
    /// How often that was measured.
    idles: usize,
    /// When it began.
    started: Instant,
    /// Steps that are done.
    steps_done: usize,
    /// Steps in all.
    steps: usize,
}

impl Bench {
    /// A run that writes its raw data to a new file, JSON lines.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(site: Site, level: Level, raw: &Path, steps: usize) -> Result<Bench> {
        let file = File::create_new(raw);
        let raw = file.with_context(|| format!("cannot make {}", raw.display()))?;
        let started = Instant::now();
        let samples = Vec::new();
        Ok(Bench { site, level, samples, raw, idle: 0.0, idles: 0, started, steps_done: 0, steps })
    }

    /// Measure how busy the machine is with nobody asking, for the subjects that run.
    ///
    /// # Errors
    /// When the raw data cannot be written.
    pub fn measure_idle(&mut self) -> Result<()> {
        let span = Duration::from_secs(self.level.pick(1, 5, 10));
        let (busy, started) = (machine_busy(), Instant::now());
        std::thread::sleep(span);
        self.idle = (machine_busy() - busy).as_secs_f64() / started.elapsed().as_secs_f64();
        self.say(&format!("the idle machine takes {:.2} CPU seconds a second", self.idle));
        self.record(Sample {
            suite: "machine",
            case: "nobody asks".to_owned(),
            subject: "all that runs".to_owned(),
            round: self.idles,
            values: Values::from([("cpu_seconds_per_second", self.idle)]),
            void: None,
        })?;
        self.idles += 1;
        Ok(())
    }

    /// One step is done: tell how far it is.
    pub fn step(&mut self, what: &str) {
        self.steps_done += 1;
        let elapsed = self.started.elapsed();
        let left = elapsed.mul_f64(
            self.steps.saturating_sub(self.steps_done) as f64 / self.steps_done.max(1) as f64,
        );
        let text = format!("{what}; {}, about {} left", minutes(elapsed), minutes(left));
        self.say(&text);
    }

    /// Tell something.
    pub fn say(&self, what: &str) {
        eprintln!("[{}/{}] {what}", self.steps_done, self.steps);
    }

    /// Start subjects at once and wait until all of them serve.
    ///
    /// # Errors
    /// When one does not.
    pub fn start(&mut self, kinds: &[Kind]) -> Result<Vec<Subject>> {
        let site = &self.site;
        let starting = kinds.iter().map(|kind| {
            eprintln!("starting {}", kind.name());
            // Somebody may take a port between its choice and its use.
            kind.start(site).or_else(|error| {
                eprintln!("{}: {error:#}; once more", kind.name());
                kind.start(site)
            })
        });
        let mut subjects = starting.collect::<Result<Vec<_>>>()?;
        for subject in &subjects {
            site.wait_until_served(&subject.onion).with_context(|| subject.name.clone())?;
        }
        // The second of two equal subjects is the control.
        for at in 1..subjects.len() {
            if subjects[..at].iter().any(|earlier| earlier.name == subjects[at].name) {
                subjects[at].name.push_str(" (A/A)");
            }
        }
        Ok(subjects)
    }

    /// Measure each subject in each round, in turns. A round in which one of them fails is void for
    /// all, is said so, and is tried again.
    ///
    /// # Errors
    /// When the raw data cannot be written.
    pub fn interleave(
        &mut self,
        suite: &'static str,
        case: &str,
        rounds: usize,
        subjects: &[Subject],
        measure: impl Fn(&Site, &Subject) -> Result<Values>,
    ) -> Result<()> {
        let (mut good, mut round) = (0, 0);
        while good < rounds && round < rounds + VOID_ROUNDS_MAX {
            let mut results = Vec::new();
            let mut void = None;
            // The one who begins changes, so that nobody always follows the same neighbour.
            for turn in 0..subjects.len() {
                let subject = &subjects[(turn + round) % subjects.len()];
                match measure(&self.site, subject) {
                    Ok(values) => results.push((subject.name.clone(), values)),
                    Err(error) => {
                        let why = format!("{}: {error:#}", subject.name);
                        self.say(&format!("round {} of {case} is void: {why}", round + 1));
                        results.push((subject.name.clone(), Values::new()));
                        void = Some(why);
                        // Nobody's figures of this round will count.
                        break;
                    }
                }
            }
            good += usize::from(void.is_none());
            for (subject, values) in results {
                let void = void.clone();
                self.record(Sample { suite, case: case.to_owned(), subject, round, values, void })?;
            }
            self.step(&format!("{suite}, {case}, round {} of {rounds}", round + 1));
            round += 1;
        }
        Ok(())
    }

    /// Keep a sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, sample: Sample) -> Result<()> {
        writeln!(self.raw, "{}", serde_json::to_string(&sample)?)?;
        self.samples.push(sample);
        Ok(())
    }
}

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU of the subject's processes, in seconds.
    pub cpu_seconds: f64,
    /// CPU of the whole machine, in seconds: relays and clients as well, and what it takes at rest.
    pub machine_seconds: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Cost {
    /// CPU of the whole machine beyond what it takes at rest, which is `idle` CPU seconds a second.
    pub fn machine_above(&self, idle: f64) -> f64 {
        (self.machine_seconds - idle * self.seconds).max(0.0)
    }
}

/// Do something and see what it cost a subject.
///
/// # Errors
/// When it fails.
pub fn cost_of<T>(tree: &Tree, what: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
    let (cpu, machine, started) = (tree.cpu(), machine_busy(), Instant::now());
    let result = what()?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = tree.cpu().saturating_sub(cpu).as_secs_f64();
    let machine_seconds = machine_busy().saturating_sub(machine).as_secs_f64();
    Ok((result, Cost { cpu_seconds, machine_seconds, seconds }))
}

/// A time for people.
fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}
