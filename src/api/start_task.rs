//! `PUT` or `POST /v4/reloadtask/{id}/start`: starts the task of the path (`-`: none) and those the body names.
//!
//! Body: an array of `{"type","payload"}` with `starttaskid`, `starttasktag`, `starttaskcustomproperty`, `keyvaluestore`; absent, empty or `{}` is
//! `[]`. Key-value pairs are stored, all of them, before anything is started: whoever is started finds them.
//! Answer of generation head: 200 with Butler's lists, two blanks of indentation, and, where QRS did not do what was asked, a last field
//! `errors`; of generation 5.4: 201 `{"taskId"}`, with the same `errors`. Invariants: an item that cannot be read, or asks for what is not
//! offered, refuses the whole request before anything is started; 503 says that nothing was started and QRS could not be asked.

mod body;
mod lists;

use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use self::{body::Item, lists::Told};
use super::{
    answer::{Answer, Request},
    fault::{Fault, Kind, Space},
    key_values,
};
use crate::{
    config::settings::Generation,
    keep::values::{self, Values},
    names::TaskId,
    sense::tasks::{
        Starter,
        request::{IdRule, StartOutcome, StartRequest, StartStatus, StartTarget},
    },
};

/// What the route needs.
#[derive(Clone)]
pub struct StartTaskState {
    /// Whose answers are spoken.
    pub generation: Generation,
    /// Who starts.
    pub starter: Starter,
    /// Where key-value pairs of the body go.
    pub values: Values,
}

/// An id as it was asked for: one a task can have, or the text that is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum AskedId {
    Good(TaskId),
    Bad(String),
}

impl AskedId {
    fn read(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Bad(text.to_owned()), Self::Good)
    }
}

/// Everything a request asks for; nothing stands in it twice.
#[derive(Debug, Default)]
struct Asked {
    ids: Vec<AskedId>,
    /// Tags and custom properties.
    groups: Vec<StartTarget>,
    /// Key-value pairs to be stored first.
    pairs: Vec<values::Item>,
}

/// Answers one request.
pub async fn handle(state: &StartTaskState, request: &Request) -> Answer {
    match carry_out(state, request).await {
        Ok(answer) => answer,
        Err(fault) => fault.answer(Space::V4(state.generation)),
    }
}

async fn carry_out(state: &StartTaskState, request: &Request) -> Result<Answer, Fault> {
    let path_id = path_id(&request.path)?;
    let all_must_exist = all_must_exist(&request.query)?;
    let mut asked = Asked::gather(&path_id, body::read(&request.body, state.generation)?);
    let pairs = std::mem::take(&mut asked.pairs);
    if !pairs.is_empty() {
        state.values.put(pairs).await.map_err(|error| key_values::fault(&error))?;
    }
    let outcomes = start(state, request, &asked, all_must_exist).await;
    if let Some(why) = nobody_asked(&outcomes) {
        return Err(Fault::new(Kind::SenseUnavailable, why));
    }
    let told = Told::new(&asked, &outcomes);
    Ok(match state.generation {
        Generation::Head => Answer::json(200, told.lists()),
        Generation::V5_4 => Answer::json(201, told.short(&path_id)),
    })
}

/// The id in the path, decoded.
fn path_id(path: &str) -> Result<String, Fault> {
    let id = path.strip_prefix("/v4/reloadtask/").and_then(|rest| rest.strip_suffix("/start"));
    let decoded = id.filter(|id| !id.is_empty()).and_then(|id| percent_decode_str(id).decode_utf8().ok());
    decoded
        .map(|id| id.into_owned())
        .ok_or_else(|| Fault::new(Kind::NotFound, "the path must be /v4/reloadtask/{task id, or -}/start"))
}

/// `allTaskIdsMustExist`: `true` or `false`, in lower case, once.
fn all_must_exist(query: &str) -> Result<bool, Fault> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(key).decode_utf8().is_ok_and(|key| key == "allTaskIdsMustExist") {
            let value = match &*percent_decode_str(value).decode_utf8_lossy() {
                "true" => true,
                "false" => false,
                _ => return Err(Fault::new(Kind::Value, "allTaskIdsMustExist may be true or false, in lower case")),
            };
            if found.replace(value).is_some() {
                return Err(Fault::new(Kind::Value, "allTaskIdsMustExist stands twice in the address"));
            }
        }
    }
    Ok(found.unwrap_or(false))
}

impl Asked {
    fn gather(path_id: &str, items: Vec<Item>) -> Self {
        let (mut asked, mut seen) = (Self::default(), HashSet::new());
        let path = (path_id != "-").then(|| Item::Id(path_id.to_owned()));
        for item in path.into_iter().chain(items) {
            match item {
                Item::Id(text) => {
                    let id = AskedId::read(&text);
                    if seen.insert(id.clone()) {
                        asked.ids.push(id);
                    }
                }
                Item::Group(group) if !asked.groups.contains(&group) => asked.groups.push(group),
                Item::Group(_) => {}
                // The last of two with the same key holds.
                Item::Store(pair) => asked.pairs.push(pair),
            }
        }
        asked
    }

    fn targets(&self) -> Vec<StartTarget> {
        let good = self.ids.iter().filter_map(|id| match id {
            AskedId::Good(id) => Some(StartTarget::Id(*id)),
            AskedId::Bad(_) => None,
        });
        good.chain(self.groups.iter().cloned()).collect()
    }
}

async fn start(state: &StartTaskState, request: &Request, asked: &Asked, all_must_exist: bool) -> Vec<StartOutcome> {
    let bad = asked.ids.iter().any(|id| matches!(id, AskedId::Bad(_)));
    let id_rule = match (all_must_exist, bad) {
        (false, _) => IdRule::EachOnItsOwn,
        (true, false) => IdRule::AllMustExist,
        (true, true) => IdRule::NoneStarts,
    };
    let peer = request.peer.ip().to_canonical().to_string();
    let request = StartRequest { id_rule, ..StartRequest::new(asked.targets(), "rest", peer) };
    state.starter.start(request).await.outcomes
}

/// Why nobody could be asked, if nothing was started, nothing may have been started, and QRS (or this program) was not there.
fn nobody_asked(outcomes: &[StartOutcome]) -> Option<String> {
    let may_run = |outcome: &StartOutcome| matches!(outcome.status, StartStatus::Started | StartStatus::Unknown);
    if outcomes.iter().any(may_run) {
        return None;
    }
    let errors = outcomes.iter().filter_map(|outcome| outcome.error.as_ref());
    errors
        .filter(|error| matches!(&*error.code, "qrs_unreachable" | "stopping"))
        .map(|error| error.message.clone())
        .next()
}
