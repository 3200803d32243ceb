//! The dependency graph: the states of the tasks, and which task may start.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// The task waits for its dependencies, or for a free slot.
    Pending,
    /// The task was started.
    Running,
    /// The task has a result.
    Completed,
    /// The task ended with an error.
    Failed,
    /// A task that this one depends on, directly or not, has failed.
    Skipped,
    /// The run was cancelled before the task ended.
    Cancelled,
}

/// Why tasks are not a dependency graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DagError {
    /// Two tasks have the same ID.
    DuplicateId {
        /// The ID.
        task: String,
    },
    /// A dependency is not a task.
    UnknownDependency {
        /// The task with the dependency.
        task: String,
        /// The ID that no task has.
        dependency: String,
    },
    /// A task depends on itself.
    SelfDependency {
        /// The task.
        task: String,
    },
    /// Tasks depend on each other.
    Cycle {
        /// The tasks of the cycle. Each depends on the next, and the last depends on the first.
        tasks: Vec<String>,
    },
}

impl fmt::Display for DagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateId { task } => {
                write!(f, "two tasks have the `id` `{task}`; rename one of them")
            }
            Self::UnknownDependency { task, dependency } => write!(
                f,
                "task `{task}`: `depends_on` names the unknown task `{dependency}`; add the task, or remove the name"
            ),
            Self::SelfDependency { task } => {
                write!(f, "task `{task}`: `depends_on` names the task itself; remove the name")
            }
            Self::Cycle { tasks } => {
                let (cycle, first) = (tasks.join(" -> "), tasks.first().map_or("", String::as_str));
                write!(
                    f,
                    "task `{first}`: `depends_on` leads back to the task: {cycle} -> {first}; \
                     remove one of these dependencies"
                )
            }
        }
    }
}

impl Error for DagError {}

/// Tasks with dependencies. A task is identified by its position.
#[derive(Clone, Debug)]
pub struct Dag {
    nodes: Vec<Node>,
    /// The pending tasks whose dependencies are completed, in the order in which they became ready.
    ready: VecDeque<usize>,
}

#[derive(Clone, Debug)]
struct Node {
    state: TaskState,
    dependencies: Vec<usize>,
    dependents: Vec<usize>,
    /// The number of dependencies that are not completed.
    missing: usize,
}

impl Dag {
    /// Creates the graph of the tasks, each with its ID and the IDs of its dependencies.
    ///
    /// # Errors
    ///
    /// Returns an error if an ID is used twice, a dependency is unknown, or tasks form a cycle.
    pub fn new<'a>(
        tasks: impl IntoIterator<Item = (&'a str, &'a [String])> + Clone,
    ) -> Result<Self, DagError> {
        let mut positions = HashMap::new();
        for (position, (id, _)) in tasks.clone().into_iter().enumerate() {
            if positions.insert(id, position).is_some() {
                return Err(DagError::DuplicateId { task: id.to_owned() });
            }
        }
        let mut nodes = Vec::new();
        for (id, depends_on) in tasks.clone() {
            let dependencies = find_all(&positions, id, depends_on)?;
            let missing = dependencies.len();
            nodes.push(Node { state: TaskState::Pending, dependencies, dependents: Vec::new(), missing });
        }
        for task in 0..nodes.len() {
            for dependency in nodes[task].dependencies.clone() {
                nodes[dependency].dependents.push(task);
            }
        }
        if let Some(cycle) = find_cycle(&nodes) {
            let ids: Vec<_> = tasks.into_iter().map(|(id, _)| id).collect();
            return Err(DagError::Cycle {
                tasks: cycle.into_iter().map(|task| ids[task].to_owned()).collect(),
            });
        }
        let ready = (0..nodes.len()).filter(|&task| nodes[task].missing == 0).collect();
        Ok(Self { nodes, ready })
    }

    /// Returns the state of a task.
    pub fn state(&self, task: usize) -> TaskState {
        self.nodes[task].state
    }

    /// Returns the tasks that a task depends on.
    pub fn dependencies(&self, task: usize) -> &[usize] {
        &self.nodes[task].dependencies
    }

    /// Starts the next task whose dependencies are completed. Returns `None` if there is none now.
    pub fn start_next(&mut self) -> Option<usize> {
        let task = self.ready.pop_front()?;
        self.nodes[task].state = TaskState::Running;
        Some(task)
    }

    /// Completes a running task. Its dependents may start when their other dependencies are
    /// completed.
    pub fn complete(&mut self, task: usize) {
        self.end(task, TaskState::Completed);
        for dependent in self.nodes[task].dependents.clone() {
            let node = &mut self.nodes[dependent];
            node.missing -= 1;
            if node.missing == 0 && node.state == TaskState::Pending {
                self.ready.push_back(dependent);
            }
        }
    }

    /// Fails a running task, and skips all tasks that depend on it. Returns the skipped tasks.
    pub fn fail(&mut self, task: usize) -> Vec<usize> {
        self.end(task, TaskState::Failed);
        let mut skipped = Vec::new();
        let mut visit = self.nodes[task].dependents.clone();
        while let Some(dependent) = visit.pop() {
            let node = &mut self.nodes[dependent];
            if node.state == TaskState::Pending {
                node.state = TaskState::Skipped;
                skipped.push(dependent);
                visit.extend(&node.dependents);
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// Cancels a running task. Its dependents stay pending.
    pub fn cancel(&mut self, task: usize) {
        self.end(task, TaskState::Cancelled);
    }

    /// Cancels all pending tasks, and returns them.
    pub fn cancel_pending(&mut self) -> Vec<usize> {
        self.ready.clear();
        let pending = |&task: &usize| self.nodes[task].state == TaskState::Pending;
        let cancelled: Vec<_> = (0..self.nodes.len()).filter(pending).collect();
        for &task in &cancelled {
            self.nodes[task].state = TaskState::Cancelled;
        }
        cancelled
    }

    fn end(&mut self, task: usize, state: TaskState) {
        let node = &mut self.nodes[task];
        debug_assert_eq!(node.state, TaskState::Running, "only a running task ends");
        node.state = state;
    }
}

/// Returns the positions of the dependencies of the task `id`.
fn find_all(
    positions: &HashMap<&str, usize>,
    id: &str,
    depends_on: &[String],
) -> Result<Vec<usize>, DagError> {
    let find = |dependency: &String| match positions.get(dependency.as_str()) {
        _ if dependency == id => Err(DagError::SelfDependency { task: id.to_owned() }),
        Some(&position) => Ok(position),
        None => Err(DagError::UnknownDependency { task: id.to_owned(), dependency: dependency.to_owned() }),
    };
    depends_on.iter().map(find).collect()
}

/// Returns a cycle, in which each task depends on the next.
fn find_cycle(nodes: &[Node]) -> Option<Vec<usize>> {
    let mut missing: Vec<_> = nodes.iter().map(|node| node.missing).collect();
    let mut free: Vec<_> = (0..nodes.len()).filter(|&task| missing[task] == 0).collect();
    while let Some(task) = free.pop() {
        for &dependent in &nodes[task].dependents {
            missing[dependent] -= 1;
            if missing[dependent] == 0 {
                free.push(dependent);
            }
        }
    }
    // Each task that is left depends on another that is left, so this path returns to itself.
    let mut task = (0..nodes.len()).find(|&task| missing[task] > 0)?;
    let mut path = Vec::new();
    loop {
        if let Some(start) = path.iter().position(|&visited| visited == task) {
            return Some(path.split_off(start));
        }
        path.push(task);
        task = *nodes[task].dependencies.iter().find(|&&dependency| missing[dependency] > 0)?;
    }
}
