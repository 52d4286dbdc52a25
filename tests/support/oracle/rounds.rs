//! Rounds: load, an end of the program at a moment nobody chose, its return on the same data, everything brought to its end, judgement.

use std::time::Duration;

use tokio::{sync::watch, task::JoinSet};

use super::{
    chance::Chance,
    fresh,
    ledger::{Ledger, Totals},
    link::{Phase, World},
    mortal::Mortals,
    publisher::Publisher,
    rest::RestPublisher,
    site::Site,
    subscriber::Subscriber,
    violation::{Violation, report},
    wire::{V3, V5},
};

/// How the program ends in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `kill -9`, up to three times in a round, sometimes while it is starting.
    Kill,
    /// Stopped in order.
    Stop,
    /// It goes on; only connections end.
    None,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub rounds: u32,
    pub ending: Ending,
    /// Wills of kept sessions are promised across the program's end.
    pub wills_outlive: bool,
    /// Shared groups.
    pub groups: bool,
    /// One of them has members that end their sessions.
    pub churn: bool,
    /// Whether PUBREC promises a QoS 2 message, as with our broker; with others PUBCOMP does.
    pub received_is_promised: bool,
    /// Kinds of violations that are not counted.
    pub tolerated: &'static [&'static str],
    /// How long nothing may move before what is open counts as lost.
    pub patience: Duration,
}

impl Plan {
    pub fn new(seed: u64, rounds: u32, ending: Ending) -> Self {
        let patience = Duration::from_secs(20);
        Self {
            seed,
            rounds,
            ending,
            wills_outlive: true,
            groups: true,
            churn: true,
            received_is_promised: true,
            tolerated: &[],
            patience,
        }
    }
}

impl Plan {
    fn counted(&self, ledger: &Ledger) -> Vec<Violation> {
        let counts = |violation: &Violation| !self.tolerated.contains(&violation.kind());
        ledger.violations().into_iter().filter(counts).collect()
    }
}

/// What came of it.
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub totals: Totals,
    pub rounds: u32,
}

impl Outcome {
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.violations.iter().map(Violation::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    pub fn text(&self) -> String {
        let Totals { sent, acknowledged, arrivals, promises, connections, lives } = self.totals;
        let done = format!(
            "{} rounds, {lives} lives, {connections} connections, {sent} messages sent, {acknowledged} acknowledged, {promises} \
             promises to receivers, {arrivals} arrivals",
            self.rounds
        );
        if self.violations.is_empty() {
            return format!("{done}: every promise kept");
        }
        format!("{done}: {}", report(&self.violations))
    }

    /// At least so much happened that silence means something.
    pub fn assert_it_was_a_trial(&self, lives: u32) {
        let totals = self.totals;
        assert!(totals.lives >= lives, "{totals:?}");
        assert!(totals.acknowledged > 200 && totals.promises > 500 && totals.arrivals > 500, "{totals:?}");
        assert!(totals.connections > 30, "{totals:?}");
    }
}

const PUBLISHERS: usize = 4;

/// The cast: kept sessions of several tastes, two shared groups, live ones, wills and publishers, in both versions.
fn spawn_clients(plan: &Plan, chance: &mut Chance, world: &World) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for version in [V3, V5] {
        for subscriber in subscribers(plan, version, chance, world) {
            clients.spawn(subscriber.run());
        }
        let name = format!("mortal-{version}");
        clients.spawn(Mortals::new(&name, chance.branch(), world.clone(), plan.wills_outlive).run());
    }
    for number in 0..PUBLISHERS {
        let mut topics: Vec<_> = (0..3).map(|topic| format!("load/{number}/{topic}")).collect();
        topics.push(format!("shared/{number}"));
        let retained = (0..6).map(|topic| format!("kept/{number}/{topic}")).collect();
        let (name, version) = (format!("publisher-{number}"), [V3, V5][number % 2]);
        let mut publisher = Publisher::new(&name, version, topics, retained, chance.branch(), world.clone());
        publisher.received_is_promised = plan.received_is_promised;
        clients.spawn(publisher.run());
    }
    let (name, topics) = ("rest".to_owned(), (0..3).map(|topic| format!("load/rest/{topic}")).collect());
    clients.spawn(RestPublisher { name, topics, chance: chance.branch(), world: world.clone() }.run());
    clients
}

