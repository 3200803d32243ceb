//! The events that `--json` prints for machines.

use std::io::{self, Write};

use serde::Serialize;

/// An event of a job. The README documents the fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent<'a> {
    /// The job starts or continues.
    Started {
        /// The name of the job.
        job: &'a str,
        /// The number of items of the input.
        total: usize,
        /// The number of items that have a result, or an error that is not retried.
        completed: usize,
        /// The number of items that are processed now.
        remaining: usize,
    },
    /// An item has a line in the results file.
    Result {
        /// The index of the item in the input, from 0.
        index: Option<usize>,
        /// Why the item failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    /// The circuit of a model has changed its state.
    ModelCircuit {
        /// The model.
        model: &'a str,
        /// The state before.
        from: String,
        /// The state after.
        to: String,
    },
    /// The checkpoint is saved.
    Checkpoint {
        /// The number of items that have a line in the results file.
        processed: usize,
        /// The number of items among them that failed.
        failed: usize,
    },
    /// Consecutive fatal errors have opened the circuit of the job. The person is asked.
    Tripped {
        /// The number of errors.
        consecutive_failures: u64,
        /// The type of the last error.
        error_type: Option<&'a str>,
        /// The text of the last error.
        message: Option<&'a str>,
    },
    /// The person is asked because the interval of `--checkin-interval` is over.
    CheckIn,
    /// The person continues the job.
    Resumed,
    /// The quota of the account is used up.
    QuotaExhausted {
        /// The error of the API.
        error: &'a str,
    },
    /// The program ends. This is the last event.
    Ended {
        /// The exit code of the program.
        exit_code: u8,
        /// The number of items of the input.
        total: usize,
        /// The number of items that have a line in the results file.
        processed: usize,
        /// The number of items among them that failed.
        failed: usize,
    },
    /// The program ends with an error. This is the last event.
    Error {
        /// The exit code of the program.
        exit_code: u8,
        /// The error.
        message: &'a str,
    },
}

impl JobEvent<'_> {
    /// Writes the event as one line of JSON.
    ///
    /// # Errors
    ///
    /// Returns the error of the writer.
    pub fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        out.write_all(line.as_bytes())?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line_with_its_name() {
        let mut out = Vec::new();
        JobEvent::Result { index: Some(3), error: Some("a\nb") }.write_line(&mut out).unwrap();
        JobEvent::CheckIn.write_line(&mut out).unwrap();
        let expected = "{\"event\":\"result\",\"index\":3,\"error\":\"a\\nb\"}\n{\"event\":\"check_in\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
