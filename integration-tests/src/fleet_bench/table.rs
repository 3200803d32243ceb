//! The results.

/// One measurement and its target.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) target: String,
    pub(crate) measured: String,
    pub(crate) passed: bool,
}

impl Row {
    pub(crate) fn new(
        case: impl Into<String>,
        target: impl Into<String>,
        measured: impl Into<String>,
        passed: bool,
    ) -> Self {
        Self { case: case.into(), target: target.into(), measured: measured.into(), passed }
    }
}

/// Returns a Markdown table.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table = "| case | target | measured | result |\n|---|---|---|---|\n".to_owned();
    for Row { case, target, measured, passed } in rows {
        let result = if *passed { "pass" } else { "**fail**" };
        // A vertical bar or a line break would end the cell.
        let measured = measured.replace('|', "\\|").replace('\n', " ");
        let line = format!("| {case} | {target} | {measured} | {result} |\n");
        table.push_str(&line);
    }
    table
}

/// Returns the value that `percent` of the values do not exceed. Zero without values.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * percent).div_ceil(100);
    values.get(index.saturating_sub(1)).copied().unwrap_or_default()
}
