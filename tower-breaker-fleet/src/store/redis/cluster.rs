//! The node of a cluster that owns the slot of a namespace.
//!
//! All keys and the channel of a namespace are in one slot. So a session needs one node, and
//! neither the driver's cluster client nor its reconnects, which lose updates silently. If the slot
//! moves, the node answers with an error and ends the subscription. Then the session ends, and the
//! agent connects to the new owner.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::timeout;

use super::address::Address;
use super::connection::Connection;
use super::error::{failure, invalid_answer};
use super::wire;
use crate::store::StoreErrorKind::{Refused, Unreachable};
use crate::store::{StoreError, StoreFuture};

/// How long a seed is silent before the next one is asked, too.
const SILENCE: Duration = Duration::from_millis(150);

/// Returns the address of the primary node of a slot, from the first seed that answers.
///
/// The order is random: a node that is cut off from the others may answer with a former owner.
pub(super) async fn owner(seeds: &[Address], slot: u16) -> Result<Address, StoreError> {
    let mut seeds = seeds.to_vec();
    fastrand::shuffle(&mut seeds);
    first_answer(&seeds, slot).await
}

fn first_answer(seeds: &[Address], slot: u16) -> StoreFuture<'_, Address> {
    Box::pin(async move {
        let (seed, others) = seeds.split_first().expect("a store has at least one seed");
        let mut asked = pin!(ask(seed, slot));
        if others.is_empty() {
            return asked.await;
        }
        let mut others = first_answer(others, slot);
        if let Ok(result) = timeout(SILENCE, &mut asked).await {
            return or(result, others).await;
        }
        tokio::select! {
            result = &mut asked => or(result, others).await,
            result = &mut others => or(result, asked).await,
        }
    })
}

/// Returns the answer of a seed, or that of the others if the seed has none.
async fn or(
    answer: Result<Address, StoreError>,
    others: impl Future<Output = Result<Address, StoreError>>,
) -> Result<Address, StoreError> {
    match answer {
        Err(error) if error.kind == Unreachable => others.await,
        // An operator must see a refusal, and not that the others are silent.
        Err(error) => timeout(SILENCE, others).await.ok().and_then(Result::ok).ok_or(error),
        owner => owner,
    }
}

async fn ask(seed: &Address, slot: u16) -> Result<Address, StoreError> {
    let mut connection = Connection::open(seed, None).await?;
    let slots = connection.send(cmd("CLUSTER").arg("SLOTS")).await?;
    let Value::Array(ranges) = slots else { return Err(invalid_answer(seed, "no slots")) };
    for range in &ranges {
        let owner = range_owner(range, slot).ok_or_else(|| invalid_answer(seed, "a wrong range of slots"))?;
        if let Some((host, port)) = owner {
            return Ok(seed.node(host, port));
        }
    }
    let message = format!("no node serves slot {slot} of the cluster; assign it with `CLUSTER ADDSLOTS`");
    Err(failure(Refused, seed, &message))
}

/// A host (`None`: that of the seed) and a port.
type Node<'a> = (Option<&'a str>, u16);

/// Returns the primary node of a range if it has the slot. `None`: the range makes no sense.
#[allow(clippy::option_option, reason = "a range without the slot is not a wrong range")]
fn range_owner(range: &Value, slot: u16) -> Option<Option<Node<'_>>> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else { return None };
    if !(*first..=*last).contains(&i64::from(slot)) {
        return Some(None);
    }
    let [host, Value::Int(port), ..] = &node[..] else { return None };
    let host = match host {
        Value::Nil => None,
        // Redis announces `?` as long as it does not know its host name.
        host => wire::text(host).filter(|host| !host.is_empty() && *host != "?"),
    };
    Some(Some((host, u16::try_from(*port).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(vec![host, Value::Int(port)])])
    }

    #[test]
    fn range_names_host_of_slot() {
        let host = Value::BulkString(b"10.0.0.1".to_vec());
        let range_of = |slot| range_owner(&range(5, 9, host.clone(), 7000), slot).map(|node| node.is_some());
        assert_eq!([4, 5, 9, 10].map(range_of), [Some(false), Some(true), Some(true), Some(false)]);
        let owner = range(5, 9, host, 7000);
        assert_eq!(range_owner(&owner, 7), Some(Some((Some("10.0.0.1"), 7000))));
        for unknown in [Value::Nil, Value::BulkString(Vec::new()), Value::BulkString(b"?".to_vec())] {
            assert_eq!(range_owner(&range(5, 9, unknown, 7000), 7), Some(Some((None, 7000))));
        }
    }

    #[test]
    fn wrong_range_is_refused() {
        let host = Value::BulkString(b"10.0.0.1".to_vec());
        for wrong in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![Value::Int(0), Value::Int(9), Value::Nil]),
            Value::Array(vec![Value::Int(0), Value::Int(9), Value::Array(vec![host.clone()])]),
            range(0, 9, host, 70_000),
        ] {
            assert_eq!(range_owner(&wrong, 5), None, "{wrong:?}");
        }
    }
}
