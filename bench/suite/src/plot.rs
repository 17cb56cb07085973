//! Pictures of a report: bars with the spread of the rounds, as SVG, and as PNG where rsvg-convert
//! is there.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};
use plotters::prelude::{
    ChartBuilder, Color as _, IntoDrawingArea as _, IntoFont as _, PathElement, RGBColor,
    Rectangle, SVGBackend, Text, WHITE,
};

use crate::sample::Summary;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Below it.
    pub label: String,
    /// Which colour: bars of one subject have the same.
    pub series: usize,
    /// Its height and spread.
    pub summary: Summary,
}

/// Size of a picture in pixels.
const SIZE: (u32, u32) = (900, 420);

/// Colours of the series, which people with every kind of sight tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(90, 90, 90),
];

/// Draw bars; `names` are the series.
///
/// # Errors
/// When the files cannot be written.
pub fn bars(path: &Path, title: &str, unit: &str, names: &[String], bars: &[Bar]) -> Result<()> {
    draw(path, title, unit, names, bars).map_err(|error| anyhow!("cannot draw: {error}"))?;
    // Without the program there is the SVG alone.
    let _ = Command::new("rsvg-convert")
        .arg("--output")
        .arg(path.with_extension("png"))
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Ok(())
}

/// See [`bars`].
fn draw(
    path: &Path,
    title: &str,
    unit: &str,
    names: &[String],
    bars: &[Bar],
) -> Result<(), Box<dyn std::error::Error>> {
    let top = bars.iter().map(|bar| bar.summary.most).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20).into_font())
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top * 1.35)?;
    chart.configure_mesh().disable_x_mesh().disable_x_axis().y_desc(unit).draw()?;
    for (series, name) in names.iter().enumerate() {
        let colour = COLOURS[series % COLOURS.len()];
        let own = bars.iter().enumerate().filter(|(_, bar)| bar.series == series);
        let boxes = own.clone().map(|(at, bar)| {
            let (left, right) = (at as f64 + 0.15, at as f64 + 0.85);
            Rectangle::new([(left, 0.0), (right, bar.summary.median)], colour.filled())
        });
        chart
            .draw_series(boxes)?
            .label(name.clone())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let whiskers = own.map(|(at, bar)| {
            let middle = at as f64 + 0.5;
            let ends = vec![(middle, bar.summary.least), (middle, bar.summary.most)];
            PathElement::new(ends, RGBColor(0, 0, 0).stroke_width(2))
        });
        chart.draw_series(whiskers)?;
    }
    let labels = bars.iter().enumerate().map(|(at, bar)| {
        let value = format!("{} {:.3}", bar.label, bar.summary.median);
        Text::new(value, (at as f64 + 0.1, bar.summary.most + top * 0.02), ("sans-serif", 12))
    });
    chart.draw_series(labels)?;
    chart.configure_series_labels().border_style(RGBColor(160, 160, 160)).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Bar, bars};
    use crate::sample::Summary;

    #[test]
    fn a_picture_shows_names_and_values() {
        let dir = std::env::temp_dir().join(format!("rustbalance-plot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("it can be made");
        let summary = Summary { median: 21.5, least: 20.0, most: 23.0, count: 5 };
        let bar = Bar { label: "4".to_owned(), series: 0, summary };
        let path = dir.join("one.svg");
        bars(&path, "a title", "ns", &["C tor".to_owned()], &[bar]).expect("it is drawn");
        let svg = std::fs::read_to_string(&path).expect("it is there");
        for word in ["a title", "C tor", "21.500"] {
            assert!(svg.contains(word), "{word} is not in {svg}");
        }
        std::fs::remove_dir_all(dir).expect("it was made");
    }
}
