//! Random histories of a fleet: lost, repeated and late messages.

mod world;

use proptest::prelude::*;

use super::Time;
use crate::quorum::Quorum;
use crate::record::{FleetState, Override};
use crate::store::Action;
use world::{Network, World};

/// A step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Lets this many milliseconds pass.
    Pass(u64),
    /// The calls through a process fail or succeed from now on.
    Fail(usize, bool),
    /// The calls through all processes fail or succeed from now on.
    FailAll(bool),
    Operate(Action),
    /// The store loses its data.
    Flush,
    Network(Network),
    /// The process ends, and another one with its instance name starts.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let actions = prop_oneof![
        Just(Action::Trip),
        Just(Action::Reset),
        Just(Action::ForceOpen),
        Just(Action::ForceClosed),
        Just(Action::Release),
    ];
    let networks = prop_oneof![Just(Network::Perfect), Just(Network::Lossy), Just(Network::Cut)];
    let step = prop_oneof![
        6 => (1_u64..4_000).prop_map(Step::Pass),
        2 => (0_usize..8, any::<bool>()).prop_map(|(process, fails)| Step::Fail(process, fails)),
        2 => any::<bool>().prop_map(Step::FailAll),
        1 => actions.prop_map(Step::Operate),
        1 => Just(Step::Flush),
        2 => networks.prop_map(Step::Network),
        1 => (0_usize..8).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever has happened: when the network and the server are well again, all processes agree,
    /// and all circuits are closed or forced as the last operation says.
    #[test]
    fn processes_converge_after_any_history(
        processes in 1_usize..6,
        quorum in prop::sample::select(vec![Quorum::majority(), Quorum::at_least(1)]),
        seed in any::<u64>(),
        steps in steps(),
    ) {
        let mut world = World::new(processes, quorum, seed);
        for step in steps {
            match step {
                Step::Pass(millis) => world.run(Time::from_millis(millis)),
                Step::Fail(process, fails) => world.fail(process % processes, fails),
                Step::FailAll(fails) => (0..processes).for_each(|process| world.fail(process, fails)),
                Step::Operate(action) => world.operate(action),
                Step::Flush => world.flush(),
                Step::Network(network) => world.network = network,
                Step::Restart(process) => world.restart(process % processes),
            }
        }
        world.network = Network::Perfect;
        (0..processes).for_each(|process| world.fail(process, false));
        world.run(Time::from_secs(45));
        let stored = world.record();
        for view in world.views() {
            // A store without a record means closed: see `CircuitData::restore`.
            let known = view.record.unwrap_or_default();
            if stored.epoch > 0 || known.state != FleetState::Closed || known.manual.is_some() {
                prop_assert_eq!(known.epoch, stored.epoch);
            }
            let expected = match known.manual {
                Some(Override::ForcedOpen) => "forced_open",
                Some(Override::ForcedClosed) => "forced_closed",
                None => "closed",
            };
            prop_assert_eq!(view.state.as_str(), expected, "{:?}", known);
        }
    }

    /// Outcomes of a minority, with any messages lost, open no circuit of a process that works.
    #[test]
    fn minority_opens_no_other_circuit(seed in any::<u64>(), steps in steps()) {
        let mut world = World::new(5, Quorum::majority(), seed);
        for step in steps {
            match step {
                Step::Pass(millis) => world.run(Time::from_millis(millis)),
                Step::Fail(process, fails) if process < 2 => world.fail(process, fails),
                Step::Flush => world.flush(),
                Step::Network(network) => world.network = network,
                Step::Restart(process) => world.restart(process % 2),
                _ => {}
            }
        }
        world.run(Time::from_secs(20));
        for view in &world.views()[2..] {
            prop_assert!(!view.has_opened, "{:?}", view);
        }
    }
}
