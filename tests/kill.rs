//! What was acknowledged survives: rounds of `kill -9` under load with the oracle's own clients, and the proof that the oracle notices.
//!
//! `KILL_ROUNDS` (default 10), `KILL_SEED` (default: the clock's; printed). `BUTLER_PROGRAM` names another program to start, with its
//! arguments, e.g. the Windows program under Wine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;
#[path = "support/oracle/mod.rs"]
mod oracle;

use std::time::Duration;

use oracle::{
    liar::Lie,
    rounds::{Ending, Outcome, Plan, play},
    site::{Butler, Mosquitto},
};

fn seed() -> u64 {
    app::seed("KILL_SEED")
}

/// Every promise kept; otherwise the report, and the data directory stays for whoever looks into it.
fn judge(outcome: &Outcome, plan: Plan, site: Butler) {
    println!("{}", outcome.text());
    if !outcome.violations.is_empty() {
        panic!("seed {}, data in {}: {}", plan.seed, site.keep().display(), outcome.text());
    }
}

/// The promise itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    kill_rounds(false).await;
}

/// A shared group with members that keep their sessions has a queue that outlives the program, also for what was on its way to a member
/// that keeps none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_passing_members_a_group_with_kept_ones_loses_nothing() {
    kill_rounds(true).await;
}

async fn kill_rounds(churn: bool) {
    let rounds = app::variable("KILL_ROUNDS").unwrap_or(10) as u32;
    let (plan, mut site) = (Plan { churn, ..Plan::new(seed(), rounds, Ending::Kill) }, Butler::new());
    let outcome = play(plan, &mut site).await;
    judge(&outcome, plan, site);
    assert_eq!(outcome.rounds, rounds);
    outcome.assert_it_was_a_trial(rounds);
}

/// Stopped in order and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_order_nothing_acknowledged_is_lost() {
    let (plan, mut site) = (Plan { churn: false, ..Plan::new(seed(), 3, Ending::Stop) }, Butler::new());
    let outcome = play(plan, &mut site).await;
    judge(&outcome, plan, site);
    outcome.assert_it_was_a_trial(4);
}

/// The program lives; its clients cut, leave and take over their connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_connections_cut_nothing_acknowledged_is_lost() {
    let (plan, mut site) = (Plan { churn: false, ..Plan::new(seed(), 5, Ending::None) }, Butler::new());
    let outcome = play(plan, &mut site).await;
    judge(&outcome, plan, site);
    outcome.assert_it_was_a_trial(1);
}

/// The same with members of a shared group that end their sessions: what they had not acknowledged goes to those who stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_leave_for_good_take_nothing_with_them() {
    let (plan, mut site) = (Plan::new(seed(), 3, Ending::None), Butler::new());
    let outcome = play(plan, &mut site).await;
    judge(&outcome, plan, site);
    outcome.assert_it_was_a_trial(1);
}

fn of_mosquitto(ending: Ending) -> Plan {
    let tolerated = &["out of order", "message delivered too often"];
    let plan = Plan::new(seed(), 3, ending);
    Plan { wills_outlive: false, groups: false, received_is_promised: false, tolerated, ..plan }
}

/// The oracle is no stricter than the world: a mosquitto that is stopped in order keeps its word. (Its shared groups drop what waits for
/// members that are away, QoS 2 comes in the order of PUBREL and, after a restart, more than once; none of this is judged here.)
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mosquitto_stopped_in_order_is_believed() {
    let Some(mut site) = Mosquitto::new("a_mosquitto_stopped_in_order_is_believed") else { return };
    let plan = of_mosquitto(Ending::Stop);
    let outcome = play(plan, &mut site).await;
    assert!(outcome.violations.is_empty(), "seed {}: {}", plan.seed, outcome.text());
    outcome.assert_it_was_a_trial(4);
}

/// And it is no more lenient: one that is killed loses what it acknowledged.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mosquitto_that_is_killed_is_found_out() {
    let Some(mut site) = Mosquitto::new("a_mosquitto_that_is_killed_is_found_out") else { return };
    let plan = Plan { patience: Duration::from_secs(3), ..of_mosquitto(Ending::Kill) };
    let outcome = play(plan, &mut site).await;
    println!("{}", outcome.text());
    assert_eq!(outcome.rounds, 1, "the first round tells");
    assert!(outcome.kinds().contains(&"session lost"), "{}", outcome.text());
}

/// Each kind of broken promise, told by somebody between the clients and a broker that keeps its word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_found_out() {
    let lies = [
        (Lie::SwallowPublish, "acknowledged message lost"),
        (Lie::SwallowRetained, "retained value wrong"),
        (Lie::SwallowDelivery, "acknowledged message lost"),
        (Lie::SwallowShared, "acknowledged message lost"),
        (Lie::TwiceQos1, "message delivered too often"),
        (Lie::TwiceQos2, "message delivered too often"),
        (Lie::Swap, "out of order"),
        (Lie::LowerQos, "wrong quality of service"),
        (Lie::Invent, "message nobody sent"),
        (Lie::DenySession, "session lost"),
        (Lie::ClaimSession, "session that cannot be"),
        (Lie::ForgetSubscription, "acknowledged message lost"),
        (Lie::KeepSubscription, "message nobody subscribed to"),
        (Lie::PublishWill, "will of who said goodbye"),
        (Lie::NoAnswer, "no answer"),
        (Lie::Refuse, "refused"),
    ];
    let mut found = 0;
    for (lie, kind) in lies {
        let patience = Duration::from_secs(2);
        let plan = Plan { patience, churn: false, ..Plan::new(seed(), 8, Ending::None) };
        let outcome = play(plan, &mut Butler::lying(lie)).await;
        println!("{lie:?}: {}", outcome.text());
        assert!(outcome.kinds().contains(&kind), "{lie:?} (seed {}) is not found out: {}", plan.seed, outcome.text());
        found += 1;
    }
    assert_eq!(found, 16);
}
