//! `POST /api/v1/publish` and `/api/v1/publish/bulk`: messages out, in EMQX's shape.
//!
//! `wish` reads what is asked for, `once` sees to idempotency keys, `told` says what became of it. Invariants: nothing is published before
//! the whole request was found good (all messages of a bulk); the answer comes after the broker has taken responsibility as far as
//! `durability` asks for; with `?soft=1` the answer is always 200 with the same four fields, whatever is wrong with the request. The broker
//! hands on the messages of one bulk in their order.

mod key;
mod object;
mod once;
mod properties;
mod told;
mod wish;

#[cfg(test)]
pub(super) use self::wish::MOST;

use self::{
    once::Fate,
    told::{Told, Whole},
    wish::{Durability, Wish},
};
use super::{
    answer::{Answer, Request},
    broker_desk::Query,
    fault::{Fault, Kind, Space},
    form, mqtt_publish,
    state::State,
};
use crate::{
    bus::{Bus, Publication, PublishError, Routed},
    keep::keys::Digest,
};

/// One message.
pub(super) const PATH: &str = "/api/v1/publish";
/// Several.
pub(super) const BULK: &str = "/api/v1/publish/bulk";

/// Whether a request wants the answer for load scripts.
pub(super) fn is_soft(path: &str, query: &str) -> bool {
    matches!(path, PATH | BULK) && wants_soft(query)
}

/// Whether a query says so.
pub(super) fn wants_soft(query: &str) -> bool {
    form::pairs(query).flatten().any(|(name, value)| name == "soft" && matches!(&*value, "1" | "true"))
}

/// What is wrong with a request, for load scripts.
pub(super) fn soft(fault: &Fault) -> Answer {
    told::soft(fault.kind.status(Space::Own), &fault.message, "").with("cache-control", "no-store")
}

/// # Errors
/// 4xx for what cannot be published, 413, 422 and 409 for keys, 429; what the broker says is an answer.
pub(super) async fn one(state: &State, request: &Request) -> Result<Answer, Fault> {
    let mut asked = wish::one(request)?;
    let key = key::read(request, asked.key.take().as_deref())?;
    let wish = asked.wish(Durability::Routed)?;
    let print = key.is_some().then(|| wish.print());
    let Wish { publication, durability } = admitted(state, request, wish)?;
    state.rate.take(request, 1)?;
    let bus = request.bus(state).clone();
    let work = async move { (vec![bus.publish(publication).await], vec![durability]) };
    finish(state, request, key.zip(print), false, work).await
}

/// # Errors
/// As [`one`]; for none and too many 400.
pub(super) async fn bulk(state: &State, request: &Request) -> Result<Answer, Fault> {
    let query = Query::read(request, &["soft", "durability", "key"])?;
    let usual = query.get("durability").map_or(Ok(Durability::Routed), Durability::read)?;
    let key = key::read(request, query.get("key"))?;
    let asked = wish::several(request)?;
    let count = asked.len();
    let mut wishes = Vec::with_capacity(count);
    for (position, asked) in asked.into_iter().enumerate() {
        let wish = asked.wish(usual).and_then(|wish| admitted(state, request, wish));
        wishes.push(wish.map_err(|fault| placed(fault, position, count))?);
    }
    let print = key.is_some().then(|| wishes.iter().map(Wish::print).collect::<Vec<_>>());
    let print = print.map(|prints| Digest::of(prints.iter().map(Digest::bytes)));
    state.rate.take(request, u64::try_from(count).unwrap_or(u64::MAX))?;
    let durabilities: Vec<Durability> = wishes.iter().map(|wish| wish.durability).collect();
    let row = wishes.into_iter().map(|wish| wish.publication).collect();
    let bus = request.bus(state).clone();
    let work = async move { (published(&bus, row).await, durabilities) };
    finish(state, request, key.zip(print), true, work).await
}

/// Which of several messages is meant.
fn placed(fault: Fault, position: usize, count: usize) -> Fault {
    let message = format!("message {} of {count}, and nothing was published: {}", position + 1, fault.message);
    Fault { message, ..fault }
}

/// A message this caller may publish, and the broker would take.
fn admitted(state: &State, request: &Request, wish: Wish) -> Result<Wish, Fault> {
    let publication = mqtt_publish::entitled(state, request, wish.publication)?;
    state.setup.bus.check(&publication).map_err(|error| match error {
        PublishError::Refused(why) => Fault::new(Kind::Value, why),
        error => told::refused(&error),
    })?;
    Ok(Wish { publication, ..wish })
}

/// The broker's word on each message of a row; those behind one that was not taken are not handed over.
async fn published(bus: &Bus, row: Vec<Publication>) -> Vec<Result<Routed, PublishError>> {
    let count = row.len();
    let mut words = bus.publish_row(row).await;
    let behind = || {
        Err(PublishError::Unavailable("a message before this one was not taken, so this was not handed over".into()))
    };
    words.resize_with(count, behind);
    words
}

/// Does the work, under the key if there is one, and says what became of it.
async fn finish(
    state: &State,
    request: &Request,
    key: Option<(String, Digest)>,
    bulk: bool,
    work: impl Future<Output = (Vec<Result<Routed, PublishError>>, Vec<Durability>)> + Send + 'static,
) -> Result<Answer, Fault> {
    let work = async move {
        let (words, durabilities) = work.await;
        let fate = Fate::of(&words);
        let told: Vec<Told> =
            words.into_iter().zip(durabilities).map(|(word, durability)| Told::of(word, durability)).collect();
        (told, fate)
    };
    let soft = is_soft(&request.path, &request.query);
    let (told, replayed) = match key {
        None => (work.await.0, false),
        Some((key, print)) => once::carry_out(state, request, &key, print, work).await?,
    };
    Ok(Whole { told, bulk, soft, replayed }.answer())
}
