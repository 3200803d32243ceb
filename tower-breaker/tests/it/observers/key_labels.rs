//! The metrics with a label for keys.

use std::hash::Hash;

use tower_breaker::keyed::KeyedCircuits;

use super::meters::{Book, register_first, with_book};
use super::*;

/// Returns a service whose metrics distinguish at most two keys, and its handle.
fn labelled<K>(
    name: &'static str,
    max_keys: usize,
    overflow: Overflow,
    key: fn(&Request) -> K,
) -> (impl Service<Request, Response = (), Error: fmt::Debug>, KeyedCircuits<K>)
where
    K: Eq + Hash + fmt::Debug + Send + Sync + 'static,
{
    let (each, _time) = timed(config().name(name));
    let config = KeyedConfig::builder(each).max_keys(max_keys).overflow(overflow).key_label(2);
    let layer = KeyedBreakerLayer::<_, _>::new(config.build().unwrap(), key);
    (layer.layer(service_fn(respond)), layer.circuits().clone())
}

/// Returns the number of successful and failed calls with a label.
fn calls(book: &Book, circuit: &str, key: &str) -> [i64; 2] {
    ["success", "failure"].map(|outcome| {
        book.count(&format!("tower_breaker_calls_total{{circuit={circuit},key={key},outcome={outcome}}}"))
    })
}

fn open(book: &Book, circuit: &str, key: &str) -> i64 {
    book.count(&format!("tower_breaker_circuits{{circuit={circuit},key={key},state=open}}"))
}

#[test]
fn first_keys_have_labels_and_further_keys_share_one() {
    with_book(|book| {
        let (mut service, circuits) = labelled("by key", 100, Overflow::Unguarded, by_number);
        call_once(&mut service, (1, false)).unwrap();
        (0..5).for_each(|_| drop(call_once(&mut service, (2, true))));
        (3..10).for_each(|key| drop(call_once(&mut service, (key, key > 7))));
        call_once(&mut service, (1, false)).unwrap();
        call_once(&mut service, (2, false)).unwrap_err();
        assert_eq!(calls(book, "by key", "1"), [2, 0]);
        assert_eq!(calls(book, "by key", "2"), [0, 5]);
        assert_eq!(calls(book, "by key", "(other)"), [5, 2]);
        assert_eq!(["1", "2", "(other)"].map(|key| open(book, "by key", key)), [0, 1, 0]);
        assert_eq!(book.count("tower_breaker_rejections_total{circuit=by key,key=2,state=open}"), 1);
        let transitions = "tower_breaker_transitions_total{circuit=by key,from=closed,key=2,\
                           reason=consecutive_failures,to=open}";
        assert_eq!(book.count(transitions), 1);
        drop((service, circuits));
        assert_eq!(["1", "2", "(other)"].map(|key| open(book, "by key", key)), [0; 3]);
        assert_eq!(book.circuits("by key"), [None; 6], "no metric of circuits is without a key");
    });
}

#[test]
fn evicted_key_keeps_its_label_and_the_limit_holds() {
    with_book(|book| {
        let (mut service, circuits) = labelled("evicting", 1, Overflow::Unguarded, by_number);
        (1..=4).for_each(|key| call_once(&mut service, (key, false)).unwrap());
        call_once(&mut service, (1, false)).unwrap();
        assert_eq!(circuits.evicted(), 4);
        assert_eq!(["1", "2", "(other)"].map(|key| calls(book, "evicting", key)[0]), [2, 1, 2]);
        assert_eq!(book.count("tower_breaker_evictions_total{circuit=evicting}"), 4);
        let closed: i64 = ["1", "2", "(other)"]
            .map(|key| {
                book.count(&format!("tower_breaker_circuits{{circuit=evicting,key={key},state=closed}}"))
            })
            .into_iter()
            .sum();
        assert_eq!(closed, 1);
    });
}

#[test]
fn overflow_circuit_has_label_beyond_the_limit() {
    with_book(|book| {
        for (name, overflow) in [("overflows", Overflow::Shared), ("unguarded keys", Overflow::Unguarded)] {
            let (mut service, circuits) = labelled(name, 2, overflow, by_number);
            let held: Vec<_> = (1..=2).map(|key| circuits.get_or_insert(key).unwrap()).collect();
            (1..=6).for_each(|key| drop(call_once(&mut service, (key, true))));
            assert_eq!(calls(book, name, "(overflow)"), [0, 4], "{name}");
            assert_eq!(open(book, name, "(overflow)"), 0);
            assert_eq!(calls(book, name, "(other)"), [0, 0], "{name}");
            drop(held);
        }
    });
}

#[test]
fn label_of_overflow_circuit_takes_no_label_of_a_key() {
    with_book(|book| {
        let (mut service, circuits) = labelled("after overflow", 1, Overflow::Shared, by_number);
        let first = circuits.get_or_insert(1).unwrap();
        call_once(&mut service, (2, false)).unwrap();
        assert_eq!(calls(book, "after overflow", "(overflow)"), [1, 0]);
        drop(first);
        circuits.clear();
        call_once(&mut service, (3, false)).unwrap();
        assert_eq!(["3", "(other)"].map(|key| calls(book, "after overflow", key)), [[1, 0], [0, 0]]);
    });
}

#[test]
fn key_whose_debug_panics_is_counted_as_other() {
    #[derive(PartialEq, Eq, Hash)]
    struct Unprintable;

    impl fmt::Debug for Unprintable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("the key has no text");
        }
    }

    with_book(|book| {
        let (mut service, _circuits) =
            labelled("unprintable", 10, Overflow::Unguarded, |_: &Request| Unprintable);
        call_once(&mut service, (1, false)).unwrap();
        assert_eq!(calls(book, "unprintable", "(other)"), [1, 0]);
    });
}

#[test]
fn maps_of_one_name_share_labels_and_limit() {
    with_book(|book| {
        let (mut first, _first) = labelled("shared labels", 10, Overflow::Unguarded, by_number);
        let (mut second, _second) = labelled("shared labels", 10, Overflow::Unguarded, by_number);
        for key in [1, 2] {
            call_once(&mut first, (key, false)).unwrap();
        }
        for key in [2, 3] {
            call_once(&mut second, (key, false)).unwrap();
        }
        assert_eq!(["1", "2", "3", "(other)"].map(|key| calls(book, "shared labels", key)[0]), [1, 2, 0, 1]);
    });
}

#[test]
fn late_recorder_gets_gauges_of_each_key() {
    register_first();
    let (mut service, circuits) = labelled("late keys", 10, Overflow::Unguarded, by_number);
    (0..5).for_each(|_| drop(call_once(&mut service, (2, true))));
    with_book(|book| {
        call_once(&mut service, (2, false)).unwrap_err();
        assert_eq!(open(book, "late keys", "2"), 1);
        circuits.get(&2).unwrap().reset().unwrap();
        assert_eq!(open(book, "late keys", "2"), 0);
        assert_eq!(book.circuits("late keys"), [None; 6]);
    });
}
