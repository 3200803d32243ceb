//! Which tasks that wait for a circuit are woken, on which runtime, and how often.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower_breaker::handle::Acquire;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfigBuilder, Circuit, CircuitRegistry, CircuitState, Clock, Mode, Verdict};

use crate::support::{FAILURE, NEUTRAL, SECOND, state};

/// Far longer than a test takes. Only a task that is never woken reaches it.
const DEADLINE: Duration = Duration::from_secs(120);

fn config() -> BreakerConfigBuilder {
    crate::support::config().clock(Clock::tokio()).probes(1).successes_to_close(1).probe_lease(3_600 * SECOND)
}

fn half_open(config: BreakerConfigBuilder) -> Circuit {
    let circuit = Circuit::new(config.build().unwrap());
    circuit.trip().unwrap();
    circuit.probe_now().unwrap();
    circuit
}

fn spawn_waiting(circuit: &Circuit, number: usize) -> Vec<task::Spawn<Acquire>> {
    let mut tasks: Vec<_> = (0..number).map(|_| task::spawn(circuit.acquire())).collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    tasks
}

fn woken(tasks: &[task::Spawn<Acquire>]) -> Vec<bool> {
    tasks.iter().map(task::Spawn::is_woken).collect()
}

/// Counts how often it is woken.
#[derive(Default)]
struct CountWakes(AtomicUsize);

