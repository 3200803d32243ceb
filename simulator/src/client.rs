//! The client processes: guards, circuits, policies.

use std::time::Duration;

use plotters::style::RGBColor;
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Circuit, Clock};
use tower_jitter_retry::budget::BudgetBuilder;
use tower_jitter_retry::{Budget, Jitter, RetryPolicy, RetryPolicyBuilder};

use crate::figure::colour;
use crate::random::Random;

/// What protects the calls of a process. The retry is above the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The retries, if any.
    pub retry: Option<Retry>,
    /// The breaker, if any.
    pub breaker: Option<Breaker>,
}

/// The retries of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Three attempts, 100 ms apart, without jitter and without a budget.
    Naive,
    /// The default policy.
    Default,
}

/// The breaker of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// The default configuration.
    Default,
    /// The preset [`BreakerConfig::high_traffic`].
    HighTraffic,
}

impl Guard {
    /// No retries and no breaker.
    pub const NONE: Self = Self { retry: None, breaker: None };
    /// Retries without jitter and budget.
    pub const NAIVE: Self = Self { retry: Some(Retry::Naive), breaker: None };
    /// The default retries.
    pub const RETRY: Self = Self { retry: Some(Retry::Default), breaker: None };
    /// The default breaker.
    pub const BREAKER: Self = Self { retry: None, breaker: Some(Breaker::Default) };
    /// The default retries above the default breaker.
    pub const BOTH: Self = Self { retry: Some(Retry::Default), breaker: Some(Breaker::Default) };
    /// The default retries above a breaker with the preset for high traffic.
    pub const HIGH_TRAFFIC: Self = Self { retry: Some(Retry::Default), breaker: Some(Breaker::HighTraffic) };

    /// Returns the name for tables and figures, in `snake_case`.
    pub const fn name(self) -> &'static str {
        match (self.retry, self.breaker) {
            (None, None) => "none",
            (Some(Retry::Naive), None) => "naive",
            (Some(Retry::Default), None) => "retry",
            (None, Some(Breaker::Default)) => "breaker",
            (Some(Retry::Default), Some(Breaker::Default)) => "both",
            (None, Some(Breaker::HighTraffic)) => "high_traffic",
            (Some(Retry::Default), Some(Breaker::HighTraffic)) => "retry_high_traffic",
            (Some(Retry::Naive), Some(Breaker::Default)) => "naive_breaker",
            (Some(Retry::Naive), Some(Breaker::HighTraffic)) => "naive_high_traffic",
        }
    }

    /// Returns the colour in figures.
    pub const fn colour(self) -> RGBColor {
        match (self.retry, self.breaker) {
            (None, None) => colour::BLACK,
            (Some(Retry::Naive), _) => colour::ORANGE,
            (Some(Retry::Default), None) => colour::RED,
            (None, Some(_)) => colour::SKY,
            (Some(Retry::Default), Some(Breaker::Default)) => colour::GREEN,
            (Some(Retry::Default), Some(Breaker::HighTraffic)) => colour::PURPLE,
        }
    }

    /// Creates a process with a circuit, a policy and a budget of its own.
    pub fn process(self, clock: Clock, seeds: &mut Random) -> Process {
        let circuit = self.breaker.map(|breaker| breaker.circuit(clock, seeds.bits()));
        let policy = self.retry.map(|retry| retry.policy(clock, seeds.bits()));
        Process { circuit, policy }
    }
}

impl Retry {
    /// Returns the policy, with a new budget.
    ///
    /// # Panics
    ///
    /// Does not panic: the settings are valid.
    fn policy(self, clock: Clock, seed: u64) -> RetryPolicy {
        let policy: RetryPolicyBuilder = match self {
            Self::Naive => RetryPolicy::builder()
                .initial_backoff(Duration::from_millis(100))
                .backoff_multiplier(1.0)
                .jitter(Jitter::None)
                .budget(None),
            Self::Default => RetryPolicy::builder().budget(default_budget(clock)),
        };
        policy.clock(clock).seed(seed).build().expect("the settings are valid")
    }
}

/// Returns a new budget with the default settings.
fn default_budget(clock: Clock) -> Budget {
    let settings = Budget::default().to_builder().expect("the default is not a custom budget");
    let settings = match settings {
        BudgetBuilder::Window(window) => BudgetBuilder::Window(window.clock(clock)),
        other => other,
    };
    settings.build().expect("the default is valid")
}

impl Breaker {
    fn circuit(self, clock: Clock, seed: u64) -> Circuit {
        let config: BreakerConfigBuilder = match self {
            Self::Default => BreakerConfig::builder(),
            Self::HighTraffic => BreakerConfig::high_traffic(),
        };
        Circuit::new(config.clock(clock).seed(seed).build().expect("the settings are valid"))
    }
}

/// A client process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The circuit, if the process has a breaker.
    pub circuit: Option<Circuit>,
    /// The policy, if the process retries.
    pub policy: Option<RetryPolicy>,
}
