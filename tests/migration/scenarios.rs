//! The scenarios that a move must survive, by number, and the test that shows each; [`every_scenario_is_shown`] holds this
//! list against the sources.
//!
//! - 1 `scenarios::writes::s01_an_update_during_the_copy_arrives`
//! - 2 `scenarios::writes::s02_a_child_inserted_during_the_copy_arrives`
//! - 3 `scenarios::writes::s03_a_grandchild_inserted_during_the_copy_arrives`
//! - 4 `scenarios::writes::s04_a_child_deleted_during_the_copy_vanishes_at_the_target`
//! - 5 `scenarios::writes::s05_a_key_deleted_and_given_again_is_the_new_row`
//! - 6 `scenarios::writes::s06_a_child_whose_key_changes_is_there_once`
//! - 7 `scenarios::writes::s07_a_child_given_to_another_user_goes_where_that_one_goes`
//! - 8 `scenarios::writes::s08_a_writer_that_waits_at_the_fence_retries_at_the_target_and_counts_once`
//! - 9 `scenarios::writes::s09_a_repeatable_read_writer_with_an_old_snapshot_gets_40001`
//! - 10 `scenarios::writes::s10_a_serializable_writer_with_an_old_snapshot_gets_40001`
//! - 11 `scenarios::writes::s11_a_long_transaction_defers_its_user_and_nobody_else`
//! - 12 `scenarios::writes::s12_a_writer_in_replica_role_is_refused_like_any_other`
//! - 13 `scenarios::writes::s13_truncate_is_refused_before_during_and_after`
//! - 14 `scenarios::writes::s14_a_transaction_over_two_homes_is_refused_as_one`
//! - 15 `purge::a_stale_router_is_refused_after_it_and_stops_it_before`
//! - 16 `scenarios::writes::s16_a_prepared_transaction_is_waited_for`
//! - 17 `crash::every_point_has_a_test`
//! - 18 `crash::releasing`
//! - 19 `attacks_mover::a3_a_mover_stopped_in_a_call_holds_nothing`
//! - 20 `scenarios::operations::several_runners_share_one_run`
//! - 21 `crash::released`
//! - 22 `reconcile::a_promoted_source_that_forgot_a_release_is_fenced_again`
//! - 23 `scenarios::hostile::s23_a_target_whose_disk_is_full_loses_nothing_and_goes_on_later`
//! - 24 `scenarios::hostile::s24_an_address_taken_at_the_target_sets_aside_that_user_and_nobody_else`
//! - 25 `purge::a_bit_that_flipped_at_the_target_after_a_verification_stops_it`
//! - 26 `scenarios::hostile::s26_a_trigger_of_the_product_at_the_target_does_not_touch_rows_that_move`
//! - 27 `scenarios::hostile::s27_a_trigger_that_swallows_rows_cannot_swallow_any_that_move`
//! - 28 `scenarios::shapes::s28_a_generated_column_that_is_computed_otherwise_is_refused`
//! - 29 `corruption::nothing_that_the_source_did_not_say_is_activated`
//! - 30 `corruption::nothing_that_changed_on_the_way_to_the_target_is_activated`
//! - 31 `corruption::what_changed_after_the_proof_is_mended_before_anybody_sees_it`
//! - 32 `corruption::what_changes_in_moved_rows_is_found_by_verify`
//! - 33 `scenarios::shapes::s33_an_enum_array_with_other_oids_moves`
//! - 34 `scenarios::shapes::s34_domains_composites_ranges_hstore_and_citext_move`
//! - 35 `scenarios::shapes::s35_rows_that_a_policy_may_hide_are_refused`
//! - 36 `scenarios::shapes::s36_a_foreign_key_without_an_index_is_refused_with_the_command`
//! - 37 `scenarios::shapes::s37_tables_that_refer_to_each_other_without_deferring_move`
//! - 38 `scenarios::shapes::s38_a_tree_ten_thousand_deep_moves`
//! - 39 `purge::rows_of_a_table_that_stays_survive_and_let_go`
//! - 40 `purge::the_outbox_and_listeners_hear_nothing_of_it`
//! - 41 `scenarios::shapes::s41_a_partition_detached_during_a_run_stops_it`
//! - 42 `scenarios::shapes::s42_a_column_added_during_a_run_stops_it`
//! - 43 `scenarios::shapes::s43_s72_other_order_of_columns_and_dropped_ones_in_the_middle_move`
//! - 44 `scenarios::shapes::s44_a_target_of_another_encoding_takes_what_it_can_hold`
//! - 45 `scenarios::shapes::s45_a_column_of_large_objects_is_refused`
//! - 46 `scenarios::torture::torture_s46_a_document_of_two_hundred_megabytes_moves`
//! - 47 `scenarios::large::s47_a_user_of_eleven_thousand_rows_moves_under_writers`
//! - 48 `purge::a_user_without_rows_is_purged_like_all_others`
//! - 49 `scenarios::shapes::s49_sequences_that_give_the_same_numbers_are_refused`
//! - 50 `scenarios::torture::torture_s50_a_slow_line_that_breaks_moves_everybody`
//! - 51 `scenarios::operations::s51_a_standby_that_lags_makes_a_run_wait`
//! - 52 `crash::activated`
//! - 53 `scenarios::operations::s53_a_finished_run_that_is_run_again_does_nothing`
//! - 54 `scenarios::operations::s54_s77_there_and_back_and_there_again_with_writes_in_between`
//! - 55 `purge::a_row_that_changed_at_the_source_stops_it_before_anything_is_deleted`
//! - 56 `scenarios::hostile::s56_an_eu_row_planted_in_the_us_is_found`
//! - 57 `purge::the_evidence_says_where_bytes_remain`
//! - 58 `scenarios::hostile::s58_no_value_is_written_down`
//! - 59 `scenarios::operations::s59_plan_dry_run_and_check_change_nothing`
//! - 60 `scenarios::hostile::s60_leftovers_with_the_right_number_of_rows_and_other_content_are_not_taken_for_a_copy`
//! - 61 `scenarios::hostile::s61_one_cluster_under_two_names_is_refused`
//! - 62 `scenarios::writes::s62_a_long_transaction_of_somebody_else_makes_no_stall_longer`
//! - 63 `scenarios::operations::s63_nothing_survives_success_or_failure`
//! - 64 `scenarios::hostile::s64_settings_of_the_role_and_the_database_do_not_reach_the_mover`
//! - 65 `scenarios::hostile::s65_a_cluster_that_cannot_be_reached_is_not_empty`
//! - 66 `scenarios::operations::s66_what_was_not_measured_is_unknown_and_not_zero`
//! - 67 `scenarios::writes::s67_writes_to_every_partition_during_the_move_arrive`
//! - 68 `scenarios::shapes::s68_every_refusal_comes_before_the_first_durable_object`
//! - 69 `scenarios::hostile::s69_whoever_is_set_aside_leaves_nothing_behind`
//! - 70 `scenarios::operations::s70_batches_of_every_size_move_the_same_rows`
//! - 71 `scenarios::operations::s71_a_table_without_rows_is_empty_and_not_missing`
//! - 72 `scenarios::shapes::s43_s72_other_order_of_columns_and_dropped_ones_in_the_middle_move`
//! - 73 `scenarios::hostile::s73_another_server_at_the_same_name_is_not_what_was_approved`
//! - 74 `scenarios::hostile::s74_a_takeover_that_finds_a_cancelled_user_opens_it_and_does_not_stage_it_again`
//! - 75 `scenarios::torture::torture_s75_a_schema_of_twenty_thousand_tables_fits_into_little_memory`
//! - 76 `scenarios::writes::s76_a_session_from_before_the_move_and_a_revocation_is_stopped_by_the_fence`
//! - 77 `scenarios::operations::s54_s77_there_and_back_and_there_again_with_writes_in_between`