impl CountWakes {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn number(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_start_that_ends_wakes_all_tasks() {
    let circuit = half_open(config().slow_start_successes(1));
    circuit.acquire().await.record(Verdict::Success);
    let call = circuit.acquire().await;
    let mut tasks = spawn_waiting(&circuit, 3);
    call.record(Verdict::Success);
    assert_eq!(circuit.status().slow_start, None);
    assert_eq!(woken(&tasks), [true; 3], "a task that is not polled must not delay the others");
    for task in &mut tasks {
        assert_ready!(task.poll()).cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn success_in_slow_start_admits_two_tasks() {
    let circuit = half_open(config().slow_start_successes(9));
    circuit.acquire().await.record(Verdict::Success);
    let call = circuit.acquire().await;
    let mut tasks = spawn_waiting(&circuit, 3);
    call.record(Verdict::Success);
    let _first = assert_ready!(tasks[0].poll());
    assert!(tasks[1].is_woken(), "the success has raised the limit to two calls");
    let _second = assert_ready!(tasks[1].poll());
    assert_pending!(tasks[2].poll());
}

#[tokio::test(start_paused = true)]
async fn each_free_slot_of_several_admits_one_task() {
    let circuit = half_open(config().probes(3).successes_to_close(100));
    let probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
    let mut tasks = spawn_waiting(&circuit, 4);
    for probe in probes {
        probe.record(NEUTRAL);
    }
    assert_eq!(woken(&tasks), [true, true, true, false]);
    let admitted: Vec<_> = tasks[..3].iter_mut().map(|task| assert_ready!(task.poll())).collect();
    assert_pending!(tasks[3].poll());
    assert_eq!(circuit.status().half_open.unwrap().running_probes, 3);
    drop(admitted);
    assert!(tasks[3].is_woken());
}

#[tokio::test(start_paused = true)]
async fn tasks_take_slots_when_their_leases_end() {
    let circuit = half_open(config().probes(2).probe_lease(5 * SECOND));
    let began = Instant::now();
    let _first = circuit.try_acquire().unwrap();
    advance(2 * SECOND).await;
    let _second = circuit.try_acquire().unwrap();
    let acquire = async || {
        let permit = circuit.acquire().await;
        (began.elapsed().as_secs(), permit)
    };
    let ((one, _one), (other, _other)) = tokio::join!(acquire(), acquire());
    assert_eq!([one.min(other), one.max(other)], [5, 7]);
}

#[tokio::test(start_paused = true)]
async fn wait_polled_by_another_task_wakes_that_task() {
    let circuit = Circuit::new(config().build().unwrap());
    circuit.force_open().unwrap();
    let [(first, first_waker), (second, second_waker)] = [CountWakes::new(), CountWakes::new()];
    let mut acquire = pin!(circuit.acquire());
    assert!(acquire.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(acquire.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "only this test has the first waker");
    circuit.release();
    assert_eq!((first.number(), second.number()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn completed_wait_that_is_polled_again_waits_again() {
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let mut acquire = task::spawn(circuit.acquire());
    let mut ready = task::spawn(circuit.ready());
    assert_pending!(acquire.poll());
    assert_pending!(ready.poll());
    probe.record(NEUTRAL);
    assert_ready!(ready.poll());
    let probe = assert_ready!(acquire.poll());
    assert_pending!(acquire.poll());
    assert_pending!(ready.poll());
    assert!(!acquire.is_woken() && !ready.is_woken());
    probe.record(NEUTRAL);
    assert!(acquire.is_woken());
    drop(acquire);
    assert!(ready.is_woken(), "the turn is passed on");
    assert_ready!(ready.poll());
}

#[test]
fn wait_without_runtime_panics_and_leaves_no_waker() {
    let circuit = Circuit::new(config().clock(Clock::manual().0).build().unwrap());
    circuit.trip().unwrap();
    let (count, waker) = CountWakes::new();
    let mut acquire = Box::pin(circuit.acquire());
    let poll = |acquire: &mut Pin<Box<Acquire>>| acquire.as_mut().poll(&mut Context::from_waker(&waker));
    let panic = catch_unwind(AssertUnwindSafe(|| poll(&mut acquire).is_pending())).unwrap_err();
    assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains("no reactor")), "{panic:?}");
    drop(acquire);
    assert_eq!(Arc::strong_count(&count), 2);
    circuit.reset().unwrap();
    assert!(poll(&mut Box::pin(circuit.acquire())).is_ready());
}

#[tokio::test(start_paused = true)]
async fn removed_circuits_wake_their_tasks() {
    let each = || config().name("search").build().unwrap();
    let circuits = KeyedCircuits::<u64>::new(KeyedConfig::builder(each()).build().unwrap());
    circuits.circuit(&7).force_open().unwrap();
    let mut of_key = task::spawn(circuits.circuit(&7).acquire());
    assert_pending!(of_key.poll());
    let removed = circuits.remove(&7).unwrap();
    assert!(circuits.try_acquire(&7).is_ok(), "the key has a new circuit");
    assert_pending!(of_key.poll());
    removed.release();
    assert!(of_key.is_woken());
    assert_ready!(of_key.poll()).cancel();

    let registry = CircuitRegistry::new(each());
    registry.circuit("search").force_open().unwrap();
    let mut by_name = task::spawn(registry.circuit("search").ready());
    assert_pending!(by_name.poll());
    let removed = registry.remove("search").unwrap();
    assert_pending!(by_name.poll());
    removed.release();
    assert_ready!(by_name.poll());
}

#[tokio::test(start_paused = true)]
async fn reconfigured_map_wakes_tasks_of_all_keys() {
    for mode in [Mode::ObserveOnly, Mode::Disabled] {
        let keyed =
            |config: BreakerConfigBuilder| KeyedConfig::builder(config.build().unwrap()).build().unwrap();
        let circuits = KeyedCircuits::<u64>::new(keyed(config().open_until_reset(true)));
        let mut tasks: Vec<_> = [1, 2]
            .map(|key| {
                circuits.circuit(&key).trip().unwrap();
                task::spawn(circuits.circuit(&key).acquire())
            })
            .into();
        for task in &mut tasks {
            assert_pending!(task.poll());
        }
        circuits.reconfigure(keyed(config().mode(mode))).unwrap();
        for task in &mut tasks {
            assert!(task.is_woken(), "{mode:?}");
            assert_ready!(task.poll()).cancel();
        }
    }
}

/// Calls through the circuit, one after the other, and counts the polls.
#[tokio::test(start_paused = true)]
async fn polls_grow_linearly_with_waiting_tasks() {
    const TASKS: usize = 500;
    let circuit = half_open(config());
    let probe = circuit.try_acquire().unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (mut acquire, polls) = (Box::pin(circuit.acquire()), Arc::clone(&polls));
            tokio::spawn(async move {
                let counted = poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    acquire.as_mut().poll(cx)
                });
                let permit = counted.await;
                tokio::task::yield_now().await;
                permit.record(NEUTRAL);
            })
        })
        .collect();
    while polls.load(Ordering::Relaxed) < TASKS {
        tokio::task::yield_now().await;
    }
    probe.record(NEUTRAL);
    for task in tasks {
        timeout(DEADLINE, task).await.expect("every task is woken").unwrap();
    }
    let polls = polls.load(Ordering::Relaxed);
    assert!(polls <= 4 * TASKS, "{polls} polls of {TASKS} tasks");
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn tasks_of_several_runtimes_are_woken_by_another_thread() {
    let circuit = Circuit::new(config().build().unwrap());
    circuit.force_open().unwrap();
    let (waiting, all_wait) = mpsc::channel();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (mut acquire, waiting) = (Box::pin(circuit.acquire()), waiting.clone());
                let announced = async move {
                    poll_fn(|cx| {
                        let polled = acquire.as_mut().poll(cx);
                        waiting.send(()).unwrap();
                        polled.map(drop)
                    })
                    .await;
                };
                scope.spawn(move || {
                    // In a task of its own, because the end of a timeout polls its future.
                    current_thread().block_on(async { timeout(DEADLINE, tokio::spawn(announced)).await })
                })
            })
            .collect();
        (0..3).for_each(|_| all_wait.recv_timeout(DEADLINE).unwrap());
        circuit.release();
        for thread in threads {
            thread.join().unwrap().expect("the task is woken").unwrap();
        }
    });
}

