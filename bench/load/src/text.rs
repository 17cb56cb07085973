//! The report, and the progress, as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use rustbalance_load::{Circuits, Latency, Load, Progress, Report};

/// Columns of the longest bar.
const BAR_COLUMNS: u64 = 40;

/// Bounds of the bars within a power of ten.
const STEPS: [u64; 3] = [1, 2, 5];

/// The final report, with a line break at its end.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut text, report);
    text
}

/// One line on how far a run is.
pub fn progress(progress: &Progress) -> String {
    let first_byte =
        progress.first_byte_p50_s.map_or("-".to_owned(), |seconds| format!("{seconds:.3} s"));
    format!(
        "{:>4.0} s  {} done, {} failed, {:.1}/s, {} connections open, first byte p50 {}, {} left",
        progress.elapsed.as_secs_f64(),
        progress.requests,
        progress.failed,
        progress.requests_per_s,
        progress.connections_open,
        first_byte,
        time(progress.left),
    )
}

fn write_report(text: &mut String, report: &Report) -> std::fmt::Result {
    let load = match report.load {
        Load::Closed => "closed loop".to_owned(),
        Load::Open { rate } => format!("open loop, {rate} requests a second"),
        Load::Hold { every } => format!("hold, a request of each every {}", time(every)),
    };
    let circuits = match report.circuits {
        Circuits::Fresh => "fresh circuits for each request",
        Circuits::Kept => "kept circuits",
    };
    writeln!(text, "{load}; {} clients; {circuits}", report.clients)?;
    if report.interrupted {
        let unfinished = report.unfinished;
        writeln!(text, "interrupted: {unfinished} requests were under way or due")?;
    }
    writeln!(
        text,
        "requests     {} in {:.1} s ({:.2}/s): {} succeeded, {} failed",
        report.requests, report.elapsed_s, report.requests_per_s, report.succeeded, report.failed
    )?;
    for failure in &report.failures {
        writeln!(text, "  failed     {:>6}  {}", failure.count, failure.text)?;
    }
    writeln!(text, "received     {} bytes, {:.3} Mbps", report.bytes, report.throughput_mbps)?;
    writeln!(
        text,
        "circuits     {} new ({:.2}/s)",
        report.circuits_new, report.circuits_new_per_s
    )?;
    writeln!(
        text,
        "connections  {} opened, at most {} at once; {} requests sent again",
        report.connections, report.connections_open_max, report.resent
    )?;
    text.push_str("\nseconds from the intended start, of the requests that succeeded\n");
    writeln!(
        text,
        "{:<12} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    row(text, "connected", &report.connected)?;
    row(text, "first byte", &report.first_byte)?;
    row(text, "last byte", &report.last_byte)?;
    bars(text, "first byte", &report.first_byte)
}

/// A row of the table of latencies.
fn row(text: &mut String, name: &str, latency: &Latency) -> std::fmt::Result {
    write!(text, "{name:<12} {:>8}", latency.count())?;
    for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
        match latency.quantile_s(quantile) {
            Some(seconds) => write!(text, " {seconds:>9.3}")?,
            None => write!(text, " {:>9}", "-")?,
        }
    }
    writeln!(text)
}

/// A bar for each step from the shortest to the longest latency: 1, 2, 5, 10 and so on.
fn bars(text: &mut String, name: &str, latency: &Latency) -> std::fmt::Result {
    let counts = steps(latency);
    let Some(most) = counts.iter().map(|(.., count)| *count).max() else { return Ok(()) };
    writeln!(text, "\n{name}, seconds")?;
    for (low, high, count) in counts {
        // What is there at all shows.
        let length = (count * BAR_COLUMNS / most).max(u64::from(count > 0));
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        let line = format!("{:>9} to {:>9} {count:>8}  {bar}", edge(low), edge(high));
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

/// How many latencies fall into each step: lower and upper bound in microseconds, and the count.
fn steps(latency: &Latency) -> Vec<(u64, u64, u64)> {
    let histogram = latency.histogram();
    let mut counts: Vec<(u64, u64, u64)> = Vec::new();
    for recorded in histogram.iter_recorded() {
        let value = recorded.value_iterated_to();
        let (mut low, mut high) = (0, 1);
        let mut bounds =
            (0..11).flat_map(|power| STEPS.map(|step| step * 10_u64.pow(power)).into_iter());
        while let Some(bound) = bounds.next().filter(|_| high <= value) {
            (low, high) = (high, bound);
        }
        match counts.last_mut().filter(|last| last.0 == low) {
            Some(last) => last.2 += recorded.count_at_value(),
            None => counts.push((low, high, recorded.count_at_value())),
        }
    }
    counts
}

/// Microseconds as seconds, no longer than needed.
fn edge(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, format!("{:06}", micros % 1_000_000));
    match part.trim_end_matches('0') {
        "" => whole.to_string(),
        part => format!("{whole}.{part}"),
    }
}

/// A time in the largest unit that suits it.
fn time(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{:.0} s", time.as_secs_f64()),
        120..7200 => format!("{:.0} min", time.as_secs_f64() / 60.0),
        _ => format!("{:.1} h", time.as_secs_f64() / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustbalance_load::Latency;

    use super::{bars, edge, row, steps};

    fn latency(millis: &[u64]) -> Latency {
        let mut latency = Latency::new();
        for millis in millis {
            latency.record(Duration::from_millis(*millis));
        }
        latency
    }

    #[test]
    fn steps_are_one_two_five() {
        let counts = steps(&latency(&[15, 16, 30, 30, 30, 700]));
        let expected = [(10_000, 20_000, 2), (20_000, 50_000, 3), (500_000, 1_000_000, 1)];
        assert_eq!(counts, expected);
        assert_eq!(steps(&Latency::new()), []);
    }

    #[test]
    fn the_longest_bar_is_the_most_frequent_step() {
        let mut text = String::new();
        bars(&mut text, "first byte", &latency(&[15, 30, 30])).expect("strings take it");
        let expected = format!(
            "\nfirst byte, seconds\n     0.01 to      0.02        1  {}\n     \
             0.02 to      0.05        2  {}\n",
            "#".repeat(20),
            "#".repeat(40)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn an_empty_row_has_dashes() {
        let mut text = String::new();
        row(&mut text, "connected", &Latency::new()).expect("strings take it");
        assert_eq!(text.matches('-').count(), 5, "{text}");
    }

    #[test]
    fn edges_have_no_empty_digits() {
        assert_eq!(edge(0), "0");
        assert_eq!(edge(500_000), "0.5");
        assert_eq!(edge(2_000_000), "2");
        assert_eq!(edge(1), "0.000001");
    }
}
