//! A small part of Qlik's load script, evaluated: what `deploy/qlik/sense_butler_subs.qvs` and its page use, and nothing else.
//!
//! It is strict: a statement, a function or a variable it does not know fails the test, so that the file cannot grow beyond what is tested. As in
//! Qlik, `$(name)` is replaced in the text of a statement before the statement is read; if what comes out falls apart, the test fails.
//!
//! Statements: `LET`, `SET` (a text without expansion), `CALL`, `SUB`/`END SUB`, `IF`/`ELSE`/`END IF`, `TRACE`, `LIB CONNECT TO`, `DROP TABLE`, and a
//! `LOAD [a] AS [b], …` in front of an `SQL SELECT … FROM JSON (wrap on) "root" WITH CONNECTION (…)`. What such a `SELECT` sends goes to whoever was given;
//! a status of 400 or more, or no answer, is an error as Qlik knows it: it ends the script where `ErrorMode` is 1.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod expression;
mod text;

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use self::text::{Statement, statements};
pub use expression::Value;

/// What a `SELECT` sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The data connection.
    pub connection: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

/// Sends it: status and body.
pub type Sender = Box<dyn FnMut(&Request) -> Result<(u16, String), String>>;

/// The script was ended by an error while `ErrorMode` was 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended(pub String);

struct Sub {
    parameters: Vec<String>,
    body: Vec<Statement>,
}

pub struct Script {
    /// By the name in lower case? No: variables of Qlik are told apart by case.
    variables: HashMap<String, Value>,
    subs: HashMap<String, Sub>,
    tables: HashMap<String, Vec<HashMap<String, Value>>>,
    /// A `LOAD` that waits for its `SELECT`: table, fields and their names.
    loading: Option<(String, Vec<(String, String)>)>,
    connection: Option<String>,
    /// What `DocumentName()` says.
    pub document: String,
    pub traced: Vec<String>,
    pub called: HashSet<String>,
    pub sent: Vec<Request>,
    sender: Sender,
}

