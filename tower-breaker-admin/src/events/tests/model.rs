//! Random histories of circuits and clients: a client that applies the events ends in the state of
//! the circuits.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tower_breaker::{Circuit, ManualClock};

use super::*;

/// The last epoch, after which the epochs start again.
const EPOCHS: u64 = 1 << 24;

#[derive(Clone, Debug)]
enum Step {
    Operate {
        circuit: usize,
        operation: Operation,
    },
    /// A circuit of the registry is removed, and created again.
    Replace,
    Remove,
    Create,
    Audit,
    /// More transitions than the log keeps.
    Burst {
        transitions: usize,
    },
    Wait {
        millis: u64,
    },
    Read {
        client: usize,
    },
    ReadOne {
        client: usize,
    },
    Reconnect {
        client: usize,
    },
    ReconnectWithoutId {
        client: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    Release,
    Success,
    Failure,
    Acquire,
}

const NAMES: [&str; 4] = ["a", "b", "c", "replaced"];
const CLIENTS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        Just(Operation::Trip),
        Just(Operation::Reset),
        Just(Operation::ForceOpen),
        Just(Operation::ForceClosed),
        Just(Operation::Release),
        Just(Operation::Success),
        Just(Operation::Failure),
        Just(Operation::Acquire),
    ];
    let client = 0..CLIENTS;
    prop_oneof![
        12 => (0..NAMES.len(), operation).prop_map(|(circuit, operation)| Step::Operate { circuit, operation }),
        1 => Just(Step::Replace),
        1 => Just(Step::Remove),
        1 => Just(Step::Create),
        2 => Just(Step::Audit),
        1 => (200..1_200_usize).prop_map(|transitions| Step::Burst { transitions }),
        4 => (0..200_u64).prop_map(|millis| Step::Wait { millis }),
        4 => (0..3_000_u64).prop_map(|millis| Step::Wait { millis }),
        6 => client.clone().prop_map(|client| Step::Read { client }),
        4 => client.clone().prop_map(|client| Step::ReadOne { client }),
        3 => client.clone().prop_map(|client| Step::Reconnect { client }),
        1 => client.prop_map(|client| Step::ReconnectWithoutId { client }),
    ]
}

/// A client that applies the events as the documentation of the module says.
struct Page {
    client: Client,
    circuits: BTreeMap<String, Shown>,
    last_id: Option<String>,
    /// The number of the last transition or audit entry. `None`: any number may follow.
    number: Option<u64>,
}

/// What the page shows of a circuit: epoch, state, and counters.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    epoch: u64,
    state: String,
    counters: [u64; 4],
}

impl Page {
    fn open(hub: &Arc<Hub>, last_id: Option<String>) -> Self {
        let client = open(hub, last_id.as_deref());
        Self { client, circuits: BTreeMap::new(), last_id, number: None }
    }

    fn reconnect(&mut self, hub: &Arc<Hub>) {
        self.client = open(hub, self.last_id.as_deref());
    }

    fn apply(&mut self, event: &Event) {
        if event.id.is_some() && event.kind != "circuits" {
            let number = number(event);
            if let Some(last) = self.number {
                assert_eq!(number, last + 1, "an entry is lost or repeated");
            }
            self.number = Some(number);
        }
        self.last_id = event.id.clone().or(self.last_id.take());
        match event.kind.as_str() {
            "circuits" => self.apply_circuits(&event.data),
            "transition" => self.apply_transition(&event.data),
            "samples" => event.data["rows"].as_array().unwrap().iter().for_each(|row| self.apply_row(row)),
            "hello" | "audit" => {}
            other => panic!("{other}"),
        }
        if event.kind == "circuits" && event.data["complete"] == true {
            // The snapshot may be instead of some entries.
            let id = event.id.as_ref().map(|_| number(event));
            assert!(self.number <= id, "a snapshot is older than an entry before it");
            self.number = id;
        }
    }

    fn apply_circuits(&mut self, data: &Value) {
        let is_complete = data["complete"] == true;
        let mut before = self.circuits.clone();
        for name in data["removed"].as_array().unwrap() {
            before.remove(name.as_str().unwrap());
        }
        if is_complete {
            self.circuits.clear();
            before.remove("replaced");
        } else {
            self.circuits.clone_from(&before);
        }
        for view in data["circuits"].as_array().unwrap() {
            let (name, shown) = (view["circuit"].as_str().unwrap(), Shown::of(view));
            if let Some(before) = before.get(name) {
                assert!(!is_newer(before.epoch, shown.epoch), "{name}: {shown:?} follows {before:?}");
            }
            self.circuits.insert(name.to_owned(), shown);
        }
    }

    fn apply_transition(&mut self, data: &Value) {
        let epoch = data["epoch"].as_u64().unwrap();
        let shown = self.circuits.get_mut(data["circuit"].as_str().unwrap());
        if let Some(shown) = shown.filter(|shown| is_newer(epoch, shown.epoch)) {
            shown.epoch = epoch;
            shown.state = data["to"].as_str().unwrap().to_owned();
        }
    }

