//! The store against a model of it, with restarts; and against power cuts: what was promised is there.

use std::collections::BTreeMap;

use super::{
    disks::{Disk, Random, Syncs},
    *,
};
use crate::{
    broker::session::{Marks, Session},
    names::TopicFilter,
};

/// What one session should have.
#[derive(Debug, Default, Clone)]
struct Kept {
    rows: BTreeMap<u64, u64>,
    filters: BTreeMap<String, Asked>,
    incoming: Vec<u16>,
    floor: u64,
    next: u64,
}

/// What the store should hold.
#[derive(Debug, Default, Clone)]
struct Model {
    sessions: BTreeMap<Sid, Kept>,
    retained: BTreeMap<String, u64>,
    next_sid: u64,
    next_batch: u64,
    next_number: u64,
}

/// One step: a group, or a session's progress.
enum Step {
    Group(Group),
    Progress(Arc<Session>),
}

impl Model {
    fn some_sid(&self, random: &mut Random) -> Option<Sid> {
        let count = self.sessions.len() as u64;
        (count > 0).then(|| *self.sessions.keys().nth(usize::try_from(random.below(count)).unwrap()).unwrap())
    }

    /// The oldest session stays, gets little and acknowledges seldom: what was committed with its messages goes long before them.
    fn is_away(&self, sid: Sid) -> bool {
        self.sessions.keys().next() == Some(&sid)
    }

    /// A step, applied to the model.
    fn step(&mut self, random: &mut Random) -> Step {
        if random.one_in(5)
            && let Some(sid) = self.some_sid(random)
        {
            return Step::Progress(self.progress(sid, random));
        }
        self.next_batch += 1;
        let mut group = Group::new(self.next_batch);
        for _ in 0..=random.below(3) {
            self.change(&mut group, random);
        }
        for _ in 0..random.below(6) {
            self.next_number += 1;
            let shared = message("some/topic", self.next_number, usize::try_from(random.below(3_000)).unwrap());
            for _ in 0..=random.below(2) {
                let Some(sid) = self.some_sid(random) else { break };
                if self.is_away(sid) && !random.one_in(8) {
                    continue;
                }
                let kept = self.sessions.get_mut(&sid).unwrap();
                kept.next += 1 + random.below(2);
                kept.rows.insert(kept.next, self.next_number);
                queue(&mut group, sid, kept.next, &shared);
            }
        }
        Step::Group(group)
    }

    fn change(&mut self, group: &mut Group, random: &mut Random) {
        let sid = self.some_sid(random);
        match (random.below(8), sid) {
            (0, _) | (_, None) if self.sessions.len() < 5 => {
                let sid = Sid(self.next_sid + 1);
                self.next_sid += 1;
                self.sessions.insert(sid, Kept { floor: 1, ..Kept::default() });
                group.changes.push(Change::Session(sid, record(&format!("c{}", sid.0), 600, None)));
            }
            (1, Some(sid)) if self.sessions.len() > 2 && !self.is_away(sid) && random.one_in(3) => {
                self.sessions.remove(&sid);
                group.queues.retain(|(owner, _)| *owner != sid);
                group.changes.push(Change::End(sid, ClientId::new(format!("c{}", sid.0)).unwrap()));
            }
            (2 | 3, Some(sid)) => {
                let filter = format!("f/{}", random.below(5));
                let kept = self.sessions.get_mut(&sid).unwrap();
                let name = TopicFilter::new(&filter).unwrap();
                if random.one_in(3) {
                    kept.filters.remove(&filter);
                    group.changes.push(Change::Unsubscribe(sid, name));
                } else {
                    kept.filters.insert(filter, asked(QoS::AtLeastOnce));
                    group.changes.push(Change::Subscribe(sid, name, asked(QoS::AtLeastOnce)));
                }
            }
            (4, Some(sid)) => {
                let kept = self.sessions.get_mut(&sid).unwrap();
                let id = u16::try_from(1 + random.below(60_000)).unwrap();
                if !kept.incoming.contains(&id) {
                    kept.incoming.push(id);
                    group.changes.push(Change::Received(sid, id));
                }
            }
            _ => {
                let topic = format!("r/{}", random.below(4));
                if random.one_in(4) {
                    self.retained.remove(&topic);
                    group.changes.push(Change::Retain(plain(&topic, b"")));
                } else {
                    self.next_number += 1;
                    group.changes.push(Change::Retain(message(&topic, self.next_number, 20)));
                    self.retained.insert(topic, self.next_number);
                }
            }
        }
    }