fn subscribers(plan: &Plan, version: u8, chance: &mut Chance, world: &World) -> Vec<Subscriber> {
    let name = |what: &str| format!("{what}-{version}");
    let mut kept = |what: &str| Subscriber::kept(&name(what), version, chance.branch(), world.clone());
    let mut all = vec![
        kept("all").filter("load/#", 2).filter("kept/+/+", 2).filter("wills/+", 2),
        kept("one").filter("load/+/0", 1).filter("shared/0", 0).filter("wills/#", 1),
        kept("changing").filter("load/0/1", 2).changing("load/1/0", 2).changing("load/+/2", 1).changing("load/2/1", 2),
    ];
    if plan.groups {
        all.push(kept("member").filter("$share/both/shared/#", 2));
        all.push(kept("member-too").filter("$share/both/shared/#", 2));
        all.push(kept("stays").filter("$share/loose/shared/#", 2));
    }
    if plan.groups && plan.churn {
        let goes = Subscriber::fresh(&name("goes"), version, chance.branch(), world.clone());
        all.push(goes.filter("$share/loose/shared/#", 2));
    }
    let live = Subscriber::fresh(&name("live"), version, chance.branch(), world.clone());
    all.push(live.filter("load/+/1", version - 3));
    all
}

/// Plays the plan; ends after the first round in which something was broken.
pub async fn play(plan: Plan, site: &mut impl Site) -> Outcome {
    println!("seed {} ({plan:?})", plan.seed);
    let (mut chance, ledger) = (Chance::new(plan.seed), Ledger::default());
    ledger.churns("group loose");
    ledger.new_life();
    let address = Some(site.start().await);
    let phase = watch::Sender::new(Phase { address, rest: site.rest(), load: true, restless: true, end: false });
    let world = World { phase: phase.subscribe(), ledger: ledger.clone() };
    let mut clients = spawn_clients(&plan, &mut chance, &world);
    let mut rounds = 0;
    while rounds < plan.rounds && plan.counted(&ledger).is_empty() {
        rounds += 1;
        phase.send_modify(|phase| phase.load = true);
        under_load(&plan, &mut chance, &phase, &ledger, site).await;
        phase.send_modify(|phase| phase.load = false);
        ledger.settle(false, plan.patience).await;
        look_around(&plan, &phase, &ledger, site).await;
        println!("round {rounds}: {:?}", ledger.totals());
        while let Some(ended) = clients.try_join_next() {
            ended.expect("a client of the oracle does not end before the end");
        }
    }
    if plan.wills_outlive {
        ledger.settle(true, plan.patience).await;
    }
    phase.send_modify(|phase| phase.end = true);
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client of the oracle ends in order");
    }
    // How it stops in order is shown by `Ending::Stop`, and not every program that is tried knows the signal.
    if plan.ending == Ending::Kill {
        site.kill().await
    } else {
        site.stop().await
    }
    Outcome { violations: plan.counted(&ledger), totals: ledger.totals(), rounds }
}

/// The moments are the seed's; nothing waits for a certain one.
async fn under_load(
    plan: &Plan,
    chance: &mut Chance,
    phase: &watch::Sender<Phase>,
    ledger: &Ledger,
    site: &mut impl Site,
) {
    tokio::time::sleep(Duration::from_millis(100) + chance.millis(700)).await;
    let ends = if plan.ending == Ending::Kill { 1 + chance.below(3) } else { 1 };
    for end in 0..ends {
        if end > 0 {
            tokio::time::sleep(chance.millis(300)).await;
        }
        match plan.ending {
            Ending::None => continue,
            Ending::Kill => site.kill().await,
            Ending::Stop => site.stop().await,
        }
        phase.send_modify(|phase| (phase.address, phase.rest) = (None, None));
        if plan.ending == Ending::Kill && chance.once_in(4) {
            site.start_and_kill(chance.millis(150)).await;
        }
        ledger.new_life();
        let address = site.start().await;
        phase.send_modify(|phase| (phase.address, phase.rest) = (Some(address), site.rest()));
    }
    // What came back works under load, too.
    tokio::time::sleep(chance.millis(300)).await;
}

async fn look_around(plan: &Plan, phase: &watch::Sender<Phase>, ledger: &Ledger, site: &mut impl Site) {
    let address = phase.borrow().address;
    if let Some(address) = address {
        fresh::look(address, ledger, "kept/#", plan.patience).await;
    }
    site.wrong_on_disk().into_iter().for_each(|violation| ledger.violation(violation));
}
