//! The results of a run, and how runs are merged.

use tower_resilience_benchmarks::{Style, Variant};

use crate::statistics::Quartiles;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The time of a call, relative to the lock.
    Time,
    /// The throughput of this number of threads, relative to one thread's.
    Threads(usize),
    /// Allocations of a call.
    Allocations,
    /// Bytes of a circuit or a key.
    Bytes,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Kind::Time => "time".to_owned(),
            Kind::Threads(threads) => format!("{threads} threads"),
            Kind::Allocations => "allocations".to_owned(),
            Kind::Bytes => "bytes".to_owned(),
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Kind::Time => "× lock",
            Kind::Threads(_) => "× one thread",
            Kind::Allocations => "per call",
            Kind::Bytes => "bytes",
        }
    }
}

/// One result.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) row: String,
    pub(crate) subject: String,
    pub(crate) style: Option<Style>,
    /// The median time of a call.
    pub(crate) nanos: Option<f64>,
    /// The result in the unit of the kind. The quartiles of one run, or the smallest median, the
    /// median of the medians and the largest median of several runs.
    pub(crate) value: Quartiles,
    /// The value relative to the value of the service without layers.
    pub(crate) bare: Option<f64>,
}

impl Record {
    pub(crate) fn of(kind: Kind, variant: &Variant, value: Quartiles) -> Self {
        Self {
            kind,
            row: variant.row.to_owned(),
            subject: variant.subject.to_owned(),
            style: Some(variant.style),
            nanos: None,
            value,
            bare: None,
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        (self.kind, &self.row, &self.subject, self.style)
            == (other.kind, &other.row, &other.subject, other.style)
    }
}

/// Merges the records of several runs.
pub(crate) fn merge(runs: &[Vec<Record>]) -> Vec<Record> {
    let [first, rest @ ..] = runs else { return Vec::new() };
    if rest.is_empty() {
        return first.clone();
    }
    let merged = |record: &Record| {
        let same: Vec<&Record> = runs.iter().flatten().filter(|other| other.is_same_as(record)).collect();
        let median = |of: fn(&Record) -> Option<f64>| {
            let values: Vec<f64> = same.iter().filter_map(|record| of(record)).collect();
            (!values.is_empty()).then(|| Quartiles::of(values).median)
        };
        Record {
            nanos: median(|record| record.nanos),
            bare: median(|record| record.bare),
            value: range_of_medians(&same),
            ..record.clone()
        }
    };
    first.iter().map(merged).collect()
}

/// Returns the range of the medians, without those of failed measurements.
fn range_of_medians(records: &[&Record]) -> Quartiles {
    let measured = records.iter().filter(|record| !record.value.is_missing());
    let medians: Vec<f64> = measured.map(|record| record.value.median).collect();
    if medians.is_empty() { Quartiles::missing() } else { Quartiles::range_of(medians) }
}