    fn progress(&mut self, sid: Sid, random: &mut Random) -> Arc<Session> {
        let stays = self.is_away(sid) && !random.one_in(8);
        let kept = self.sessions.get_mut(&sid).unwrap();
        let ahead = kept.next + 1 - kept.floor.min(kept.next + 1);
        kept.floor += match random.below(2) {
            _ if stays => 0,
            0 => ahead,
            _ => random.below(ahead + 1),
        };
        let floor = kept.floor;
        kept.rows.retain(|position, _| *position >= floor);
        let progress = Progress { floor, sent: kept.next, ..Progress::default() };
        let kept = RecoveredSession {
            sid,
            record: *record("any", 60, None),
            filters: Vec::new(),
            progress,
            incoming: kept.incoming.clone(),
            next_qseq: 1,
        };
        Arc::new(Session::recovered(&kept, Marks::of(1 << 20, 1_000)))
    }

    /// Compares everything.
    fn check(&self, store: &Store, recovered: &Recovered) {
        let sids: Vec<_> = recovered.sessions.iter().map(|session| session.sid).collect();
        assert_eq!(sids, self.sessions.keys().copied().collect::<Vec<_>>());
        for session in &recovered.sessions {
            let kept = &self.sessions[&session.sid];
            let filters: BTreeMap<_, _> =
                session.filters.iter().map(|(filter, asked)| (filter.as_str().to_owned(), *asked)).collect();
            assert_eq!(filters, kept.filters);
            let mut incoming = kept.incoming.clone();
            incoming.sort_unstable();
            assert_eq!(session.incoming, incoming);
            assert!(session.next_qseq > kept.rows.keys().copied().max().unwrap_or(0));
        }
        let retained: BTreeMap<_, _> =
            recovered.retained.iter().map(|kept| (kept.topic_str().to_owned(), number(kept))).collect();
        assert_eq!(retained, self.retained);
        assert!(recovered.next_sid > self.next_sid);
        for (sid, kept) in &self.sessions {
            let floor = kept.floor;
            let found: BTreeMap<_, _> =
                read_back(store, *sid).into_iter().filter(|(position, _)| *position >= floor).collect();
            assert_eq!(found, kept.rows, "{sid:?}");
        }
    }
}

#[test]
fn the_store_agrees_with_its_model_across_restarts() {
    let seed = std::env::var("BUTLER_STORE_SEED").map_or(11, |seed| seed.parse().unwrap());
    let rounds = std::env::var("BUTLER_STORE_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    println!("seed {seed}, {rounds} rounds");
    let (mut random, mut model) = (Random(seed), Model::default());
    let place = disk::place(None);
    let mut registry = Registry::default();
    let (mut store, _) = Store::open_at(place.clone(), &Storage::default(), &mut registry).unwrap();
    let mut compacted = 0;
    for _ in 0..rounds {
        let mut under_way = Vec::new();
        for _ in 0..60 {
            match model.step(&mut random) {
                Step::Group(group) => under_way.push(submit(&store, group)),
                Step::Progress(session) => store.touch(&session),
            }
        }
        assert!(under_way.into_iter().all(|word| matches!(word.blocking_recv(), Ok(Ok(_)))));
        store.stop();
        drop(store);
        compacted += counter(&registry, "store_compacted_batches");
        registry = Registry::default();
        let (reopened, recovered) = Store::open_at(place.clone(), &Storage::default(), &mut registry).unwrap();
        model.check(&reopened, &recovered);
        store = reopened;
    }
    println!("{compacted} batches compacted");
    assert!(compacted * 4 >= rounds, "only {compacted} batches were compacted");
}

/// Whose word is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liar {
    Nobody,
    Disk(Syncs),
    /// The store: what it was handed counts as promised before it is committed.
    Store,
}

/// Runs until the power goes. Returns the model as it was promised, and as it would be with what was not decided any more; `None` if the
/// power went while the database was made, which happens under another name.
fn until_the_cut(disk: &Disk, random: &mut Random, liar: Liar) -> Option<(Model, Model)> {
    let mut promised = Model::default();
    let mut asked_for = Model::default();
    let Ok((store, _)) = Store::open_at(disk.place(), &Storage::default(), &mut Registry::default()) else {
        assert!(disk.is_off());
        return None;
    };
    if let Liar::Disk(syncs) = liar {
        disk.syncs(syncs);
    }
    while !disk.is_off() {
        match asked_for.step(random) {
            Step::Progress(session) => store.touch(&session),
            Step::Group(group) => {
                let committed = commit(&store, group);
                if committed || liar == Liar::Store {
                    promised = asked_for.clone();
                }
                if !committed {
                    break;
                }
            }
        }
    }
    Some((promised, asked_for))
}

