//! Starts and stops: of what does not exist always, of what exists only with consent.

use reqwest::Method;
use serde_json::Value;

use super::{Answer, Consent, Masks, Question};
use crate::{
    names::TaskId,
    sense::qrs::{error::QrsError, http::Http, raw::Raw},
};

const NO_TASK: &str = "name a harmless task that may be started and stopped: --task <id>";
const NO_DISABLED: &str = "name a disabled task whose start may be asked for: --disabled-task <id>";

type Answers = Vec<(Question, Answer)>;

async fn start(http: &Http, id: &str, form: &str) -> Result<Raw, QrsError> {
    http.try_out(Method::POST, &format!("task/{id}/{form}"), "{}").await
}

/// Both forms of a start.
async fn both(http: &Http, id: &str, masks: &Masks) -> Vec<String> {
    let mut lines = Vec::new();
    for form in ["start", "start/synchronous"] {
        lines.push(masks.answer(&format!("POST task/{{id}}/{form}"), &start(http, id, form).await));
    }
    lines
}

/// What touches nothing that exists.
pub(super) async fn harmless(http: &Http, masks: &Masks) -> Answers {
    let nobody = uuid::Uuid::new_v4().to_string();
    vec![
        (Question::UnknownStart, Answer::Told(both(http, &nobody, masks).await)),
        (Question::MalformedStart, Answer::Told(both(http, "not-an-id", masks).await)),
    ]
}

/// What starts and stops the named tasks.
pub(super) async fn with_consent(http: &Http, consent: &Consent, masks: &Masks) -> Answers {
    let mut answers = match consent.task {
        Some(task) => of_task(http, task, masks).await,
        None => [Question::IdleStop, Question::SynchronousStart, Question::RunningStart]
            .map(|question| (question, Answer::NotAsked(NO_TASK.to_owned())))
            .to_vec(),
    };
    let disabled = match consent.disabled {
        Some(task) => Answer::Told(both(http, &task.to_string(), masks).await),
        None => Answer::NotAsked(NO_DISABLED.to_owned()),
    };
    answers.push((Question::DisabledStart, disabled));
    answers
}

async fn of_task(http: &Http, task: TaskId, masks: &Masks) -> Answers {
    let id = task.to_string();
    let stop = |what: &'static str| {
        let path = format!("task/{id}/stop");
        async move { masks.answer(what, &http.try_out(Method::POST, &path, "").await) }
    };
    let idle = match runs(http, task).await {
        Some(false) => Answer::Told(vec![stop("POST task/{id}/stop").await]),
        Some(true) => Answer::NotAsked("the named task runs at the moment: name one that does not".to_owned()),
        None => {
            Answer::NotAsked("the named task cannot be read: is the id right, and may this user see it?".to_owned())
        }
    };
    let begun = start(http, &id, "start/synchronous").await;
    let synchronous = Answer::Told(vec![masks.answer("POST task/{id}/start/synchronous", &begun)]);
    let mut running = both(http, &id, masks).await;
    running.push(stop("afterwards POST task/{id}/stop").await);
    vec![
        (Question::IdleStop, idle),
        (Question::SynchronousStart, synchronous),
        (Question::RunningStart, Answer::Told(running)),
    ]
}

/// Whether a task runs; `None`: it cannot be read.
async fn runs(http: &Http, task: TaskId) -> Option<bool> {
    let filter = crate::sense::qrs::filter::Filter::task(task);
    let raw = http.look_at(&format!("task?filter={}", filter.encoded())).await.ok()?;
    let found: Value = serde_json::from_slice(http.sound(&raw).ok()?).ok()?;
    found.as_array()?.first()?;
    let sessions = http.look_at(&format!("executionsession?filter=reloadTask.id%20eq%20{task}")).await.ok()?;
    let sessions: Value = serde_json::from_slice(http.sound(&sessions).ok()?).ok()?;
    Some(!sessions.as_array()?.is_empty())
}