mod hostile;
mod large;
mod operations;
mod shapes;
mod torture;
mod waits;
mod writes;

use crate::world::{Call, World};

/// Two orders of each user, with two items and a part each.
const ROWS: &str = "
INSERT INTO orders SELECT u * 10 + o, u, o, 'note' FROM generate_series(1, 12) u, generate_series(1, 2) o;
INSERT INTO items SELECT id * 10 + i, id, i FROM orders, generate_series(1, 2) i;
INSERT INTO parts SELECT id, 1, 'part' FROM orders;
";

/// Everybody in one batch, one lane.
pub(crate) fn all_at_once(world: &World, plan: &str) -> Call {
    world.tool(&["run", "--plan", plan, "--batch-size", "100", "--lanes", "1"])
}

/// Users with orders, and a plan for them.
async fn shop() -> (World, String) {
    let world = World::ready().await;
    world.us.admin().await.must(ROWS).await;
    let plan = world.plan().await;
    (world, plan)
}

impl World {
    /// Whoever was to move has moved, with every row as it stands frozen at the source; nothing else is there.
    async fn all_moved_equal(&self) {
        let chosen = self.chosen().await;
        assert_eq!(self.at_home(&self.eu).await, chosen);
        let (us, eu) = (self.dump(&self.us).await, self.dump(&self.eu).await);
        for user in &chosen {
            assert_eq!(us.get(user), eu.get(user), "user {user}");
        }
        assert_eq!(eu.len(), chosen.len());
        self.no_locks_left().await;
    }
}

/// A number without a test, or with one that is not there any more.
#[test]
fn every_scenario_is_shown() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migration");
    let read = |file: &str| std::fs::read_to_string(here.join(file)).unwrap();
    let this = read("scenarios.rs");
    let mut numbers = Vec::new();
    for line in this.lines().filter_map(|line| line.strip_prefix("//! - ")) {
        let (number, test) = line.split_once(' ').unwrap();
        let (module, name) = test.trim_matches('`').rsplit_once("::").unwrap();
        let source = read(&format!("{}.rs", module.replace("::", "/")));
        let whole = format!("fn {name}()");
        // The crash matrix makes its tests of their points.
        let point = format!("\n    {name}: ");
        assert!(
            source.contains(&whole) || module == "crash" && source.contains(&point),
            "{number}: no test {test}"
        );
        numbers.push(number.parse::<u32>().unwrap());
    }
    assert_eq!(numbers, (1..=77).collect::<Vec<_>>());
}
