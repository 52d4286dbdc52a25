//! Change subscriptions: made, ended, and the list of changes for those who rather ask.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{
        filter::{Filter, schema},
        reply::Reply,
        site::{ChangeType, ObjectType, Subscription},
    },
    gate::Rights,
    routes::{Context, not_found},
};

/// `POST notification?name=&changetype=&filter=&propertyName=&id=`; the body is the address as a JSON string.
pub fn subscribe(context: &Context<'_>) -> Reply {
    if context.caller.rights != Rights::All {
        return Reply::text(403, "Forbidden");
    }
    let subscription = match read(context) {
        Ok(subscription) => subscription,
        Err(text) => return Reply::text(400, text),
    };
    match context.shared.with_site(|site| site.subscribe(subscription)) {
        Some(handle) => Reply::json(201, json!({ "value": handle.to_string() }).to_string()),
        None => Reply::text(400, "There are too many subscriptions"),
    }
}

fn read(context: &Context<'_>) -> Result<Subscription, String> {
    let parameter = |name: &str| context.query.get(name);
    let object = parameter("name").ok_or("Missing parameter value(s)")?;
    let object = ObjectType::named(object).ok_or_else(|| format!("The type '{object}' is not known here"))?;
    let change = match parameter("changetype").map(str::to_lowercase).as_deref() {
        Some("1" | "add") => ChangeType::Add,
        Some("2" | "update") => ChangeType::Update,
        Some("3" | "delete") => ChangeType::Delete,
        _ => return Err("Missing parameter value(s)".to_owned()),
    };
    let schema = match object {
        ObjectType::ExecutionResult => schema::RESULT,
        ObjectType::ExecutionSession => schema::SESSION,
        ObjectType::ReloadTask => schema::TASK,
    };
    let filter = parameter("filter").map(|text| Filter::parse(text, schema)).transpose();
    let url = serde_json::from_slice::<String>(&context.call.body).ok();
    let url = url.filter(|url| reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")));
    Ok(Subscription {
        object,
        change,
        filter: filter.map_err(|error| error.to_string())?,
        property: parameter("propertyname").map(str::to_owned),
        id: parameter("id").map(str::to_owned),
        url: Arc::from(url.ok_or("The body is not an address in quotes")?),
    })
}

/// `DELETE notification?handle=`
pub fn unsubscribe(context: &Context<'_>) -> Reply {
    let Some(handle) = context.query.get("handle") else { return Reply::text(400, "Missing parameter value(s)") };
    let Ok(handle) = Uuid::try_parse(handle) else { return super::routes::malformed_id() };
    let ended = context.shared.with_site(|site| site.unsubscribe(handle));
    if ended { Reply::empty(204) } else { not_found() }
}

/// `GET notification/changes?since=&types=`
pub fn changes(context: &Context<'_>) -> Reply {
    if context.caller.rights != Rights::All {
        return Reply::json(200, "[]".to_owned());
    }
    let since = context.query.get("since").unwrap_or_default();
    let types: Vec<ObjectType> = context
        .query
        .get("types")
        .unwrap_or_default()
        .split(',')
        .filter_map(|name| ObjectType::named(name.trim()))
        .collect();
    let rows = context.shared.with_site(|site| site.changes(since, &types));
    Reply::json(200, Value::Array(rows).to_string())
}
