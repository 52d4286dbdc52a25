//! `POST /api/v1/tasks/start?timeout=`: the start request of MQTT as a body, its answers as `{"results":[...]}`.
//!
//! `Idempotency-Key` is a transaction of the caller. 200: every task has its last word; 202: not all have, these are the words so far; 503: nobody
//! could be asked, and nothing was started; 429: its sender asks for too much, and nothing was started; 400: the request cannot be read. What became of a task is told by its `status` alone.
//! With `soft=1` all of this is 200 and flat.

use serde_json::{Value, json};

use super::{DOOR, answer, asker, error, patience, soft, wait_for};
use crate::{
    api::{
        answer::{Answer, Request},
        broker_desk::Query,
        fault::Fault,
        state::State,
    },
    sense::tasks::{
        answer::Asked,
        request::{StartError, StartOutcome, StartRequest, StartStatus},
        wish::{self, Problem, Wish},
    },
};

/// Most characters of an `Idempotency-Key`.
const LONGEST_KEY: usize = 255;

/// # Errors
/// 400 for a wrong query.
pub(in crate::api) async fn start(state: &State, request: &Request) -> Result<Answer, Fault> {
    let patience = patience(&Query::read(request, &["timeout", "soft"])?)?;
    let is_soft = soft::is_soft(&request.path, &request.query);
    let refused = |status, code: &str, message: &str| {
        if is_soft { soft::refused(status, message) } else { error(status, code, message) }
    };
    let tasks = &state.setup.tasks;
    let (requested_by, asker) = asker(request);
    let wish = match read(request) {
        Ok(wish) => wish,
        Err(Problem { code, message, transaction }) => {
            tracing::info!(door = DOOR, requested_by, why = message, "start request refused");
            let outcome = StartOutcome::failed(StartStatus::Invalid, code, message.as_str());
            tasks.starter.audit().refused((DOOR, &requested_by, &asker), transaction.as_ref(), &outcome);
            return Ok(refused(if code == "too_large" { 413 } else { 400 }, code, &message));
        }
    };
    let request = StartRequest { asker, ..wish.into_request(DOOR, requested_by, tasks.starter.deadline()) };
    let asked = Asked::of(&request);
    let mut ticket = tasks.starter.submit(request).await;
    wait_for(state, patience, ticket.all_said()).await;
    let (outcomes, done) = ticket.latest();
    if let Some(why) = nobody_asked(&outcomes).filter(|_| done) {
        return Ok(refused(503, &why.code, &why.message));
    }
    if let Some(why) = too_much(&outcomes) {
        return Ok(refused(429, &why.code, &why.message));
    }
    let status = if done { 200 } else { 202 };
    if is_soft {
        return Ok(soft::told(status, &outcomes));
    }
    let results: Vec<_> = outcomes.iter().map(|outcome| asked.answer(outcome, ticket.duplicate)).collect();
    Ok(answer(status, &json!({"results": results})))
}

fn read(request: &Request) -> Result<Wish, Problem> {
    let mut wish = wish::parse(&request.body)?;
    let Some(key) = request.header("idempotency-key").map(str::trim) else { return Ok(wish) };
    let problem = |message: &str| Problem {
        code: "bad_idempotency_key",
        message: message.to_owned(),
        transaction: wish.transaction.clone(),
    };
    if key.is_empty() || key.chars().count() > LONGEST_KEY {
        return Err(problem("`Idempotency-Key` must have 1 to 255 characters"));
    }
    let key = Value::from(key);
    if wish.transaction.as_ref().is_some_and(|transaction| *transaction != key) {
        return Err(problem(
            "`Idempotency-Key` and `transaction` are two names for one thing; send one, or both alike",
        ));
    }
    wish.transaction = Some(key);
    Ok(wish)
}

/// Why nobody could be asked, if no task has another word than that.
fn nobody_asked(outcomes: &[StartOutcome]) -> Option<&StartError> {
    let unasked = |outcome: &StartOutcome| {
        let code = outcome.error.as_ref().map(|error| &*error.code);
        outcome.status == StartStatus::Unreachable || matches!(code, Some("busy" | "not_kept"))
    };
    outcomes.iter().all(unasked).then(|| outcomes.first()?.error.as_ref()).flatten()
}

/// Why the request got no place, if it got none: then all its tasks have the same word.
fn too_much(outcomes: &[StartOutcome]) -> Option<&StartError> {
    let error = outcomes.first()?.error.as_ref()?;
    matches!(&*error.code, "rate_limited" | "requester_busy").then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: Option<&str>, body: &'static str) -> Request {
        Request {
            method: "POST".into(),
            path: super::super::START.into(),
            query: String::new(),
            headers: key.map(|key| ("idempotency-key".into(), key.into())).into_iter().collect(),
            body: body.into(),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        }
    }

    #[test]
    fn the_key_is_the_transaction() {
        let transaction = |key, body| read(&request(key, body)).map(|wish| wish.transaction).map_err(|why| why.code);
        assert_eq!(transaction(None, r#"{"tag":"a"}"#), Ok(None));
        assert_eq!(transaction(None, r#"{"tag":"a","transaction":7}"#), Ok(Some(json!(7))));
        assert_eq!(transaction(Some(" k "), r#"{"tag":"a"}"#), Ok(Some(json!("k"))));
        assert_eq!(transaction(Some("k"), r#"{"tag":"a","transaction":"k"}"#), Ok(Some(json!("k"))));
        for (key, body) in [("k", r#"{"tag":"a","transaction":7}"#), ("", r#"{"tag":"a"}"#)] {
            assert_eq!(transaction(Some(key), body), Err("bad_idempotency_key"), "{key:?} {body}");
        }
        let long = "k".repeat(LONGEST_KEY + 1);
        assert_eq!(transaction(Some(&long), r#"{"tag":"a"}"#), Err("bad_idempotency_key"));
    }

    #[test]
    fn only_where_nobody_could_be_asked_it_is_an_error() {
        let outcome = |status, code| StartOutcome::failed(status, code, "m");
        let away = || outcome(StartStatus::Unreachable, "qrs_unreachable");
        let cases = [
            (vec![away(), away()], true),
            (vec![outcome(StartStatus::Denied, "busy")], true),
            (vec![away(), outcome(StartStatus::Denied, "task_filter")], false),
            (vec![outcome(StartStatus::Unknown, "undecided"), away()], false),
            (vec![StartOutcome::of_status(StartStatus::Started), away()], false),
            (vec![], false),
        ];
        let mut ran = 0;
        for (outcomes, expected) in cases {
            assert_eq!(nobody_asked(&outcomes).is_some(), expected, "{outcomes:?}");
            ran += 1;
        }
        assert_eq!(ran, 6);
    }
}
