//! What an error of the server means, and what to do about it.

use std::error::Error;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::address::Address;
use crate::rules::clean_text;
use crate::store::StoreError;
use crate::store::StoreErrorKind::{self, Invalid, Refused, Unreachable};

/// The commands that the scripts and sessions use, as rules of an ACL.
pub(super) const ACL_RULES: &str = "~tb1:* &tb1:* +ping +eval +evalsha +time \
     +subscribe +ssubscribe +publish +spublish +hset +hget +hmget +hgetall +hdel +zadd +zrem +zcard +zcount \
     +zscore +zrangebyscore +zrangebylex +zremrangebyscore +del +pttl +pexpire +pexpireat +persist +cluster|slots";

/// Codes of errors that a script reports within its own error, up to Redis 6.2.
const NESTED: [&str; 7] = ["READONLY", "OOM", "NOPERM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CROSSSLOT"];

/// Classifies an error of the driver.
pub(super) fn classify(error: RedisError, address: &Address) -> StoreError {
    let (kind, message) = match error.kind() {
        ErrorKind::Io => io_message(&error, address),
        ErrorKind::Parse => (Invalid, format!("it does not answer as Redis does{}", tls_advice(address))),
        ErrorKind::RESP3NotSupported => (Refused, TOO_OLD.to_owned()),
        ErrorKind::InvalidClientConfig => {
            (Refused, format!("it cannot be connected to: {error}{}", provider_advice(address)))
        }
        _ => server_message(&error, address),
    };
    let message = format!("Redis server `{}`: {message}", address.shown());
    StoreError { kind, message, source: Some(Box::new(error)) }
}

/// Returns an error that the driver does not have.
pub(super) fn failure(kind: StoreErrorKind, address: &Address, message: &str) -> StoreError {
    StoreError { kind, message: format!("Redis server `{}`: {message}", address.shown()), source: None }
}

/// An answer that no script of this version gives.
pub(super) fn invalid_answer(address: &Address, what: &str) -> StoreError {
    let message = format!(
        "the answer has {what}; check whether another program writes keys or messages that begin with `tb1:`"
    );
    failure(Invalid, address, &message)
}

pub(super) const TOO_OLD: &str =
    "it is too old; Redis 6.2 or Valkey is needed, and in a cluster Redis 7.0 or Valkey";

fn io_message(error: &RedisError, address: &Address) -> (StoreErrorKind, String) {
    // rustls reports wrong certificates and wrong protocols as invalid data.
    let is_tls = address.uses_tls() && io_error_kind(error) == Some(std::io::ErrorKind::InvalidData);
    if is_tls {
        let demands_certificate =
            error.source().is_some_and(|cause| cause.to_string().ends_with("CertificateRequired"));
        let what = if demands_certificate {
            "it demands a client certificate, and this store has none; set `tls-auth-clients no` in the server"
        } else {
            "the TLS handshake failed; check the host name, the certificates (those of the system, of \
             `SSL_CERT_FILE` or of `RedisStore::root_certificates`), and whether the port expects TLS"
        };
        return (Refused, what.to_owned());
    }
    if error.is_connection_refusal() {
        return (Unreachable, "nothing listens at this address; check that the server runs".to_owned());
    }
    (Unreachable, format!("the connection is broken{}", tls_advice(address)))
}

/// The driver's own checks fail: of TLS settings, or of the certificates of the system.
fn provider_advice(address: &Address) -> &'static str {
    if address.uses_tls() {
        "; install one with `CryptoProvider::install_default`, and certificates of authorities in the system"
    } else {
        ""
    }
}

fn io_error_kind(error: &RedisError) -> Option<std::io::ErrorKind> {
    // The driver shares the cause, so its type is that of the reference counter.
    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

fn tls_advice(address: &Address) -> &'static str {
    if address.uses_tls() { "" } else { "; if the port expects TLS, use a URL with `rediss://`" }
}

