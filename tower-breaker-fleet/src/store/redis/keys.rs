//! The keys of a namespace.

const SLOTS: u16 = 16384;

/// The kinds of keys that a circuit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hash: the record.
    Record,
    /// A sorted set: the processes that vote, by the end of their ballot.
    Votes,
    /// A hash: when the consecutive failures of processes happened.
    Failures,
    /// A hash: the leases.
    Leases,
    /// A sorted set: the processes that use the circuit, by the end of their membership.
    Members,
    /// A sorted set: the processes that are open on local evidence, by the end of the open time.
    Local,
}

impl Kind {
    /// The keys of all scripts that change one circuit.
    pub(super) const ROUND: [Self; 4] = [Self::Record, Self::Votes, Self::Failures, Self::Leases];

    /// The keys of a heartbeat.
    pub(super) const ALL: [Self; 6] =
        [Self::Record, Self::Votes, Self::Failures, Self::Leases, Self::Members, Self::Local];

    fn letter(self) -> char {
        match self {
            Self::Record => 'c',
            Self::Votes => 'v',
            Self::Failures => 'f',
            Self::Leases => 'p',
            Self::Members => 'm',
            Self::Local => 'l',
        }
    }
}

/// The keys of a namespace. All of them begin with the same hash tag, and so are in one slot.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// `tb1:{namespace}`
    prefix: String,
    channel: String,
}

impl Keys {
    pub(super) fn new(namespace: &str, database: i64) -> Self {
        let prefix = format!("tb1:{{{}}}", encode(namespace));
        // Keys belong to a database. Channels do not.
        let channel = if database == 0 { prefix.clone() } else { format!("{prefix}:{database}") };
        Self { prefix, channel }
    }

    /// Returns the name of the channel of the updates.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    pub(super) fn circuit(&self, kind: Kind, name: &str) -> String {
        format!("{}:{}:{name}", self.prefix, kind.letter())
    }

    /// Returns the key of the sorted set of the names of all circuits with a record.
    pub(super) fn names(&self) -> String {
        format!("{}:names", self.prefix)
    }

    /// Returns the key of the sorted set of the same names, by the time when the record expires.
    pub(super) fn expiries(&self) -> String {
        format!("{}:expiries", self.prefix)
    }

    /// Returns the slot of the keys and of the channel in a cluster.
    pub(super) fn slot(&self) -> u16 {
        let start = self.prefix.find('{').map_or(0, |brace| brace + 1);
        crc16(&self.prefix.as_bytes()[start..self.prefix.len() - 1]) % SLOTS
    }
}

/// Encodes a namespace as a hash tag.
///
/// A brace would end the tag too early, or make two namespaces share keys. An empty tag would be
/// none, so the empty namespace is a lone `%`, which no other namespace is.
fn encode(namespace: &str) -> String {
    if namespace.is_empty() {
        return "%".to_owned();
    }
    let mut tag = String::with_capacity(namespace.len());
    for c in namespace.chars() {
        match c {
            '%' => tag.push_str("%25"),
            '{' => tag.push_str("%7B"),
            '}' => tag.push_str("%7D"),
            c => tag.push(c),
        }
    }
    tag
}

/// CRC-16/XMODEM, with which Redis assigns keys to slots.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_have_different_tags_without_braces() {
        let namespaces = ["", "%", "%25", "a", "}", "{", "a}:c:x", "a%7D:c:x", "orders", "日本"];
        let mut tags: Vec<_> = namespaces.iter().map(|namespace| encode(namespace)).collect();
        assert!(tags.iter().all(|tag| !tag.is_empty() && !tag.contains(['{', '}'])), "{tags:?}");
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), namespaces.len());
    }

    #[test]
    fn slots_are_those_of_redis() {
        // The test vector of Redis Cluster's specification.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // `CLUSTER KEYSLOT tb1:{foo}` answers the slot of `foo`.
        assert_eq!(Keys::new("foo", 0).slot(), 12182);
        assert_eq!(Keys::new("bar", 0).slot(), 5061);
    }
}
