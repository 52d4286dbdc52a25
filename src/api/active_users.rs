//! `GET /v4/activeusers` and `/v4/activeusercount`: who is in Qlik Sense right now, derived from the session datagrams.
//!
//! As v5.4 answers: the query's parameters are echoed into the object before `response`, and the names are a JSON array inside a string.

use serde_json::{Map, Value, json};

use super::{
    answer::{Answer, Request},
    form,
    state::State,
};

pub(super) fn names(state: &State, request: &Request) -> Answer {
    answer(request, json!((state.setup.active_users)()).to_string().into())
}

pub(super) fn count(state: &State, request: &Request) -> Answer {
    answer(request, (state.setup.active_users)().len().into())
}

fn answer(request: &Request, response: Value) -> Answer {
    let mut object: Map<String, Value> =
        form::pairs(&request.query).flatten().map(|(key, value)| (key, Value::String(value))).collect();
    object.insert("response".into(), response);
    Answer::json(200, Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_come_before_the_response() {
        let request = Request {
            method: "GET".into(),
            path: "/v4/activeusers".into(),
            query: "a=b+c&%C3%A4&a=d".into(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        };
        let body = answer(&request, json!(["u"]).to_string().into()).body;
        assert_eq!(body, r#"{"a":"d","ä":"","response":"[\"u\"]"}"#);
    }
}
