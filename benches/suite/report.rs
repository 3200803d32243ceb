//! Writes the results to the documentation: tables, a CSV file and a figure.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io, thread};

use tower_resilience_benchmarks::Style;

use crate::figure;
use crate::record::{Kind, Record};

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->";

/// The other crates whose versions are listed, if they are measured.
const PEERS: &[&str] = &[
    "failsafe",
    "recloser",
    "seatbelt",
    "tick",
    "tower",
    "tower-resilience-circuitbreaker",
    "tower-resilience-retry",
    #[cfg(feature = "reqwest")]
    "reqwest-retry",
];

/// Writes `docs/benchmarks.md`, and `benchmarks.csv` and `benchmarks.svg` in `docs/figures`.
pub(crate) fn write(records: &[Record], runs: usize) -> io::Result<()> {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("benchmarks.md");
    let text = fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| io::Error::other("no begin marker"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| io::Error::other("no end marker"))?;
    fs::write(&page, format!("{before}{BEGIN}\n{}\n{END}{after}", markdown(records, runs)))?;
    fs::write(docs.join("figures/benchmarks.csv"), csv(records))?;
    fs::write(docs.join("figures/benchmarks.svg"), figure::svg(records))
}

fn markdown(records: &[Record], runs: usize) -> String {
    let mut text = "[All results as CSV](figures/benchmarks.csv)\n\n".to_owned();
    text += "![The time of a call as bars, one for each row and crate](figures/benchmarks.svg)\n\n";
    text += "| | |\n|---|---|\n";
    for (name, value) in environment(runs) {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let mut kinds: Vec<Kind> = Vec::new();
    for record in records {
        if !kinds.contains(&record.kind) {
            kinds.push(record.kind);
        }
    }
    for kind in kinds {
        match kind {
            Kind::Time => {
                section(
                    &mut text,
                    "Time of a call in an async function",
                    "Locks.",
                    records,
                    kind,
                    Some(Style::Await),
                );
                section(
                    &mut text,
                    "Time of a call in a poll loop",
                    "Locks.",
                    records,
                    kind,
                    Some(Style::Raw),
                );
            }
            Kind::Threads(threads) => section(
                &mut text,
                &format!("Throughput of {threads} threads"),
                "Relative to one thread.",
                records,
                kind,
                Some(Style::Await),
            ),
            Kind::Allocations => section(&mut text, "Allocations of a call", "", records, kind, None),
            Kind::Bytes => {
                section(&mut text, "Memory of a circuit", "Bytes, with the service.", records, kind, None);
            }
        }
    }
    text.trim_end().to_owned()
}

/// Adds a heading and a table with a line for each row and a column for each crate.
fn section(text: &mut String, title: &str, unit: &str, records: &[Record], kind: Kind, style: Option<Style>) {
    let of_section: Vec<&Record> =
        records.iter().filter(|record| record.kind == kind && record.style == style).collect();
    let (mut rows, mut subjects) = (Vec::new(), Vec::new());
    for record in &of_section {
        if !rows.contains(&&record.row) {
            rows.push(&record.row);
        }
        if !record.subject.is_empty() && !subjects.contains(&&record.subject) {
            subjects.push(&record.subject);
        }
    }
    let _ = writeln!(text, "\n### {title}\n");
    if !unit.is_empty() {
        let _ = writeln!(text, "{unit}\n");
    }
    let names: Vec<&str> = subjects.iter().map(|subject| subject.as_str()).collect();
    let _ = writeln!(text, "| row | no layer | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|--:|{}", "--:|".repeat(subjects.len()));
    for row in rows {
        let cell = |subject: &str| {
            let found = of_section.iter().find(|record| record.row == *row && record.subject == subject);
            found.map_or(String::new(), |record| value(record))
        };
        let cells: Vec<String> = subjects.iter().map(|subject| cell(subject)).collect();
        let _ = writeln!(text, "| {row} | {} | {} |", cell(""), cells.join(" | "));
    }
}

fn value(record: &Record) -> String {
    let value = record.value;
    match record.kind {
        _ if value.is_missing() => "not measured".to_owned(),
        Kind::Time | Kind::Threads(_) => {
            format!("{:.2} ({:.2} – {:.2})", value.median, value.lower, value.upper)
        }
        Kind::Allocations => {
            format!("{:.2}", value.median).trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Kind::Bytes => format!("{:.0}", value.median),
    }
}

fn csv(records: &[Record]) -> String {
    let mut text = "kind,unit,row,crate,style,lower,median,upper,ns,relative_to_bare\n".to_owned();
    for record in records {
        let number = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.4}"));
        let _ = writeln!(
            text,
            "{},{},\"{}\",\"{}\",{},{:.4},{:.4},{:.4},{},{}",
            record.kind.name(),
            record.kind.unit(),
            record.row,
            record.subject,
            record.style.map_or("", Style::name),
            record.value.lower,
            record.value.median,
            record.value.upper,
            number(record.nanos),
            number(record.bare),
        );
    }
    text
}

/// Returns what the results depend on.
fn environment(runs: usize) -> Vec<(&'static str, String)> {
    let spread = if runs == 1 { "quartiles" } else { "smallest and largest median of the runs" };
    vec![
        ("processor", processor()),
        ("cores", thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("system", format!("{} {}", env::consts::OS, env::consts::ARCH)),
        ("compiler", output_of("rustc", &["--version"])),
        ("versions", versions()),
        ("command", format!("`{}`", command())),
        ("date", output_of("date", &["-u", "+%Y-%m-%d"])),
        ("runs", runs.to_string()),
        ("in parentheses", spread.to_owned()),
    ]
}

/// Returns the command that runs this program again.
fn command() -> String {
    let mut command = "cargo bench --manifest-path benches/Cargo.toml".to_owned();
    for (feature, is_on) in [("grpc", cfg!(feature = "grpc")), ("reqwest", cfg!(feature = "reqwest"))] {
        if is_on {
            let _ = write!(command, " --features {feature}");
        }
    }
    let arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    arguments.fold(command + " --", |command, argument| command + " " + &argument)
}

/// Returns the processor's name, and its family and model, because several processors have one name
/// in a virtual machine.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.trim() == name).map_or("unknown", |(_, value)| value.trim())
    };
    let [name, family, model] = ["model name", "cpu family", "model"].map(field);
    format!("{name}, family {family}, model {model}")
}

/// Returns the versions of the other crates from the lock file.
fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |peer: &&str| {
        let (_, rest) = lock.split_once(&format!("name = \"{peer}\"\nversion = \""))?;
        Some(format!("{peer} {}", rest.split_once('"')?.0))
    };
    PEERS.iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
