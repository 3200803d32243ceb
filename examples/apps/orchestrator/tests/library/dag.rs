//! Random task graphs, against a model that evaluates them task by task.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use orchestrator::backend::{Backends, SendError};
use orchestrator::dag::{Dag, DagError};
use orchestrator::plan::Plan;
use orchestrator::report::{Event, Outcome, Report};
use orchestrator::resilience::{CircuitSettings, RetrySettings};
use orchestrator::runner::Runner;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::common::{TestBackend, plan, response, task};

/// A task of a random graph.
#[derive(Clone, Debug)]
struct Node {
    /// Positions of earlier tasks. The plan lists the tasks in another order.
    dependencies: Vec<usize>,
    fails: bool,
    /// How often the task yields before it ends, so that the order of the ends differs.
    yields: usize,
}

#[derive(Clone, Debug)]
struct Graph {
    nodes: Vec<Node>,
    /// The order of the tasks in the plan.
    order: Vec<usize>,
}

fn graph() -> impl Strategy<Value = Graph> {
    let node = (vec(any::<Index>(), 0..4), proptest::bool::weighted(0.2), 0..5_usize);
    let nodes = vec(node, 1..25).prop_map(|nodes| {
        let node = |(position, (dependencies, fails, yields)): (usize, (Vec<Index>, bool, usize))| {
            let earlier = |index: &Index| (position > 0).then(|| index.index(position));
            Node { dependencies: dependencies.iter().filter_map(earlier).collect(), fails, yields }
        };
        nodes.into_iter().enumerate().map(node).collect::<Vec<_>>()
    });
    nodes.prop_flat_map(|nodes| {
        let order = Just((0..nodes.len()).collect::<Vec<_>>()).prop_shuffle();
        order.prop_map(move |order| Graph { nodes: nodes.clone(), order })
    })
}

impl Graph {
    fn plan(&self) -> Plan {
        let entry = |&position: &usize| {
            let dependencies: Vec<_> =
                self.nodes[position].dependencies.iter().map(usize::to_string).collect();
            let dependencies: Vec<_> = dependencies.iter().map(String::as_str).collect();
            task(&position.to_string(), "claude", &dependencies)
        };
        plan(&self.order.iter().map(entry).collect::<Vec<_>>())
    }

    fn node(&self, id: &str) -> &Node {
        &self.nodes[id.parse::<usize>().expect("an ID is a number")]
    }

    /// The model: whether each task is completed (`Some(true)`), fails, or is skipped (`None`).
    fn expected(&self) -> Vec<Option<bool>> {
        let mut expected: Vec<Option<bool>> = Vec::new();
        for node in &self.nodes {
            let starts = node.dependencies.iter().all(|&dependency| expected[dependency] == Some(true));
            expected.push(starts.then_some(!node.fails));
        }
        expected
    }
}

/// Runs a graph. The run is cancelled by the send with the number `cancel_at`.
fn run(graph: &Graph, concurrency: usize, cancel_at: Option<u32>) -> (Report, Vec<Event>) {
    let (plan, nodes) = (graph.plan(), Arc::new(graph.clone()));
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let backend = TestBackend::new(move |message, send| {
        let (graph, token) = (Arc::clone(&nodes), token.clone());
        async move {
            if cancel_at == Some(send) {
                token.cancel();
            }
            let node = graph.node(&message.task);
            for _ in 0..node.yields {
                yield_now().await;
            }
            if node.fails { Err(SendError::permanent("refused")) } else { Ok(response(&message.task)) }
        }
    });
    let backends = Backends::new().with("claude", backend);
    let runner = Runner::new(&RetrySettings::default(), &CircuitSettings::default()).unwrap();
    let runner = runner.concurrency(NonZeroUsize::new(concurrency).unwrap());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let report = runtime.block_on(runner.run(&plan, &backends, &cancel, sender));
    let mut events = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        events.push(event);
    }
    (report, events)
}

/// Checks that each task starts and ends at most once, after its dependencies are completed.
fn check_events(graph: &Graph, events: &[Event]) -> Result<(), TestCaseError> {
    let mut started = Vec::new();
    let mut ended = HashMap::new();
    for event in events {
        match event {
            Event::Started { task } => {
                for dependency in &graph.node(task).dependencies {
                    let completed = ended.get(&dependency.to_string()).copied();
                    prop_assert_eq!(completed, Some(true), "{} starts before {}", task, dependency);
                }
                prop_assert!(!started.contains(task) && !ended.contains_key(task), "{}", task);
                started.push(task.clone());
            }
            Event::Sent { task, .. } | Event::AttemptFailed { task, .. } => {
                prop_assert!(started.contains(task) && !ended.contains_key(task), "{}", task);
            }
            Event::Ended(result) => {
                prop_assert!(ended.insert(result.id.clone(), result.is_success()).is_none());
            }
        }
    }
    prop_assert_eq!(ended.len(), graph.nodes.len());
    Ok(())
}