/// What is found after the power is back, beside what was promised: how many messages were looked for.
///
/// # Errors
/// What is not there.
fn judge(found: &Disk, promised: &Model, asked_for: &Model) -> Result<u64, String> {
    let opened = Store::open_at(found.place(), &Storage::default(), &mut Registry::default());
    let (store, recovered) = opened.map_err(|error| format!("it does not open: {error}"))?;
    if store.health() != StoreHealth::Ok {
        return Err(format!("its health is {:?}", store.health()));
    }
    let mut looked_for = 0;
    for (sid, kept) in &promised.sessions {
        // What was asked for after the last promise may have happened: the session may have ended, or acknowledged more.
        let Some(later) = asked_for.sessions.get(sid) else { continue };
        let session = recovered.sessions.iter().find(|session| session.sid == *sid);
        let session = session.ok_or_else(|| format!("{sid:?} is gone"))?;
        looked_for += judge_queue(&store, *sid, kept, later)?;
        if let Some(id) = kept.incoming.iter().find(|id| !session.incoming.contains(id)) {
            return Err(format!("{sid:?} has forgotten the open id {id}"));
        }
        for filter in kept.filters.keys().filter(|filter| later.filters.contains_key(*filter)) {
            if !session.filters.iter().any(|(found, _)| found.as_str() == filter) {
                return Err(format!("{sid:?} has lost its subscription to {filter}"));
            }
        }
    }
    for (topic, number_promised) in &promised.retained {
        let found = recovered.retained.iter().find(|kept| kept.topic_str() == topic).map(|kept| number(kept));
        let later = asked_for.retained.get(topic).copied();
        if found != Some(*number_promised) && found != later {
            return Err(format!("the retained message of {topic} is {found:?}"));
        }
    }
    Ok(looked_for)
}

/// The same of one queue.
fn judge_queue(store: &Store, sid: Sid, kept: &Kept, later: &Kept) -> Result<u64, String> {
    let (mut rows, mut from) = (BTreeMap::new(), 0);
    while from < u64::MAX {
        let page = store.page(sid, Wanted { from, to: u64::MAX - 1, turn: 0 });
        let page = page.map_err(|fault| format!("{sid:?} cannot be read: {fault}"))?;
        rows.extend(page.rows.iter().map(|(row, message)| (row.qseq, number(message))));
        from = page.next;
    }
    let promised = kept.rows.range(later.floor.max(kept.floor)..);
    for (position, number) in promised.clone() {
        if rows.get(position) != Some(number) {
            return Err(format!("{sid:?} has {:?} at {position}, not {number}", rows.get(position)));
        }
    }
    Ok(promised.count() as u64)
}

/// One power cut: `None` if it came while the database was made. `cut` is also the seed's.
fn power_cut(cut: u64, seed: u64, liar: Liar) -> Option<Result<u64, String>> {
    let mut random = Random(seed + cut);
    let disk = Disk::default();
    // Often soon after the database was made, and then anywhere.
    disk.cut_after(random.below(if cut.is_multiple_of(4) { 40 } else { 1_500 }));
    let (promised, asked_for) = until_the_cut(&disk, &mut random, liar)?;
    let found = Disk::of(disk.after_the_cut(&mut random));
    Some(judge(&found, &promised, &asked_for))
}

#[test]
fn a_power_cut_takes_nothing_that_was_promised() {
    let cuts = std::env::var("BUTLER_STORE_CUTS").map_or(60, |cuts| cuts.parse().unwrap());
    let seed = std::env::var("BUTLER_STORE_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("seed {seed}, {cuts} cuts");
    let found = (0..cuts).filter_map(|cut| Some((cut, power_cut(cut, seed, Liar::Nobody)?)));
    let promises: u64 = found.map(|(cut, found)| found.unwrap_or_else(|loss| panic!("cut {cut}: {loss}"))).sum();
    assert!(promises > cuts * 5, "only {promises} messages were looked for");
}

/// The same check notices when somebody's word is not kept: it is not blind.
#[test]
fn a_power_cut_finds_out_who_lies_about_syncs() {
    let liars = [Liar::Disk(Syncs::Never), Liar::Disk(Syncs::Late), Liar::Store];
    for liar in liars {
        // Each cut finds a liar more often than not; that so many do not is impossible, whatever the threads do.
        let mut cuts = (0..100).filter_map(|cut| Some((cut, power_cut(cut, 5, liar)?.err()?)));
        let (cut, loss) = cuts.next().unwrap_or_else(|| panic!("100 power cuts do not show that {liar:?} lies"));
        println!("{liar:?}: cut {cut}: {loss}");
    }
}