    fn apply_row(&mut self, row: &Value) {
        let shown = self.circuits.get_mut(row[0].as_str().unwrap()).expect("a row of a known circuit");
        shown.counters = [1, 2, 3, 4].map(|column| row[column].as_u64().unwrap());
        shown.state = match row[6].as_str().unwrap() {
            "c" => "closed",
            "o" => "open",
            "h" => "half_open",
            "O" => "forced_open",
            "C" => "forced_closed",
            other => panic!("{other}"),
        }
        .to_owned();
    }
}

impl Shown {
    fn of(view: &Value) -> Self {
        let local = &view["local"];
        let counters = [
            &local["window"]["calls"],
            &local["window"]["failures"],
            &local["rejected_calls"],
            &local["consecutive_failures"],
        ];
        Self {
            epoch: view["epoch"].as_u64().unwrap(),
            state: local["state"].as_str().unwrap().to_owned(),
            counters: counters.map(|count| count.as_u64().unwrap()),
        }
    }
}

fn is_newer(epoch: u64, than: u64) -> bool {
    (1..EPOCHS / 2).contains(&(epoch.wrapping_sub(than) % EPOCHS))
}

struct World {
    registry: CircuitRegistry,
    hub: Arc<Hub>,
    time: ManualClock,
    pages: Vec<Page>,
}

impl World {
    fn new(has_history: bool) -> Self {
        let (clock, time) = Clock::manual();
        let config = BreakerConfig::builder().clock(clock).consecutive_failures(3);
        let registry = CircuitRegistry::new(config.build().unwrap());
        for name in NAMES {
            registry.circuit(name);
        }
        let hub = hub(&registry, has_history);
        let pages = (0..CLIENTS).map(|_| Page::open(&hub, None)).collect();
        Self { registry, hub, time, pages }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Operate { circuit, operation } => {
                if let Some(circuit) = self.registry.get(NAMES[circuit]) {
                    operate(&circuit, operation);
                }
            }
            Step::Replace => {
                self.registry.remove("replaced");
                self.registry.circuit("replaced");
            }
            Step::Remove => drop(self.registry.remove("replaced")),
            Step::Create => drop(self.registry.circuit("replaced")),
            Step::Audit => self.hub.publish_audit(&audit_entry("a")),
            Step::Burst { transitions } => {
                for _ in 0..transitions / 2 {
                    operate(&self.registry.circuit("b"), Operation::ForceOpen);
                    operate(&self.registry.circuit("b"), Operation::Release);
                }
            }
            Step::Wait { millis } => self.wait(millis).await,
            Step::Read { client } => self.read(client),
            Step::ReadOne { client } => {
                let page = &mut self.pages[client];
                let waker = &mut std::task::Context::from_waker(std::task::Waker::noop());
                if let std::task::Poll::Ready(frame) = page.client.poll(waker) {
                    let text = String::from_utf8(frame.unwrap().to_vec()).unwrap();
                    for event in Event::parse_all(&text) {
                        page.apply(&event);
                    }
                }
            }
            Step::Reconnect { client } => self.pages[client].reconnect(&self.hub),
            Step::ReconnectWithoutId { client } => self.pages[client] = Page::open(&self.hub, None),
        }
    }

    async fn wait(&self, millis: u64) {
        let time = Duration::from_millis(millis);
        self.time.advance(time);
        sleep(time).await;
    }

    fn read(&mut self, client: usize) {
        let page = &mut self.pages[client];
        for event in page.client.read_texts_now().iter().flat_map(|text| Event::parse_all(text)) {
            page.apply(&event);
        }
    }

    /// Lets every client read everything, and compares it with the circuits.
    async fn check(&mut self) {
        for _ in 0..5 {
            self.wait(1_100).await;
            for client in 0..CLIENTS {
                self.read(client);
            }
        }
        let views = serde_json::to_value(self.hub.sources.views()).unwrap();
        let views = views.as_array().unwrap().iter();
        let circuits: BTreeMap<_, _> =
            views.map(|view| (view["circuit"].as_str().unwrap().to_owned(), Shown::of(view))).collect();
        for page in &self.pages {
            assert_eq!(page.circuits, circuits);
            assert_eq!(page.number, Some(self.hub.shared.state().log.number()));
        }
    }
}

fn operate(circuit: &Circuit, operation: Operation) {
    // A forced circuit refuses some operations.
    let _ = match operation {
        Operation::Trip => circuit.trip(),
        Operation::Reset => circuit.reset(),
        Operation::ForceOpen => circuit.force_open(),
        Operation::ForceClosed => circuit.force_closed(),
        Operation::Release => {
            circuit.release();
            Ok(())
        }
        Operation::Success => {
            circuit.record(Verdict::Success);
            Ok(())
        }
        Operation::Failure => {
            circuit.record(FAILURE);
            Ok(())
        }
        Operation::Acquire => {
            if let Ok(permit) = circuit.try_acquire() {
                permit.record(Verdict::Success);
            }
            Ok(())
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn client_ends_in_the_state_of_the_circuits(
        has_history: bool,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(has_history);
            for step in &steps {
                world.step(step).await;
            }
            world.check().await;
        });
    }
}
