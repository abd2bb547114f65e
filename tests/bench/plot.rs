//! The figures as one picture: a bar for each median, a whisker for its quartiles, a line for what is to be reached.
//! Written by hand as SVG, so that it needs nothing to be read but a browser.

use std::fmt::Write as _;

use crate::report::{Report, Row, Target, number};

/// Sizes in pixels.
const LABEL_WIDTH: f64 = 330.0;
const BAR_WIDTH: f64 = 380.0;
const VALUE_WIDTH: f64 = 190.0;
const MARGIN: f64 = 16.0;
const ROW_HEIGHT: f64 = 22.0;
const BAR_HEIGHT: f64 = 13.0;
const HEADING_HEIGHT: f64 = 34.0;
/// Room at the right of the longest bar, as a share of it.
const HEADROOM: f64 = 1.08;

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.h{font-weight:bold;font-size:13px}.m{font-size:11px;fill:#555}\
    .own{fill:#2b6cb0}.other{fill:#a0aec0}.missed{fill:#c05621}.w{stroke:#1a202c;stroke-width:1.5}\
    .t{stroke:#2f855a;stroke-width:2;stroke-dasharray:4 3}";

/// The picture of all rows that were measured.
pub(crate) fn draw(reports: &[Report]) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for report in reports {
        let quick = if report.quick { " (quick)" } else { "" };
        text(&mut body, MARGIN, top + 14.0, "h", &format!("{}{quick}", report.section));
        text(&mut body, MARGIN, top + 30.0, "m", &report.machine.line());
        top += HEADING_HEIGHT + 6.0;
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.spread.is_some()).collect();
        for group in rows.chunk_by(|a, b| a.figure == b.figure && a.unit == b.unit) {
            top = figure(&mut body, group, top);
        }
        top += MARGIN;
    }
    let width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH + 2.0 * MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{top}\" viewBox=\"0 0 {width} {top}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Draws the rows of one figure on one scale; where the next begins.
fn figure(body: &mut String, rows: &[&Row], top: f64) -> f64 {
    let most = rows.iter().map(|row| furthest(row)).fold(0.0, f64::max);
    let scale = if most > 0.0 { BAR_WIDTH / (most * HEADROOM) } else { 0.0 };
    let name = rows.first().map_or("", |row| row.figure.as_str());
    text(body, MARGIN, top + 16.0, "h", name);
    let mut at = top + 22.0;
    for row in rows {
        bar(body, row, at, scale);
        at += ROW_HEIGHT;
    }
    if let Some(bound) = rows.iter().find_map(|row| row.target).map(bound) {
        let x = LABEL_WIDTH + bound * scale;
        line(body, "t", [x, top + 22.0, x, at]);
    }
    at + 8.0
}

fn bar(body: &mut String, row: &Row, at: f64, scale: f64) {
    let Some(spread) = row.spread else { return };
    let class = match (row.reached(), row.observer.starts_with("pod2pod")) {
        (Some(false), _) => "missed",
        (_, true) => "own",
        (_, false) => "other",
    };
    text(body, MARGIN + 12.0, at + 12.0, "l", &row.observer.replace('`', ""));
    let (y, middle) = (at + 2.0, at + 2.0 + BAR_HEIGHT / 2.0);
    let length = spread.median.max(0.0) * scale;
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<rect class=\"{class}\" x=\"{LABEL_WIDTH:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\"/>"
    );
    let (low, high) = (LABEL_WIDTH + spread.low.max(0.0) * scale, LABEL_WIDTH + spread.high.max(0.0) * scale);
    line(body, "w", [low, middle, high, middle]);
    line(body, "w", [low, middle - 4.0, low, middle + 4.0]);
    line(body, "w", [high, middle - 4.0, high, middle + 4.0]);
    let [median, quartiles, _] = row.cells();
    let target = match row.target {
        Some(Target::AtLeast(bound)) => format!("  ≥ {}", number(bound)),
        Some(Target::AtMost(bound)) => format!("  ≤ {}", number(bound)),
        None => String::new(),
    };
    let value = format!("{median}  ({quartiles}){target}");
    text(body, LABEL_WIDTH + BAR_WIDTH + 8.0, at + 12.0, "m", &value);
}

/// How far to the right a row reaches.
fn furthest(row: &Row) -> f64 {
    let spread = row.spread.map_or(0.0, |spread| spread.high);
    spread.max(row.target.map_or(0.0, bound))
}

const fn bound(target: Target) -> f64 {
    match target {
        Target::AtLeast(bound) | Target::AtMost(bound) => bound,
    }
}

fn text(body: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Writing to a String cannot fail.
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

fn line(body: &mut String, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spread::Spread;

    #[test]
    fn bars_are_as_long_as_their_medians_and_the_bound_has_a_line() {
        let spread = |median| Some(Spread { low: median - 0.1, median, high: median + 0.1, rounds: 10 });
        let mut report = Report::new("live", false);
        report.push(Row::measured("kept", "pod2pod", "share", spread(0.8)).at_least(0.9));
        report.push(Row::measured("kept", "a < b", "share", spread(0.4)));
        report.push(Row::skipped("kept", "tc", "why"));
        let svg = draw(&[report]);
        let width = |class: &str| -> f64 {
            let bar =
                svg.lines().find(|line| line.contains(&format!("rect class=\"{class}\""))).expect("a bar");
            let (_, rest) = bar.split_once("width=\"").expect("a width");
            rest.split('"').next().and_then(|width| width.parse().ok()).expect("a number")
        };
        assert!((width("missed") - 2.0 * width("other")).abs() < 0.2, "{svg}");
        assert_eq!(svg.matches("class=\"t\"").count(), 1, "one line for the bound");
        assert!(svg.contains("a &lt; b") && !svg.contains(">tc<"), "{svg}");
    }
}