impl Script {
    pub fn new(sender: Sender) -> Self {
        let variables = [("ErrorMode", 1.0), ("ScriptErrorCount", 0.0)];
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), Value::Number(value))).into(),
            subs: HashMap::new(),
            tables: HashMap::new(),
            loading: None,
            connection: None,
            document: "document".into(),
            traced: Vec::new(),
            called: HashSet::new(),
            sent: Vec::new(),
            sender,
        }
    }

    pub fn set(&mut self, name: &str, text: &str) {
        self.variables.insert(name.to_owned(), Value::Text(text.to_owned()));
    }

    /// The text of a variable.
    pub fn get(&self, name: &str) -> String {
        self.variables.get(name).unwrap_or_else(|| panic!("there is no variable {name}")).text()
    }

    pub fn subs(&self) -> Vec<&String> {
        self.subs.keys().collect()
    }

    /// Evaluates a script.
    pub fn run(&mut self, text: &str) -> Result<(), Ended> {
        self.block(&statements(text))
    }

    fn block(&mut self, statements: &[Statement]) -> Result<(), Ended> {
        let mut at = 0;
        while at < statements.len() {
            let statement = &statements[at];
            at += 1;
            let raw = statement.text.trim();
            let (word, rest) = text::word(raw);
            match &*word.to_uppercase() {
                "SUB" => {
                    let end = text::end_of(statements, at, "SUB");
                    self.define(rest, statements[at..end].to_vec());
                    at = end + 1;
                }
                "IF" => {
                    let end = text::end_of(statements, at, "IF");
                    let otherwise = text::else_of(&statements[at..end]).map(|position| at + position);
                    let condition = rest.trim();
                    let (condition, then) = condition.split_at(condition.len() - 4);
                    assert!(then.eq_ignore_ascii_case("THEN"), "no THEN: {raw}");
                    let chosen = match (self.evaluate(&self.expanded(condition)).is_true(), otherwise) {
                        (true, Some(position)) => &statements[at..position],
                        (true, None) => &statements[at..end],
                        (false, Some(position)) => &statements[position + 1..end],
                        (false, None) => &[],
                    };
                    self.block(chosen)?;
                    at = end + 1;
                }
                "SET" => {
                    let (name, value) = rest.split_once('=').unwrap_or_else(|| panic!("SET without =: {raw}"));
                    assert!(!value.contains(['$', '\'']), "a SET that this evaluator does not know: {raw}");
                    self.set(name.trim(), value.trim());
                }
                _ => self.statement(&self.expanded(raw))?,
            }
        }
        Ok(())
    }

    /// A statement without a block, after its expansion.
    fn statement(&mut self, text: &str) -> Result<(), Ended> {
        let (word, rest) = text::word(text);
        let word = word.to_uppercase();
        // Free text ends where it ends; anything else must still be one statement.
        text::assert_whole(text);
        match &*word {
            "LET" => {
                let (name, expression) = rest.split_once('=').unwrap_or_else(|| panic!("LET without =: {text}"));
                let name = name.trim();
                assert!(text::is_name(name), "LET what? {text}");
                let value = self.evaluate(expression);
                self.variables.insert(name.to_owned(), value);
            }
            "CALL" => return self.call(rest.trim()),
            "TRACE" => self.traced.push(rest.trim().to_owned()),
            "LIB" => {
                let name = rest.trim().strip_prefix("CONNECT TO '").and_then(|name| name.strip_suffix('\''));
                let name = name.unwrap_or_else(|| panic!("connect to what? {text}"));
                assert!(text::is_name(name), "{text}");
                self.connection = Some(name.to_owned());
            }
            "DROP" => {
                let table = rest.trim().strip_prefix("TABLE ").unwrap_or_else(|| panic!("drop what? {text}"));
                assert!(self.tables.remove(table.trim()).is_some(), "there is no table {table}");
            }
            "SQL" => return self.select(text),
            _ => self.load(text),
        }
        Ok(())
    }

    fn define(&mut self, head: &str, body: Vec<Statement>) {
        let (name, parameters) = match head.trim().split_once('(') {
            None => (head.trim(), Vec::new()),
            Some((name, list)) => {
                let list = list.trim().strip_suffix(')').unwrap_or_else(|| panic!("SUB {head}"));
                (name.trim(), list.split(',').map(|name| name.trim().to_owned()).collect())
            }
        };
        assert!(text::is_name(name) && parameters.iter().all(|name| text::is_name(name)), "SUB {head}");
        assert!(self.subs.insert(name.to_owned(), Sub { parameters, body }).is_none(), "{name} is there twice");
    }

    fn call(&mut self, call: &str) -> Result<(), Ended> {
        let (name, arguments) = match call.split_once('(') {
            None => (call, Vec::new()),
            Some((name, list)) => {
                let list = list.trim_end().strip_suffix(')').unwrap_or_else(|| panic!("CALL {call}"));
                (name.trim(), text::arguments(list))
            }
        };
        let sub = self.subs.get(name).unwrap_or_else(|| panic!("there is no SUB {name}"));
        assert!(arguments.len() <= sub.parameters.len(), "{name} has {} parameters: {call}", sub.parameters.len());
        let (parameters, body) = (sub.parameters.clone(), sub.body.clone());
        self.called.insert(name.to_owned());
        let mut values: Vec<Value> = arguments.iter().map(|argument| self.evaluate(argument)).collect();
        values.resize(parameters.len(), Value::Null);
        // Parameters are local; what was called so outside is there again afterwards.
        let outside: Vec<Option<Value>> = parameters.iter().map(|name| self.variables.get(name).cloned()).collect();
        for (name, value) in parameters.iter().zip(&values) {
            self.variables.insert(name.clone(), value.clone());
        }
        let done = self.block(&body);
        let inside: Vec<Value> = parameters.iter().map(|name| self.variables[name].clone()).collect();
        for (name, value) in parameters.iter().zip(outside) {
            match value {
                Some(value) => drop(self.variables.insert(name.clone(), value)),
                None => drop(self.variables.remove(name)),
            }
        }
        // An argument that is a variable gets what the parameter became: a sub that changes one would change its caller's.
        assert_eq!(inside, values, "{name} changes its parameters");
        done
    }

    /// `Table: LOAD [a] AS [b], …`
    fn load(&mut self, text: &str) {
        let (table, load) = text.split_once(':').unwrap_or_else(|| panic!("a statement that is not known: {text}"));
        let table = table.trim();
        assert!(text::is_name(table), "a statement that is not known: {text}");
        let fields =
            load.trim().strip_prefix("LOAD").unwrap_or_else(|| panic!("a statement that is not known: {text}"));
        let field = |part: &str| {
            let (from, to) = part.split_once(" AS ").unwrap_or_else(|| panic!("a field without a name: {part}"));
            let bare = |name: &str| {
                let name = name.trim().strip_prefix('[').and_then(|name| name.strip_suffix(']'));
                name.unwrap_or_else(|| panic!("a field without brackets: {part}")).to_owned()
            };
            (bare(from), bare(to))
        };
        assert!(self.loading.is_none() && !self.tables.contains_key(table), "{table} is there already");
        self.loading = Some((table.to_owned(), fields.split(',').map(field).collect()));
    }

    fn select(&mut self, text: &str) -> Result<(), Ended> {
        let (table, names) = self.loading.take().expect("a SELECT has a LOAD in front of it");
        let connection = self.connection.clone().expect("a SELECT needs a connection");
        let (selected, request) = text::select(text, connection);
        let loaded: Vec<&String> = names.iter().map(|(from, _)| from).collect();
        assert_eq!(selected.iter().collect::<Vec<_>>(), loaded, "what is selected is what is loaded");
        self.sent.push(request.clone());
        let failure = match (self.sender)(&request) {
            Ok((status, body)) if status < 400 => {
                let rows = rows(&body, &names);
                self.tables.insert(table, rows);
                return Ok(());
            }
            Ok((status, body)) => format!("{status}: {body}"),
            Err(error) => error,
        };
        let Value::Number(count) = self.variables["ScriptErrorCount"] else { panic!("ScriptErrorCount") };
        self.variables.insert("ScriptErrorCount".into(), Value::Number(count + 1.0));
        if self.get("ErrorMode") == "1" { Err(Ended(failure)) } else { Ok(()) }
    }

    /// `$(name)`, again and again.
    fn expanded(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..10 {
            let Some(at) = text.find("$(") else { return text };
            let (before, after) = text.split_at(at);
            let (name, rest) = after[2..].split_once(')').unwrap_or_else(|| panic!("an expansion without end: {text}"));
            text = format!("{before}{}{rest}", self.get(name));
        }
        panic!("an expansion that goes on for ever: {text}")
    }

    fn evaluate(&self, text: &str) -> Value {
        expression::evaluate(text, self)
    }

    fn peek(&self, field: &str, row: f64, table: &str) -> Value {
        let found = self.tables.get(table).and_then(|rows| rows.get(row as usize));
        found.and_then(|row| row.get(field)).cloned().unwrap_or(Value::Null)
    }
}

/// The rows of an answer, as the connector shows them: an object is one, an array has several.
fn rows(body: &str, names: &[(String, String)]) -> Vec<HashMap<String, Value>> {
    let objects = match serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")) {
        Json::Array(objects) => objects,
        object => vec![object],
    };
    let value = |object: &Json, field: &str| match &object[field] {
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => Value::Number(number.as_f64().unwrap()),
        Json::Bool(flag) => Value::Text(flag.to_string()),
        other => panic!("the field {field} is {other} in {body}"),
    };
    objects.iter().map(|object| names.iter().map(|(from, to)| (to.clone(), value(object, from))).collect()).collect()
}
