//! The scenarios that each store passes. A store runs all of them with [`run_scenarios!`].
//!
//! Each scenario has a namespace of its own, so that they can run at the same time on one server.
//! An empty namespace is also what a store is after a loss of its data.

mod ballots;
pub(crate) mod helpers;
mod leases;
mod records;

pub(crate) use ballots::*;
pub(crate) use leases::*;
pub(crate) use records::*;

/// Makes a test of each scenario.
///
/// `$new` is a function whose future returns a backend, and something that lives as long as the
/// test, such as a server:
///
/// ```ignore
/// async fn store() -> (MemoryStore, ()) { (MemoryStore::new(), ()) }
/// run_scenarios!(store);
/// ```
macro_rules! run_scenarios {
    ($new:path) => {
        $crate::store::scenarios::each_scenario! { $new;
            // Ballots.
            quorum_opens_at_votes_needed
            share_of_members_opens_and_minority_does_not
            warm_up_without_earlier_members_decides_nothing
            warm_up_begins_again_after_all_members_have_expired
            consecutive_failures_of_all_members_open
            consecutive_failures_before_success_of_any_member_do_not_count
            latest_success_counts_after_late_message_and_leave
            success_without_membership_does_not_count
            consecutive_failures_open_when_they_span_time
            consecutive_failures_without_limit_do_not_open
            message_without_ballot_decides_nothing
            repeated_votes_count_once
            vote_expires_with_membership
            leave_removes_member_and_ballot
            votes_in_open_circuit_do_not_count
            concurrent_votes_open_one_epoch
            // Leases.
            lease_before_open_time_is_over_is_denied
            leases_are_limited
            weights_of_leases_are_limited
            lease_expires
            half_open_record_lasts_as_long_as_last_lease
            begun_probe_extends_its_lease
            last_begun_probe_publishes_slots_taken
            ended_reservation_publishes_nothing
            successes_close
            failures_open_again
            one_failure_of_several_probes_frees_slot
            late_outcome_of_other_epoch_is_ignored
            new_round_begins_without_leases_and_outcomes
            repeated_outcome_counts_once
            late_outcome_of_expired_lease_counts
            // Records.
            update_reaches_other_session
            sync_returns_only_newer_record
            epoch_grows_over_loss_of_data
            known_record_is_given_back
            known_half_open_record_comes_back_as_open
            known_override_is_given_back
            known_closed_record_is_lower_bound_of_next_epoch
            local_open_time_outlives_restart
            members_open_on_local_evidence_are_counted
            open_member_counts_until_membership_or_open_time_ends
            open_members_are_zero_unless_fleet_is_closed
            absurd_known_epoch_is_ignored
            record_is_forgotten_after_grace
            trip_and_reset_apply
            operation_with_other_epoch_is_refused
            override_blocks_other_operations_votes_and_leases
            release_of_forced_open_probes_first
            release_without_override_changes_nothing
            override_ends_by_itself
            list_is_sorted_and_paged
            hostile_names_and_texts_are_kept
            long_reason_is_cut
        }
    };
}

macro_rules! each_scenario {
    ($new:path; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (backend, _guard) = $new().await;
                $crate::store::scenarios::$name(&backend).await;
            }
        )*
    };
}

pub(crate) use each_scenario;
pub(crate) use run_scenarios;