/// Runs `work` in eight tasks on each of four threads. Returns when all tasks have ended.
fn run_on_threads<F>(circuit: &Circuit, work: impl Fn(Circuit, usize) -> F + Sync)
where
    F: Future<Output = ()> + Send + 'static,
{
    let work = &work;
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                current_thread().block_on(async {
                    let tasks = (0..8).map(|task| tokio::spawn(work(circuit.clone(), 8 * thread + task)));
                    for task in tasks.collect::<Vec<_>>() {
                        timeout(DEADLINE, task).await.expect("no wake is lost").unwrap();
                    }
                });
            });
        }
    });
}

async fn wait_in_three_ways(circuit: Circuit, number: usize) {
    for round in 0..200 {
        match (number + round) % 4 {
            0 => circuit.ready().await,
            1 => tokio::select! {
                permit = circuit.acquire() => permit.cancel(),
                () = tokio::task::yield_now() => {}
            },
            _ => {
                let permit = circuit.acquire().await;
                tokio::task::yield_now().await;
                permit.record(NEUTRAL);
            }
        }
    }
}

#[test]
fn concurrent_probes_and_cancelled_waits_lose_no_wake() {
    run_on_threads(&half_open(config().probes(2).successes_to_close(1_000)), wait_in_three_ways);
}

#[test]
fn concurrent_slow_start_and_cancelled_waits_lose_no_wake() {
    let circuit = half_open(config().slow_start_successes(100));
    circuit.try_acquire().unwrap().record(Verdict::Success);
    run_on_threads(&circuit, wait_in_three_ways);
}

async fn fail_some_calls(circuit: Circuit, number: usize) {
    for round in 0..3_000 {
        let permit = circuit.acquire().await;
        tokio::task::yield_now().await;
        permit.record(if (number + round).is_multiple_of(5) { FAILURE } else { Verdict::Success });
    }
}

/// Clears the flag when it is dropped, also by a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn concurrent_manual_control_loses_no_wake() {
    let circuit = Circuit::new(config().open_until_reset(true).build().unwrap());
    // The tasks wait from the start, however late the other thread begins.
    circuit.force_open().unwrap();
    let operations: [fn(&Circuit); 4] = [
        |circuit| circuit.force_open().unwrap(),
        Circuit::release,
        |circuit| circuit.trip().unwrap(),
        |circuit| circuit.reset().unwrap(),
    ];
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                for operation in operations {
                    operation(&circuit);
                }
                thread::yield_now();
            }
            circuit.release();
            circuit.reset().unwrap();
        });
        // Ends the other thread even if a task is never woken.
        let _stop = StopOnDrop(&running);
        run_on_threads(&circuit, fail_some_calls);
    });
    assert_eq!(state(&circuit), CircuitState::Closed);
}
