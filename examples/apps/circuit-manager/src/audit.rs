//! The audit: every attempt to change a circuit, as a line of JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use tower_breaker_admin::{AuditEntry, Role, User};

/// An attempt to change a circuit.
#[derive(Clone, Debug, Serialize)]
pub struct AuditRecord {
    /// When the attempt was decided, in the format of RFC 3339.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `api`, or `admin` for the administration page.
    pub via: &'static str,
    /// The name of the user. `None`: the request had no valid token.
    pub user: Option<String>,
    /// The role of the user.
    pub role: Option<Role>,
    /// The agent, as in the request.
    pub agent_id: String,
    /// The action, as in the request. `None`: the body was not valid.
    pub action: Option<String>,
    /// The reason that the user gave.
    pub reason: Option<String>,
    /// How long a manual override lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<f64>,
    /// The HTTP status of the response.
    pub status: u16,
    /// Why the attempt was refused. `None`: it was applied.
    pub error: Option<String>,
}

impl AuditRecord {
    /// Returns the record of a request of the API that has not been decided.
    pub(crate) fn of_request(agent_id: String) -> Self {
        Self {
            at: now(),
            via: "api",
            user: None,
            role: None,
            agent_id,
            action: None,
            reason: None,
            for_seconds: None,
            status: 200,
            error: None,
        }
    }

    pub(crate) fn set_user(&mut self, user: &User) {
        self.user = Some(user.name().to_owned());
        self.role = Some(user.role());
    }
}

impl From<&AuditEntry> for AuditRecord {
    fn from(entry: &AuditEntry) -> Self {
        let non_empty = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            at: entry.at.into(),
            via: "admin",
            user: non_empty(&entry.user),
            role: entry.role,
            agent_id: entry.circuit.clone(),
            action: Some(entry.action.clone()),
            reason: non_empty(&entry.reason),
            for_seconds: entry.lasts_for.map(|time| time.as_secs_f64()),
            status: entry.status,
            error: entry.error.clone(),
        }
    }
}

/// Where the audit is written: to the log and, if there is one, to a file.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    file: Option<Arc<AuditFile>>,
}

#[derive(Debug)]
struct AuditFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl Audit {
    /// Opens the file to which the audit is appended, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened or read.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        if !ends_with_line(&mut file)? {
            // The machine failed while a record was written.
            file.write_all(b"\n")?;
        }
        Ok(Self { file: Some(Arc::new(AuditFile { path: path.to_owned(), file: Mutex::new(file) })) })
    }

    /// Writes a record before the response is sent.
    ///
    /// One write appends the whole line, so that a killed process leaves no partial record. A
    /// request without a valid token is only logged, because anyone could fill the disk with such
    /// requests.
    pub fn write(&self, record: &AuditRecord) {
        log(record);
        let Some(file) = &self.file else { return };
        if record.user.is_none() {
            return;
        }
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
        if let Err(error) = written {
            let path = file.path.display();
            tracing::error!(%error, "audit file `{path}` cannot be written; check the disk");
        }
    }
}

fn ends_with_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Texts of the request are written with `Debug`, so that they cannot look like other log lines.
fn log(record: &AuditRecord) {
    // The feature `tracing` of the administration page logs its entries.
    if record.via != "api" {
        return;
    }
    let AuditRecord { user, agent_id, action, reason, status, error, .. } = record;
    let [user, action, reason] = [user, action, reason].map(|text| text.as_deref().unwrap_or_default());
    match error {
        None => tracing::info!(?user, ?agent_id, ?action, ?reason, status, "an action was applied"),
        Some(error) => {
            tracing::warn!(?user, ?agent_id, ?action, ?reason, status, ?error, "an action was refused");
        }
    }
}

/// Returns the wall-clock time, for display.
#[expect(clippy::disallowed_methods, reason = "the time is only shown; no decision uses it")]
fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(agent_id: &str, user: Option<&User>) -> AuditRecord {
        let mut record = AuditRecord::of_request(agent_id.to_owned());
        if let Some(user) = user {
            record.set_user(user);
        }
        record
    }

    #[test]
    fn records_are_appended_after_partial_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        std::fs::write(&path, "{\"at\":\"20").unwrap();
        let anna = User::operator("anna");
        for agent in ["a", "b"] {
            Audit::append_to(&path).unwrap().write(&record(agent, Some(&anna)));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let agents = lines[1..].iter().map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["user"], "anna");
            record["agent_id"].clone()
        });
        assert_eq!(agents.collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn requests_without_user_are_not_in_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        Audit::append_to(&path).unwrap().write(&record("a", None));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