/// Explains an error that the server has sent.
fn server_message(error: &RedisError, address: &Address) -> (StoreErrorKind, String) {
    let detail = clean_text(error.detail().unwrap_or_default());
    let (user, code) = (address.user(), code_of(error, &detail));
    let (kind, message) = match code {
        "WRONGPASS" | "NOAUTH" => {
            return (Refused, format!("wrong name or password of user `{user}`; check the URL"));
        }
        "NOPERM" => {
            let rule = missing_rule(&detail);
            let advice = format!("allow it with `ACL SETUSER {user} {rule}`");
            return (Refused, format!("user `{user}` has no permission: {detail}; {advice}"));
        }
        "READONLY" => (Refused, "it is a read-only replica; use the URL of the primary server"),
        "OOM" => (Refused, "its memory is full; raise `maxmemory`, or set a `maxmemory-policy` that evicts"),
        "MISCONF" => (Refused, "it cannot save its data and refuses writes; look into its log"),
        "NOREPLICAS" => (Refused, "it has too few replicas (`min-replicas-to-write`) and refuses writes"),
        "DENIED" => (Refused, "it is in protected mode; set a password and use it in the URL"),
        "CROSSSLOT" => (Refused, "it takes keys of one hash tag for different slots; use no such proxy"),
        "LOADING" => (Unreachable, "it still loads its data; the next attempt may succeed"),
        "BUSY" => (Unreachable, "a script of another client blocks it; end it with `SCRIPT KILL`"),
        "MASTERDOWN" => (Unreachable, "it is a replica without a primary server; check the primary server"),
        "CLUSTERDOWN" => (Unreachable, "the cluster is down; check `CLUSTER INFO`"),
        "MOVED" => (Unreachable, "the slot has moved to another node; the next attempt finds it"),
        "ASK" | "TRYAGAIN" => {
            (Unreachable, "the slot is moving to another node; if that takes long, complete the migration")
        }
        "WRONGTYPE" => (Invalid, "a key that begins with `tb1:` is of another type; delete it"),
        _ => return other_message(error, &detail),
    };
    (kind, message.to_owned())
}

/// Returns the code of an error, also of one within the error of a script.
fn code_of<'a>(error: &'a RedisError, detail: &str) -> &'a str {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return "WRONGPASS";
    }
    let code = error.code().unwrap_or_default();
    if code != "ERR" {
        return code;
    }
    if is_permission_of_script(detail) {
        return "NOPERM";
    }
    NESTED.into_iter().find(|nested| detail.contains(&format!("-{nested} "))).unwrap_or(code)
}

/// Redis 7 checks the permissions within a script, and has no code for it.
fn is_permission_of_script(detail: &str) -> bool {
    detail.starts_with("The user executing the script can't")
        || detail.starts_with("ACL failure in script")
        || detail.contains("has no permissions to")
}

/// Returns the rule that lifts a denial, as far as the server's text says which one.
fn missing_rule(detail: &str) -> String {
    if detail.contains("channel") {
        return "&tb1:*".to_owned();
    }
    if detail.contains("key") {
        return "~tb1:*".to_owned();
    }
    let command = detail.split_once("run the '").and_then(|(_, rest)| rest.split('\'').next());
    // The text within scripts does not name the command.
    command.map_or_else(|| ACL_RULES.to_owned(), |command| format!("+{command}"))
}

fn other_message(error: &RedisError, detail: &str) -> (StoreErrorKind, String) {
    if detail.contains("max number of clients") {
        return (Unreachable, "it has too many clients; raise `maxclients`".to_owned());
    }
    if detail.contains("cluster support disabled") {
        return (Refused, "it is not part of a cluster; use `RedisStore::open`".to_owned());
    }
    if detail.contains("unknown command") {
        let advice = "enable the command (`rename-command`), or use Redis or Valkey";
        return (Refused, format!("{detail}; {advice}"));
    }
    if detail.contains("user_script") {
        let advice = "delete the keys of the namespace, which the processes then write again";
        return (Invalid, format!("a script fails on the stored data; {advice}: {detail}"));
    }
    let code = error.code().unwrap_or("error");
    (Refused, format!("it refuses a command: {code} {detail}"))
}
