//! Draws the times as bars.

use std::fmt::Write as _;

use tower_resilience_benchmarks::{LOCK, Style};

use crate::record::{Kind, Record};

const LEFT: f64 = 230.0;
const WIDTH: f64 = 620.0;
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
const TOP: f64 = 78.0;

/// The ends of the logarithmic axis, in locks.
const AXIS: (f64, f64) = (0.25, 256.0);

const COLORS: [&str; 8] =
    ["#1f6feb", "#e36209", "#f2a65a", "#8250df", "#2da44e", "#bf3989", "#57606a", "#0a7ea4"];

/// Returns a figure of the times of calls in async functions.
pub(crate) fn svg(records: &[Record]) -> String {
    let times: Vec<&Record> = records
        .iter()
        .filter(|record| {
            record.kind == Kind::Time && record.style == Some(Style::Await) && record.row != LOCK
        })
        .collect();
    let mut subjects: Vec<&str> = Vec::new();
    for record in &times {
        if !subjects.contains(&record.subject.as_str()) && !record.subject.is_empty() {
            subjects.push(&record.subject);
        }
    }
    let mut bars = String::new();
    let mut y = TOP;
    let mut row = "";
    for record in &times {
        if record.row != row {
            row = &record.row;
            y += GAP;
            let middle = y + BAR * 0.9;
            let _ = writeln!(
                bars,
                r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{row}</text>"#,
                LEFT - 8.0
            );
        }
        let color = subjects.iter().position(|subject| *subject == record.subject);
        let color = color.map_or("#afb8c1", |index| COLORS[index % COLORS.len()]);
        let end = x_of(record.value.median);
        let _ = writeln!(
            bars,
            r#"<rect x="{LEFT:.0}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{color}"/><text class="n" x="{:.1}" y="{:.1}">{:.2}</text>"#,
            end - LEFT,
            BAR - 1.0,
            end + 3.0,
            y + BAR - 1.5,
            record.value.median,
        );
        y += BAR;
    }
    let height = y + 16.0;
    let mut text = String::new();
    let _ = writeln!(
        text,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0} {height:.0}" width="{0:.0}" height="{height:.0}" font-family="system-ui, sans-serif" font-size="12">
<title>Time of a call in an async function, in uncontended locks</title>
<style>.n {{ font-size: 8px; fill: #57606a }}</style>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="20" font-size="14" font-weight="600">Time of a call in an async function, in uncontended locks (logarithmic; less is better)</text>"##,
        LEFT + WIDTH + 50.0
    );
    let mut x = 12.0;
    for (subject, color) in [("no layer", "#afb8c1")].into_iter().chain(subjects.iter().copied().zip(COLORS))
    {
        let _ = writeln!(
            text,
            r#"<rect x="{x:.0}" y="32" width="10" height="10" fill="{color}"/><text x="{:.0}" y="41">{subject}</text>"#,
            x + 14.0
        );
        x += 34.0 + 6.6 * subject.len() as f64;
    }
    let mut tick = AXIS.0;
    while tick <= AXIS.1 {
        let x = x_of(tick);
        let _ = writeln!(
            text,
            r##"<line x1="{x:.1}" y1="{:.0}" x2="{x:.1}" y2="{:.0}" stroke="#d0d7de"/><text class="n" x="{x:.1}" y="{:.0}" text-anchor="middle">{tick}</text>"##,
            TOP,
            height - 8.0,
            TOP - 4.0
        );
        tick *= 2.0;
    }
    text + &bars + "</svg>\n"
}

/// Returns the position of a value on the axis.
fn x_of(value: f64) -> f64 {
    let (first, last) = AXIS;
    LEFT + WIDTH * (value.clamp(first, last) / first).log2() / (last / first).log2()
}