/// Returns whether a task that this one depends on has failed.
fn depends_on(graph: &Graph, id: &str, failed: &str) -> bool {
    let mut dependencies = graph.node(id).dependencies.iter().map(usize::to_string);
    dependencies.any(|dependency| dependency == failed || depends_on(graph, &dependency, failed))
}

proptest! {
    #[test]
    fn random_graph_matches_model(graph in graph(), concurrency in 1..6_usize) {
        let (report, events) = run(&graph, concurrency, None);
        check_events(&graph, &events)?;
        let expected = graph.expected();
        prop_assert_eq!(report.tasks.len(), graph.nodes.len());
        for (task, position) in report.tasks.iter().zip(&graph.order) {
            prop_assert_eq!(&task.id, &position.to_string());
            match &task.outcome {
                Outcome::Completed { response } => {
                    prop_assert_eq!((response, expected[*position]), (&task.id, Some(true)));
                }
                Outcome::Failed { .. } => prop_assert_eq!(expected[*position], Some(false)),
                Outcome::Skipped { because } => {
                    prop_assert_eq!(expected[*position], None);
                    let root: usize = because.parse().unwrap();
                    prop_assert_eq!(expected[root], Some(false), "{} has not failed", because);
                    prop_assert!(depends_on(&graph, &task.id, because));
                }
                Outcome::Cancelled => prop_assert!(false, "{} is cancelled", task.id),
            }
            prop_assert_eq!(task.attempts, u32::from(expected[*position].is_some()));
        }
    }

    #[test]
    fn cancelled_random_graph_ends_each_task_once(
        graph in graph(),
        concurrency in 1..6_usize,
        cancel_at in 1..10_u32,
    ) {
        let (report, events) = run(&graph, concurrency, Some(cancel_at));
        check_events(&graph, &events)?;
        let expected = graph.expected();
        prop_assert_eq!(report.tasks.len(), graph.nodes.len());
        for (task, position) in report.tasks.iter().zip(&graph.order) {
            let matches = match &task.outcome {
                Outcome::Completed { .. } => expected[*position] == Some(true),
                Outcome::Failed { .. } => expected[*position] == Some(false),
                Outcome::Skipped { .. } => expected[*position].is_none(),
                Outcome::Cancelled => true,
            };
            prop_assert!(matches, "{:?}", task);
        }
        // No task starts after the send that cancels the run.
        let started = events.iter().filter(|event| matches!(event, Event::Started { .. })).count();
        let limit = cancel_at as usize + concurrency;
        prop_assert!(started < limit, "{} tasks have started, the limit is {}", started, limit);
    }

    #[test]
    fn random_cycle_is_found(graph in graph(), from in any::<Index>(), length in 2..6_usize) {
        let length = length.min(graph.nodes.len());
        let mut dependencies: Vec<Vec<String>> = graph.nodes.iter()
            .map(|node| node.dependencies.iter().map(usize::to_string).collect())
            .collect();
        let first = from.index(graph.nodes.len() - length + 1);
        for (position, of_task) in dependencies.iter_mut().enumerate().skip(first).take(length) {
            let next = if position + 1 < first + length { position + 1 } else { first };
            of_task.push(next.to_string());
        }
        let ids: Vec<_> = (0..graph.nodes.len()).map(|id| id.to_string()).collect();
        let tasks = ids.iter().zip(&dependencies).map(|(id, all)| (id.as_str(), all.as_slice()));
        match Dag::new(tasks) {
            Err(DagError::SelfDependency { .. }) => prop_assert_eq!(length, 1),
            Err(DagError::Cycle { tasks }) => {
                let next = tasks.iter().cycle().skip(1);
                for (id, next) in tasks.iter().zip(next) {
                    let position: usize = id.parse().unwrap();
                    prop_assert!(dependencies[position].contains(next), "{} -> {}", id, next);
                }
            }
            result => prop_assert!(false, "{:?}", result),
        }
    }
}
